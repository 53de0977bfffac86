"""The class lists against digests, counts and sums of the released lists."""

import csv
import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from luab.byproducts.coco_classes import COCO_CLASSES
from luab.data.manifests import labels
from luab.errors import DataError

RELEASED_DIGESTS = {
    "imagenet_a": ("973e8c3e530bf5dbd49999d046e74084ba5184ab98036b42b111d8dcdecf1015", 102178),
    "imagenet_o": ("38e74578856f9077f4f72e9e1012a19e0c120633ccad665a934b08d1d0ff52be", 134542),
    "imagenet_r": ("a1d9a9ace3098120f5db861d97049116efe80683f4e48c65a62f9bd30fc3366a", 86135),
}


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_wnids_are_the_released_list_in_ascending_order() -> None:
    wnids = labels.wnids()
    assert len(set(wnids)) == 1000
    assert list(wnids) == sorted(wnids)
    assert sha256("\n".join(wnids)) == "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"


def test_index_and_name_agree_with_known_classes() -> None:
    index, names = labels.wnid_index(), labels.class_names()
    assert (index["n01440764"], names[0]) == (0, "tench")
    assert (index["n02123045"], names[281]) == (281, "tabby")
    assert (index["n15075141"], names[999]) == (999, "toilet tissue")
    assert all(index[wnid] == position for position, wnid in enumerate(labels.wnids()))


def test_names_are_unique() -> None:
    names = labels.class_names()
    assert len(set(names)) == 1000
    assert (names[134], names[517]) == ("crane (bird)", "crane (machine)")


@pytest.mark.parametrize("name", RELEASED_DIGESTS)
def test_sub_lists_have_the_released_digest_and_sum(name: str) -> None:
    ids = labels.subset(name)
    assert len(ids) == 200
    assert (sha256(",".join(map(str, ids))), sum(ids)) == RELEASED_DIGESTS[name]


def test_sub_lists_overlap_as_published() -> None:
    a, o, r = (set(labels.subset(name)) for name in RELEASED_DIGESTS)
    assert (len(a & o), len(a & r), len(o & r), len(a & o & r)) == (59, 86, 36, 20)


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_sub_lists_equal_those_of_timm(name: str) -> None:
    spec = importlib.util.find_spec("timm")
    assert spec is not None and spec.origin is not None
    info = Path(spec.origin).parent / "data" / "_info"
    of_timm = (info / f"{name}_synsets.txt").read_text(encoding="utf-8").split()
    assert [labels.wnids()[index] for index in labels.subset(name)] == of_timm


def test_objectnet_has_113_folders_and_125_indices() -> None:
    folders = labels.objectnet_folders()
    ids = [index for ids in folders.values() for index in ids]
    assert (len(folders), len(ids), len(set(ids)), sum(ids)) == (113, 125, 125, 85300)
    text = json.dumps(dict(folders), sort_keys=True)
    assert sha256(text) == "9a3ee8ac0b1bfc10ea137004f3b8b0f1d8ab731c27b48babb51825ee31be33ad"
    assert labels.subset("objectnet") == tuple(sorted(ids))


def test_objectnet_folders_with_several_indices() -> None:
    folders = labels.objectnet_folders()
    assert sum(len(ids) > 1 for ids in folders.values()) == 9
    assert folders["bicycle"] == (671, 444)
    assert folders["t-shirt"] == (610,)


def test_siscore_has_61_classes_with_the_bird_kite() -> None:
    classes = labels.siscore_classes()
    assert (len(classes), len(set(classes.values()))) == (61, 61)
    # Computed from label_str_to_imagenet_classes.py of google-research/si-score, independently of the table.
    assert sum(classes.values()) == 38708
    text = json.dumps(dict(classes), sort_keys=True)
    assert sha256(text) == "426054a80c571965dfc3e6dcc353271b1fda6ba9fb682e5dbf6a9024ae6ede88"
    assert (classes["kite"], classes["orange"], classes["torch"]) == (21, 950, 862)
    assert all(labels.class_names()[classes[name]] == name for name in ("ostrich", "toaster", "wok", "pizza"))


def test_in9_counts_per_class() -> None:
    mapping = labels.in9_of_class()
    assert (mapping.dtype, mapping.shape) == (np.int8, (1000,))
    assert np.bincount(mapping[mapping >= 0]).tolist() == [116, 52, 42, 36, 35, 27, 26, 20, 16]
    assert int((mapping == -1).sum()) == 630


def test_in9_map_is_the_released_file_byte_for_byte() -> None:
    of_class = labels.in9_of_class()
    table = json.loads((Path(labels.__file__).parent / "tables" / "in9_classes.json").read_text(encoding="utf-8"))
    mapped = [index for ids in table.values() for index in ids]  # in the order of the released file
    order = mapped + sorted(set(range(1000)) - set(mapped))
    text = json.dumps({str(index): int(of_class[index]) for index in order})
    assert len(text) == 10520
    assert sha256(text) == "5b72ab44c804129744f5dff9372d8048c3b85da38d48385d73686ee0b0e7b638"


def test_in9_map_is_a_new_array_on_each_call() -> None:
    labels.in9_of_class()[:] = 7
    assert labels.in9_of_class()[0] == 8  # a tench is a fish


def test_errors_for_unknown_names_suggest_similar_ones() -> None:
    with pytest.raises(DataError, match=r"found 'imagenet_b'.*imagenet_a"):
        labels.subset("imagenet_b")
    with pytest.raises(DataError, match=r"val/n0144076: expected.*n01440764"):
        labels.index_of("n0144076", "val/n0144076")
    with pytest.raises(DataError, match=r"1000 in all"):
        labels.index_of("photos", "val/photos")


def test_labels_import_nothing_heavy(repository: Path) -> None:
    code = (
        "import sys, luab.data.manifests.labels; "
        "print([m for m in ('torch', 'timm', 'pandas', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, encoding="utf-8", errors="replace"
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0)


def test_classes_in_categories_of_coco() -> None:
    categories = labels.coco_categories()
    assert len(categories) == 207 and len(set(categories.values())) == 16
    assert set(categories.values()) <= {item.name for item in COCO_CLASSES}
    assert (categories[404], categories[207], categories[499]) == ("airplane", "dog", "knife")
    assert labels.class_names()[404] == "airliner" and 954 not in categories  # banana
    table = Path(labels.__file__).parent / "tables" / "imagenet_to_coco.csv"
    with open(table, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            index = int(row["index"])
            assert (labels.wnids()[index], labels.class_names()[index]) == (row["wnid"], row["name"])
