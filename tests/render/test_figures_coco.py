"""Figures of COCO and COCO-AB: what is drawn equals what was given, from the files to the files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from luab.byproducts import coco_ab, imagenet_ab
from luab.byproducts.icons import IconPath
from luab.data.manifests.manifest import INSTANCES_SCHEMA
from luab.data.supervisions.coco import click
from luab.data.supervisions.makers import Sources
from luab.errors import ConfigError, DataError
from luab.render import quantities, summaries
from luab.render.figures import annotated_images, byproducts, figures
from luab.render.figures import scores as figures_scores
from luab.render.figures.annotated_images import TaggedImage
from luab.render.figures.byproducts import InterfaceSample
from luab.render.products import Inputs, find_product

COLUMNS = [
    *("dataset", "backbone", "supervision", "lambda", "seed"),
    *("benchmark", "metric", "group", "value", "n", "protocol"),
]
SUPERVISED = [("none", 0.0), ("random", 1.0), ("click", 1.0), ("click_shared", 1.0), ("replayed", 1.0)]


def texts(figure: Figure) -> str:
    return " | ".join(text.get_text().replace("\u00a0", " ") for text in figure.findobj(Text)).replace("\n", " ")


def lines(axes: Axes, gid: str) -> list[Any]:
    return [line for line in axes.get_lines() if line.get_gid() == gid]


# ---- gains by size --------------------------------------------------------------------------------


def size_scores(seeds: int = 3, sizes: tuple[str, ...] = ("small", "medium", "large")) -> pd.DataFrame:
    """Baseline 0.5; clicks gain 0.02, 0.03, 0.04 on small objects and nothing else; n of positives 100, 200, 300."""
    rows = []
    for supervision, weight in SUPERVISED:
        for seed in range(seeds):
            for place, size in enumerate(sizes):
                value = 0.5 + (0.02 + 0.01 * seed if (supervision, size) == ("click", "small") else 0.001 * seed)
                run = ("coco", "resnet50", supervision, weight, seed, "coco_size")
                rows.append((*run, f"map_{size}", "", value, 400, "by hand"))
                rows.append((*run, "map", size, value, 100 * (place + 1), "by hand"))
    return pd.DataFrame(rows, columns=COLUMNS)


def test_gain_by_size_worked_by_hand() -> None:
    figure = figures_scores.coco_gain_by_size(size_scores(), 1.0)
    means, gains = figure.axes
    small = [bars[0].get_ydata()[0] for bars in means.containers]
    np.testing.assert_allclose(small, [50.1, 50.1, 53.0, 50.1, 50.1])  # in the order of the legend
    (click,) = lines(gains, "click")
    # The baseline rises by .001 with each seed: differences .02, .029, .038 on small objects. Mean .029, standard
    # deviation .009, half width 4.303 * .009 / sqrt(3) = .0224: the interval has no zero, so this mark is filled.
    np.testing.assert_allclose(click.get_ydata(), [2.9, 0, 0], atol=1e-9)
    filled = [line.get_ydata() for line in gains.get_lines() if line.get_linestyle() == "None"]
    np.testing.assert_allclose(np.concatenate(filled), [2.9])
    assert [label.get_text() for label in gains.get_xticklabels()] == [
        *("small\nn = 100", "medium\nn = 200", "large\nn = 300"),
    ]
    assert {line.get_gid() for line in gains.get_lines()} >= {"random", "click", "click_shared", "replayed"}
    assert not lines(gains, "none")
    names = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert names == ["Baseline", "Random points", "LUAB (clicks)", "LUAB (shared head)", "LUAB (final places)"]
    assert "n = 3 seeds" in texts(figure) and "95 % intervals" in texts(figure)


def test_contexts_stand_beside_sizes_where_there_are_any() -> None:
    contexts = size_scores(sizes=("in_context", "out_of_context")).assign(benchmark="coco_context")
    figure = figures_scores.coco_gain_by_size(pd.concat([size_scores(), contexts], ignore_index=True), 1.0)
    gains = figure.axes[1]
    assert [label.get_text() for label in gains.get_xticklabels()][3:] == [
        *("in\ncontext\nn = 100", "out of\ncontext\nn = 200"),
    ]
    assert [len(line.get_xdata()) for line in lines(gains, "click")] == [3, 2]  # no line joins a size and a context
    assert "usual companions" in texts(figure)


def test_one_seed_and_two_sizes_are_drawn_and_said() -> None:
    figure = figures_scores.coco_gain_by_size(size_scores(1, ("small", "medium")), 1.0)
    assert len(figure.axes[1].get_xticks()) == 2
    assert "no intervals, since n = 1 seed" in texts(figure)


def test_scores_without_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="coco_size, found coco_val"):
        figures_scores.coco_gain_by_size(size_scores().assign(benchmark="coco_val"), 1.0)


# ---- icons ----------------------------------------------------------------------------------------


def test_icons_drags_and_traces_stand_where_they_were() -> None:
    icons = [("dog", IconPath([[0.2, 0.5], [0.4, 0.6]], False)), ("cat", IconPath([[0.9, 0.1]], removed=True))]
    trace = np.array([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]])
    sample = TaggedImage("train2014, 9", np.zeros((50, 100, 3), np.uint8), trace, np.array([5, 10, 25]), icons)
    figure = annotated_images.coco_samples([sample], usable=7, records=1234, label="demo world")
    axes = figure.axes[0]
    np.testing.assert_allclose([np.squeeze(mark.get_xydata()) for mark in lines(axes, "icon")], [[40, 30], [90, 5]])
    assert [mark.get_marker() for mark in lines(axes, "icon")] == ["o", "X"]
    (drag,), (added,) = lines(axes, "drag"), lines(axes, "added")
    np.testing.assert_allclose(drag.get_xydata(), [[20, 25], [40, 30]])
    np.testing.assert_allclose(added.get_xydata(), [[20, 25]])
    (drawn,) = [found for found in axes.collections if found.get_gid() == "trace"]
    np.testing.assert_allclose(drawn.get_array(), [0.25, 1.0])
    assert "n = 1 images" in texts(figure) and "among the 7 of 1,234" in texts(figure)
    assert "dog" in texts(figure) and "demo world" in texts(figure)


def test_no_usable_record_is_told() -> None:
    with pytest.raises(DataError, match="two icons, one of them moved"):
        annotated_images.coco_samples([], usable=0, records=3)


# ---- from files -----------------------------------------------------------------------------------


def page(number: int, moved: bool, samples: int = 6) -> dict[str, Any]:
    def at(x: float, y: float) -> dict[str, float]:
        return {"x": x, "y": y}

    acts = [
        {"actionType": "add", "iconType": "person", "pointTo": at(0.25, 0.5), "timeAt": 100},
        {"actionType": "add", "iconType": "dog", "pointTo": at(0.75, 0.5), "timeAt": 300},
    ]
    if moved:
        ends = {"pointFrom": at(0.75, 0.5), "pointTo": at(0.6, 0.6)}
        acts.append({"actionType": "move", "iconType": "dog", **ends, "timeAt": 400})
    trace = [at(0.1 * k, 0.2) | {"timeAt": 50 * k} for k in range(samples)]
    sizes = {"originalImageWidth": 40, "originalImageHeight": 30, "imageHeight": 300, "imageWidth": 300}
    return {"image_id": number, **sizes, "timeSpent": 2000, "actionHistories": acts, "mouseTracking": trace}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tagged images, of which the first two have a drag, a trace and a file; and ImageNet-AB with one record."""
    folder = tmp_path_factory.mktemp("world")
    pages = [page(1, True), page(2, True), page(3, False), page(4, True, samples=2), page(5, True)]
    (folder / "ab.json").write_text(json.dumps(pages), encoding="utf-8")
    coco_ab.index(folder / "ab.json", folder / "tags.parquet", folder / "tags.json")
    rows = []
    for number in range(1, 5):
        name = f"COCO_train2014_{number:012d}"
        Image.fromarray(np.full((30, 40, 3), 40 * number, np.uint8)).save(folder / f"{name}.png")
        rows.append({"image_id": name, "path": f"{name}.png", "labels": [0], "group": "", "width": 40, "height": 30})
    pq.write_table(pa.Table.from_pylist(rows, schema=INSTANCES_SCHEMA), folder / "manifest.parquet")
    empty = {field.name: [None] if pa.types.is_list(field.type) else None for field in imagenet_ab.SCHEMA}
    clicked = {"image_id": "n0_0", "annotators": 1, "selected": [True], "estimate_time_ms": [400]}
    record = empty | clicked | {"has_box": False, "click_xy": [[[0.25, 0.5]]], "click_time_ms": [[1]]}
    pq.write_table(pa.Table.from_pylist([record], schema=imagenet_ab.SCHEMA), folder / "index.parquet")
    for column, name in ((1, "browsing"), (2, "tagging")):
        known = dict.fromkeys(line[column] for line in quantities.BOTH_INTERFACES if line[column])
        table = pd.DataFrame([(name, 0.5, "share", 10) for name in known], columns=["statistic", "value", "unit", "n"])
        table.to_csv(folder / f"{name}.csv", index=False)
    size_scores().to_csv(folder / "scores.csv", index=False)
    return folder


def draw(name: str, world: Path, pdf: Path) -> None:
    figures.render_figure(
        name,
        pdf,
        Inputs(
            scores=world / "scores.csv",
            index=world / "index.parquet",
            manifest=world / "manifest.parquet",
            images_root=world,
            tags=world / "tags.parquet",
            statistics=(
                world / "browsing.csv",
                world / "tagging.csv",
            ),
            label="demo world",
        ),
    )


@pytest.mark.parametrize("name", ["coco_samples", "interfaces", "coco_gain_by_size"])
def test_figure_from_files_is_valid_and_repeats_itself(name: str, world: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        draw(name, world, tmp_path / folder / "f.pdf")
    assert (tmp_path / "a" / "f.pdf").read_bytes().startswith(b"%PDF-")
    with Image.open(tmp_path / "a" / "f.png") as image:
        assert image.width >= 800 and len(np.unique(np.asarray(image.convert("L")))) > 20
    for suffix in ("pdf", "png"):
        assert (tmp_path / "a" / f"f.{suffix}").read_bytes() == (tmp_path / "b" / f"f.{suffix}").read_bytes()


def test_samples_need_a_drag_a_trace_and_an_image(world: Path) -> None:
    inputs = Inputs(manifest=world / "manifest.parquet", images_root=world, tags=world / "tags.parquet")
    figure = figures.FIGURES["coco_samples"](find_product("figure", "coco_samples"), inputs)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["train2014, 1", "train2014, 2"]
    assert "among the 2 of 5" in texts(figure)


def test_the_tags_of_the_interfaces_are_the_training_points(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = {}
    monkeypatch.setattr(byproducts, "interfaces", lambda _, samples, label: drawn.update(samples) or Figure())
    draw("interfaces", world, tmp_path / "f.pdf")
    tags = world / "tags.parquet"
    assert drawn["tagging"].points.tolist() == [[point.x, point.y] for point in click(Sources(tags, tags)).points]


def test_missing_inputs_are_told(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="input `tags`"):
        figures.render_figure("coco_samples", tmp_path / "f.pdf", Inputs())
    with pytest.raises(ConfigError, match="found 0"):
        figures.render_figure("interfaces", tmp_path / "f.pdf", Inputs(tags=world / "tags.parquet"))


# ---- both interfaces ------------------------------------------------------------------------------


def numbers() -> pd.DataFrame:
    """Browsing 20 %, tagging 70 %, wherever there is a number."""
    tables = []
    for column, value in ((1, 0.2), (2, 0.7)):
        known = dict.fromkeys(line[column] for line in quantities.BOTH_INTERFACES if line[column])
        rows = [(name, value, "share", 1000) for name in known]
        tables.append(pd.DataFrame(rows, columns=["statistic", "value", "unit", "n"]))
    return summaries.interface_numbers(*tables)


def test_bars_medians_and_points_are_those_given() -> None:
    browsing = InterfaceSample(np.array([100, 200, 300]), np.array([[0.1, 0.1], [0.1, 0.1], [1.2, 0.5]]))
    tagging = InterfaceSample(np.array([9000, 13_709.5, 20_000]), np.array([[0.9, 0.9]]))
    figure = byproducts.interfaces(numbers(), {"browsing": browsing, "tagging": tagging}, "demo world")
    shares, times, left, right = figure.axes[:4]
    widths = [[bar.get_width() for bar in bars] for bars in shares.containers]
    np.testing.assert_allclose(widths[0], [20, 20, 20])  # browsing knows no masks
    np.testing.assert_allclose(widths[1], [70, 70, 70, 70])
    assert "–" in [text.get_text() for text in shares.texts]
    assert [text.get_text() for text in times.texts] == ["median 200 ms", "median 13.7 s"]
    # Two points of one cell of 8 x 8: 64 times the uniform density; the one outside of the image is not drawn.
    drawn = [np.asarray(axes.images[0].get_array()) for axes in (left, right)]
    assert drawn[0][0, 0] == 64 and drawn[0].sum() == 64 and drawn[1][7, 7] == 64
    assert left.images[0].get_clim() == right.images[0].get_clim() == (0, 64)
    assert "n = 2 points" in left.get_title() and "n = 1 points" in right.get_title()
    assert "times: 3, 3" in texts(figure)


def test_an_interface_without_times_or_points_is_refused() -> None:
    good = InterfaceSample(np.array([1.0]), np.array([[0.5, 0.5]]))
    for bad in (InterfaceSample(np.zeros(0), good.points), InterfaceSample(good.times_ms, np.array([[2.0, 0.5]]))):
        with pytest.raises(DataError, match="times and points of tagging"):
            byproducts.interfaces(numbers(), {"browsing": good, "tagging": bad})
