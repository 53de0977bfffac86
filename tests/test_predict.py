"""Predictions: columns of the files, restricted classes, the centre hole, the Backgrounds Challenge."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from luab.benchmarks.catalogue import BENCHMARKS
from luab.benchmarks.formula import Inputs
from luab.benchmarks.score import compute, score
from luab.cam import class_maps
from luab.data.images.evaluation import EvaluationSet
from luab.data.manifests.labels import in9_of_class, subset
from luab.data.manifests.manifest import SCHEMA, read_manifest
from luab.data.manifests.testsets import TEST_SETS, test_set_rows
from luab.errors import ConfigError, DataError
from luab.files import file_sha256, write_json
from luab.model import Normalise, build_model
from luab.predict import Predictor, _ranked, _score_maps, _trained, blank_centre, predict, predict_cohort
from luab.study.paths import Run
from luab.study.recipes import Preprocessing
from luab.training.checkpoint import save_model

CLICK = Run("imagenet", "test_resnet", "click", 1.0, 0)
NAMES = ("image_id", "group", "labels", "top5", "confidence")
NAMES += ("restricted_top1", "restricted_confidence", "point_x", "point_y")


@pytest.fixture
def study(toy_world, toy_study, tmp_path):
    """A study whose validation and localisation images are the toy training images, with untrained weights."""
    rows = pq.read_table(toy_world / "data/manifests/imagenet_train.parquet").to_pylist()
    for row in rows:
        row |= {"width": 50, "height": 40, "boxes": [[1, 2, 30, 20]]}
    data = tmp_path / "data"
    for name in ("imagenet_val", "wsol_test", "imagenet_o"):
        (data / "manifests").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), data / "manifests" / f"{name}.parquet")
    study = toy_study(paths={"data": str(data), "copies": {"imagenet_o": str(toy_world / "imagenet")}})
    for run in (CLICK, dataclasses.replace(CLICK, supervision="none", weight=0.0)):
        torch.manual_seed(1)
        model = build_model(run.backbone, study.recipe(run.backbone), 2 if run.weight else 0)
        save_model(study.layout.run(run) / "model.safetensors", model, {"run": run.identity()})
    return study


def _table(study, run, name):
    return pq.read_table(study.layout.prediction_folder(run) / f"{name}.parquet")


def test_runs_predicted_together_have_the_cards_and_files_of_each_alone(study, monkeypatch):
    runs, names = [CLICK, dataclasses.replace(CLICK, supervision="none", weight=0.0)], ("imagenet_val", "wsol_test")
    alone = [predict(study, run, "all", names) for run in runs]
    views, view = [], EvaluationSet.__getitem__
    monkeypatch.setattr(EvaluationSet, "__getitem__", lambda self, i: views.append(i) or view(self, i))
    assert predict_cohort(study, runs, "all", names) == alone
    assert len(views) == 2 * 30  # each image of the two test sets is decoded once
    assert alone[0]["files"]["imagenet_val"] != alone[1]["files"]["imagenet_val"]
    with pytest.raises(ConfigError, match="one data set and backbone"):
        predict_cohort(study, [CLICK, dataclasses.replace(CLICK, backbone="test_vit")], "all", names)


def test_files_have_the_documented_columns_and_types(study):
    card = predict(study, CLICK, "all", ("imagenet_val", "wsol_test"), "digest")
    table = _table(study, CLICK, "imagenet_val")
    assert tuple(table.column_names) == NAMES and table.num_rows == 30
    types = dict(zip(table.column_names, table.schema.types, strict=True))
    assert types["labels"] == pa.list_(pa.int16()) and types["top5"] == pa.list_(pa.int16(), 5)
    assert types["confidence"] == types["point_x"] == types["restricted_confidence"] == pa.float32()
    assert types["restricted_top1"] == pa.int16() and table["point_x"].null_count == 0
    assert table["labels"].to_pylist()[::10] == [[0], [1], [2]]
    assert [row[0] for row in table["top5"].to_pylist()] == table["restricted_top1"].to_pylist()
    assert table["confidence"].equals(table["restricted_confidence"])
    wsol = _table(study, CLICK, "wsol_test")
    assert tuple(wsol.column_names) == (*NAMES, "cam", "cam_h", "cam_w", "width", "height", "boxes")
    assert wsol.schema.field("cam").type == pa.list_(pa.float32())
    assert wsol.schema.field("boxes").type == pa.list_(pa.list_(pa.int32(), 4))
    height, width = wsol["cam_h"][0].as_py(), wsol["cam_w"][0].as_py()
    assert {len(cam) for cam in wsol["cam"].to_pylist()} == {height * width}
    assert set(wsol["width"].to_pylist()) == {50} and set(wsol["height"].to_pylist()) == {40}
    assert wsol["boxes"].to_pylist() == [[[1, 2, 30, 20]]] * 30
    file = study.layout.prediction_folder(CLICK) / "wsol_test.parquet"
    assert card["files"]["wsol_test"] == {"rows": 30, "sha256": file_sha256(file)} and card["code"] == "digest"


def test_score_maps_are_those_of_the_true_class_and_not_rounded(study):
    predictor = _predictor(study)
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    score_maps = predictor._columns(TEST_SETS["wsol_test"], pixels, np.array([[0], [1], [2]]))["cam"]
    maps = class_maps(predictor.model, predictor.normalise(pixels), torch.tensor([0, 1, 2]))
    assert all(np.array_equal(stored, one[None].numpy()) for stored, one in zip(score_maps, maps, strict=True))
    assert score_maps[0].dtype == np.float32
    predict(study, CLICK, "all", ("wsol_test",))
    stored = _table(study, CLICK, "wsol_test").to_pydict()
    dataset = EvaluationSet(
        {"wsol_test": study.paths.imagenet},
        test_set_rows(TEST_SETS["wsol_test"], {"wsol_test": read_manifest(study.layout.manifest("wsol_test"))}),
        TEST_SETS["wsol_test"],
        predictor.recipe,
    )
    for i in (0, 11, 29):  # of the classes 0, 1 and 2
        label = torch.tensor(stored["labels"][i])
        alone = class_maps(predictor.model, predictor.normalise(dataset[i][0][None]), label)
        assert np.ravel(alone) == pytest.approx(stored["cam"][i], abs=1e-6)


def test_maps_that_are_not_square_keep_their_rows():
    maps = np.empty(3, dtype=object)
    maps[0] = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    maps[1], maps[2] = np.zeros((0,), np.float32), np.concatenate([maps[0] + 6, maps[0]])
    columns = {name: column.to_pylist() for name, column in _score_maps(maps).items()}
    assert (columns["cam_h"], columns["cam_w"]) == ([2] * 3, [3] * 3)
    assert columns["cam"] == [[0, 1, 2, 3, 4, 5], [], [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]]


def test_a_baseline_has_no_points(study):
    run = dataclasses.replace(CLICK, supervision="none", weight=0.0)
    predict(study, run, "all", ("imagenet_val",))
    table = _table(study, run, "imagenet_val")
    assert table["point_x"].null_count == 30 and table.schema.field("point_y").type == pa.float32()


def test_batch_size_and_workers_do_not_change_predictions(study):
    tables = []
    for batch, workers in ((256, 0), (7, 2), (1, 0)):
        compute = study.compute.model_copy(update={"predict_batch": batch, "workers": workers})
        predict(study.model_copy(update={"compute": compute}), CLICK, "all", ("wsol_test",))
        tables.append(_table(study, CLICK, "wsol_test").to_pydict())
    for other in tables[1:]:
        assert other["top5"] == tables[0]["top5"] and other["image_id"] == tables[0]["image_id"]
        for name in ("confidence", "point_x", "point_y"):
            assert other[name] == pytest.approx(tables[0][name], abs=1e-5)
        assert np.ravel(other["cam"]) == pytest.approx(np.ravel(tables[0]["cam"]), abs=1e-6)


def test_weights_of_another_run_and_missing_images_are_refused(study, toy_world):
    other = dataclasses.replace(CLICK, seed=5)
    with pytest.raises(DataError, match="Train this run first"):
        predict(study, other, "all", ("imagenet_val",))
    source = study.layout.run(CLICK) / "model.safetensors"
    save = study.layout.run(other) / "model.safetensors"
    save.parent.mkdir(parents=True)
    save.write_bytes(source.read_bytes())
    with pytest.raises(DataError, match="expected the weights of"):
        predict(study, other, "all", ("imagenet_val",))
    moved = study.paths.model_copy(update={"imagenet": study.paths.results})
    with pytest.raises(DataError, match="30 of the 30 images checked are missing"):
        predict(study.model_copy(update={"paths": moved}), CLICK, "all", ("imagenet_val",))
    assert not study.layout.prediction_card(CLICK, "all").exists()


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.integers(1, 31), workers=st.integers(1, 2))
def test_batch_size_and_number_of_workers_do_not_change_scores(study, batch, workers):
    """Workers change no byte. Batch sizes change the last bits of floats: points by as little, and no class."""
    # 64 px give score maps of 2 x 2: a map of one value is constant, so the scaling to [0, 1] amplifies its last bit.
    study = study.model_copy(update={"recipes": {"toy": study.recipes["toy"].model_copy(update={"input_px": 64})}})
    contents = []
    for size, processes in ((256, 0), (batch, 0), (batch, workers)):
        compute = study.compute.model_copy(update={"predict_batch": size, "workers": processes})
        predict(study.model_copy(update={"compute": compute}), CLICK, "all", ("imagenet_val", "wsol_test"))
        folders = (study.layout.prediction_folder(CLICK), study.layout.manifest_folder())
        paths = score(["imagenet_val", "wsol_test"], *folders, CLICK.identity(), study.paths.results / "s", 64)
        contents.append([path.read_bytes() for path in paths])
    at_once, in_batches, by_workers = contents
    assert by_workers == in_batches
    assert in_batches[0] == at_once[0]
    one, other = (json.loads(text[1])["metrics"] for text in (at_once, in_batches))
    assert other["point_in_box"] == one["point_in_box"]
    assert other["point_distance"] == pytest.approx(one["point_distance"], abs=1e-6)
    # A pixel of an 8-bit map may change by one level, which can change the result of one image of 30.
    assert other["max_box_acc_v2"] == pytest.approx(one["max_box_acc_v2"], abs=1 / 30)


def test_restricted_classes_by_hand():
    chosen = subset("imagenet_a")
    inside, outside = chosen[3], next(i for i in range(1000) if i not in chosen)
    logits = torch.zeros(1, 1000)
    logits[0, outside], logits[0, inside] = 9.0, 5.0
    columns = _ranked(logits, TEST_SETS["imagenet_a"])
    assert columns["top5"][0, :2].tolist() == [outside, inside]
    assert columns["restricted_top1"].tolist() == [inside]
    assert columns["restricted_confidence"][0] == pytest.approx(np.exp(5) / (np.exp(5) + 199), rel=1e-5)
    assert columns["confidence"][0] == pytest.approx(np.exp(9) / (np.exp(9) + np.exp(5) + 998), rel=1e-5)
    tie = _ranked(torch.zeros(2, 1000), TEST_SETS["imagenet_val"])
    assert (tie["restricted_top1"] == tie["top5"][:, 0]).all()


def test_the_hole_is_half_the_side():
    pixels = torch.ones(1, 3, 224, 224)
    blank_centre(pixels, 0.5)
    rows = (pixels[0, 0] == 0).any(dim=1).nonzero().flatten()
    assert (rows[0].item(), rows[-1].item(), int((pixels == 0).sum())) == (56, 167, 3 * 112 * 112)
    plain = torch.ones(1, 3, 9, 9)
    blank_centre(plain, 0.0)
    assert (plain == 1).all()
    blank_centre(plain, 1.0)
    assert (plain == 0).all()


def test_hole_0_gives_plain_accuracy_and_hole_224_one_prediction(study):
    """Checks of Cocc that need no trained model, from files to scores."""
    names = ("imagenet_val", "imagenet_cocc_0_mean", "imagenet_cocc_224_mean", "imagenet_cocc_224_black")
    predict(study, CLICK, "all", names)
    plain, none, mean, black = (_table(study, CLICK, name) for name in names)
    assert none.equals(plain)
    assert len(set(map(tuple, plain["top5"].to_pylist()))) > 1
    for blank in (mean, black):
        assert len(set(map(tuple, blank["top5"].to_pylist()))) == 1
        assert len(set(blank["confidence"].to_pylist())) == 1
    assert mean["confidence"][0] != black["confidence"][0]
    inputs = Inputs({"imagenet_cocc_224_mean": mean}, {}, 32)
    top1 = compute(BENCHMARKS["imagenet_cocc_224_mean"], inputs).metrics["top1"]
    assert top1 in (0.0, 1 / 3)  # 30 images of three classes, one predicted class


def _predictor(study):
    return Predictor(study, study.recipe(CLICK.backbone), functools.partial(_trained, study, CLICK))


def test_black_is_zero_before_normalisation(study):
    predictor = _predictor(study)
    black = predictor._black * predictor.normalise.std + predictor.normalise.mean
    assert torch.allclose(black, torch.zeros(1, 3, 1, 1), atol=1e-5)


def test_stride_1_gives_finer_maps_and_the_same_predictions(study):
    predict(study, CLICK, "all", ("wsol_test", "wsol_test_stride1", "wsol_test_attention"))
    plain, finer, attention = (_table(study, CLICK, f"wsol_test{way}") for way in ("", "_stride1", "_attention"))
    assert (plain["cam_h"][0].as_py(), finer["cam_h"][0].as_py()) == (1, 2)
    assert finer.drop_columns(["cam", "cam_h", "cam_w"]).equals(plain.drop_columns(["cam", "cam_h", "cam_w"]))
    assert attention.equals(plain)  # a CNN has no attention


def test_a_vit_gets_maps_by_both_methods(study):
    vit = study.model_copy(
        update={
            "backbones": [study.backbones[0].model_copy(update={"name": "test_vit"})],
            "recipes": {"toy": study.recipes["toy"].model_copy(update={"model_kwargs": {"img_size": 32}})},
        }
    )
    run = dataclasses.replace(CLICK, backbone="test_vit")
    torch.manual_seed(1)
    model = build_model(run.backbone, vit.recipe(run.backbone), 2)
    save_model(vit.layout.run(run) / "model.safetensors", model, {"run": run.identity()})
    predict(vit, run, "all", ("wsol_test", "wsol_test_stride1", "wsol_test_attention"))
    plain, finer, attention = (_table(vit, run, f"wsol_test{way}") for way in ("", "_stride1", "_attention"))
    assert finer.equals(plain)
    assert attention["cam_h"].equals(plain["cam_h"]) and not attention["cam"].equals(plain["cam"])


@pytest.mark.parametrize("value", [0.0, 0.0051020417])
def test_a_model_whose_maps_are_all_constant_is_refused(study, monkeypatch, value):
    noise = np.float32(value) * 1e-8
    monkeypatch.setattr("luab.predict.class_maps", lambda model, images, classes: _maps(len(images), value, noise))
    with pytest.raises(ConfigError, match="wsol_test: all 30 score maps of the first images are constant, so ResNet"):
        predict(study, CLICK, "all", ("wsol_test",))
    assert not study.layout.prediction_card(CLICK, "all").exists()
    monkeypatch.setattr("luab.predict.class_maps", lambda model, images, classes: _maps(len(images), value, 1.0))
    predict(study, CLICK, "all", ("wsol_test",))  # one map that is not constant is enough


def _maps(images, value, last):
    maps = torch.full((images, 2, 2), value)
    maps[-1, 0, 0] += last
    return maps


def test_a_model_with_other_outputs_is_refused(study):
    predictor = _predictor(study)
    with pytest.raises(ConfigError, match="in9_nine_class: expected a model with 9 classes, found 1000"):
        predictor._columns(TEST_SETS["in9_nine_class"], torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.tensor([0]))


class _Reader(torch.nn.Module):
    """Predicts super-class 0 if the pixel at its position is red, otherwise super-class 1."""

    def __init__(self, row, column):
        super().__init__()
        self.row, self.column = row, column
        self.indices = [int(np.flatnonzero(in9_of_class() == k)[0]) for k in (0, 1)]

    def forward(self, pixels):
        red = pixels[:, 0, self.row, self.column] > 0
        logits = torch.zeros(len(pixels), 1000)
        logits[torch.arange(len(pixels)), torch.where(red, *map(torch.tensor, self.indices))] = 1
        return {"logits": logits}


@pytest.fixture
def challenge(tmp_path, toy_study):
    """One foreground, red in its left half, and 40 backgrounds, one of which is not red."""
    root = tmp_path / "in9"
    red, blue = (np.full((32, 32, 3), colour, dtype=np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    rows = [{"image_id": "a", "path": "original/val/00_dog/a.png", "labels": [0], "group": "original"}]
    rows += [
        {"image_id": f"b{k}", "path": f"only_bg_t/val/00_dog/b{k}.png", "labels": [0], "group": "only_bg_t"}
        for k in range(40)
    ]
    for row in rows:
        (root / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(blue if row["image_id"] == "b25" else red).save(root / row["path"])
    mask = root / "fg_mask/val/00_dog/a.npy"
    mask.parent.mkdir(parents=True)
    half = np.zeros((32, 32), dtype=bool)
    half[:, :16] = True
    np.save(mask, half)
    study = toy_study(compute={"predict_batch": 10})

    def run(model):
        predictor = Predictor.__new__(Predictor)
        predictor.study, predictor.device, predictor.model = study, torch.device("cpu"), model
        predictor.recipe, predictor.normalise = SimpleNamespace(input_px=32, crop_pct=1.0), lambda x: x.float() - 128
        predictor.preprocessing = Preprocessing()
        return predictor._challenge(TEST_SETS["in9_challenge"], pd.DataFrame(rows), {"in9": root})

    return SimpleNamespace(run=run, mask=mask)


def test_a_model_that_ignores_the_background_is_not_vulnerable(challenge):
    table = challenge.run(_Reader(5, 5)).to_pydict()
    assert table["vulnerable"] == [False] and table["backgrounds_tried"] == [40]
    assert table["image_id"] == ["a"] and table["labels"] == [[0]]


def test_a_model_that_reads_the_background_is_wrong_on_the_blue_one(challenge):
    table = challenge.run(_Reader(5, 25)).to_pydict()
    place = np.random.default_rng(0).permutation(40).tolist().index(25)  # position of b25 in the fixed shuffle
    assert table["vulnerable"] == [True] and table["backgrounds_tried"] == [place + 1]


class _Nine(torch.nn.Module):
    """Nine outputs, or a thousand: one class of each super-class, and one class outside of them."""

    def __init__(self, outputs):
        super().__init__()
        self.weights = torch.randn(9, 3 * 8 * 8, generator=torch.Generator().manual_seed(0))
        known = [int(np.flatnonzero(in9_of_class() == k)[-1]) for k in range(9)]
        self.places, self.outputs = known if outputs == 1000 else list(range(9)), outputs

    def forward(self, pixels):
        seen = torch.nn.functional.adaptive_avg_pool2d(pixels.double(), 8).flatten(1)
        logits = torch.zeros(len(pixels), self.outputs, dtype=torch.float64)
        logits[:, self.places] = seen @ self.weights.double().T
        if self.outputs == 1000:
            logits[:, int(np.flatnonzero(in9_of_class() == -1)[0])] = (
                12  # wins if no other is large; outside the nine super-classes
            )
        return {"logits": logits}


@pytest.mark.parametrize("name", ["in9_challenge", "in9_challenge_nine_class"])
def test_batches_agree_with_pasting_one_by_one(name, tmp_path, toy_study):
    """The released definition, pair by pair: any background * (1 - mask) + mask * image, on [0, 1], then normalised."""
    rng, model = np.random.default_rng(2), _Nine(TEST_SETS[name].outputs)
    nine = in9_of_class() if TEST_SETS[name].outputs == 1000 else np.arange(9)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    images, masks, rows = {}, {}, []
    for group, n in (("original", 24), ("only_bg_t", 37)):
        for k in range(n):
            pixels = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
            path = f"{group}/val/00_dog/{k:02d}.png"
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / path)
            images[path] = torch.from_numpy(pixels).permute(2, 0, 1) / 255
            rows.append({"image_id": path, "path": path, "labels": [0], "group": group})
    (tmp_path / "fg_mask/val/00_dog").mkdir(parents=True)
    for k, row in enumerate(rows[:24]):
        mask = np.ones((32, 32), dtype=np.uint8)
        mask[: 1 + k // 3] = 0  # foregrounds that cover more or less of the image
        np.save(tmp_path / f"fg_mask/val/00_dog/{k:02d}.npy", mask)
        masks[row["path"]] = torch.from_numpy(mask)
        answer = nine[int(model(((images[row["path"]] - mean) / std)[None])["logits"].argmax())]
        row["labels"] = [int(max(answer, 0))]

    def fooled(row, background):
        mask, image = masks[row["path"]], images[row["path"]]
        pasted = images[background] * (1 - mask) + mask * image
        return nine[int(model(((pasted - mean) / std)[None])["logits"].argmax())] != row["labels"][0]

    backgrounds = [row["path"] for row in rows[24:]]
    expected = [any(fooled(row, background) for background in backgrounds) for row in rows[:24]]
    order = [backgrounds[k] for k in np.random.default_rng(0).permutation(37)]
    first = [next((k + 1 for k, b in enumerate(order) if fooled(row, b)), 37) for row in rows[:24]]
    assert 3 < sum(expected) < 21 and any(16 < k < 37 for k in first)  # both outcomes, some after the first batch
    for batch in (1, 7, 64):
        predictor = Predictor.__new__(Predictor)
        predictor.study, predictor.device = toy_study(compute={"predict_batch": batch}), torch.device("cpu")
        predictor.model, predictor.normalise = model, Normalise()
        predictor.preprocessing = Preprocessing()
        predictor.recipe = SimpleNamespace(input_px=32, crop_pct=1.0)
        predicted = predictor._challenge(TEST_SETS[name], pd.DataFrame(rows), {"in9": tmp_path}).to_pydict()
        assert (predicted["vulnerable"], predicted["backgrounds_tried"]) == (expected, first)
        inputs = Inputs({name: pa.table(predicted)}, {}, 32)
        assert compute(BENCHMARKS[name], inputs).metrics["challenge_accuracy"] == expected.count(False) / 24


def test_the_challenge_refuses_a_model_with_other_outputs(challenge):
    with pytest.raises(ConfigError, match="in9_challenge: expected a model with 1000 classes, found 9"):
        challenge.run(_Nine(9))


def test_a_damaged_mask_is_named(challenge):
    challenge.mask.write_text("no array", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.npy: expected the foreground mask of original/val/00_dog/a\.png"):
        challenge.run(_Reader(5, 5))


def test_changed_weights_are_refused(study):
    """One weight of a valid file was changed, which the file alone cannot show."""
    file, card = study.layout.run(CLICK) / "model.safetensors", study.layout.run_json(CLICK)
    write_json(card, {"model_sha256": file_sha256(file)})
    predict(study, CLICK, "all", ("imagenet_val",))
    before = study.layout.prediction_card(CLICK, "all").read_bytes()
    whole = bytearray(file.read_bytes())
    whole[-1] ^= 1
    file.write_bytes(whole)
    with pytest.raises(DataError, match=r"expected the weights recorded in run.json"):
        predict(study, CLICK, "all", ("imagenet_val",))
    assert study.layout.prediction_card(CLICK, "all").read_bytes() == before
