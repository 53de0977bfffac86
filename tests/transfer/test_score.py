"""Scores of fine-tunings: from prediction files to tables, and prediction files that must be refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luab.errors import DataError
from luab.metrics.detection import Objects, coco_scores
from luab.metrics.segmentation import confusion_triples
from luab.transfer.score import (
    COLUMNS,
    Truth,
    collect,
    counted_pairs,
    objects_of,
    pixels_of,
    read_about,
    read_boxes,
    read_scores,
    score_boxes,
    score_masks,
    shown_in,
    write_images,
    write_scores,
)

NAMES = ["bird", "dog", "car"]
IDENTITY = {
    "transfer": "voc_detection", "dataset": "imagenet", "backbone": "resnet18", "supervision": "click", "lambda": 1.0,
    "seed": 0,
}  # fmt: skip
BOX = np.array([[0.0, 0, 10, 10], [20, 20, 60, 60]])


def truth():
    """Four images: a bird with a dog, a bird, a dog with a difficult car, none."""
    rows = [("a", BOX, [1, 2], [0, 0]), ("b", BOX[:1], [1], [0]), ("c", BOX, [2, 3], [0, 1]), ("d", BOX[:0], [], [])]
    return [
        Objects(name, boxes, np.array(labels, int), np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), np.array(hard, bool))
        for name, boxes, labels, hard in rows
    ]


TRAIN = np.array([[1, 1, 0]] * 3 + [[0, 0, 1]] * 3, dtype=bool)  # birds and dogs are usual companions


def box_rows():
    """Predictions: both objects of a, nothing in b, a wrong box and the difficult car in c, one false bird in d."""
    rows = {
        "a": (BOX, [1, 2], [0.9, 0.8]), "b": (BOX[:0], [], []), "c": (BOX, [1, 3], [0.7, 0.6]),
        "d": (BOX[1:], [1], [0.5]),
    }  # fmt: skip
    return [
        {"image_id": name, "boxes": boxes.tolist(), "labels": labels, "scores": scores, "width": 100, "height": 80}
        for name, (boxes, labels, scores) in rows.items()
    ]


BOX_SCHEMA = pa.schema({
    "image_id": pa.string(), "boxes": pa.list_(pa.list_(pa.float32(), 4)), "labels": pa.list_(pa.int16()),
    "scores": pa.list_(pa.float32()), "width": pa.int32(), "height": pa.int32(),
})  # fmt: skip


def write_boxes(path, rows, schema=BOX_SCHEMA):
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return path


def test_boxes(tmp_path):
    path = write_boxes(tmp_path / "predictions.parquet", box_rows()[::-1])  # rows in any order
    result = score_boxes(path, truth(), NAMES, TRAIN, voc=True)
    numbers = {(metric, group): value for metric, group, value, _ in result.rows}
    # Birds: right, wrong, wrong; one of two found. Dogs: right; one of two found. Cars: only a difficult one.
    assert numbers["voc_ap", ""] == numbers["voc_ap", "bird"] == numbers["voc_ap", "dog"] == 0.5
    assert numbers["voc_ap_11", ""] == pytest.approx(6 / 11) and ("voc_ap", "car") not in numbers
    assert numbers["ap", ""] == numbers["ap50", ""] == numbers["ap", "dog"] == pytest.approx(51 / 101)
    # In context: a's bird and dog. Out of context: b's bird, c's dog; nothing finds these.
    assert numbers["ap_in_context", ""] == pytest.approx(1.0) and numbers["ap_out_of_context", ""] == 0.0
    # The dog of a is not small, that of c is not found.
    assert numbers["ap_small", ""] == pytest.approx((51 / 101 + 0) / 2)
    assert {n for *_, n in result.rows} == {4}
    assert result.images["image_id"].to_pylist() == ["a", "b", "c", "d"]
    again = score_boxes(write_boxes(tmp_path / "other.parquet", box_rows()), truth(), NAMES, TRAIN, voc=True)
    assert again.rows == result.rows and again.images.equals(result.images)
    assert "voc_ap" not in {metric for metric, *_ in score_boxes(path, truth(), NAMES, TRAIN, voc=False).rows}


def test_read_boxes_are_those_that_were_written(tmp_path):
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 50, (5, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + 10], axis=1)
    rows = [
        {**row, "boxes": boxes[:k].tolist(), "labels": [1] * k, "scores": rng.random(k)}
        for k, row in enumerate(box_rows())
    ]
    found = read_boxes(write_boxes(tmp_path / "p.parquet", rows), list("abcd"), 3)
    assert [len(of.labels) for of in found] == [0, 1, 2, 3]
    assert np.array_equal(found[3].boxes, boxes[:3].astype(float))
    rows = score_boxes(tmp_path / "p.parquet", truth(), NAMES, TRAIN, voc=True).rows
    numbers = {metric: value for metric, group, value, _ in rows if not group}
    assert coco_scores(truth(), found, 3).metrics["ap"] == numbers["ap"]


def change(name, value, row=0):
    rows = box_rows()
    rows[row][name] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (change("labels", [1]), "a label and a score for each box, found other counts"),
        (change("labels", [1, 4]), "1 times labels outside 1 to 3"),
        (change("labels", [0, 1]), "1 times labels outside 1 to 3"),
        (change("scores", [0.5, 1.5]), "1 times scores outside 0 to 1"),
        (change("scores", [0.5, float("nan")]), "1 times numbers that are not finite"),
        (change("scores", [0.5, None]), "empty ones"),
        (change("scores", None), "empty cells in scores"),
        (change("boxes", [[0, 0, 1, float("inf")], [0, 0, 1, 1]]), "1 times numbers that are not finite"),
        (change("boxes", [[5, 0, 1, 1], [0, 0, 1, 1]]), "1 times boxes that end before they begin"),
        (change("boxes", [None, [0, 0, 1, 1]]), "lists without empty cells in boxes"),
        (change("image_id", "e"), "the 4 images of the evaluation set, found 4; 2 differ, such as a"),
        (change("image_id", "b"), "every image once"),
        (box_rows()[1:], "the 4 images of the evaluation set, found 3; 1 differ, such as a"),
        (
            [
                {**box_rows()[0], "boxes": [[0, 0, 1, 1]] * 101, "labels": [1] * 101, "scores": [0.5] * 101},
                *box_rows()[1:],
            ],
            "1 times more than 100 boxes",
        ),
    ],
)
def test_impossible_boxes_are_refused(tmp_path, rows, message):
    path = write_boxes(tmp_path / "predictions.parquet", rows)
    with pytest.raises(DataError, match=message) as caught:
        score_boxes(path, truth(), NAMES, TRAIN, voc=True)
    assert str(path) in str(caught.value) and "luab transfer predict" in str(caught.value)


def test_files_that_are_no_predictions_are_refused(tmp_path):
    path = tmp_path / "predictions.parquet"
    with pytest.raises(DataError, match="does not exist"):
        read_boxes(path, list("abcd"), 3)
    path.write_text("boxes", encoding="utf-8")
    with pytest.raises(DataError, match="could not read it"):
        read_boxes(path, list("abcd"), 3)
    whole = write_boxes(path, box_rows()).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="could not read it"):
        read_boxes(path, list("abcd"), 3)
    pq.write_table(pa.table({"image_id": list("abcd")}), path)
    with pytest.raises(DataError, match="no boxes, labels, scores"):
        read_boxes(path, list("abcd"), 3)
    for name, kind in (("boxes", pa.string()), ("labels", pa.list_(pa.float32())), ("image_id", pa.large_binary())):
        rows = [{**row, name: {"boxes": "x", "labels": [1.0], "image_id": b"a"}[name]} for row in box_rows()[:1]]
        write_boxes(path, rows, BOX_SCHEMA.set(BOX_SCHEMA.get_field_index(name), pa.field(name, kind)))
        with pytest.raises(DataError, match=name):
            read_boxes(path, ["a"], 3)
    flat = [{**box_rows()[0], "boxes": [[0, 0, 1], [0, 0, 1]]}]
    write_boxes(path, flat, BOX_SCHEMA.set(1, pa.field("boxes", pa.list_(pa.list_(pa.float32())))))
    with pytest.raises(DataError, match="four numbers for each box"):
        read_boxes(path, ["a"], 3)


TRUE = [np.array([[0, 0, 1, 255]]), np.array([[1, 1, 2, 2]]), np.array([[0, 3, 3, 3]])]
PREDICTED = [np.array([[0, 1, 1, 1]]), np.array([[1, 2, 2, 2]]), np.array([[0, 0, 3, 3]])]
MASK_SCHEMA = pa.schema({
    "image_id": pa.string(), "height": pa.int32(), "width": pa.int32(), "mask": pa.binary(),
    "confusion": pa.list_(pa.int32()),
})  # fmt: skip


def mask_truth():
    counts = [np.bincount(mask[mask != 255], minlength=4) for mask in TRUE]
    return Truth(list("abc"), np.array(counts))


def mask_rows():
    return [
        {"image_id": name, "height": 1, "width": 4, "mask": b"", "confusion": confusion_triples(true, predicted, 4)}
        for name, true, predicted in zip("abc", TRUE, PREDICTED, strict=True)
    ]


def write_masks(path, rows):
    pq.write_table(pa.Table.from_pylist(rows, MASK_SCHEMA), path)
    return path


def test_masks(tmp_path):
    path = write_masks(tmp_path / "predictions.parquet", mask_rows()[::-1])
    result = score_masks(path, mask_truth(), NAMES, TRAIN)
    numbers = {(metric, group): value for metric, group, value, _ in result.rows}
    # Background 2 of 4; bird 2 of 4; dog 2 of 3; car 2 of 3.
    assert [numbers["iou", name] for name in ("background", *NAMES)] == pytest.approx([1 / 2, 1 / 2, 2 / 3, 2 / 3])
    assert numbers["miou", ""] == pytest.approx((1 / 2 + 1 / 2 + 2 / 3 + 2 / 3) / 4)
    # Birds are in both contexts: in b with a dog (1 of 2 pixels), in a without (1 of 2). Dogs are only in context.
    assert numbers["miou_in_context", ""] == numbers["miou_out_of_context", ""] == pytest.approx(1 / 2)
    # All objects are small, so that there are no sizes to compare.
    assert {metric for metric, _ in numbers} == {"iou", "miou", "miou_in_context", "miou_out_of_context"}


def test_masks_by_size(tmp_path):
    """A class of 20 x 20 and of 40 x 40 pixels; half of the small and all of the medium object is found."""
    true = np.zeros((2, 100, 100), dtype=int)
    true[0, :20, :20], true[1, :40, :40] = 1, 1
    predicted = true.copy()
    predicted[0, :10] = 0
    rows = [
        {"image_id": name, "height": 100, "width": 100, "mask": b"", "confusion": confusion_triples(*pair, 4)}
        for name, *pair in zip("ab", true, predicted, strict=True)
    ]
    counts = Truth(["a", "b"], np.array([np.bincount(mask.ravel(), minlength=4) for mask in true]))
    result = score_masks(write_masks(tmp_path / "predictions.parquet", rows), counts, NAMES, TRAIN)
    numbers = {metric: value for metric, group, value, _ in result.rows if not group}
    assert (numbers["miou_small"], numbers["miou_medium"]) == pytest.approx((1 / 2, 1))
    assert numbers["miou"] == pytest.approx(((20_000 - 2_000) / (20_000 - 1_800) + 1_800 / 2_000) / 2)


@pytest.mark.parametrize(
    ("confusion", "message"),
    [
        ([0, 0], "three numbers each; found 1 images"),
        ([0, 0, 1, 0, 4, 1, 1, 1, 1], "1 times a class outside 0 to 3"),
        ([-1, 0, 1], "1 times a class outside 0 to 3"),
        ([0, 0, 0], "1 times fewer than one pixel"),
        ([0, 0, 1, 0, 0, 1, 1, 1, 1], "1 times a pair of classes twice"),
        ([0, 0, 2, 1, 1, 2], "other counts in 1 of 3 images. Predict again"),
        ([], "other counts in 1 of 3 images"),
        (None, "empty cells in confusion"),
        ([0, 0, None], "empty ones"),
    ],
)
def test_impossible_confusions_are_refused(tmp_path, confusion, message):
    rows = mask_rows()
    rows[0]["confusion"] = confusion
    path = write_masks(tmp_path / "predictions.parquet", rows)
    with pytest.raises(DataError, match=message) as caught:
        score_masks(path, mask_truth(), NAMES, TRAIN)
    assert str(path) in str(caught.value)


def test_a_truth_without_anything_to_find_is_refused(tmp_path):
    nothing = [
        of._replace(boxes=BOX[:0], labels=BOX[:0, 0].astype(int), area_px=BOX[:0, 0], ignored=BOX[:0, 0] > 0)
        for of in truth()
    ]
    with pytest.raises(DataError, match="no image of the evaluation set has an object"):
        score_boxes(write_boxes(tmp_path / "p.parquet", box_rows()), nothing, NAMES, TRAIN, voc=False)


def test_subsets_count_the_same_classes():
    shown = np.array([[1, 1], [1, 0], [0, 0]], dtype=bool)
    first = np.array([[1, 1], [0, 0], [0, 0]], dtype=bool)
    counted = counted_pairs(shown, {"first": first, "other": ~first, "none": np.zeros_like(first)})
    # Class 1 is never in the other subset, so that it counts in neither; images without class 0 always count.
    assert counted["first"].tolist() == [[True, False], [False, False], [True, False]]
    assert counted["other"].tolist() == [[False, False], [True, False], [True, False]]
    assert set(counted) == {"first", "other"}
    assert (
        counted_pairs(shown, {"first": first, "none": ~shown}) == counted_pairs(shown & False, {"first": first}) == {}
    )


class Boxes:
    """A set of boxes as luab.data.dense has them, images not in order."""

    image_ids = ("b", "a")

    def __len__(self):
        return 2

    def objects(self, i):
        kinds = [("xyxy", float, 4), ("label", np.int16), ("crowd", bool), ("difficult", bool), ("area", float)]
        rows = [
            [((0, 0, 2, 3), 2, False, True, 6.0)],
            [((1, 1, 2, 2), 1, True, False, 0.5), ((0, 0, 9, 9), 3, False, False, 70.0)],
        ]
        return np.array(rows[i], dtype=kinds)


class Masks:
    """A set of masks, images not in order."""

    image_ids = ("b", "a")

    def __len__(self):
        return 2

    def target(self, i):
        return {"mask": np.array([[[0, 255, 3, 3]], [[0, 0, 0, 1]]][i])}


def test_ground_truth_of_the_data_sets():
    first, second = objects_of(Boxes())
    assert (first.image_id, first.labels.tolist(), first.ignored.tolist()) == ("a", [1, 3], [True, False])
    assert second.boxes.tolist() == [[0, 0, 2, 3]] and second.ignored.tolist() == [True]
    assert shown_in(Boxes(), 3).tolist() == [[False, True, False], [True, False, True]]
    pixels = pixels_of(Masks(), 3)
    assert pixels.ids == ["a", "b"] and pixels.true_px.tolist() == [[3, 1, 0, 0], [1, 0, 0, 2]]
    assert shown_in(Masks(), 3).tolist() == [[False, False, True], [True, False, False]]


def folder(tmp_path, name, objects=None, **identity):
    """A scored fine-tuning."""
    place = tmp_path / name
    place.mkdir()
    path = write_boxes(place / "predictions.parquet", box_rows())
    result = score_boxes(path, truth() if objects is None else objects, NAMES, TRAIN, voc=True)
    write_scores(place / "scores.csv", IDENTITY | identity, result, "a protocol")
    write_images(place / "per_image.parquet", result)
    return place


def test_scores_are_collected(tmp_path):
    folders = [folder(tmp_path, f"seed{k}", seed=k) for k in (1, 0)]
    rows = collect(folders, tmp_path / "all.csv")
    table = read_scores(tmp_path / "all.csv")
    assert (
        tuple(table.columns) == COLUMNS
        and len(table) == rows
        and table["seed"].tolist() == [0] * (rows // 2) + [1] * (rows // 2)
    )
    assert table.groupby("seed")["value"].sum().nunique() == 1
    again = tmp_path / "again.csv"
    collect(folders[::-1], again)
    assert again.read_bytes() == (tmp_path / "all.csv").read_bytes()
    assert read_about(folders[0] / "per_image.parquet")["classes"] == NAMES


def test_scores_that_do_not_belong_together_are_refused(tmp_path):
    one, twice = folder(tmp_path, "one"), folder(tmp_path, "twice")
    other = folder(tmp_path, "other", [*truth()[:3], truth()[1]._replace(image_id="d")], seed=1)
    with pytest.raises(DataError, match=r"twice: its scores are of(.|\n)*other: scored on digest"):
        collect([one, twice, other], tmp_path / "all.csv")
    with pytest.raises(DataError, match="expected scores with the columns"):
        collect([tmp_path / "nowhere"], tmp_path / "all.csv")
    text = (one / "scores.csv").read_text(encoding="utf-8")
    for damaged in (
        text.replace(",0.5,", ",inf,"),
        text.replace(",0.5,", ",half,"),
        text.splitlines()[0],
        "metric\n",
        "",
    ):
        (one / "scores.csv").write_text(damaged, encoding="utf-8")
        with pytest.raises(DataError, match="luab transfer score"):
            read_scores(one / "scores.csv")
    table = pq.read_table(other / "per_image.parquet")
    for about in (None, {b"luab": b"no"}, {b"luab": b"[]"}, {b"luab": json.dumps({"task": "detection"}).encode()}):
        pq.write_table(table.replace_schema_metadata(about), other / "per_image.parquet")
        with pytest.raises(DataError, match="metadata"):
            read_about(other / "per_image.parquet")
    assert not (tmp_path / "all.csv").exists()
