"""Per-image predictions of a trained model on the test sets of a suite; the last stage that uses the GPU."""

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from luab.cam import attention_maps, class_maps
from luab.data.images.crops import to_uint8
from luab.data.images.evaluation import EvaluationSet, evaluation_view
from luab.data.images.image_files import check_images, open_image
from luab.data.images.loader import evaluation_loader, plain_errors, to_device
from luab.data.manifests.labels import in9_of_class, subset
from luab.data.manifests.manifest import read_manifest
from luab.data.manifests.testsets import TEST_SETS, TestSet, test_set_rows
from luab.errors import ConfigError, DataError
from luab.files import file_sha256, read_json, replacing, write_json
from luab.model import LuabModel, Normalise, build_model
from luab.progress import progress
from luab.study.config import Recipe, Study
from luab.study.paths import Run
from luab.study.recipes import Preprocessing
from luab.study.roots import source_root
from luab.tasks import task_of
from luab.training.checkpoint import check_weights, load_model, preprocessing_in, read_card
from luab.training.device import choose_device

_CHALLENGE_SEED = 0
_FIRST_BACKGROUNDS = 16


def predict(study: Study, run: Run, suite: str, test_sets: tuple[str, ...], code: str = "") -> dict[str, Any]:
    """Writes predictions/<test set>.parquet for each test set and, last, the suite's card, which it returns.

    Args:
        study: The configuration.
        run: A trained run of the study.
        suite: Name of the card.
        test_sets: Names from TEST_SETS.
        code: Digest of the prediction code, for the card.

    Raises:
        DataError: The model is missing, belongs to another run or differs from the one recorded in run.json, or images
            are missing or damaged.
    """
    return predict_cohort(study, [run], suite, test_sets, code)[0]


def predict_cohort(
    study: Study, runs: Sequence[Run], suite: str, test_sets: tuple[str, ...], code: str = ""
) -> list[dict[str, Any]]:
    """Predicts with several runs of one data set and backbone; images that all see alike are decoded once.

    Writes what `predict` writes, for each run; arguments and errors are the same.

    Returns:
        The card of each run.

    Raises:
        ConfigError: The runs differ in data set or backbone.
    """
    if len({(run.dataset, run.backbone) for run in runs}) != 1:
        raise ConfigError(
            f"Expected runs of one data set and backbone, found {', '.join(run.folder for run in runs)}. Predict the "
            "others with a command of their own."
        )
    cards: list[dict[str, Any]] = []
    alike: dict[str, list[tuple[Run, Predictor, dict[str, Any]]]] = {}
    for run in runs:
        path, run_json = study.layout.model(run), study.layout.run_json(run)
        preprocessing = preprocessing_in(read_card(path), path)
        digest = check_weights(path, read_json(run_json).get("model_sha256") if run_json.is_file() else None)
        recipe = study.recipe(run.backbone, run.dataset).seen_with(preprocessing)
        predictor = Predictor(study, recipe, functools.partial(_trained, study, run), preprocessing)
        content = {
            "run": run.identity(),
            "suite": suite,
            "code": code,
            "model_sha256": digest,
            "input_px": predictor.recipe.input_px,
            "preprocessing": preprocessing.model_dump(mode="json"),
        }
        cards.append(content)
        seen_as = f"{recipe.model_dump_json()} {preprocessing}"
        alike.setdefault(seen_as, []).append((run, predictor, content))
    for group in alike.values():
        folders = [study.layout.prediction_folder(run) for run, _, _ in group]
        files = write_predictions([predictor for _, predictor, _ in group], folders, test_sets)
        for (run, _, content), written in zip(group, files, strict=True):
            content["files"] = written
            write_json(study.layout.prediction_card(run, suite), content)
    return cards


def _trained(study: Study, run: Run, recipe: Recipe) -> LuabModel:
    """Builds a run's model by a recipe and loads its weights."""
    outputs = task_of(run.dataset).outputs(study, run)
    model = build_model(run.backbone, recipe, outputs.points, outputs.classes, outputs.use)
    load_model(study.layout.model(run), model, run.identity())
    return model


class Predictor:
    """A model that predicts test sets; `load` builds it by a recipe and loads its weights."""

    def __init__(
        self,
        study: Study,
        recipe: Recipe,
        load: Callable[[Recipe], LuabModel],
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self.study, self.recipe, self.load = study, recipe, load
        self.preprocessing = preprocessing or Preprocessing()
        self.device = choose_device(study)
        if self.device.type == "cpu":
            torch.set_num_threads(study.compute.threads)
            torch.use_deterministic_algorithms(True)
        self.model = self._loaded(recipe)
        self.normalise = Normalise(self.preprocessing).to(self.device)

    def write(self, folder: Path, test_sets: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Writes <folder>/<test set>.parquet for each test set; returns number of rows and digest of each file."""
        return write_predictions([self], [folder], test_sets)[0]

    def _loaded(self, recipe: Recipe) -> LuabModel:
        # Class maps need gradients with respect to features only.
        return self.load(recipe).to(self.device).eval().requires_grad_(False)

    @functools.cached_property
    def _finer(self) -> LuabModel:
        """The same weights with the last stage at stride 1; for a model that ends in tokens, the model itself."""
        if hasattr(self.model.backbone, "num_prefix_tokens"):
            return self.model
        finer = self.recipe.model_copy(update={"model_kwargs": {**self.recipe.model_kwargs, "output_stride": 16}})
        return self._loaded(finer)

    def predictions(self, test_set: TestSet) -> pa.Table:
        """Returns all predictions for one test set; see docs/data-formats.md for the columns."""
        return predictions([self], test_set)[0]

    def _columns(self, test_set: TestSet, images: torch.Tensor, labels: np.ndarray) -> dict[str, np.ndarray]:
        pixels = self.normalise(to_device(images, self.device))
        if test_set.hole:
            blank_centre(pixels, test_set.hole, self._black if test_set.fill == "black" else 0.0)
        logits, points = self._forward(pixels)
        _check_outputs(test_set, logits)
        columns = {"scores": logits.numpy()} if test_set.multi_label else _ranked(logits, test_set)
        if points is not None:
            columns["point"] = points
        if test_set.cam:
            columns["cam"] = self._maps(test_set, pixels, labels)
        return columns

    def _maps(self, test_set: TestSet, pixels: torch.Tensor, labels: np.ndarray) -> np.ndarray:
        """Returns an array [images] of score maps [classes, h, w]; an image without classes gets the map of class 0."""
        if not test_set.multi_label:
            labels = np.array([list(classes[:1]) or [0] for classes in labels], dtype=object)
        maps_of = attention_maps if test_set.cam_method == "attention" else class_maps
        model = self._finer if test_set.cam_method == "stride1" else self.model
        maps = np.empty(len(labels), dtype=object)
        counts = np.array([len(classes) for classes in labels])
        parts: list[list[np.ndarray]] = [[] for _ in labels]
        for k in range(counts.max(initial=0)):  # the k-th class of all images with more than k classes
            images = np.flatnonzero(counts > k)
            classes = torch.tensor([int(labels[i][k]) for i in images], device=self.device)
            score_maps = maps_of(model, pixels[torch.from_numpy(images).to(self.device)], classes)
            for i, score_map in zip(images, score_maps.cpu().numpy(), strict=True):
                parts[i].append(score_map)
        for image, part in enumerate(parts):
            maps[image] = np.array(part, dtype=np.float32)
        return maps

    @property
    def _black(self) -> torch.Tensor:
        """Black after normalisation: [1, 3, 1, 1]."""
        return self.normalise(torch.zeros(1, 3, 1, 1, device=self.device))

    @torch.no_grad()
    def _forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, np.ndarray | None]:
        outputs = self.model(pixels)
        points = outputs["points"].float().cpu().numpy() if "points" in outputs else None
        return outputs["logits"].float().cpu(), points

    def _challenge(self, test_set: TestSet, rows: pd.DataFrame, roots: dict[str, Path]) -> pa.Table:
        """Pastes each masked foreground of `original` onto the images of only_bg_t, until the model is wrong."""
        # Source: MadryLab/backgrounds_challenge:challenge_eval.py
        root = roots["in9"]
        originals = rows[rows["group"] == "original"].reset_index(drop=True)
        paths = rows.loc[rows["group"] == "only_bg_t", "path"].to_numpy()
        # A fixed shuffle: neighbours share a class, and a mixed order finds a misleading background sooner.
        order = np.random.default_rng(_CHALLENGE_SEED).permutation(len(paths))
        backgrounds = torch.stack([self._pixels(root / paths[i]) for i in order]).to(self.device)
        tried, vulnerable = [], []
        with progress(test_set.name, len(originals), "foregrounds") as advance:
            for path, labels in zip(originals["path"], originals["labels"], strict=True):
                image, mask = self._foreground(root, path)
                fooled, count = self._fooled(test_set, image, mask, int(labels[0]), backgrounds)
                vulnerable.append(fooled)
                tried.append(count)
                advance(1)
        results = {"vulnerable": pa.array(vulnerable, pa.bool_()), "backgrounds_tried": pa.array(tried, pa.int32())}
        return pa.table(_image_columns(originals) | results)

    def _pixels(self, path: Path) -> torch.Tensor:
        image = open_image(path, "in9_challenge")
        side, crop_pct, interpolation = self.recipe.input_px, self.recipe.crop_pct, self.preprocessing.interpolation
        return to_uint8(evaluation_view(image, side, crop_pct, "identity", interpolation=interpolation))

    def _foreground(self, root: Path, path: str) -> tuple[torch.Tensor, torch.Tensor]:
        head, tail = path.split("original/", maxsplit=1)
        mask_path = root / f"{head}fg_mask/{tail.rpartition('.')[0]}.npy"
        try:
            mask = np.load(mask_path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{mask_path}: expected the foreground mask of {path}, a 2-D array of 0 and 1 ({error}). "
                "Unpack the Backgrounds Challenge archive again."
            ) from error
        side = self.recipe.input_px
        if mask.shape != (side, side):
            mask = np.array(Image.fromarray(mask.astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST))
        return self._pixels(root / path).to(self.device), torch.from_numpy(mask.astype(bool)).to(self.device)

    def _fooled(
        self, test_set: TestSet, image: torch.Tensor, mask: torch.Tensor, label: int, backgrounds: torch.Tensor
    ) -> tuple[bool, int]:
        # A class outside the nine is wrong; nine outputs are the super-classes themselves.
        nine = torch.from_numpy(in9_of_class().astype(np.int64)) if test_set.outputs == 1000 else torch.arange(9)
        start, size = 0, _FIRST_BACKGROUNDS
        while start < len(backgrounds):
            pasted = torch.where(mask, image, backgrounds[start : start + size])
            logits, _ = self._forward(self.normalise(pasted))
            _check_outputs(test_set, logits)
            wrong = (nine[logits.argmax(dim=1)] != label).nonzero()
            if len(wrong):
                return True, start + int(wrong[0]) + 1
            start, size = start + len(pasted), self.study.compute.predict_batch
        return False, len(backgrounds)


def write_predictions(
    predictors: Sequence[Predictor], folders: Sequence[Path], test_sets: Iterable[str]
) -> list[dict[str, dict[str, Any]]]:
    """Writes <folder>/<test set>.parquet for each predictor and test set.

    Args:
        predictors: Models of one recipe and preprocessing.
        folders: The folder of each.
        test_sets: Names from TEST_SETS.

    Returns:
        For each predictor, number of rows and digest of each file.
    """
    files: list[dict[str, dict[str, Any]]] = [{} for _ in predictors]
    for name in test_sets:
        for folder, written, table in zip(folders, files, predictions(predictors, TEST_SETS[name]), strict=True):
            path = folder / f"{name}.parquet"
            with replacing(path) as aside:
                pq.write_table(table, aside, compression="zstd", write_page_checksum=True)
            written[name] = {"rows": table.num_rows, "sha256": file_sha256(path)}
    return files


def predictions(predictors: Sequence[Predictor], test_set: TestSet) -> list[pa.Table]:
    """Returns each predictor's predictions for one test set, whose images are decoded once for all.

    Args:
        predictors: Models of one recipe and preprocessing.
        test_set: The test set.
    """
    one = predictors[0]
    study, compute = one.study, one.study.compute
    manifests = {name: read_manifest(study.layout.manifest(name)) for name in test_set.manifests}
    rows = test_set_rows(test_set, manifests)
    roots = {name: source_root(study, name) for name in test_set.manifests}
    for name, root in roots.items():
        check_images(root, rows.loc[rows["manifest"] == name, "path"].to_numpy())
    if test_set.challenge:
        return [predictor._challenge(test_set, rows, roots) for predictor in predictors]
    dataset = EvaluationSet(roots, rows, test_set, one.recipe, one.preprocessing.interpolation)
    loader = evaluation_loader(dataset, compute.predict_batch, compute.workers, one.device.type == "cuda")
    labels = rows["labels"].to_numpy()
    parts: list[list[dict[str, np.ndarray]]] = [[] for _ in predictors]
    with plain_errors(), progress(test_set.name, len(dataset), "images") as advance:
        for images, index in loader:
            for predictor, own in zip(predictors, parts, strict=True):
                own.append(predictor._columns(test_set, images, labels[index.numpy()]))
                if test_set.cam and len(own) == 1:
                    _check_maps(test_set, own[0]["cam"], predictor.model)
            advance(len(images))
    recorded = task_of(test_set.dataset).recorded_points(study, rows) if test_set.cam else None
    tables = []
    for own in parts:
        table = _table(rows, {name: np.concatenate([part[name] for part in own]) for name in own[0]}, test_set)
        tables.append(table if recorded is None else _with_recorded(table, recorded))
    return tables


def blank_centre(pixels: torch.Tensor, hole: float, colour: float | torch.Tensor = 0.0) -> None:
    """Sets a centred square of normalised images to one normalised colour, in place; 0 is the mean colour.

    ASSUME: the centre hole is zero after normalisation; 112 of 224 pixels are rows and columns 56 to 167.
    """
    side = pixels.shape[-1]
    size = round(hole * side)
    start = (side - size) // 2
    pixels[:, :, start : start + size, start : start + size] = colour


def _check_outputs(test_set: TestSet, logits: torch.Tensor) -> None:
    if test_set.outputs is not None and logits.shape[1] != test_set.outputs:
        raise ConfigError(
            f"{test_set.name}: expected a model with {test_set.outputs} classes, found {logits.shape[1]}. Remove its "
            "benchmarks from `suites`, or predict with such a model (num_classes in the recipe's model_kwargs)."
        )


def _check_maps(test_set: TestSet, maps: np.ndarray, model: LuabModel) -> None:
    """Refuses a model whose score maps are constant, by those of the first batch.

    One constant map is possible: in a ViT's map, negative values are zero.
    """
    of_all = [score_map for of_image in maps for score_map in of_image]
    # Rounding errors of single precision are no scores either.
    if len(of_all) > 1 and all(one.size > 1 and np.ptp(one) <= 1e-6 * np.abs(one).max() for one in of_all):
        raise ConfigError(
            f"{test_set.name}: all {len(of_all)} score maps of the first images are constant, so "
            f"{type(model.backbone).__name__} cannot be localised by the method {test_set.cam_method!r}. Remove its "
            "localisation benchmarks from `suites` for this backbone, or choose those of another method."
        )


def _ranked(logits: torch.Tensor, test_set: TestSet) -> dict[str, np.ndarray]:
    top5 = logits.topk(min(5, logits.shape[1]), dim=1).indices
    allowed = torch.tensor(subset(test_set.subset)) if test_set.subset else torch.arange(logits.shape[1])
    restricted = logits[:, allowed]
    best = allowed[restricted.argmax(dim=1)] if test_set.subset else top5[:, 0]  # so that ties agree with top5
    return {
        "top5": top5.numpy().astype(np.int16),
        "confidence": logits.softmax(dim=1).amax(dim=1).numpy(),
        "restricted_top1": best.numpy().astype(np.int16),
        "restricted_confidence": restricted.softmax(dim=1).amax(dim=1).numpy(),
    }


def _table(rows: pd.DataFrame, columns: dict[str, np.ndarray], test_set: TestSet) -> pa.Table:
    answers = _multi_label if test_set.multi_label else _single_label
    arrays = _image_columns(rows) | answers(columns, len(rows))
    if test_set.cam:
        arrays |= _score_maps(columns["cam"])
        arrays |= {side: pa.array(rows[side].astype("Int32"), pa.int32()) for side in ("width", "height")}
        if not test_set.multi_label:
            boxes = [[[int(v) for v in box] for box in of_image] for of_image in rows["boxes"]]
            arrays["boxes"] = pa.array(boxes, pa.list_(pa.list_(pa.int32(), 4)))
    return pa.table(arrays)


def _image_columns(rows: pd.DataFrame) -> dict[str, pa.Array]:
    return {
        "image_id": pa.array(rows["image_id"], pa.string()),
        "group": pa.array(rows["group"], pa.string()),
        "labels": pa.array([[int(label) for label in labels] for labels in rows["labels"]], pa.list_(pa.int16())),
    }


def _single_label(columns: dict[str, np.ndarray], n: int) -> dict[str, pa.Array]:
    plain = ("confidence", "restricted_top1", "restricted_confidence")
    arrays = {"top5": _lists(columns["top5"])} | {name: pa.array(columns[name]) for name in plain}
    for k, axis in enumerate("xy"):
        arrays[f"point_{axis}"] = pa.array(columns["point"][:, k]) if "point" in columns else pa.nulls(n, pa.float32())
    return arrays


def _multi_label(columns: dict[str, np.ndarray], n: int) -> dict[str, pa.Array]:
    scores, points = columns["scores"], columns.get("point")
    width = 2 * scores.shape[1]
    if points is None:
        return {"scores": _lists(scores), "points": pa.nulls(n, pa.list_(pa.float32(), width))}
    # A shared head predicts one point for all classes.
    return {"scores": _lists(scores), "points": _lists(np.tile(points, (1, width // points.shape[1])))}


def _with_recorded(table: pa.Table, points: np.ndarray) -> pa.Table:
    for k, axis in enumerate("xy"):
        table = table.append_column(f"recorded_{axis}", pa.array(points[:, k], from_pandas=True))  # NaN becomes null
    return table


def _lists(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _score_maps(maps: np.ndarray) -> dict[str, pa.Array]:
    """Columns with the maps of each image, concatenated, and the height and width of a map."""
    height, width = next((of_image.shape[1:] for of_image in maps if len(of_image)), (0, 0))
    return {
        "cam": pa.array([of_image.reshape(-1) for of_image in maps], pa.list_(pa.float32())),
        "cam_h": pa.array(np.full(len(maps), height, np.int16)),
        "cam_w": pa.array(np.full(len(maps), width, np.int16)),
    }
