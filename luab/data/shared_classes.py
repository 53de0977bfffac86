"""Images that show one class that ImageNet and COCO share, with equal numbers from both in each class."""

import filecmp
import functools
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from luab.byproducts.coco_classes import COCO_CLASSES, INDEX_OF_NAME
from luab.data.manifests.folder_images import image_size
from luab.data.manifests.labels import coco_categories, wnid_index
from luab.data.manifests.manifest import read_manifest_table
from luab.study.noises import Point, random_pair

IN9_SHOWN = ("original", "mixed_same", "mixed_rand", "mixed_next", "only_fg")
"""Variants of the Backgrounds Challenge that show the object, and so the class in the name of the file."""
_WNID = re.compile(r"n\d{8}")
XY = tuple[float, float]


class Candidate(NamedTuple):
    """An image that shows one shared class; point x, y in fractions of the image, None for an image without."""

    image_id: str
    file: Path
    point: XY | None = None


Candidates = dict[str, list[Candidate]]
"""By name of the shared class, a category of COCO."""
PointOf = Callable[[str, str], XY | None]
"""Returns the point of an image, by image_id and shared class; None for none."""
Shown = Callable[[Sequence[int]], set[str]]
"""Returns the shared classes among the labels of an image."""


@functools.cache
def shared_classes() -> tuple[str, ...]:
    """Returns the names of the classes that ImageNet and COCO share, by `coco_categories`, sorted."""
    return tuple(sorted(set(coco_categories().values())))


def shown_by_imagenet(labels: Sequence[int]) -> set[str]:
    """Returns the shared classes of an image's ImageNet classes, by `coco_categories`."""
    return {name for label in labels if (name := coco_categories().get(label))}


def shown_by_coco(labels: Sequence[int]) -> set[str]:
    """Returns the shared classes among the COCO classes of an image's annotations, crowds included."""
    return {name for label in labels if (name := COCO_CLASSES[label].name) in shared_classes()}


def points_by_image(points: Iterable[Point]) -> PointOf:
    """Returns a function that finds clicks, one per image."""
    clicks = {point.image_id: (point.x, point.y) for point in points}
    return lambda image_id, _: clicks.get(image_id)


def points_by_class(points: Iterable[Point]) -> PointOf:
    """Returns a function that finds tags, one per image and class."""
    tags = {(point.image_id, point.label): (point.x, point.y) for point in points}
    return lambda image_id, name: tags.get((image_id, INDEX_OF_NAME[name]))


def candidates(manifest: Path, root: Path, shown: Shown, point_of: PointOf | None = None) -> Candidates:
    """Returns the images of a manifest that show exactly one shared class and, with `point_of`, have a point of it.

    ASSUME: an image of COCO may show objects of other classes than the shared ones, because hardly any shows one class
    alone; a single label is right among the shared classes only.

    Args:
        manifest: Manifest of the images.
        root: Folder of the images.
        shown: Returns the shared classes of an image's labels.
        point_of: Finds points; None if no image needs one.

    Raises:
        DataError: The manifest is missing or damaged.
    """
    found: Candidates = defaultdict(list)
    for image_id, path, labels in _rows(manifest, "image_id", "path", "labels"):
        names = shown(labels)
        if len(names) == 1:
            (name,) = names
            point = point_of(image_id, name) if point_of else None
            if point or not point_of:
                found[name].append(Candidate(image_id, root / path, point))
    return dict(found)


def in9_candidates(manifest: Path, root: Path) -> dict[str, Candidates]:
    """Returns the images of the Backgrounds Challenge that show a shared class, by variant in `IN9_SHOWN`.

    The class folders are nine super-classes; the wnid in the name of a file is that of the object.
    """
    found: dict[str, Candidates] = {name: defaultdict(list) for name in IN9_SHOWN}
    for image_id, path, variant in _rows(manifest, "image_id", "path", "group"):
        wnid = _WNID.search(Path(path).name)
        names = shown_by_imagenet([wnid_index()[wnid[0]]]) if wnid and wnid[0] in wnid_index() else set()
        if variant in found and names:
            found[variant][names.pop()].append(Candidate(image_id, root / path))
    return {variant: dict(of_class) for variant, of_class in found.items() if of_class}


def in9_names(manifest: Path) -> set[str]:
    """Returns the names, without suffix, of the images that the Backgrounds Challenge was made from."""
    return {Path(path).stem for path, variant in _rows(manifest, "path", "group") if variant == "original"}


def without(names: set[str], of_class: Candidates) -> Candidates:
    """Returns the candidates whose image_id is not among the names.

    ASSUME: an image of the Backgrounds Challenge whose file has the name of a training image of ImageNet is this image,
    so no model may be trained on it.
    """
    return {name: [one for one in several if one.image_id not in names] for name, several in of_class.items()}


class Examined:
    """Whether images can be used: they are readable, need not be turned, and no earlier one has the same bytes.

    Args:
        advance: Called with 1 for each image, to show the progress.

    Attributes:
        left_out: Images that cannot be used, each with the reason.
    """

    def __init__(self, advance: Callable[[float], None] = lambda _: None) -> None:
        self._advance = advance
        self.left_out: list[str] = []
        self._by_size: dict[int, list[Path]] = defaultdict(list)

    def readable(self, one: Candidate) -> bool:
        """Whether the image can be read and need not be turned."""
        self._advance(1)
        return image_size(one.file.parent, one.file.name, self.left_out) is not None

    def new(self, one: Candidate) -> bool:
        """Whether the image is readable and differs from all earlier ones of which this was asked."""
        if not self.readable(one):
            return False
        alike = self._by_size[os.stat(one.file).st_size]
        same = next((other for other in alike if filecmp.cmp(one.file, other, shallow=False)), None)
        if same is not None:
            self.left_out.append(f"{one.file.name}: the same image as {same.name}")
            return False
        alike.append(one.file)
        return True


def equal_numbers(
    sources: Sequence[Sequence[Candidate]], seed: int, usable: Callable[[Candidate], bool]
) -> list[list[Candidate]]:
    """Chooses as many usable images of each source as the smallest has, in an order that the seed decides.

    The place of an image is a hash of seed and image_id (`random_pair`), so it does not depend on the other images.
    """
    ordered = [
        sorted(source, key=lambda one: (random_pair(f"{seed}:shared:{one.image_id}"), one.image_id))
        for source in sources
    ]
    most = min(map(len, ordered))
    chosen = [list(islice(filter(usable, source), most)) for source in ordered]
    n = min(map(len, chosen))
    return [source[:n] for source in chosen]


def halves(n: int, place: int) -> tuple[int, int]:
    """Divides a number into two halves; of odd numbers, the larger half is the first at even places.

    ASSUME: both kinds of points together are half of each in every class, so that their number is that of either kind.
    """
    first = (n + (place + 1) % 2) // 2
    return first, n - first


def _rows(manifest: Path, *columns: str) -> Iterator[tuple[Any, ...]]:
    table = read_manifest_table(manifest)
    return zip(*(table[name].to_pylist() for name in columns), strict=True)
