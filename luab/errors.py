"""The only errors a user of luab should meet.

Each message is one paragraph: what was expected, what was found, where, and what to do next.
"""

import difflib
from collections.abc import Iterable


class LuabError(Exception):
    """Anything that a user, a file or a machine caused; its text is meant for a person."""

    @property
    def kind(self) -> str:
        """ConfigError, DataError or JobError, also for errors that the program itself tells apart more finely."""
        known = (ConfigError, DataError, JobError)
        return next((kind.__name__ for kind in known if isinstance(self, kind)), type(self).__name__)


class ConfigError(LuabError):
    """The configuration is wrong; the message lists every mistake at once."""


class DataError(LuabError):
    """A file, archive, image, record or checkpoint is missing, damaged or not what it should be."""


class JobError(LuabError):
    """A job could not run or could not finish: no room, no device, lost process, NaN in the loss."""


class LostProcess(JobError):
    """Another process of the same training is gone; why, that one says itself, or its launcher does."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A sentence that lists the choices closest to `name`, or the first 20 choices if none is close.

    Returns:
        The sentence, without a leading blank; "" if there are no choices.
    """
    names = sorted(choices)
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    more = f" ... ({len(names)} in all)" if len(names) > 20 else ""
    return f"The choices are {', '.join(names[:20])}{more}." if names else ""
