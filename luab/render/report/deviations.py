"""The tagged choices of the code (ASSUME, DEVIATES), which the report and docs/deviations.md list."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

HEADINGS = {
    "ASSUME": "Assumptions: the paper does not say, or its text was not available",
    "DEVIATES": "Deviations: we differ on purpose",
}
_TAG = re.compile(rf"\b({'|'.join(HEADINGS)}):")
_SOURCES = ("luab/**/*.py", "luab/**/*.js", "config/*.yaml", "config/recipes/**/*.yaml")
_COMMENT = {".js": "//", ".yaml": "#"}


def tagged_choices(root: Path) -> dict[str, list[tuple[str, str]]]:
    """The tagged sentences of a checkout: heading -> (sentence, path of its file below `root`), by file."""
    choices: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS.values()}
    for pattern in _SOURCES:
        for file in sorted(root.glob(pattern)):
            for tag, sentence in _sentences(file):
                choices[HEADINGS[tag]].append((sentence, str(file.relative_to(root))))
    return choices


def _sentences(file: Path) -> Iterator[tuple[str, str]]:
    """(tag, sentence) of one file."""
    source = file.read_text(encoding="utf-8")
    if not _TAG.search(source):
        return
    for paragraph in (
        _python_paragraphs(source) if file.suffix == ".py" else _line_paragraphs(source, _COMMENT[file.suffix])
    ):
        parts = _TAG.split(paragraph)
        for tag, text in zip(parts[1::2], parts[2::2], strict=True):
            sentence = " ".join(text.split()).strip(" .\"'")
            yield tag, sentence[:1].upper() + sentence[1:] + "."


def _line_paragraphs(source: str, marker: str) -> Iterator[str]:
    """Blocks of comment lines; a line without a comment, a tag or a new `Key:` ends a block."""
    block: list[str] = []
    for line in [*source.splitlines(), ""]:
        _, mark, comment = line.partition(marker)
        starts = bool(_TAG.search(comment)) or bool(re.match(r"\s*[A-Z]\w+:", comment))
        if block and (not mark or starts):
            yield " ".join(block)
            block = []
        if mark:
            block.append(comment.strip())


def _python_paragraphs(source: str) -> Iterator[str]:
    """Blocks of comment lines, and the paragraphs of tagged docstrings."""
    comments: list[str] = []
    last = -2
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != last + 1 and comments:
                yield " ".join(comments)
                comments = []
            comments.append(token.string.lstrip("# "))
            last = token.start[0]
        elif token.type == tokenize.STRING and _TAG.search(token.string):
            yield from re.split(r"\n\s*\n", token.string.strip("\"'"))
    if comments:
        yield " ".join(comments)
