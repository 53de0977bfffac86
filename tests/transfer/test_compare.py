"""The paired bootstrap over images of two fine-tunings, against resamples that are scored from scratch."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luab.comparison.over_images import paired, resampled
from luab.errors import DataError
from luab.metrics.detection import Detections, Objects, coco_scores
from luab.metrics.segmentation import confusion_triples
from luab.transfer.compare import COLUMNS, compare, measures_of, print_comparison, write_comparison
from luab.transfer.score import Truth, score_boxes, score_masks, write_images

NAMES = ["bird", "dog"]
IMAGES = 20
TRAIN = np.array([[1, 1], [1, 1], [0, 0], [0, 0]], dtype=bool)


def truth():
    rng = np.random.default_rng(0)
    rows = []
    for k in range(IMAGES):
        n = rng.integers(1, 4)
        corner, size = rng.uniform(0, 100, (n, 2)), rng.choice([20.0, 60.0], (n, 1))
        boxes = np.concatenate([corner, corner + size], axis=1).astype(np.float32).astype(float)
        rows.append(Objects(f"{k:02}", boxes, rng.integers(1, 3, n), size[:, 0] ** 2, rng.random(n) < 0.1))
    return rows


def detections(seed, noise_px):
    """The objects, moved; the larger the noise, the worse."""
    rng = np.random.default_rng(seed)
    found = []
    for of in truth():
        boxes = of.boxes + rng.normal(0, noise_px, of.boxes.shape)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
        scores = rng.random(len(boxes)).astype(np.float32).astype(float)
        found.append(Detections(boxes.astype(np.float32).astype(float), of.labels, scores))
    return found


def boxes_file(path, found, objects=None, voc=True):
    rows = [
        {"image_id": of.image_id, "boxes": there.boxes.tolist(), "labels": there.labels, "scores": there.scores,
         "width": 200, "height": 200}
        for of, there in zip(truth(), found, strict=True)
    ]  # fmt: skip
    predictions = path.with_name(f"{path.stem}-predictions.parquet")
    pq.write_table(pa.Table.from_pylist(rows), predictions)
    result = score_boxes(predictions, objects or truth(), NAMES, TRAIN, voc)
    write_images(path, result)
    return {metric: value for metric, group, value, _ in result.rows if not group}


def masks_file(path, seed, share):
    rng, true = np.random.default_rng(seed), np.random.default_rng(9).integers(0, 3, (IMAGES, 8, 8))
    true[::2][true[::2] == 2] = 0  # every second image has no dog, and the birds of the others are in context
    true[1] = 2
    predicted = np.where(rng.random(true.shape) < share, true, rng.integers(0, 3, true.shape))
    ids = [f"{k:02}" for k in range(IMAGES)]
    rows = [
        {"image_id": name, "height": 8, "width": 8, "confusion": confusion_triples(*pair, 3)}
        for name, *pair in zip(ids, true, predicted, strict=True)
    ]
    predictions = path.with_name(f"{path.stem}-predictions.parquet")
    pq.write_table(pa.Table.from_pylist(rows), predictions)
    counts = np.stack([np.bincount(mask.ravel(), minlength=3) for mask in true])
    result = score_masks(predictions, Truth(ids, counts), NAMES, TRAIN)
    write_images(path, result)
    return true, predicted, {metric: value for metric, group, value, _ in result.rows if not group}


def test_stored_images_give_the_scores(tmp_path):
    """Every metric that can be compared, at weight 1, is the number in scores.csv."""
    numbers = boxes_file(tmp_path / "a.parquet", detections(1, 3))
    measures = measures_of(tmp_path / "a.parquet")
    assert set(measures) >= {"ap", "ap50", "ap_small", "voc_ap", "ap_in_context", "ap_out_of_context"}
    for metric, images in measures.items():
        assert images.measure(np.ones((1, IMAGES)))[0] == pytest.approx(numbers[metric], abs=1e-9)
    *_, numbers = masks_file(tmp_path / "b.parquet", 1, 0.5)
    measures = measures_of(tmp_path / "b.parquet")
    assert set(measures) == set(numbers) and len(measures) > 2
    for metric, images in measures.items():
        assert images.measure(np.ones((1, IMAGES)))[0] == pytest.approx(numbers[metric], abs=1e-9)


def test_resamples_are_those_of_images_scored_from_scratch(tmp_path):
    found = detections(1, 3)
    boxes_file(tmp_path / "a.parquet", found)
    true, predicted, _ = masks_file(tmp_path / "b.parquet", 1, 0.5)
    ap, miou = measures_of(tmp_path / "a.parquet")["ap"], measures_of(tmp_path / "b.parquet")["miou"]
    own = resampled(ap, 5, 3), resampled(miou, 5, 3)
    rng = np.random.default_rng(3)
    for k, drawn in enumerate(rng.integers(0, IMAGES, (5, IMAGES))):
        objects = [truth()[i]._replace(image_id=f"{place:02}") for place, i in enumerate(drawn)]
        again = [found[i] for i in drawn]
        assert own[0][k] == pytest.approx(coco_scores(objects, again, 2).metrics["ap"], abs=1e-9)
        hits = [((true[drawn] == c) & (predicted[drawn] == c)).sum() for c in range(3)]
        either = [((true[drawn] == c) | (predicted[drawn] == c)).sum() for c in range(3)]
        assert own[1][k] == pytest.approx(np.divide(hits, either).mean(), abs=1e-9)


def test_a_better_detector_differs_and_the_same_does_not(tmp_path, capsys):
    paths = [tmp_path / f"{name}.parquet" for name in ("bad", "good", "again")]
    values = [boxes_file(path, detections(1, noise)) for path, noise in zip(paths, (8, 1, 8), strict=True)]
    rows = {row.metric: row for row in compare(*paths[:2], resamples=200)}
    row = rows["ap"]
    assert (row.first.value, row.second.value) == pytest.approx((values[0]["ap"], values[1]["ap"]))
    assert row.paired.difference == pytest.approx(values[1]["ap"] - values[0]["ap"])
    assert 0 < row.paired.low < row.paired.difference < row.paired.high and row.paired.p == 1 / 201
    assert row.p_holm >= row.paired.p and row.n == IMAGES and row.first.low < row.first.value < row.first.high
    print_comparison("bad", "good", list(rows.values()), 200)
    printed = capsys.readouterr().out
    assert f"{100 * row.paired.difference:+.2f}" in printed and "200 resamples" in printed and "second: good" in printed
    assert max(map(len, printed.splitlines()[:-1])) <= 80  # the note is not wrapped
    same = compare(paths[0], paths[2], resamples=50)
    assert all(row.paired.difference == row.paired.low == row.paired.high == 0 and row.paired.p == 1 for row in same)
    write_comparison(tmp_path / "out.csv", same, 50)
    lines = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == ",".join(COLUMNS) and len(lines) == len(same) + 1 and lines[1].startswith("ap,20,")


def test_what_cannot_be_compared_is_refused(tmp_path):
    one, other, masks = (tmp_path / f"{name}.parquet" for name in ("one", "other", "masks"))
    boxes_file(one, detections(1, 3))
    moved = [of._replace(boxes=of.boxes + 1) for of in truth()]
    boxes_file(other, detections(1, 3), moved)
    masks_file(masks, 1, 0.5)
    with pytest.raises(DataError, match="same images in the same groups"):
        compare(one, other, resamples=10)
    with pytest.raises(DataError, match="a metric that both have, found ap"):
        compare(one, masks, resamples=10)
    measures = measures_of(one)
    assert paired(measures["ap"], measures["ap"], 10).p == 1


def lists(name, change, values=None):
    """Returns a function that changes the lists of one column of a table."""

    def changed(table):
        rows = change(table[name].to_pylist())
        kind = pa.list_(values) if values else table[name].type
        return table.set_column(table.column_names.index(name), name, pa.array(rows, kind))

    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns("all_matched"), "no all_matched"),
        (lists("labels", lambda rows: [[3] * len(row) for row in rows]), "classes from 1 to 2 in labels, found 3 to 3"),
        (lists("all_objects", lambda rows: [[0]] * len(rows)), "classes from 1 to 2 in all_objects"),
        (lists("all_ignored", lambda rows: [row[1:] for row in rows]), "as many values of all_ignored"),
        (lists("scores", lambda rows: [[float("nan")] * len(row) for row in rows]), "finite numbers"),
        (lists("scores", lambda rows: [None, *rows[1:]]), "lists of numbers in scores"),
        (lists("voc_matched", lambda rows: [["x"] for _ in rows], pa.string()), "lists of numbers in voc_matched"),
        (lambda t: t.slice(0, 5).take([1, 0, 2, 3, 4]), "in the order of their ids"),
        (lambda t: t.take([0, 0]), "every image once"),
        (lambda t: t.replace_schema_metadata(None), "luab's metadata"),
    ],
)
def test_damaged_results_of_images_are_refused(tmp_path, change, message):
    path = tmp_path / "per_image.parquet"
    boxes_file(path, detections(1, 3))
    table = pq.read_table(path)
    pq.write_table(change(table), path)
    with pytest.raises(DataError, match=message) as caught:
        measures_of(path)
    assert str(path) in str(caught.value) and "luab transfer score" in str(caught.value)


def test_metadata_names_what_the_file_has(tmp_path):
    boxes_file(tmp_path / "a.parquet", detections(1, 3), voc=False)
    about = json.loads(pq.read_schema(tmp_path / "a.parquet").metadata[b"luab"])
    assert about["views"] == ["all", "small"] and about["classes"] == NAMES and about["task"] == "detection"
    assert "voc_ap" not in measures_of(tmp_path / "a.parquet")
