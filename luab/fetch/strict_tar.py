"""Members of a tar read as a stream; a damaged or missing header is an error, where tarfile sees the archive's end."""

import tarfile
from collections.abc import Iterator
from typing import Protocol


class Stream(Protocol):
    """Anything that returns the next bytes of a tar."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; empty at the end."""


def strict_members(stream: Stream) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Each member of an uncompressed tar in order, with the tar to read it from before the next one is requested.

    Raises:
        tarfile.TarError: The tar is damaged or ends without its end mark; `EOFError` if it ends inside a member.
    """
    # errorlevel 2: otherwise tarfile skips a hard link that it cannot create, without an error.
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictHeader, errorlevel=2) as tar:  # type: ignore[call-overload]
        while (member := tar.next()) is not None:
            tar.members.clear()  # tarfile would keep every member of a million in memory
            yield tar, member


class _StrictHeader(tarfile.TarInfo):
    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_StrictHeader":
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"damaged or missing header: {error}") from error
