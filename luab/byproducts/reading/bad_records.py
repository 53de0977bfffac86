"""Records that do not have the format of the release."""

from pathlib import Path

from luab.errors import DataError


class BadRecord(Exception):
    """The record does not have the format of the release; the text says why."""


def bad_record(archive: Path, record: str, release: str, fault: str) -> DataError:
    """Returns the error for the user: which record is bad and why."""
    return DataError(
        f"{archive}: record {record} does not have the format of {release}: {fault}. Fetch the archive again (its "
        "SHA-256 is in config/archives.yaml), or set `on_bad: count` in the config "
        "(on_bad='count' in Python) to leave bad records out."
    )
