"""Tables and figures of fine-tunings: worked out by hand, and drawn from prediction files."""

import dataclasses
import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.stats import ttest_rel

from luab.data.dense.dense_set import OBJECT, DetectionSet, Images, SegmentationSet
from luab.errors import ConfigError, DataError
from luab.render.figures import dense, figures
from luab.render.figures.dense import confident, decoded_mask, spread
from luab.render.products import Inputs, find_product
from luab.render.tables import render_table
from luab.render.transfers import transfer_table
from luab.transfer.score import COLUMNS

TRANSFERS = {"voc_boxes": "VOC boxes", "coco_boxes": "COCO boxes"}
SUPERVISIONS = {"none": "Baseline", "random": "Random points", "shuffled": "Shuffled points", "click": "LUAB (clicks)"}
NAMES = ["bird", "dog", "car"]


def value(transfer, supervision, seed, metric):
    """A number that depends on everything."""
    gain = {"none": 0, "random": 0.01, "shuffled": 0.02, "click": 0.05}[supervision]
    odd = ((seed * 7 + len(transfer) + len(metric) + len(supervision)) % 5) / 500
    return 0.3 + gain + odd + (0.1 if metric == "ap50" else 0)


def scores(transfers=tuple(TRANSFERS), seeds=3):
    metrics = {"voc_boxes": ("ap", "ap50", "voc_ap"), "coco_boxes": ("ap", "ap50")}
    rows = [
        (transfer, "imagenet", backbone, supervision, 0.0 if supervision == "none" else 1.0, seed, metric, group,
         value(transfer, supervision, seed, metric), 100, f"{transfer}, a protocol")
        for transfer in transfers
        for backbone in ("resnet50", "resnet18")
        for supervision in SUPERVISIONS
        for seed in range(seeds)
        for metric in metrics[transfer]
        for group in ("", "bird")
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def test_means_and_differences():
    table = transfer_table("detection", scores(), TRANSFERS, SUPERVISIONS)
    assert list(table.cells.columns) == ["Fine-tuned on", "Backbone", "Supervision", "λ", "AP ↑", "AP50 ↑", "VOC AP ↑"]
    # Per backbone: none; random, shuffled and click with the difference to the baseline; two to shuffled.
    assert table.groups == [0, 9, 18, 27] and len(table.cells) == 36
    assert table.cells.iloc[0, :4].tolist() == ["VOC boxes", "ResNet-18", "Baseline", "–"]
    assert table.cells["Supervision"].tolist()[1:9] == [
        "Random points", "  Δ Baseline", "  Δ Shuffled points", "Shuffled points", "  Δ Baseline", "LUAB (clicks)",
        "  Δ Baseline", "  Δ Shuffled points",
    ]  # fmt: skip
    row = table.raw[(table.raw["transfer"] == "voc_boxes") & (table.raw["backbone"] == "resnet50")]
    row = row[(row["supervision"] == "click") & (row["metric"] == "ap")].iloc[0]
    values = {name: [value("voc_boxes", name, seed, "ap") for seed in range(3)] for name in SUPERVISIONS}
    assert row["mean"] == pytest.approx(np.mean(values["click"])) and row["n"] == 3
    assert row["std"] == pytest.approx(np.std(values["click"], ddof=1))
    for control in ("none", "shuffled"):
        test = ttest_rel(values["click"], values[control])
        difference = np.mean(values["click"]) - np.mean(values[control])
        assert row[f"difference_{control}"] == pytest.approx(difference)
        assert row[f"p_{control}"] == pytest.approx(test.pvalue)
        assert row[f"low_{control}"] == pytest.approx(test.confidence_interval().low)
        # Holm over the two data sets: the smaller p twice.
        assert test.pvalue <= row[f"p_holm_{control}"] <= 2 * test.pvalue + 1e-12
    p = f"p = {row['p_holm_none']:.3f}"
    shown = table.cells[table.cells["Supervision"] == "  Δ Baseline"].iloc[5, 4]  # VOC, ResNet-50, clicks
    assert shown.startswith(f"+{100 * row['difference_none']:.1f} [+") and shown.endswith(p)
    assert np.isnan(table.raw.loc[table.raw["metric"] == "ap50", "p_holm_none"].astype(float)).all()
    assert table.cells["VOC AP ↑"].tolist()[18:20] == ["–", "–"]  # COCO has none
    assert any(note == "VOC boxes: voc_boxes, a protocol." for note in table.notes)


def test_one_seed_has_no_interval_and_a_baseline_alone_no_difference():
    table = transfer_table("detection", scores(("coco_boxes",), seeds=1), TRANSFERS, SUPERVISIONS)
    assert table.cells["AP ↑"].iloc[0].endswith("(n = 1)") and "[" not in "".join(table.cells["AP ↑"])
    alone = scores(("coco_boxes",))
    table = transfer_table("detection", alone[alone["supervision"] == "none"], TRANSFERS, SUPERVISIONS)
    assert len(table.cells) == 2 and "difference_none" not in table.raw


def test_what_is_missing_is_named():
    everything = scores()
    fewer = everything.drop(everything.index[(everything["seed"] == 2) & (everything["metric"] == "ap50")][:1])
    with pytest.raises(DataError, match=r"1 fine-tunings of voc_boxes lack .* resnet50/none-0/seed2: ap50\. Score"):
        transfer_table("detection", fewer, TRANSFERS, SUPERVISIONS)
    with pytest.raises(DataError, match="segmentation: expected scores of masks, found coco_boxes, voc_boxes"):
        transfer_table("segmentation", everything, {"masks": "Masks"}, SUPERVISIONS)


def test_the_table_is_written(tmp_path):
    path, out = tmp_path / "transfer.csv", [tmp_path / f"t.{kind}" for kind in ("csv", "md", "tex")]
    scores().to_csv(path, index=False)
    render_table(
        "detection", *out, Inputs(scores=path, transfers=TRANSFERS, supervisions=SUPERVISIONS, label="demo world")
    )
    assert "**Transfer to detection (%) (demo world)**" in out[1].read_text(encoding="utf-8")
    assert {"transfer", "metric", "p_holm_shuffled"} <= set(pd.read_csv(out[0]).columns)
    assert r"\toprule" in out[2].read_text(encoding="utf-8")


@pytest.fixture
def images(tmp_path):
    """Four images of different sizes."""
    rng, ids = np.random.default_rng(0), ["a", "b", "c", "d"]
    for k, name in enumerate(ids):
        Image.fromarray(rng.integers(0, 255, (40 + k, 60, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    return Images(tmp_path, ids, [f"{name}.png" for name in ids])


def test_boxes_side_by_side(tmp_path, images):
    objects = [
        np.array([((5, 5, 30, 30), label, False, False, 625.0)] * (label > 0), dtype=OBJECT) for label in (1, 2, 0, 3)
    ]
    data = DetectionSet(images, np.array([[60, 40 + k] for k in range(4)]), objects)
    paths = []
    for name, scored in (("none", 0.4), ("shuffled", 0.6), ("click", 0.9)):
        rows = [
            {"image_id": i, "boxes": [[5.0, 6, 29, 31]], "labels": [1], "scores": [scored], "width": 60, "height": 40}
            for i in images.image_ids
        ]
        paths.append((name, tmp_path / name / "predictions.parquet"))
        paths[-1][1].parent.mkdir()
        pq.write_table(pa.Table.from_pylist(rows), paths[-1][1])
    inputs = Inputs(
        predictions=tuple(paths), dense=lambda: (data, NAMES), supervisions=SUPERVISIONS, label="demo world"
    )
    product = find_product("figure", "detection_examples")
    figure = figures.FIGURES[product.name](product, inputs)
    grid = np.array(figure.axes).reshape(4, 3)  # c has no object
    assert [axes.get_title() for axes in grid[0]] == ["a", "b", "d"]
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["Truth", "Baseline", "Shuffled points", "LUAB (clicks)"]
    drawn = [[sum(patch.get_gid() == "box" for patch in axes.patches) for axes in row] for row in grid]
    assert drawn == [[1, 1, 1], [0, 0, 0], [1, 1, 1], [1, 1, 1]]  # the baseline's score is below one half
    assert [text.get_text() for text in figure.legends[0].get_texts()] == NAMES
    figures.render_figure("detection_examples", tmp_path / "f.pdf", inputs)
    assert (tmp_path / "f.png").stat().st_size > 10_000
    with pytest.raises(ConfigError, match="`dense` and `predictions` are missing"):
        figures.render_figure("detection_examples", tmp_path / "f.pdf", dataclasses.replace(inputs, dense=None))
    nothing = DetectionSet(images, data.sizes, [objects[2]] * 4)
    with pytest.raises(DataError, match="no image with an object"):
        figures.render_figure(
            "detection_examples", tmp_path / "f.pdf", dataclasses.replace(inputs, dense=lambda: (nothing, NAMES))
        )


def test_masks_side_by_side(tmp_path, images):
    masks = [np.zeros((40 + k, 60), dtype=np.uint8) for k in range(4)]
    masks[0][:10], masks[3][:, :20], masks[2][:5] = 1, 3, 255  # the third image has nothing that counts
    data = SegmentationSet(images, lambda i: masks[i])
    path = tmp_path / "click" / "predictions.parquet"
    path.parent.mkdir()

    def write(content_of):
        rows = [{"image_id": i, "mask": content_of(mask)} for i, mask in zip(images.image_ids, masks, strict=True)]
        pq.write_table(pa.Table.from_pylist(rows), path)

    inputs = Inputs(predictions=(("click", path),), dense=lambda: (data, NAMES), supervisions=SUPERVISIONS)
    write(lambda mask: png(np.where(mask == 255, 0, mask)))
    product = find_product("figure", "segmentation_examples")
    figure = figures.FIGURES[product.name](product, inputs)
    grid = np.array(figure.axes).reshape(2, 2)
    assert [axes.get_title() for axes in grid[0]] == ["a", "d"]
    for axes, expected in zip(grid.T.ravel(), [masks[0] > 0] * 2 + [masks[3] > 0] * 2, strict=True):
        (shade,) = [shown.get_array() for shown in axes.images if shown.get_gid() == "mask"]
        assert np.array_equal(shade[:, :, 3] > 0, expected)
    figures.render_figure("segmentation_examples", tmp_path / "f.pdf", inputs)
    write(lambda mask: png(mask.T))
    with pytest.raises(DataError, match=r"predictions.parquet: a: expected a mask of 60 x 40 pixels"):
        figures.render_figure("segmentation_examples", tmp_path / "f.pdf", inputs)


def png(mask):
    content = io.BytesIO()
    Image.fromarray(mask).save(content, "PNG")
    return content.getvalue()


def test_hostile_masks_are_refused():
    good = png(np.full((4, 5), 3, dtype=np.uint8))
    assert decoded_mask(good, (4, 5), "p", 3).tolist() == [[3] * 5] * 4
    for content, message in (
        (b"", "could not read it"),
        (good[:-30], "could not read it"),
        (b"II*\0" + good, "could not read it"),
        (png(np.zeros((4, 5, 3), dtype=np.uint8)), "mode RGB"),
        (png(np.zeros((5, 4), dtype=np.uint8)), "5 x 4 pixels with one byte each, found 4 x 5"),
        (png(np.full((4, 5), 4, dtype=np.uint8)), "classes from 0 to 3 in the mask, found 4"),
    ):
        with pytest.raises(DataError, match=f"here: .*{message}.*Predict again"):
            decoded_mask(content, (4, 5), "here", 3)


def test_images_are_spread_and_boxes_confident():
    ids = [f"{k:02}" for k in range(20)]
    assert spread(ids, lambda i: True, 4) == [0, 5, 10, 15]
    assert spread(ids[::-1], lambda i: True, 4) == [19, 14, 9, 4]
    assert spread(ids, lambda i: i in (7, 8), 4) == [7, 8] and spread(ids, lambda i: False) == []
    some = dense.Detections(np.arange(12.0).reshape(3, 4), np.array([1, 2, 3]), np.array([0.9, 0.1, 0.5]))
    assert confident(some).labels.tolist() == [3, 1]
