"""Figures by name: reads the inputs of each, draws it, and writes PDF and PNG."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from luab.byproducts import coco_ab, icons, imagenet_ab
from luab.byproducts.clicks import click_points
from luab.byproducts.coco_classes import COCO_CLASSES
from luab.byproducts.statistics.imagenet import WORKER_COLUMNS, per_worker, selected_times_ms
from luab.data.images.image_files import open_image
from luab.data.supervisions.coco import click
from luab.data.supervisions.makers import Sources
from luab.data.supervisions.point_files import coco_image_id
from luab.errors import ConfigError
from luab.metrics.detection import Detections, Objects
from luab.metrics.localization import IOU_PCT, LocalizationInput, box_accuracy
from luab.predictions import read_listed, read_predictions
from luab.render import style, summaries
from luab.render.answers import gradient_ratios
from luab.render.figures import annotated_images, byproducts, dense, factors, localization, studies
from luab.render.figures import scores as figures_scores
from luab.render.products import Inputs, Product, find_product
from luab.render.style import Array
from luab.render.tables import read_statistics, required, scores_of
from luab.transfer.score import objects_of, read_boxes

SAMPLES = 8  # images in the figure of byproducts
CAMS = 6  # images in the figure of score maps
_CHOSEN_IMAGES = "Images with an object, evenly spaced in the order of their names, not chosen by result; first seed."
_MIN_TRACE = 4  # fewest samples of a trace that is drawn
_TUNING = 500  # images on which the threshold of the score maps is chosen
_MAP_COLUMNS = ("image_id", "cam", "cam_h", "cam_w", "point_x", "point_y")
_CAM_COLUMNS = ("image_id", "cam", "cam_h", "cam_w", "width", "height", "boxes", "point_x", "point_y")


def render_figure(name: str, output_pdf: Path | str, inputs: Inputs) -> None:
    """Draws a figure of `luab.render.products.PRODUCTS` and writes `output_pdf` and the PNG beside it.

    Raises:
        ConfigError: There is no such figure, or an input was not given.
        DataError: An input is missing, damaged or incomplete.
    """
    product = find_product("figure", name)
    style.save(FIGURES[name](product, inputs), output_pdf)


def _from_scores(draw: Callable[..., Figure]) -> Callable[[Product, Inputs], Figure]:
    return lambda product, inputs: draw(scores_of(product, inputs), inputs.headline_lambda, inputs.label)


def _draw_noise_levels(product: Product, inputs: Inputs) -> Figure:
    return studies.noise_levels(scores_of(product, inputs), inputs.entries, inputs.headline_lambda, inputs.label)


def _draw_lambda_gradients(product: Product, inputs: Inputs) -> Figure:
    ratios = gradient_ratios(inputs.logs)
    return studies.lambda_gradients(scores_of(product, inputs), ratios, inputs.headline_lambda, inputs.label)


def _draw_click_density(product: Product, inputs: Inputs) -> Figure:
    (index,) = required(product.name, inputs, "index")
    clicks = click_points(imagenet_ab.read_index(index, ["selected", "click_xy"]))
    return byproducts.click_density(clicks.xy, inputs.label)


def _draw_hover_time(product: Product, inputs: Inputs) -> Figure:
    (index,) = required(product.name, inputs, "index")
    times = pc.list_flatten(imagenet_ab.read_index(index, ["estimate_time_ms"])["estimate_time_ms"])
    return byproducts.hover_time(np.asarray(times.drop_null()), inputs.label)


def _draw_worker_spread(product: Product, inputs: Inputs) -> Figure:
    (index,) = required(product.name, inputs, "index")
    workers = per_worker(imagenet_ab.read_index_pieces(index, WORKER_COLUMNS))
    return byproducts.worker_spread(*workers, inputs.label)


def _draw_byproduct_samples(product: Product, inputs: Inputs) -> Figure:
    columns = ["image_id", "boxes", "width", "height", "click_xy", "trace_xy", "trace_time_ms"]
    index, manifest, root = required(product.name, inputs, "index", "manifest", "images_root")
    paths = manifest_paths(manifest)
    table = imagenet_ab.read_index(index, ["image_id", "annotators"])
    annotated = table.filter(pc.field("annotators") > 0)
    rows = rows_of(index, columns, [row["image_id"] for row in _spread_rows(annotated, 64 * SAMPLES)])
    traced = [row for row in rows if row["click_xy"][0] and len(row["trace_xy"][0]) >= _MIN_TRACE]
    usable = [row for row in traced if row["image_id"] in paths]
    chosen = [usable[place] for place in _places(len(usable), SAMPLES)]
    samples = [_browsed_image(row, root / paths[row["image_id"]]) for row in chosen]
    return annotated_images.byproduct_samples(samples, inputs.label)


def rows_of(index: Path, columns: list[str], image_ids: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of some images, sorted by image_id, from an index that does not fit into memory as a whole."""
    ids = pa.array(image_ids, pa.string())
    pieces = imagenet_ab.read_index_pieces(index, columns)
    found = pa.concat_tables(piece.filter(pc.is_in(piece["image_id"], ids)) for piece in pieces)
    return list(found.sort_by("image_id").to_pylist())


def _browsed_image(row: dict[str, Any], path: Path) -> annotated_images.BrowsedImage:
    image = read_image(path)
    boxes = np.array(row["boxes"] or np.zeros((0, 4)), dtype=float)
    if row["width"] and row["height"]:
        # Boxes are in pixels of the image as annotated; the file may have been resized.
        boxes = boxes * (np.array([image.shape[1] / row["width"], image.shape[0] / row["height"]] * 2))
    trace_xy, trace_ms, click_xy = (np.array(row[name][0], float) for name in ("trace_xy", "trace_time_ms", "click_xy"))
    return annotated_images.BrowsedImage(row["image_id"], image, trace_xy, trace_ms, click_xy, boxes)


def _draw_coco_samples(product: Product, inputs: Inputs) -> Figure:
    tags, manifest, root = required(product.name, inputs, "tags", "manifest", "images_root")
    table = icons.last_records(coco_ab.read_index(tags, [*icons.TAG_COLUMNS, "trace_xy", "trace_time_ms"]))
    paths = manifest_paths(manifest)
    table = table.append_column("dragged", pa.array(_dragged(table.select(icons.TAG_COLUMNS), paths), pa.bool_()))
    traced = pc.list_value_length(pc.field("trace_time_ms")) >= _MIN_TRACE
    usable = table.filter(traced & (pc.field("width") > 0) & pc.field("dragged"))
    samples = [_tagged_image(row, root, paths) for row in _spread_rows(usable, SAMPLES)]
    return annotated_images.coco_samples(samples, usable.num_rows, table.num_rows, inputs.label)


def _dragged(table: pa.Table, paths: dict[str, str]) -> list[bool]:
    """Whether each record's image is listed and has two icons or more, one of which was moved."""
    dragged = []
    for record in icons.rows_of(table):
        places = [icon.places for icon in icons.icon_paths(record).values()]
        moved = len(places) > 1 and max(map(len, places)) > 1
        dragged.append(moved and coco_image_id(record["image_id"]) in paths)
    return dragged


def _tagged_image(record: dict[str, Any], root: Path, paths: dict[str, str]) -> annotated_images.TaggedImage:
    drawn = []
    for label, icon in icons.icon_paths(record).items():
        # The release lacks some points; an icon without any cannot be drawn.
        if places := [place for place in icon.places if not np.isnan(place).any()]:
            drawn.append((COCO_CLASSES[label].name, icon._replace(places=places)))
    image = read_image(root / paths[coco_image_id(record["image_id"])])
    trace_xy, trace_ms = (np.array(record[name], float) for name in ("trace_xy", "trace_time_ms"))
    return annotated_images.TaggedImage(f"train2014, {record['image_id']}", image, trace_xy, trace_ms, drawn)


def _draw_interfaces(product: Product, inputs: Inputs) -> Figure:
    numbers = summaries.interface_numbers(*read_statistics(product.name, inputs.statistics))
    index, tags = required(product.name, inputs, "index", "tags")
    clicks = imagenet_ab.read_index(index, ["selected", "click_xy", "estimate_time_ms"])
    pages = icons.last_records(coco_ab.read_index(tags, ["image_id", "time_spent_ms"]))
    times = pages["time_spent_ms"].drop_null().to_numpy()
    points = [(point.x, point.y) for point in click(Sources(tags, tags)).points]
    samples = {
        "browsing": byproducts.InterfaceSample(selected_times_ms(clicks), click_points(clicks).xy),
        "tagging": byproducts.InterfaceSample(times[times > 0], np.array(points, dtype=float).reshape(-1, 2)),
    }
    return byproducts.interfaces(numbers, samples, inputs.label)


def _draw_cam_examples(product: Product, inputs: Inputs) -> Figure:
    titles, tables, images = _compared(
        product, inputs, _CAM_COLUMNS, lambda table: pc.greater(pc.list_value_length(table["boxes"]), 0)
    )
    thresholds = [_threshold(table) for table in tables]
    examples = [_example(path, rows, thresholds) for path, rows in images]
    note = (
        "Images: evenly spaced in the order of their names, not chosen by result. Heat: score map of the "
        "true class, lowest to highest. Found box: largest contour above the threshold that finds most boxes "
        f"at IoU 0.5 on {min(_TUNING, tables[0].num_rows):,} images ({thresholds[0]:.2f} for {titles[0]}, "
        f"{thresholds[1]:.2f} for {titles[1]})."
    )
    if all(path.stem.endswith("_stride1") for _, path in inputs.predictions):
        note += " Maps of a CNN: last stage at stride 1, dilated, with the weights as trained."
    return localization.cam_examples(examples, titles, note, inputs.label)


def _draw_folder_maps(product: Product, inputs: Inputs) -> Figure:
    columns = (*_CAM_COLUMNS, "recorded_x", "recorded_y")
    titles, _, images = _compared(product, inputs, columns, lambda table: pc.is_valid(table["recorded_x"]))
    examples = [_example(path, rows, [None] * len(rows)) for path, rows in images]
    note = (
        "Held-out images, evenly spaced in the order of their names, not chosen by result. Heat: score map of the true "
        "class, lowest to highest."
    )
    return localization.cam_examples(examples, titles, note, inputs.label)


def _draw_uses_maps(product: Product, inputs: Inputs) -> Figure:
    traced: dict[str, Array] = {}
    if inputs.traces is not None:
        traces = read_listed(inputs.traces.parent, inputs.traces.stem, ("image_id", "moments"), "targets")
        moments = (np.array(people[0], dtype=float).reshape(-1, 2) for people in traces["moments"].to_pylist())
        traced = dict(zip(traces["image_id"].to_pylist(), moments, strict=True))
    ids = pa.array(traced, pa.string())

    def usable(table: pa.Table) -> pa.ChunkedArray | pa.Array:
        return pc.is_in(table["image_id"], ids) if traced else pa.array([True] * table.num_rows)

    titles, _, images = _compared(product, inputs, _MAP_COLUMNS, usable, most=None)
    examples = [_example(path, rows, [None] * len(rows), traced.get(rows[0]["image_id"])) for path, rows in images]
    note = (
        "Images that no training saw, evenly spaced in the order of their names, not chosen by result. Heat: score map "
        "of the true class, lowest to highest; one supervision for each use and settings, first seed."
    )
    note += " White dots: a person's mouse trace at equal intervals of time." if traced else ""
    return localization.cam_examples(examples, titles, note, inputs.label, cell_in=0.74)


def _draw_detection_examples(product: Product, inputs: Inputs) -> Figure:
    data, names, titles = _fine_tuned(product, inputs)
    truth = {objects.image_id: objects for objects in objects_of(data)}
    found = [dict(zip(truth, read_boxes(path, list(truth), len(names)), strict=True)) for _, path in inputs.predictions]
    examples = []
    for i in dense.spread(data.image_ids, lambda i: len(truth[data.image_ids[i]].labels) > 0):
        image_id = data.image_ids[i]
        boxes = [_true_boxes(truth[image_id]), *(dense.confident(of[image_id]) for of in found)]
        seen = [dense.Seen(boxes=of) for of in boxes]
        examples.append(dense.DenseExample(image_id, dense.pixels(data.picture(i)), seen))
    note = f"Boxes with a score of at least {dense.LEAST_SCORE:g}; colours are classes."
    return dense.dense_examples(examples, titles, names, f"{_CHOSEN_IMAGES} {note}", inputs.label)


def _true_boxes(objects: Objects) -> Detections:
    return Detections(objects.boxes, objects.labels, np.ones(len(objects.labels)))


def _draw_segmentation_examples(product: Product, inputs: Inputs) -> Figure:
    data, names, titles = _fine_tuned(product, inputs)
    columns = ("image_id", "mask")
    tables = [read_listed(path.parent, path.stem, columns, "transfer predict") for _, path in inputs.predictions]
    examples = []
    for i in dense.spread(data.image_ids, lambda i: bool((np.asarray(data.target(i)["mask"]) % 255).any())):
        image_id, true = data.image_ids[i], np.asarray(data.target(i)["mask"])
        seen = [dense.Seen(mask=true)]
        for table, (_, path) in zip(tables, inputs.predictions, strict=True):
            content = table.filter(pc.equal(table["image_id"], image_id))["mask"].to_pylist()
            mask = dense.decoded_mask(content[0] if content else b"", true.shape, f"{path}: {image_id}", len(names))
            seen.append(dense.Seen(mask=mask))
        examples.append(dense.DenseExample(image_id, dense.pixels(data.picture(i)), seen))
    note = "Colours are classes; white: pixels that do not count."
    return dense.dense_examples(examples, titles, names, f"{_CHOSEN_IMAGES} {note}", inputs.label)


def _fine_tuned(product: Product, inputs: Inputs) -> tuple[Any, list[str], list[str]]:
    """The data set, the names of its classes, and the titles of the rows."""
    if inputs.dense is None or not inputs.predictions:
        raise ConfigError(f"{product.name}: the inputs `dense` and `predictions` are missing. Pass both.")
    data, names = inputs.dense()
    looks = style.looks([name for name, _ in inputs.predictions], inputs.supervisions)
    return data, names, ["Truth", *(looks[name].title for name, _ in inputs.predictions)]


def _compared(
    product: Product,
    inputs: Inputs,
    columns: tuple[str, ...],
    usable: Callable[[pa.Table], pa.ChunkedArray],
    most: int | None = 2,
) -> tuple[list[str], list[pa.Table], list[tuple[Path, list[dict[str, Any]]]]]:
    """Titles and usable predictions of two to `most` runs; path and predictions of images, evenly spaced by name."""
    if len(inputs.predictions) < 2 or (most is not None and len(inputs.predictions) > most):
        raise ConfigError(
            f"{product.name}: expected the predictions of two runs, baseline first; found {len(inputs.predictions)}. "
            "Pass Inputs(predictions=(('none', ...), ('click', ...)))."
        )
    supervisions = [supervision for supervision, _ in inputs.predictions]
    titles = [look.title for look in style.looks(supervisions, inputs.supervisions).values()]
    manifest, root = required(product.name, inputs, "manifest", "images_root")
    paths = manifest_paths(manifest)
    tables = [read_predictions(path.parent, path.stem, columns) for _, path in inputs.predictions]
    tables = [table.filter(usable(table)) for table in tables]
    views = [{str(row["image_id"]): row for row in _spread_rows(table, CAMS)} for table in tables]
    names = [name for name in views[0] if name in paths and all(name in view for view in views)]
    return titles, tables, [(root / paths[name], [view[name] for view in views]) for name in names]


def _example(
    path: Path, rows: Sequence[dict[str, Any]], thresholds: Sequence[float | None], trace_xy: Array | None = None
) -> localization.CamExample:
    first = rows[0]
    truth = np.zeros((0, 4))
    if "boxes" in first:
        truth = np.array(first["boxes"], dtype=float).reshape(-1, 4) / ([first["width"], first["height"]] * 2)
    views = []
    for row, threshold in zip(rows, thresholds, strict=True):
        point = None if row["point_x"] is None else (row["point_x"], row["point_y"])
        views.append(localization.cam_view(_cam(row), threshold, point))
    recorded = (first["recorded_x"], first["recorded_y"]) if first.get("recorded_x") is not None else None
    return localization.CamExample(str(first["image_id"]), read_image(path), truth, views, recorded, trace_xy)


def _threshold(table: pa.Table) -> float:
    """The threshold that MaxBoxAcc would choose on some of the images; 0 without any."""
    images = [
        LocalizationInput(_cam(row), np.array(row["boxes"], dtype=np.int64), (row["width"], row["height"]))
        for row in _spread_rows(table, _TUNING)
    ]
    if not images:
        return 0.0  # the figure then refuses to be drawn without examples
    accuracy = box_accuracy(images, side_px=224, step=0.01)
    return float(accuracy.thresholds[int(accuracy.largest[IOU_PCT.index(50)].argmax())])


def _cam(row: dict[str, Any]) -> Array:
    return np.array(row["cam"], dtype=np.float32).reshape(row["cam_h"], row["cam_w"])


def manifest_paths(manifest: Path) -> dict[str, str]:
    """image_id -> path below the data set's root; DataError if the manifest is missing or damaged."""
    table = read_listed(manifest.parent, manifest.stem, ("image_id", "path"))
    return dict(zip(table["image_id"].to_pylist(), table["path"].to_pylist(), strict=True))


def read_image(path: Path) -> Array:
    """Pixels [height, width, 3] uint8; DataError if the image is missing or damaged."""
    return np.asarray(open_image(path, "listed in its manifest"))


def _spread_rows(table: pa.Table, count: int) -> list[dict[str, Any]]:
    """At most `count` rows, evenly spaced in the order of image_id."""
    order = pc.sort_indices(table["image_id"]).to_numpy()
    return list(table.take(order[_places(len(order), count)]).to_pylist())


def _places(total: int, count: int) -> Array:
    """At most `count` indices below `total`, evenly spaced."""
    return np.linspace(0, total - 1, min(total, count)).round().astype(int)


FIGURES: dict[str, Callable[[Product, Inputs], Figure]] = {
    "byproduct_samples": _draw_byproduct_samples,
    "click_density": _draw_click_density,
    "hover_time": _draw_hover_time,
    "worker_spread": _draw_worker_spread,
    "lambda_sweep": _from_scores(figures_scores.lambda_sweep),
    "robustness_gain": _from_scores(figures_scores.robustness_gain),
    "background_gap": _from_scores(figures_scores.background_gap),
    "corruption_severity": _from_scores(factors.corruption_severity),
    "si_score_factors": _from_scores(factors.si_score_factors),
    "cam_examples": _draw_cam_examples,
    "coco_samples": _draw_coco_samples,
    "interfaces": _draw_interfaces,
    "coco_gain_by_size": _from_scores(figures_scores.coco_gain_by_size),
    "folder_maps": _draw_folder_maps,
    "noise_levels": _draw_noise_levels,
    "lambda_gradients": _draw_lambda_gradients,
    "coco_lambda_gradients": _draw_lambda_gradients,
    "uses_maps": _draw_uses_maps,
    "detection_examples": _draw_detection_examples,
    "segmentation_examples": _draw_segmentation_examples,
}
