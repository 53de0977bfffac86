"""The images of a collection: which class each may show, and what is known about it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from luab.annotate.config import Browsing, Collection, Interface, Tagging
from luab.annotate.keys import Keys
from luab.errors import DataError
from luab.files import read_rows

MEDIA = {
    ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".gif": "image/gif",
}  # fmt: skip


class Pair(NamedTuple):
    """An image, by its path below the images' folder, and a class that it may show ("" in tagging)."""

    image: str
    label: str


@dataclass
class Pool:
    """Images of one interface.

    candidates: class -> images that people are asked about. gold: pairs that are known to be true. names: pair -> name
    in the release's schema.
    """

    folder: Path
    candidates: dict[str, list[str]]
    gold: dict[str, list[str]] = field(default_factory=dict)
    names: dict[Pair, str] = field(default_factory=dict)


class Served(NamedTuple):
    """A file that the server sends, and its media type."""

    path: Path
    media: str


def read_pool(section: Browsing | Tagging) -> Pool:
    """Lists the images of one interface.

    Raises:
        DataError: The folder is missing or has no images, or the list names an image or class that does not exist.
    """
    folder = section.images
    images = sorted(_images(folder))
    if not images:
        raise DataError(
            f"{folder}: expected images ({', '.join(MEDIA)}), found none. Correct `images` in the configuration."
        )
    rows = _listed(section, set(images))
    if isinstance(section, Tagging):
        pool = Pool(folder, {"": images})
        for image, label, known in rows:
            if known:
                pool.gold.setdefault(image, []).append(label)
        return pool
    flat = [image for image in images if "/" not in image]
    if flat and section.image_list is None:
        raise DataError(
            f"{folder}: expected one folder per class, found the image {flat[0]} outside of any. Move it, or give "
            "`browsing.image_list` in the configuration."
        )
    pairs = [(image, label) for image, label, _ in rows] or [(image, image.split("/")[0]) for image in images]
    pool = Pool(folder, {})
    for image, label in pairs:
        pool.candidates.setdefault(label, []).append(image)
    for image, label, known in rows:
        if known:
            pool.gold.setdefault(label, []).append(image)
    pool.names = _release_names([Pair(image, label) for label, listed in pool.candidates.items() for image in listed])
    return pool


def _images(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.suffix.lower() in MEDIA and not any(part.startswith(".") for part in name.parts) and path.is_file():
            yield name.as_posix()


def _listed(section: Browsing | Tagging, images: set[str]) -> list[tuple[str, str, bool]]:
    """Image, class and whether it is known, for each row of the list."""
    if section.image_list is None:
        return []
    rows = []
    labels = {icon.name for icon in section.icons} if isinstance(section, Tagging) else None
    for place, row in read_rows(section.image_list, ["image", "class", "gold"], key=["image", "class"]):
        if row["image"] not in images:
            raise DataError(f"{place}: {row['image']!r} is not an image in {section.images}. Correct the path.")
        if not row["class"] or "/" in row["class"] or (labels is not None and row["class"] not in labels):
            raise DataError(f"{place}: {row['class']!r} is not a class. Correct it, or add an icon for it.")
        if row["gold"].lower() not in ("", "yes", "no"):
            raise DataError(f"{place}: expected yes, no or nothing as gold, found {row['gold']!r}.")
        rows.append((row["image"], row["class"], row["gold"].lower() == "yes"))
    return rows


def _release_names(pairs: list[Pair]) -> dict[Pair, str]:
    """Name of each pair's record, unique in the collection: the file's stem, or class_stem if stems repeat."""
    for make in (lambda pair: Path(pair.image).stem, lambda pair: f"{pair.label}_{Path(pair.image).stem}"):
        names = {pair: make(pair) for pair in pairs}
        if len(set(names.values())) == len(pairs):
            return names
    return {pair: f"{pair.label}_{pair.image.replace('/', '_')}" for pair in pairs}


@dataclass
class Pools:
    """The images of all interfaces, and the names under which they are served."""

    keys: Keys
    pools: dict[Interface, Pool]
    served: dict[str, Served] = field(default_factory=dict)

    @classmethod
    def of(cls, collection: Collection, keys: Keys) -> "Pools":
        """Reads all images of a collection; DataError as for `read_pool`."""
        pools = cls(keys, {name: read_pool(getattr(collection, name)) for name in collection.interfaces})
        for name, pool in pools.pools.items():
            for image in {image for listed in pool.candidates.values() for image in listed}:
                pools.served[pools.token(name, image)] = _served(pool.folder / image)
        for icon in collection.tagging.icons if collection.tagging else []:
            if icon.image is not None:
                if icon.image.suffix.lower() not in MEDIA or not icon.image.is_file():
                    raise DataError(f"{icon.image}: expected the picture of the icon {icon.name!r}, found none.")
                pools.served[keys.image(f"icon/{icon.name}")] = _served(icon.image)
        return pools

    def token(self, interface: Interface, image: str) -> str:
        """Name under which an image is served."""
        return self.keys.image(f"{interface}/{image}")


def _served(path: Path) -> Served:
    return Served(path, MEDIA[path.suffix.lower()])
