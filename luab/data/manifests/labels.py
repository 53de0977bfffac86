"""Class lists of ImageNet and of the sets derived from it, each with its source and licence.

A class is identified by its ImageNet index: the rank, 0 to 999, of its WordNet id (wnid) in the sorted list of the
1,000 wnids of ILSVRC2012. The tables are in the folder `tables/` next to this module.
"""

import csv
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from luab.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

IN9_VARIANTS = (
    "original", "mixed_same", "mixed_rand", "mixed_next", "only_fg", "no_fg", "only_bg_b", "only_bg_t",
)  # fmt: skip
"""Folders of the Backgrounds Challenge. Source: MadryLab/backgrounds_challenge:README.md."""

CORRUPTION_FAMILIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
"""The corruptions of ImageNet-C by family; each family is one archive. Source: hendrycks/robustness:README.md."""

CORRUPTIONS = tuple(name for names in CORRUPTION_FAMILIES.values() for name in names)
"""The 15 corruptions of mCE in the usual order. Source: hendrycks/robustness:ImageNet-C/test.py."""

EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The four held-out corruptions of ImageNet-C, which never count towards mCE."""

_TABLES = Path(__file__).parent / "tables"


@functools.cache
def _json(name: str) -> Any:
    """A table; calls share it, so do not modify it."""
    return json.loads((_TABLES / name).read_text(encoding="utf-8"))


IN9_FOLDERS = tuple(_json("in9_classes.json"))
"""The nine folders of ImageNet-9 in order of their class; the released names contain spaces."""


@functools.cache
def wnids() -> tuple[str, ...]:
    """The 1,000 wnids in order of the ImageNet index.

    Source: the ILSVRC2012 class list, from timm/data/_info/imagenet_synsets.txt of
    huggingface/pytorch-image-models (Apache-2.0).
    """
    return tuple(wnid for wnid, _ in _classes())


@functools.cache
def wnid_index() -> Mapping[str, int]:
    """Wnid -> ImageNet index. Source: see `wnids`."""
    return MappingProxyType({wnid: index for index, wnid in enumerate(wnids())})


@functools.cache
def class_names() -> tuple[str, ...]:
    """One short, unique English name per class, in order of the ImageNet index.

    Source: first lemma of timm/data/_info/imagenet_synset_to_lemma.txt (Apache-2.0; the lemmas are WordNet's,
    WordNet licence). DEVIATES: lemmas that name two classes were made unique by hand: the two cranes
    (134 bird, 517 machine), and 638 maillot / 639 tank suit.
    """
    return tuple(name for _, name in _classes())


def index_of(wnid: str, where: str) -> int:
    """The ImageNet index of a wnid, such as "n01440764"; raises DataError like `look_up`."""
    return look_up(wnid, wnid_index(), "one of the 1,000 ImageNet wnids", where)


def subset(name: str) -> tuple[int, ...]:
    """ImageNet indices of a smaller set, ascending: imagenet_a, imagenet_o, imagenet_r (200 each) or objectnet (125).

    Raises:
        DataError: No list has that name.

    Source: A and O from eval.py and eval_many_models.py of hendrycks/natural-adv-examples (MIT); R from
    eval.py of hendrycks/imagenet-r (MIT), equal to timm/data/_info/imagenet_{a,r}_indices.txt (Apache-2.0);
    ObjectNet: see `objectnet_folders`.
    """
    return look_up(name, _subsets(), "a class subset", "luab.data.manifests.labels.subset")


@functools.cache
def coco_categories() -> Mapping[int, str]:
    """ImageNet index -> name of the COCO category that contains the class, for 207 classes of 16 categories.

    Source: the lists of indices in bethgelab/model-vs-human:modelvshuman/helper/human_categories.py, made through
    WordNet and corrected by hand (Geirhos et al., Generalisation in humans and deep neural networks, NeurIPS 2018).
    The other 64 categories of COCO have no class there. ASSUME: no class was added, also where its name is that of a
    category (banana, zebra, toaster).
    """
    with open(_TABLES / "imagenet_to_coco.csv", newline="", encoding="utf-8") as file:
        return MappingProxyType({int(row["index"]): row["coco"] for row in csv.DictReader(file)})


@functools.cache
def objectnet_folders() -> Mapping[str, tuple[int, ...]]:
    """The 113 ObjectNet folders that overlap ImageNet, each with its one to three ImageNet indices.

    Source: mapping files of ObjectNet 1.0 as carried by mlfoundations/wise-ft,
    src/datasets/objectnet_metadata (repository MIT; licence of the mapping itself unknown).
    """
    table = _json("objectnet_folders.json")
    return MappingProxyType({folder: tuple(ids) for folder, ids in table.items()})


@functools.cache
def siscore_classes() -> Mapping[str, int]:
    """The 61 class folders of SI-Score, each with its one ImageNet index.

    "kite" is the bird (21); "crane" is not one of the classes.

    Source: label_str_to_imagenet_classes.py of google-research/si-score (Apache-2.0), restricted to the
    classes that TensorFlow Datasets' siscore builder lists (Apache-2.0).
    """
    return MappingProxyType(_json("siscore_classes.json"))


def in9_of_class() -> "NDArray[np.int8]":
    """The ImageNet-9 class (0 to 8, order of `IN9_FOLDERS`) of each ImageNet index; -1 for the 630 others.

    Returns int8 [1000], a new array on each call.

    Source: in_to_in9.json of MadryLab/backgrounds_challenge (licence unknown: the repository has none); the
    table keeps its order.
    """
    import numpy as np

    table = _json("in9_classes.json")
    mapping = np.full(len(wnids()), -1, dtype=np.int8)
    for in9_class, folder in enumerate(IN9_FOLDERS):
        mapping[table[folder]] = in9_class
    return mapping


def look_up(key: str, table: Mapping[str, T], expected: str, where: str) -> T:
    """Returns `table[key]`; DataError with similar keys if the table lacks it.

    `expected` says what a valid key is, such as "a class subset", and `where` in which file, folder or function the key
    was found.
    """
    if key in table:
        return table[key]
    raise DataError(f"{where}: expected {expected}, found {key!r}. {did_you_mean(key, table)}")


@functools.cache
def _classes() -> tuple[tuple[str, str], ...]:
    """(wnid, name) of each class."""
    with open(_TABLES / "imagenet_classes.csv", newline="", encoding="utf-8") as file:
        return tuple((row["wnid"], row["name"]) for row in csv.DictReader(file))


@functools.cache
def _subsets() -> Mapping[str, tuple[int, ...]]:
    """The lists behind `subset`, by name."""
    lists = {name: tuple(ids) for name, ids in _json("imagenet_subsets.json").items()}
    lists["objectnet"] = tuple(sorted(index for ids in objectnet_folders().values() for index in ids))
    return lists
