"""What the supervisions of ImageNet and COCO share: look-up by name, and random points."""

import hashlib
from collections.abc import Mapping
from typing import TypeVar

from luab.errors import ConfigError

_Function = TypeVar("_Function")


def supervision_named(name: str, functions: Mapping[str, _Function]) -> _Function | None:
    """Returns the function of a supervision, None for "none"; ConfigError if the name is unknown."""
    if name != "none" and name not in functions:
        raise ConfigError(f"supervision: expected one of {', '.join(['none', *functions])}; found {name!r}.")
    return functions.get(name)


def random_point(text: str) -> tuple[float, float]:
    """Returns a uniform point in [0, 1) x [0, 1) that depends on the text alone.

    It is the BLAKE2b hash of the text, 24 bits for x and 24 for y, so both are exact as 32-bit floats.
    """
    digest = hashlib.blake2b(text.encode(), digest_size=6).digest()
    return int.from_bytes(digest[:3], "little") / 2**24, int.from_bytes(digest[3:], "little") / 2**24
