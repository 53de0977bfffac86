"""Figures: what is drawn equals what was given; files are valid, labelled and the same on every repeat."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from luab.byproducts.imagenet_ab import SCHEMA
from luab.errors import ConfigError, DataError
from luab.render import quantities, style, summaries
from luab.render.figures import annotated_images, byproducts, factors, figures
from luab.render.figures import scores as figures_scores
from luab.render.figures.localization import cam_view
from luab.render.products import PRODUCTS, Inputs, find_product

RNG = np.random.default_rng(0)
SUPERVISED = [("none", 0.0), ("random", 1.0), ("click", 1.0)]
COLUMNS = [
    *("dataset", "backbone", "supervision", "lambda", "seed"),
    *("benchmark", "metric", "group", "value", "n", "protocol"),
]
FROM_SCORES = [
    product.name
    for product in PRODUCTS
    if product.kind == "figure" and product.from_scores and product.dataset == "imagenet"
]


def details() -> list[tuple[str, str, str]]:
    """Benchmark, metric and group of every detail that a figure reads."""
    corruptions = [f"{name}/{s}" for name in ("gaussian_noise", "fog", "speckle_noise") for s in range(1, 6)]
    places = [f"{x},{y}" for x in (0.25, 0.75) for y in (0.2, 0.5, 0.8)]
    return [
        *(("imagenet_c", "accuracy", group) for group in corruptions),
        *(("siscore_size", "accuracy", group) for group in ("0.1", "0.5", "1.0")),
        *(("siscore_rotation", "accuracy", group) for group in ("1", "181", "341")),
        *(("siscore_location", "accuracy", group) for group in places),
    ]


def make_scores(seeds: int = 3, backbones: tuple[str, ...] = ("test_resnet", "test_vit")) -> pd.DataFrame:
    """Every number that some figure draws, at random; test_resnet is swept over lambda."""
    own = [quantity.key for quantity in {*quantities.MAIN, *quantities.BACKGROUND, *quantities.LOCALIZATION[:2]}]
    rng = np.random.default_rng(7)
    rows = []
    for backbone in backbones:
        swept = [("click", 0.1), ("click", 10.0)] if backbone == backbones[0] else []
        for supervision, weight in SUPERVISED + swept:
            for seed in range(seeds):
                run = ("imagenet", backbone, supervision, weight, seed)
                for key in sorted(own) + details():
                    rows.append((*run, *key, float(rng.uniform(0.2, 0.8)), 500, f"protocol of {key[0]}"))
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    return make_scores()


@pytest.fixture(scope="module")
def scores_csv(scores: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scores") / "scores.csv"
    scores.to_csv(path, index=False)
    return path


def texts(figure: Figure) -> list[str]:
    return [text.get_text().replace("\u00a0", " ") for text in figure.findobj(Text)]


def artist(axes: Any, gid: str) -> Any:
    (found,) = [line for line in axes.get_lines() if line.get_gid() == gid]
    return found


def check_files(pdf: Path, min_width_px: int = 300) -> None:
    assert pdf.read_bytes().startswith(b"%PDF-") and pdf.read_bytes().rstrip().endswith(b"%%EOF")
    assert b"/CreationDate" not in pdf.read_bytes()
    with Image.open(pdf.with_suffix(".png")) as image:
        image.load()
        assert image.width >= min_width_px
        assert len(np.unique(np.asarray(image.convert("L")))) > 20  # something is drawn
        assert not {"Software", "Creation Time"} & set(image.info)


def mean_of(scores: pd.DataFrame, backbone: str, supervision: str, quantity: quantities.Quantity) -> pd.Series:
    here = summaries.only(scores, [quantity])
    here = here[(here["backbone"] == backbone) & (here["supervision"] == supervision)]
    return here.groupby("lambda")["value"].mean()


def test_registry_and_figures_name_the_same() -> None:
    assert list(figures.FIGURES) == [product.name for product in PRODUCTS if product.kind == "figure"]


@pytest.mark.parametrize("kind", ["table", "figure"])
def test_every_caption_is_written_and_opens_with_the_label(kind: str, repository: Path) -> None:
    names = [product.name for product in PRODUCTS if product.kind == kind]
    for name in names:
        caption = jinja2.Template(
            (repository / "workflow" / "report" / f"{kind}_{name}.rst").read_text(encoding="utf-8")
        )
        text = caption.render(snakemake={"params": {"label": "demo world"}}).strip()
        assert text.startswith("**demo world**: ") and len(text) > 150, name
    assert len(names) > 5


@pytest.mark.parametrize("name", FROM_SCORES)
def test_figure_of_scores_is_valid_and_repeats_itself(name: str, scores_csv: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        figures.render_figure(name, tmp_path / folder / "f.pdf", Inputs(scores=scores_csv, label="demo world"))
    check_files(tmp_path / "a" / "f.pdf")
    for suffix in ("pdf", "png"):
        assert (tmp_path / "a" / f"f.{suffix}").read_bytes() == (tmp_path / "b" / f"f.{suffix}").read_bytes()


def test_bytes_do_not_depend_on_the_process(scores_csv: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from luab.render.figures.figures import render_figure;"
        "from luab.render.products import Inputs;"
        "render_figure('background_gap', sys.argv[2], Inputs(scores=Path(sys.argv[1]), label='demo world'))"
    )
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", code, str(scores_csv), str(tmp_path / f"{hash_seed}.pdf")]
        subprocess.run(command, check=True, env=environment)
    assert (tmp_path / "1.pdf").read_bytes() == (tmp_path / "2.pdf").read_bytes()


@pytest.mark.parametrize(
    "draw",
    [
        figures_scores.lambda_sweep,
        figures_scores.robustness_gain,
        figures_scores.background_gap,
        factors.corruption_severity,
        factors.si_score_factors,
    ],
)
def test_label_and_seeds_stand_in_the_figure(draw: Any, scores: pd.DataFrame) -> None:
    shown = texts(draw(scores, 1.0, "demo world"))
    assert "demo world" in shown
    assert any("3 seeds" in text for text in shown)
    assert "demo world" not in texts(draw(scores, 1.0))


@pytest.mark.parametrize("name", FROM_SCORES)
def test_one_seed_is_drawn_and_said(name: str, tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    make_scores(seeds=1).to_csv(path, index=False)
    figures.render_figure(name, tmp_path / "f.pdf", Inputs(scores=path))
    check_files(tmp_path / "f.pdf")


def test_one_seed_says_n() -> None:
    one = make_scores(seeds=1)
    for draw in (
        figures_scores.lambda_sweep,
        figures_scores.robustness_gain,
        factors.si_score_factors,
    ):
        assert any("n = 1" in text for text in texts(draw(one, 1.0)))


def test_nothing_is_drawn_outside_the_page(scores: pd.DataFrame) -> None:
    for draw in (
        figures_scores.robustness_gain,
        figures_scores.lambda_sweep,
        factors.si_score_factors,
    ):
        figure = draw(scores, 1.0, "demo world")
        figure.draw_without_rendering()
        page = figure.bbox
        for text in figure.findobj(Text):
            if text.get_text() and text.get_visible() and text.get_gid() in ("note", "label"):
                box = text.get_window_extent()
                assert box.x0 >= page.x0 - 1 and box.x1 <= page.x1 + 1 and box.y0 >= page.y0 - 1


def test_lambda_sweep_draws_the_means(scores: pd.DataFrame) -> None:
    figure = figures_scores.lambda_sweep(scores, 1.0)
    assert len(figure.axes) == len(quantities.SWEPT)  # test_vit is not swept
    for axes, quantity in zip(figure.axes, quantities.SWEPT, strict=True):
        assert axes.get_title() == quantity.heading
        expected = mean_of(scores, "test_resnet", "click", quantity)
        line = artist(axes, "click")
        assert list(line.get_xdata()) == [0.1, 1.0, 10.0] == list(expected.index)
        np.testing.assert_allclose(line.get_ydata(), 100 * expected)
        baseline = mean_of(scores, "test_resnet", "none", quantity).iloc[0]
        np.testing.assert_allclose(artist(axes, "none").get_ydata(), 100 * baseline)


def test_two_lambdas_are_no_line(scores: pd.DataFrame) -> None:
    two = scores[~((scores["supervision"] == "click") & (scores["lambda"] == 0.1))]
    for axes in figures_scores.lambda_sweep(two, 1.0).axes:
        (points,) = (bars for bars in axes.containers if bars.get_label() == "LUAB (clicks)")
        assert points.lines[0].get_linestyle() == "None" and list(points.lines[0].get_xdata()) == [1.0, 10.0]


def test_bands_and_bars_stay_in_the_possible_range() -> None:
    mean, std = np.array([1.0, 50.0, 99.0]), np.array([5.0, 5.0, 5.0])
    low, high = style.spread(mean, std, quantities.VAL.possible)
    assert low.tolist() == [0, 45, 94] and high.tolist() == [6, 55, 100]
    assert style.arms(mean, std, quantities.VAL.possible).tolist() == [[1, 5, 5], [5, 5, 1]]
    assert quantities.MCE.possible == (0, float("inf")) and quantities.BG_GAP.possible == (-100, 100)


def test_panels_have_equal_scales(scores: pd.DataFrame) -> None:
    for draw in (figures_scores.robustness_gain, factors.corruption_severity):
        figure = draw(scores, 1.0)
        limits = {(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes if axes.axison}
        assert len(limits) == 1, draw
    accuracy = [axes for axes in factors.si_score_factors(scores, 1.0).axes if axes.lines]
    assert len(accuracy) == 4 and len({axes.get_ylim() for axes in accuracy}) == 1


def test_bins_fit_n() -> None:
    assert [style.bins_for(n, 60) for n in (1, 12, 1000, 1_274_843)] == [5, 5, 20, 60]  # 2 n^(1/3)


def test_robustness_gain_draws_differences_with_better_to_the_right(scores: pd.DataFrame) -> None:
    figure = figures_scores.robustness_gain(scores, 1.0)
    for axes, backbone in zip(figure.axes, ("test_resnet", "test_vit"), strict=True):
        for supervision in ("random", "click"):
            drawn = artist(axes, supervision).get_xdata()
            for gain, quantity in zip(drawn, quantities.GAINS, strict=True):
                at_one = mean_of(scores, backbone, supervision, quantity)[1.0]
                difference = 100 * (at_one - mean_of(scores, backbone, "none", quantity)[0.0])
                assert gain == pytest.approx(-difference if quantity.lower else difference), quantity
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert "C (mCE) ↓" in names and "BG-gap ↓" in names and "IN-1k" in names


def test_corruption_lines_are_means_over_the_fifteen_only(scores: pd.DataFrame) -> None:
    figure = factors.corruption_severity(scores, 1.0)
    assert figure.axes[0].get_title() == "All (2)"  # speckle noise is no part of the benchmark
    here = scores[(scores["backbone"] == "test_resnet") & (scores["supervision"] == "none")]
    group = here["group"].isin(["gaussian_noise/4", "fog/4"])
    expected = 100 * here[group & (here["metric"] == "accuracy")]["value"].mean()
    (bars,) = [c for c in figure.axes[0].containers if c.get_label() == "Baseline"]
    assert bars.lines[0].get_ydata()[3] == pytest.approx(expected)


def test_location_difference_keeps_x_right_and_y_down() -> None:
    rows = [(s, f"{x},{y}", v) for s, v in (("none", 0.5), ("click", 0.5)) for x in (0.1, 0.9) for y in (0.2, 0.8)]
    table = pd.DataFrame(rows, columns=["supervision", "group", "value"])
    table.loc[(table["supervision"] == "click") & (table["group"] == "0.9,0.2"), "value"] = 0.75
    np.testing.assert_allclose(factors.location_difference(table).to_numpy(), [[0, 25], [0, 0]])


def test_missing_details_are_refused(scores: pd.DataFrame) -> None:
    without = scores[scores["group"] == ""]
    with pytest.raises(DataError, match="details of imagenet_c"):
        factors.corruption_severity(without, 1.0)
    with pytest.raises(DataError, match="details of SI-Score"):
        factors.si_score_factors(without, 1.0)


def test_unknown_figure_and_missing_input_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no figure 'lamda'\. The choices are background_gap"):
        figures.render_figure("lamda", tmp_path / "f.pdf", Inputs())
    with pytest.raises(ConfigError, match="input `scores`"):
        figures.render_figure("lambda_sweep", tmp_path / "f.pdf", Inputs())
    assert not list(tmp_path.iterdir())


# ---- byproducts and score maps --------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images with manifest, byproduct index and predictions of two models."""
    folder = tmp_path_factory.mktemp("world")
    ids = [f"n0000000{i}_{i}" for i in range(6)]
    for i, name in enumerate(ids):
        pixels = RNG.integers(0, 255, (40, 50 + 4 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    manifest = {"image_id": ids, "path": [f"{name}.png" for name in ids]}
    pq.write_table(pa.table(manifest), folder / "manifest.parquet")
    index = pa.Table.from_pylist([record(name) for name in ids], schema=SCHEMA)
    pq.write_table(index, folder / "index.parquet", row_group_size=2)
    for model, has_point in (("none", False), ("click", True)):
        table = pa.Table.from_pylist([prediction(name, has_point) for name in ids])
        pq.write_table(table, folder / f"{model}.parquet")
    return folder


def record(image_id: str) -> dict[str, Any]:
    """One annotated image as the index holds it; what no figure reads is empty."""
    empty: dict[str, Any] = {field.name: [None] if pa.types.is_list(field.type) else None for field in SCHEMA}
    trace = [[0.1 * k, 1.0 - 0.1 * k] for k in range(6)]
    return empty | {
        "image_id": image_id,
        "wnid": image_id.split("_")[0],
        "annotators": 1,
        "has_box": True,
        "boxes": [[5, 5, 30, 30]],
        "width": 50,
        "height": 40,
        "worker_id": ["W"],
        "selected": [True],
        "estimate_time_ms": [400],
        "click_xy": [[[0.5, 0.5]]],
        "click_time_ms": [[1500]],
        "trace_xy": [trace],
        "trace_time_ms": [[1000 + 100 * k for k in range(6)]],
        "hover_action": [[]],
        "hover_time_ms": [[]],
    }


def prediction(image_id: str, has_point: bool) -> dict[str, Any]:
    cam = np.zeros((7, 7), np.float32)
    cam[2:5, 2:5] = 1.0
    return {
        "image_id": image_id,
        "cam": cam.ravel().tolist(),
        "cam_h": 7,
        "cam_w": 7,
        "width": 50,
        "height": 40,
        "boxes": [[12, 10, 36, 30]],
        "point_x": 0.5 if has_point else None,
        "point_y": 0.4 if has_point else None,
    }


@pytest.mark.parametrize("name", ["byproduct_samples", "click_density", "hover_time", "worker_spread", "cam_examples"])
def test_figure_of_images_and_index_is_valid_and_repeats_itself(name: str, world: Path, tmp_path: Path) -> None:
    runs = [world / "none.parquet", world / "click.parquet"]
    for folder in ("a", "b"):
        figures.render_figure(
            name,
            tmp_path / folder / "f.pdf",
            Inputs(
                index=world / "index.parquet",
                manifest=world / "manifest.parquet",
                images_root=world,
                predictions=(("none", runs[0]), ("click", runs[1])),
                label="demo world",
            ),
        )
    check_files(tmp_path / "a" / "f.pdf")
    for suffix in ("pdf", "png"):
        assert (tmp_path / "a" / f"f.{suffix}").read_bytes() == (tmp_path / "b" / f"f.{suffix}").read_bytes()


def test_maps_of_several_uses_stand_below_the_image_with_its_trace(world: Path, tmp_path: Path) -> None:
    names = [f"n0000000{i}_{i}" for i in range(5)]  # the sixth image has no trace
    moments = [[[0.1 * k, 0.5] * 32] for k in range(5)]
    schema = pa.schema([("image_id", pa.string()), ("moments", pa.list_(pa.list_(pa.float32(), 64)))])
    pq.write_table(pa.table({"image_id": names, "moments": moments}, schema=schema), tmp_path / "traces.parquet")
    product = find_product("figure", "uses_maps")
    inputs = Inputs(
        manifest=world / "manifest.parquet",
        images_root=world,
        traces=tmp_path / "traces.parquet",
        predictions=tuple(
            (name, world / f"{'none' if name == 'none' else 'click'}.parquet") for name in ["none", "a", "b"]
        ),
    )
    figure = figures.FIGURES["uses_maps"](product, inputs)
    axes = figure.get_axes()
    assert len(axes) == 5 * 4 and sum(len(heats(one)) for one in axes) == 5 * 3
    dots = [line for one in axes for line in one.lines if line.get_gid() == "trace"]
    assert len(dots) == 5 and dots[2].get_xdata() == pytest.approx([0.2] * 32)
    figures.render_figure("uses_maps", tmp_path / "f.pdf", inputs)
    check_files(tmp_path / "f.pdf")


def heats(axes: Any) -> list[Any]:
    return [image for image in axes.get_images() if image.get_gid() == "heat"]


def test_rows_of_some_images_come_from_all_pieces_by_image_id(world: Path) -> None:
    wanted = ["n00000005_5", "n00000000_0", "n00000003_3", "n00000009_9"]
    rows = figures.rows_of(world / "index.parquet", ["image_id", "trace_xy"], wanted)
    assert [row["image_id"] for row in rows] == ["n00000000_0", "n00000003_3", "n00000005_5"]
    assert rows[2]["trace_xy"] == record("n00000005_5")["trace_xy"]


def test_missing_image_is_named(world: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"n00000000_0\.png"):
        figures.render_figure(
            "byproduct_samples",
            tmp_path / "f.pdf",
            Inputs(index=world / "index.parquet", manifest=world / "manifest.parquet", images_root=tmp_path),
        )


def test_cam_examples_needs_two_runs(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="predictions of two runs"):
        figures.render_figure(
            "cam_examples", tmp_path / "f.pdf", Inputs(predictions=(("none", world / "none.parquet"),))
        )


def test_cam_view_boxes_the_bright_patch() -> None:
    cam = np.zeros((8, 8), np.float32)
    cam[2:4, 4:8] = 1.0  # rows 2 and 3, right half
    view = cam_view(cam, 0.5, (0.75, 0.375))
    assert view.heat.min() == 0 and view.heat.max() == 1
    np.testing.assert_allclose(view.box, (0.5, 0.25, 1.0, 0.5), atol=0.02)


def test_samples_put_click_and_trace_on_the_image() -> None:
    sample = annotated_images.BrowsedImage(
        title="n01440764_10027",
        image=np.zeros((100, 200, 3), np.uint8),
        trace_xy=np.array([[0.0, 1.0], [0.25, 0.5], [0.5, 0.25]]),
        trace_ms=np.array([1000.0, 1100.0, 1500.0]),
        click_xy=np.array([[0.5, 0.25]]),
        boxes=np.zeros((0, 4)),
    )
    figure = annotated_images.byproduct_samples([sample], "demo world")
    axes = figure.axes[0]
    np.testing.assert_allclose(artist(axes, "click").get_xydata(), [[100, 25]])
    (trace,) = [c for c in axes.collections if c.get_gid() == "trace"]
    np.testing.assert_allclose(trace.get_segments()[1], [[50, 50], [100, 25]])
    np.testing.assert_allclose(trace.get_array(), [0.1, 0.5])
    assert "demo world" in texts(figure) and any("n = 1 images" in text for text in texts(figure))


def test_click_density_counts_what_it_leaves_out() -> None:
    clicks = np.array([[0.25, 0.5], [0.75, 0.5], [1.2, 0.5]])
    figure = byproducts.click_density(clicks)
    np.testing.assert_allclose(artist(figure.axes[0], "mean").get_xydata(), [[0.5, 0.5]])
    assert any("n = 2 clicks (1 outside" in text.replace("\n", " ") for text in texts(figure))
    with pytest.raises(DataError, match="contains no clicks"):
        byproducts.click_density(np.zeros((0, 2)))


def test_hover_time_marks_the_median_and_tells_zeros() -> None:
    figure = byproducts.hover_time(np.array([0, 0, 100, 300, 9000]))
    assert list(artist(figure.axes[0], "median").get_xdata()) == [300, 300]
    note = " ".join(texts(figure)).replace("\n", " ")
    assert "exactly zero: 40.0 %" in note and "above 3 s: 20.0 %" in note
    with pytest.raises(DataError, match="above zero"):
        byproducts.hover_time(np.array([0, 0]))


def test_worker_spread_marks_the_medians_and_tells_the_busiest() -> None:
    figure = byproducts.worker_spread(np.array([1, 2, 97]), np.array([400.0, 800.0, 6000.0]))
    assert list(artist(figure.axes[0], "images").get_xdata()) == [2, 2]
    assert list(artist(figure.axes[1], "time").get_xdata()) == [800, 800]
    note = " ".join(texts(figure)).replace("\n", " ").replace("\u00a0", " ")
    assert "n = 3 workers, 100 selected images" in note and "97.0 % of the images" in note
    with pytest.raises(DataError, match="no workers with a selected image"):
        byproducts.worker_spread(np.zeros(0), np.zeros(0))


def test_percent_has_a_true_minus_and_one_decimal() -> None:
    assert style.percent(0.7123) == "71.2"
    assert style.percent(-0.0123, signed=True) == "−1.2"
    assert style.percent(0.0123, signed=True) == "+1.2"
