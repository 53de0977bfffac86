"""The errors that a user of luab can meet.

Each message is one paragraph: what was expected, what was found, where, and what to do next.
"""

import difflib
from collections.abc import Iterable, Sequence


class LuabError(Exception):
    """An error caused by a user, a file or a machine; the message is written for the user."""

    @property
    def kind(self) -> str:
        """ConfigError, DataError or JobError, as text; subclasses return the name of their base class."""
        kinds = (ConfigError, DataError, JobError)
        return next((kind.__name__ for kind in kinds if isinstance(self, kind)), type(self).__name__)


class ConfigError(LuabError):
    """The configuration is wrong; the message lists all mistakes."""


class DataError(LuabError):
    """A file, archive, image, record or checkpoint is missing, damaged or has unexpected content."""


class JobError(LuabError):
    """A job could not start or finish: disk full, no GPU, lost process, NaN in the loss."""


class LostProcess(JobError):
    """Another process of the same training ended; its own error or the launcher gives the cause."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Returns a sentence with the choices closest to `name`, or with the first 20 choices if none is close.

    The sentence has no leading blank; it is "" if there are no choices.
    """
    names = sorted(choices)
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    more = f" ... ({len(names)} in all)" if len(names) > 20 else ""
    return f"The choices are {', '.join(names[:20])}{more}." if names else ""


def listed(mistakes: Sequence[str], most: int = 20) -> str:
    """Returns one line per mistake, at most `most` of them, and how many more there are."""
    more = [f"  - and {len(mistakes) - most:,} more"] if len(mistakes) > most else []
    return "\n".join([*(f"  - {mistake}" for mistake in mistakes[:most]), *more])
