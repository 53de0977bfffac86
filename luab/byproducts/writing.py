"""Writes records in the format of the release: elements of XML, and archives with the same bytes on every run."""

import gzip
import io
import tarfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias
from xml.sax.saxutils import escape

Content: TypeAlias = "str | Tags"  # text, or tags with their content
Tags: TypeAlias = "list[tuple[str, Content]]"

_EPOCH_S = 1_600_000_000


def element(tag: str, content: Content, depth: int = 0) -> str:
    """Returns one element of XML with its content, indented by `depth` tabs."""
    indent = "\t" * depth
    if isinstance(content, str):
        return f"{indent}<{tag}>{escape(content)}</{tag}>\n"
    inside = "".join(element(child, value, depth + 1) for child, value in content)
    return f"{indent}<{tag}>\n{inside}{indent}</{tag}>\n"


def repeated(tag: str, entries: list[Tags]) -> Tags:
    """Writes a list as repeated elements; an empty one as a single element with the text None."""
    return [(tag, entry) for entry in entries] or [(tag, "None")]


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], compressed: bool) -> None:
    """Writes a tar with the members in the order given; equal members give equal bytes."""
    with ExitStack() as stack:
        out: Any = stack.enter_context(open(path, "wb"))
        if compressed:
            # Without these arguments the header would hold the time and the name of the file.
            out = stack.enter_context(gzip.GzipFile("", "wb", 6, out, mtime=0))
        tar = stack.enter_context(tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT))
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(content), _EPOCH_S, 0o644
            tar.addfile(info, io.BytesIO(content))
            tar.members.clear()  # type: ignore[attr-defined]  # a million of them would fill the memory
