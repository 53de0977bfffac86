"""From the predictions of a fine-tuning to its scores and to the results of single images, for the bootstrap."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from luab.benchmarks.benchmark import RUN_KEYS
from luab.errors import DataError
from luab.files import lines_sha256, replacing, write_csv
from luab.metrics.detection import (
    MOST_DETECTIONS,
    Detections,
    Matches,
    Objects,
    average_precisions,
    coco_scores,
    mean_precision,
    shown_classes,
    voc_matches,
)
from luab.metrics.multilabel import companions, in_context, of_size
from luab.metrics.segmentation import IGNORED, Areas, areas_of, ious, mean_iou
from luab.predictions import ids_of, read_listed

if TYPE_CHECKING:
    import pandas as pd

    from luab.data.dense.dense_set import DenseSet, DetectionSet, SegmentationSet
    from luab.study.config import Study
    from luab.study.transfers import FineTuning

KEYS = ("transfer", *RUN_KEYS)
"""Identity of a fine-tuning."""
COLUMNS = (*KEYS, "metric", "group", "value", "n", "protocol")
_ABOUT = b"luab"  # key of the file's metadata
_KEYS_ABOUT = {"task", "classes", "truth_sha256", "views", "subsets"}
_REMEDY = "Remove the file and run `luab transfer predict` or Snakemake again."

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Row = tuple[str, str, float, int]
"""Metric, group (name of a class; "" for all classes), value as a fraction, number of images."""


class Truth(NamedTuple):
    """The ground truth of an evaluation set for segmentation.

    ids: image ids in ascending text order. true_px: [images, classes] pixels of each class, the background first.
    """

    ids: list[str]
    true_px: Ints


class Result(NamedTuple):
    """Scores of one fine-tuning, and the table of its images with the metadata that explains it."""

    rows: list[Row]
    images: pa.Table
    about: dict[str, Any]


def score(study: "Study", one: "FineTuning") -> None:
    """Writes scores.csv and per_image.parquet of a fine-tuning.

    Raises:
        DataError: Predictions or annotations are missing, damaged or of other images.
    """
    from luab.data.dense.dense_sets import classes_of, dense_set

    entry, layout = study.transfer[one.transfer], study.layout
    names, predictions = classes_of(entry.data), layout.fine_tuning_predictions(one)
    sets = [dense_set(study, entry.data, split, entry.task) for split in ("train", "val")]
    train = shown_in(sets[0], len(names))
    if entry.task == "detection":
        result = score_boxes(
            predictions, objects_of(cast("DetectionSet", sets[1])), names, train, voc=entry.data == "voc"
        )
    else:
        result = score_masks(predictions, pixels_of(cast("SegmentationSet", sets[1]), len(names)), names, train)
    protocol = f"{entry.data}, {len(sets[1]):,} images; {PROTOCOLS[entry.task]}"
    write_scores(layout.fine_tuning_scores(one), one.identity(), result, protocol)
    write_images(layout.fine_tuning_images(one), result)


PROTOCOLS = {
    "detection": f"{MOST_DETECTIONS} boxes an image at most; AP at IoU 0.50 to 0.95 by pycocotools, VOC AP at 0.5",
    "segmentation": "masks at the size of the image; IoU over all pixels, mean over classes and background",
}
"""What the numbers of a task are, for score files and captions."""


def objects_of(dense: "DetectionSet") -> list[Objects]:
    """The ground truth of an evaluation set, in ascending order of image_id."""
    truth = []
    for i, image_id in enumerate(dense.image_ids):
        of = dense.objects(i)
        boxes = np.asarray(of["xyxy"], dtype=np.float64).reshape(-1, 4)
        labels, area = of["label"].astype(np.int64), of["area"].astype(np.float64)
        truth.append(Objects(image_id, boxes, labels, area, np.asarray(of["crowd"] | of["difficult"])))
    return sorted(truth, key=lambda objects: objects.image_id)


def pixels_of(dense: "SegmentationSet", classes: int) -> Truth:
    """The ground truth of an evaluation set; `classes` without the background."""
    pairs = sorted((image_id, i) for i, image_id in enumerate(dense.image_ids))
    counts = np.zeros((len(pairs), classes + 1), dtype=np.int64)
    for row, (_, i) in enumerate(pairs):
        counts[row] = np.bincount(np.asarray(dense.target(i)["mask"]).ravel(), minlength=IGNORED + 1)[: classes + 1]
    return Truth([image_id for image_id, _ in pairs], counts)


def shown_in(dense: "DenseSet", classes: int) -> Bools:
    """[images, classes] which classes the images of a training set show."""
    shown = np.zeros((len(dense), classes), dtype=bool)
    for i in range(len(dense)):
        if hasattr(dense, "objects"):
            labels = dense.objects(i)["label"]
        else:
            # Not np.unique, which sorts the pixels: on COCO that takes 19 minutes instead of one.
            labels = np.flatnonzero(np.bincount(np.asarray(dense.target(i)["mask"]).ravel()))
        shown[i, labels[(labels > 0) & (labels <= classes)].astype(np.int64) - 1] = True
    return shown


def score_boxes(
    predictions: Path, truth: Sequence[Objects], names: Sequence[str], train_shown: Bools, voc: bool
) -> Result:
    """Scores predicted boxes.

    Args:
        predictions: predictions.parquet of a fine-tuning, see docs/data-formats.md.
        truth: In ascending order of image_id.
        names: Names of the classes, without the background.
        train_shown: [images, classes] which classes the training images show; usual companions are found from it.
        voc: Whether to compute VOC's AP too.

    Raises:
        DataError: The predictions are missing, damaged, impossible or of other images.
    """
    classes = len(names)
    found = read_boxes(predictions, [objects.image_id for objects in truth], classes)
    coco = coco_scores(truth, found, classes)
    n = len(truth)
    rows: list[Row] = [(metric, "", value, n) for metric, value in coco.metrics.items()]
    if not rows:
        raise DataError("score: no image of the evaluation set has an object. Build its annotations again.")
    rows += _by_class("ap", coco.per_class, names, n)
    matches = {"all": coco.matches["all"], "small": coco.matches["small"]}
    if voc:
        matches["voc"] = voc_matches(truth, found, classes)
        area, eleven = (average_precisions(matches["voc"], rule) for rule in ("area", "eleven"))
        rows += [
            ("voc_ap", "", float(mean_precision(area)[0]), n),
            ("voc_ap_11", "", float(mean_precision(eleven)[0]), n),
        ]
        rows += _by_class("voc_ap", area[0, 0], names, n)
    shown = shown_classes(truth, classes)
    usual = in_context(shown, companions(train_shown))
    subsets = counted_pairs(shown, {"in_context": usual, "out_of_context": ~usual})
    for name, counted in subsets.items():
        value = float(mean_precision(average_precisions(coco.matches["all"].only(counted), "coco"))[0])
        rows += [] if math.isnan(value) else [(f"ap_{name}", "", value, n)]
    digest = lines_sha256(_line(objects) for objects in truth)
    about = _about("detection", names, digest, matches, subsets)
    return Result(rows, _images_of_boxes(matches, {name: _with_background(of) for name, of in subsets.items()}), about)


def score_masks(predictions: Path, truth: Truth, names: Sequence[str], train_shown: Bools) -> Result:
    """Scores predicted masks.

    Args:
        predictions: predictions.parquet of a fine-tuning, see docs/data-formats.md.
        truth: From `pixels_of`.
        names, train_shown: As for `score_boxes`.

    Raises:
        DataError: The predictions are missing, damaged, impossible, of other images or of other masks.
    """
    areas = read_areas(predictions, truth, len(names))
    n, per_class = len(areas.ids), ious(areas)
    rows: list[Row] = [("miou", "", float(mean_iou(per_class)[0]), n)]
    if math.isnan(rows[0][2]):
        raise DataError("score: no pixel of the evaluation set counts. Build its masks again.")
    rows += _by_class("iou", per_class[0], ["background", *names], n)
    true_px = truth.true_px[:, 1:]
    shown = true_px > 0
    usual = in_context(shown, companions(train_shown))
    sizes = {size: of_size(true_px.astype(np.float64), size) for size in ("small", "medium", "large")}
    subsets = {
        name: _with_background(counted)
        for parts in (sizes, {"in_context": usual, "out_of_context": ~usual})
        for name, counted in counted_pairs(shown, parts).items()
    }
    for name, counted in subsets.items():
        rows.append((f"miou_{name}", "", float(mean_iou(ious(areas.only(counted)))[0]), n))
    digest = lines_sha256(f"{image} {counts.tolist()}" for image, counts in zip(*truth, strict=True))
    return Result(rows, _images_of_masks(areas, subsets), _about("segmentation", names, digest, (), subsets))


def counted_pairs(shown: Bools, subsets: Mapping[str, Bools]) -> dict[str, Bools]:
    """Pairs of image and class that count for a subset: those of the subset, and images without the class.

    Subsets without any pair are left out; the others count the same classes, those that occur in each of them. If fewer
    than two subsets remain, there is nothing to compare, and none is returned.

    Args:
        shown: [images, classes] which classes an image shows.
        subsets: Name -> [images, classes] which of these belong to the subset.
    """
    inside = {name: shown & subset for name, subset in subsets.items() if (shown & subset).any()}
    if len(inside) < 2:
        return {}
    shared = np.all([subset.any(axis=0) for subset in inside.values()], axis=0)
    return {name: (subset | ~shown) & shared for name, subset in inside.items()} if shared.any() else {}


def read_boxes(path: Path, ids: Sequence[str], classes: int) -> list[Detections]:
    """Reads predicted boxes in the order of the `ids`; checks all that `score_boxes` relies on."""
    table = _read(path, ("image_id", "boxes", "labels", "scores", "width", "height"), ids)
    flat = {}
    for name, kind in (
        ("boxes", pa.types.is_floating),
        ("labels", pa.types.is_integer),
        ("scores", pa.types.is_floating),
    ):
        flat[name] = _numbers(path, table, name, kind, nested=name == "boxes")
    lengths = {name: pc.list_value_length(table[name]).to_numpy() for name in flat}
    if any((lengths[name] != lengths["labels"]).any() for name in flat):
        raise DataError(f"{path}: expected a label and a score for each box, found other counts. {_REMEDY}")
    boxes, labels, scores = flat["boxes"].reshape(-1, 4).astype(np.float64), flat["labels"], flat["scores"]
    faults = {
        f"more than {MOST_DETECTIONS} boxes in an image": (lengths["labels"] > MOST_DETECTIONS).sum(),
        "numbers that are not finite": (~np.isfinite(boxes)).sum() + (~np.isfinite(scores)).sum(),
        "boxes that end before they begin": (boxes[:, 2:] < boxes[:, :2]).any(axis=1).sum(),
        f"labels outside 1 to {classes}": ((labels < 1) | (labels > classes)).sum(),
        "scores outside 0 to 1": ((scores < 0) | (scores > 1)).sum(),
    }
    if found := [f"{count:,} times {fault}" for fault, count in faults.items() if count]:
        raise DataError(f"{path}: impossible boxes: {', '.join(found)}. {_REMEDY}")
    cuts = np.cumsum(lengths["labels"])[:-1]
    parts = (np.split(column, cuts) for column in (boxes, labels.astype(np.int64), scores.astype(np.float64)))
    return [Detections(*of_image) for of_image in zip(*parts, strict=True)]


def read_areas(path: Path, truth: Truth, classes: int) -> Areas:
    """Reads the confusion of predicted masks; checks all that `score_masks` relies on.

    Args:
        path: predictions.parquet.
        truth: The pixels of each class must be those of the confusion.
        classes: Number of classes, without the background.
    """
    table = _read(path, ("image_id", "height", "width", "confusion"), truth.ids)
    flat = _numbers(path, table, "confusion", pa.types.is_integer)
    lengths = pc.list_value_length(table["confusion"]).to_numpy()
    if (lengths % 3).any():
        raise DataError(
            f"{path}: expected a confusion of true class, predicted class and pixels, three numbers each; found "
            f"{int((lengths % 3 > 0).sum())} images with other counts. {_REMEDY}"
        )
    triples = flat.astype(np.int64).reshape(-1, 3)
    images = np.repeat(np.arange(len(lengths)), lengths // 3)
    pairs = np.column_stack([images, triples[:, :2]])
    faults = {
        f"a class outside 0 to {classes}": ((triples[:, :2] < 0) | (triples[:, :2] > classes)).any(axis=1).sum(),
        "fewer than one pixel": (triples[:, 2] < 1).sum(),
        "a pair of classes twice": len(pairs) - len(np.unique(pairs, axis=0)),
    }
    if found := [f"{count:,} times {fault}" for fault, count in faults.items() if count]:
        raise DataError(f"{path}: impossible confusions: {', '.join(found)}. {_REMEDY}")
    areas = areas_of(truth.ids, np.split(triples, np.cumsum(lengths // 3)[:-1]), classes + 1)
    if wrong := int((areas.true != truth.true_px).any(axis=1).sum()):
        raise DataError(
            f"{path}: expected as many pixels of each class as the masks have, found other counts in {wrong:,} of "
            f"{len(truth.ids):,} images. Predict again with the present masks."
        )
    return areas


def write_scores(path: Path, identity: Mapping[str, Any], result: Result, protocol: str) -> None:
    """Writes scores.csv with `COLUMNS`."""
    head = [identity[key] for key in KEYS]
    write_csv(path, COLUMNS, ((*head, *row, protocol) for row in sorted(result.rows)))


def write_images(path: Path, result: Result) -> None:
    """Writes per_image.parquet, one row per image; see docs/data-formats.md."""
    about = {_ABOUT: json.dumps(result.about, sort_keys=True)}
    with replacing(path) as aside:
        pq.write_table(
            result.images.replace_schema_metadata(about), aside, compression="zstd", write_page_checksum=True
        )


def read_scores(path: Path) -> "pd.DataFrame":
    """Reads a table with `COLUMNS`: of one fine-tuning, or of all from `collect`.

    Raises:
        DataError: The file is missing or has other content.
    """
    import pandas as pd

    remedy = "Run `luab transfer score` or Snakemake again; do not edit it by hand."
    try:
        table = pd.read_csv(path, dtype="str", keep_default_na=False)
        if tuple(table.columns) != COLUMNS or table.empty:
            raise ValueError(f"it has the columns {', '.join(table.columns)} and {len(table)} rows")
        parsers: dict[str, Any] = {"lambda": float, "value": float, "seed": int, "n": int}
        table = table.assign(**{name: [parse(text) for text in table[name]] for name, parse in parsers.items()})
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected scores with the columns {', '.join(COLUMNS)}; {error}. {remedy}") from error
    if not np.isfinite(table["value"]).all():
        raise DataError(f"{path}: expected finite values, found others. {remedy}")
    return table


def collect(folders: Iterable[Path], output_csv: Path) -> int:
    """Writes the scores of several fine-tunings into one table with `COLUMNS`, and returns the number of rows.

    Args:
        folders: Folders of fine-tunings, with scores.csv and per_image.parquet.
        output_csv: The table.

    Raises:
        DataError: A file is missing or damaged, a fine-tuning is there twice, or those of one transfer were scored
            on different ground truths; the message lists the latter two.
    """
    rows: list[tuple[Any, ...]] = []
    first: dict[str, tuple[Path, str]] = {}
    identities: dict[tuple[Any, ...], Path] = {}
    problems = []
    for folder in folders:
        table = read_scores(folder / "scores.csv")
        tuples = list(table.itertuples(index=False, name=None))
        identity = tuples[0][: len(KEYS)]
        if any(row[: len(KEYS)] != identity for row in tuples) or identities.setdefault(identity, folder) != folder:
            problems.append(f"{folder}: its scores are of {identity}, as are those of {identities[identity]}")
        digest = str(read_about(folder / "per_image.parquet")["truth_sha256"])
        other, expected = first.setdefault(str(identity[0]), (folder, digest))
        if digest != expected:
            problems.append(f"{folder}: scored on digest {digest[:12]}, {other} on {expected[:12]}")
        rows += tuples
    if problems:
        raise DataError(
            "collect: expected one scores.csv per fine-tuning, and those of one transfer on the same ground truth:\n  "
            + "\n  ".join(problems)
            + "\nScore these fine-tunings again."
        )
    write_csv(output_csv, COLUMNS, sorted(rows))
    return len(rows)


def read_about(path: Path) -> dict[str, Any]:
    """The metadata of a per_image.parquet: task, classes, truth_sha256, views and subsets; DataError if it has none."""
    remedy = "Run `luab transfer score` or Snakemake again."
    try:
        about = json.loads((pq.read_schema(path).metadata or {})[_ABOUT])
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: expected results of single images with luab's metadata; {error!r}. {remedy}"
        ) from error
    if not isinstance(about, dict) or _KEYS_ABOUT - set(about):
        raise DataError(f"{path}: expected metadata with {', '.join(sorted(_KEYS_ABOUT))}. {remedy}")
    return about


def _read(path: Path, columns: tuple[str, ...], ids: Sequence[str]) -> pa.Table:
    """The rows of the images in the order of `ids`; DataError if the file has others or empty cells."""
    table = read_listed(path.parent, path.stem, columns, "transfer predict")
    if empty := [name for name in columns if table[name].null_count]:
        raise DataError(f"{path}: expected a value in every row, found empty cells in {', '.join(empty)}. {_REMEDY}")
    if not pa.types.is_string(table["image_id"].type):
        raise DataError(f"{path}: expected image_id as text, found {table['image_id'].type}. {_REMEDY}")
    rows = pc.index_in(pa.array(ids, pa.string()), table["image_id"].combine_chunks())
    if rows.null_count or table.num_rows != len(ids):
        strange = sorted(set(ids_of(table)) ^ set(ids))
        raise DataError(
            f"{path}: expected the {len(ids):,} images of the evaluation set, found {table.num_rows:,}; "
            f"{len(strange):,} differ, such as {strange[0]}. {_REMEDY}"
        )
    return table.take(rows).combine_chunks()


def _numbers(
    path: Path, table: pa.Table, name: str, is_right: Callable[[pa.DataType], bool], nested: bool = False
) -> npt.NDArray[Any]:
    """All numbers of a column of lists (of lists), one after the other."""
    column = table[name]
    for depth in range(2 if nested else 1):
        if not _is_list(column.type) or column.null_count:
            raise DataError(
                f"{path}: expected lists without empty cells in {name}, found {table[name].type} with "
                f"{column.null_count:,} empty. {_REMEDY}"
            )
        if depth and (pc.list_value_length(column).to_numpy() != 4).any():
            raise DataError(f"{path}: expected four numbers for each box in {name}, found other counts. {_REMEDY}")
        column = pc.list_flatten(column)
    if not is_right(column.type) or column.null_count:
        raise DataError(f"{path}: {name} has numbers of an unexpected type ({column.type}), or empty ones. {_REMEDY}")
    return np.asarray(column.to_numpy())


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


def _by_class(metric: str, values: Floats, names: Sequence[str], n: int) -> list[Row]:
    return [(metric, name, float(value), n) for name, value in zip(names, values, strict=True) if not math.isnan(value)]


def _with_background(counted: Bools) -> Bools:
    """[images, classes + 1] the same pairs; the background, the first class, counts in no image."""
    return np.pad(counted, ((0, 0), (1, 0)))


def _about(
    task: str, names: Sequence[str], digest: str, views: Iterable[str], subsets: Iterable[str]
) -> dict[str, Any]:
    about = {"task": task, "classes": list(names), "truth_sha256": digest}
    return about | {"views": list(views), "subsets": list(subsets)}


def _line(objects: Objects) -> str:
    return f"{objects.image_id} {[column.tolist() for column in objects[1:]]}"


def _images_of_boxes(matches: Mapping[str, Matches], subsets: Mapping[str, Bools]) -> pa.Table:
    one = matches["all"]
    lengths = np.bincount(one.rows, minlength=len(one.ids))
    columns = {
        "image_id": pa.array(one.ids, pa.string()),
        "labels": _lists(one.labels.astype(np.int16), lengths),
        "scores": _lists(one.scores.astype(np.float32), lengths),
    }
    for view, of_view in matches.items():
        for name in ("matched", "ignored"):
            flags = getattr(of_view, name)
            bits = flags.astype(np.int16) @ (1 << np.arange(flags.shape[1], dtype=np.int16))
            columns[f"{view}_{name}"] = _lists(bits.astype(np.int16), lengths)
        rows, labels = np.nonzero(of_view.objects)
        each = np.repeat(labels + 1, of_view.objects[rows, labels])
        columns[f"{view}_objects"] = _lists(each.astype(np.int16), of_view.objects.sum(axis=1))
    return pa.table(columns | _subset_columns(subsets))


def _images_of_masks(areas: Areas, subsets: Mapping[str, Bools]) -> pa.Table:
    rows, labels = np.nonzero(areas.true + areas.predicted)
    lengths = np.bincount(rows, minlength=len(areas.ids))
    columns = {
        "image_id": pa.array(areas.ids, pa.string()),
        "labels": _lists(labels.astype(np.int16), lengths),
        **{name: _lists(getattr(areas, name)[rows, labels], lengths) for name in ("hits", "true", "predicted")},
    }
    return pa.table(columns | _subset_columns(subsets))


def _subset_columns(subsets: Mapping[str, Bools]) -> dict[str, pa.Array]:
    """For each subset [images, classes + 1] and image, the classes that do not count."""
    parts = {name: np.nonzero(~counted) for name, counted in subsets.items()}
    return {
        f"not_{name}": _lists(labels.astype(np.int16), np.bincount(rows, minlength=len(subsets[name])))
        for name, (rows, labels) in parts.items()
    }


def _lists(values: npt.NDArray[Any], lengths: Ints) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))
