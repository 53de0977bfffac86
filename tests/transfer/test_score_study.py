"""Scores, tables and figures through a study on the drawn VOC: predictions that are the truth are perfect."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from luab.data.dense.dense_sets import classes_of, dense_set
from luab.demo.voc import draw_voc
from luab.errors import DataError
from luab.fetch.unpack import unpack_all
from luab.metrics.segmentation import confusion_triples
from luab.render.figures.figures import render_figure
from luab.render.products import find_product, products_of
from luab.render.tables import render_table
from luab.study.config import Study
from luab.study.drawn_world import Demo
from luab.study.transfers import FineTuning, Transfer
from luab.transfer.score import collect, read_scores, score

WORLD = Demo.model_validate({"seed": 3, "size_px": 48, "sizes": {"coco_train": 120, "coco_val": 60}})
ARCHIVES = ("VOCtrainval_06-Nov-2007.tar", "VOCtest_06-Nov-2007.tar", "VOCtrainval_11-May-2012.tar")
PRODUCTS = {"detection", "segmentation", "detection_examples", "segmentation_examples"}
ENTRY = {"data": "voc", "supervisions": ["none", "click"], "gpu_images_per_s": 10}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    draw_voc(folder / "world", WORLD)
    unpack_all({n: folder / "world" / "server" / n for n in ARCHIVES}, folder / "raw", folder / "voc.json", "voc")
    return folder / "raw"


def study_of(raw: Path, toy_study: Callable[..., Study]) -> Study:
    transfer = {
        "boxes": {"task": "detection", "network": "faster_rcnn", "recipe": "drawn_detection", "title": "VOC boxes"},
        "masks": {"task": "segmentation", "network": "fcn", "recipe": "drawn_segmentation"},
    }
    study = toy_study(paths={"copies": {"voc": str(raw)}})
    entries = {name: Transfer.model_validate(ENTRY | entry) for name, entry in transfer.items()}
    return study.model_copy(update={"transfer": entries, "seeds": [0, 1]})


def predict_truth(study: Study, one: FineTuning, right: bool) -> None:
    """Writes predictions that are the truth, or other ones."""
    task = study.transfer[one.transfer].task
    data, rows = dense_set(study, "voc", "val", task), []
    for i, image_id in enumerate(data.image_ids):
        row = {"image_id": image_id}
        if task == "detection":
            of = data.objects(i)  # type: ignore[attr-defined]
            labels = of["label"] if right else of["label"] % 20 + 1
            width, height = data.sizes[i].tolist()  # type: ignore[attr-defined]
            row |= {"boxes": of["xyxy"].tolist(), "labels": labels.tolist(), "scores": [0.9] * len(of)}
        else:
            true = np.asarray(data.target(i)["mask"])
            mask = (true % 255 * right).astype(np.uint8)
            content = io.BytesIO()
            Image.fromarray(mask).save(content, "PNG")
            height, width = mask.shape
            row |= {"mask": content.getvalue(), "confusion": confusion_triples(true, mask, 21)}
        rows.append(row | {"height": height, "width": width})
    path = study.layout.fine_tuning_predictions(one)
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def test_from_predictions_to_tables_and_figures(raw: Path, toy_study: Callable[..., Study], tmp_path: Path) -> None:
    study = study_of(raw, toy_study)
    assert {product.name for kind in ("table", "figure") for product in products_of(study, kind)} >= PRODUCTS
    ones = study.fine_tunings()
    assert len(ones) == 8
    for one in ones:
        predict_truth(study, one, one.run.supervision == "click")
        score(study, one)
    folders, table = [study.layout.fine_tuning(one) for one in ones], study.layout.transfer_scores_csv()
    collect(folders, table)
    scores = read_scores(table)
    whole = scores[scores["group"] == ""].groupby(["transfer", "supervision", "metric"])["value"].agg(["min", "max"])
    for transfer, metric in (("boxes", "ap"), ("boxes", "ap50"), ("boxes", "voc_ap"), ("masks", "miou")):
        assert whole.loc[(transfer, "click", metric)].tolist() == pytest.approx([1.0, 1.0])
        assert whole.loc[(transfer, "none", metric), "max"] < 0.5
    drawn = {classes_of("voc").index(name) for name in ("bird", "dog", "car", "bicycle", "bottle")}
    named = scores[(scores["metric"] == "voc_ap") & (scores["group"] != "")]["group"]
    assert {classes_of("voc").index(name) for name in named} <= drawn  # classes without an object are left out
    for name in ("detection", "segmentation"):
        files = [tmp_path / f"{name}.{kind}" for kind in ("csv", "md", "tex")]
        render_table(name, *files, find_product("table", name).inputs(study))
        assert "100.0" in files[1].read_text(encoding="utf-8")
        inputs = find_product("figure", f"{name}_examples").inputs(study)
        assert [supervision for supervision, _ in inputs.predictions] == ["none", "click"]
        render_figure(f"{name}_examples", tmp_path / f"{name}.pdf", inputs)
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_predictions_of_other_images_are_refused(raw: Path, toy_study: Callable[..., Study]) -> None:
    study = study_of(raw, toy_study)
    one = study.fine_tunings()[0]
    predict_truth(study, one, right=True)
    path = study.layout.fine_tuning_predictions(one)
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(DataError, match="the 30 images of the evaluation set, found 29"):
        score(study, one)
    assert not study.layout.fine_tuning_scores(one).exists()


def test_a_study_without_fine_tunings_has_none_of_these(toy_study: Callable[..., Study]) -> None:
    study = toy_study()
    assert PRODUCTS.isdisjoint(product.name for kind in ("table", "figure") for product in products_of(study, kind))
