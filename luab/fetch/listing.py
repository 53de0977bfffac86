"""The list of downloads, config/archives.yaml: each archive with its addresses and published checksums."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from luab.errors import ConfigError
from luab.study.yaml_files import read_yaml

_UNPUBLISHED = "none published"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""A file name without path separators, leading dash or characters that are special to a shell."""
FileName = Annotated[str, Field(pattern=FILE_NAME)]
Count = Annotated[int, Field(ge=0)]


class Published(BaseModel):
    """What is published of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: Count | None = Field(None, description="Exact size; None if not published.")
    sha256: Sha256 | None = Field(None, description="Published SHA-256.")
    md5: Md5 | None = Field(None, description="Published MD5.")

    @property
    def has_checksum(self) -> bool:
        """Whether a SHA-256 or MD5 is published."""
        return bool(self.sha256 or self.md5)


class Source(Published):
    """One address of an archive, with the size and checksums of the file there."""

    url: str = Field(description="http:, https: or file: address, as in the list.")
    # Folder of relative file: addresses. Private, so that no absolute path is written to a card.
    _base: Path = PrivateAttr(default=Path())

    def model_post_init(self, context: Any) -> None:
        """Reads the folder of the list from the validation context."""
        if context:
            self._base = context["base"]

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:
        return {"url": given} if isinstance(given, str) else given

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.netloc:
            if parts.username is not None:
                raise ValueError("remove user and password from the address and put them into ~/.netrc")
            return url
        if parts.scheme == "file" and not parts.netloc and parts.path:
            return url
        raise ValueError("expected http://host/..., https://host/... or file:path")

    @property
    def path(self) -> Path | None:
        """Local path of a file: address; None for http and https."""
        parts = urlsplit(self.url)
        return self._base / url2pathname(parts.path) if parts.scheme == "file" else None


class Archive(Published):
    """One entry of the list of downloads; the comment at the top of config/archives.yaml explains the keys."""

    name: FileName = Field(description="Key of the entry.")
    dataset: FileName = Field(description="Dataset that the file belongs to.")
    urls: tuple[Source, ...] = Field((), description="Mirrors, tried in this order.")
    file: FileName = Field(description="Name on disk.")
    checksum_source: str = Field(min_length=1, description="Who published the checksum, or 'none published'.")
    licence: str | None = Field(None, description="None if no licence was found.")
    unpack: FileName | Literal[False] = Field(False, description="Folder under data/raw, or false.")
    manual: str | None = Field(None, description="How to get the file by hand.")
    counts: dict[str, Count] | None = Field(None, description="Expected counts of the index made from it.")
    note: str | None = Field(None, description="Remarks.")

    @property
    def sources(self) -> tuple[Source, ...]:
        """The mirrors, each with its own size and checksums, or with those of the entry if it has none."""
        shared = self.model_dump(include={"bytes", "sha256", "md5"})
        return tuple(
            source if source.has_checksum or source.bytes is not None else source.model_copy(update=shared)
            for source in self.urls
        )

    @model_validator(mode="after")
    def _relations_hold(self) -> "Archive":
        if bool(self.urls) == bool(self.manual):
            raise ValueError("expected either `urls` or `manual`, not both")
        checked = [published.has_checksum for published in self.sources or (self,)]
        unpublished = _UNPUBLISHED in self.checksum_source
        if not all(checked) and not unpublished:
            raise ValueError(f"a url has no sha256 or md5: add one, or start `checksum_source` with {_UNPUBLISHED!r}")
        if any(checked) and unpublished:
            raise ValueError(f"`checksum_source` is {_UNPUBLISHED!r}, but a checksum is given")
        return self


def load_archives(path: Path | str) -> dict[str, Archive]:
    """Reads the list of downloads: archives by name, in file order. Relative file: addresses start at its folder.

    Raises:
        ConfigError: The list is missing or invalid; the message lists every mistake with its place.
    """
    path = Path(path)
    entries = read_yaml(path)
    archives: dict[str, Archive] = {}
    mistakes: list[str] = []
    for name, entry in entries.items():
        content = {**entry, "name": name} if isinstance(entry, dict) else entry
        try:
            archives[str(name)] = Archive.model_validate(content, context={"base": path.parent.absolute()})
        except ValidationError as error:
            mistakes.extend(_as_lines(str(name), error))
    mistakes.extend(_shared_names(archives))
    if mistakes:
        listed = "\n".join(f"  {mistake}" for mistake in mistakes)
        raise ConfigError(f"{path}: {len(mistakes)} mistake(s) in the list of downloads:\n{listed}")
    return archives


def _as_lines(name: str, error: ValidationError) -> Iterator[str]:
    for mistake in error.errors():
        place = ".".join([name, *map(str, mistake["loc"])])
        got = f" (got {mistake['input']!r})" if isinstance(mistake["input"], str | int | float) else ""
        yield without_credentials(f"{place}: {mistake['msg']}{got}")


def without_credentials(text: str) -> str:
    """Replaces user and password in every http(s) address of a text by ***, so that logs hold no secrets."""
    return re.sub(r"(?i)(https?://)[^/\s'\"]*@", r"\1***@", text)


def _shared_names(archives: Mapping[str, Archive]) -> Iterator[str]:
    owners: dict[str, str] = {f"{name}.json": f"the card of {name}" for name in archives}
    for name, archive in archives.items():
        if archive.file in owners:
            yield f"{name}.file: {archive.file!r} is also {owners[archive.file]}; rename one of them"
        owners[archive.file] = f"the file of {name}"
