"""The card of an index: how many records there are, what was counted of them, and whether that is as known."""

from collections.abc import Collection
from typing import Any

from luab.errors import ConfigError


def check_known(known: dict[str, int] | None, counted: Collection[str]) -> None:
    """Checks, before any record is read, that what is known of an archive is among what will be counted.

    Raises:
        ConfigError: `known` has a name that nothing is counted under.
    """
    if no_count := sorted(set(known or {}) - set(counted)):
        raise ConfigError(f"known counts: expected {', '.join(counted)}; found {', '.join(no_count)}.")


def index_card(
    counts: dict[str, int], sha256: str, source_sha256: str | None, known: dict[str, int] | None
) -> dict[str, Any]:
    """Rows, sha256 of the content, source_sha256 (of the archive, if known), counts, known, agrees.

    known is null where nothing is known; agrees is whether it is met, or null.
    """
    return {
        "rows": counts["records"],
        "sha256": sha256,
        "source_sha256": source_sha256,
        "counts": counts,
        "known": known,
        "agrees": None if known is None else all(counts[name] == n for name, n in known.items()),
    }


def agreement(card: dict[str, Any], remark: str = "") -> str:
    """Says in a sentence or two whether an index counted what is known of its archive.

    A difference is no error. The archive was verified by its checksum, so it says that a published count, or
    the reader, is wrong: worth knowing, and no reason to withhold the records.

    Args:
        card: Of the index (`index_card`).
        remark: What to add to the number of records.
    """
    counts, known = card["counts"], card["known"]
    what = f"{card['rows']:,} records{remark}"
    if known is None:
        return f"{what}; nothing is known to compare them with."
    wrong = [f"{name} {n:,} instead of {known[name]:,}" for name in known if (n := counts[name]) != known[name]]
    if wrong:
        return (
            f"{what}. WARNING: counted otherwise than is known of this archive: {', '.join(wrong)}. "
            "The index was written all the same; its card holds both."
        )
    return f"{what}; all {len(known)} known counts agree ({', '.join(f'{name} {known[name]:,}' for name in known)})."
