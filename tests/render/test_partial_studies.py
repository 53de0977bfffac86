"""Studies that lack something, or have supervisions of any name: what is present is drawn, the rest is named."""

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from luab.errors import DataError
from luab.render import quantities, style, tables
from luab.render.figures import factors
from luab.render.figures import scores as figures_scores
from luab.render.products import PRODUCTS

COLUMNS = [
    *("dataset", "backbone", "supervision", "lambda", "seed"),
    *("benchmark", "metric", "group", "value", "n", "protocol"),
]
QUANTITIES = {
    "imagenet": [*quantities.MAIN, *quantities.BACKGROUND, *quantities.LOCALIZATION],
    "coco": [*quantities.COCO_MAIN, *quantities.COCO_LOCALIZATION],
    "folder": [*quantities.FOLDER_MAIN, *quantities.FOLDER_TESTS, *quantities.FOLDER_POINTS],
}
DETAILS = [
    *(("imagenet_c", f"{name}/{s}") for name in ("fog", "snow") for s in (1, 2)),
    *(("siscore_size", "0.1"), ("siscore_rotation", "1")),
    *(("siscore_location", f"{x},0.5") for x in (0.25, 0.75)),
]
FIGURES: dict[str, Callable[..., Figure]] = {
    "lambda_sweep": figures_scores.lambda_sweep,
    "robustness_gain": figures_scores.robustness_gain,
    "background_gap": figures_scores.background_gap,
    "corruption_severity": factors.corruption_severity,
    "si_score_factors": factors.si_score_factors,
    "coco_gain_by_size": figures_scores.coco_gain_by_size,
}
DATASETS = {product.name: product.dataset for product in PRODUCTS if product.from_scores}
SWEEP = {"table lambda_sweep", "figure lambda_sweep"}
COMPARED = {"figure robustness_gain", "figure coco_gain_by_size"}
TABLES = [product.name for product in PRODUCTS if product.kind == "table" and product.from_scores]
ALL = {f"table {name}" for name in TABLES} | {f"figure {name}" for name in FIGURES}


def scores_of(dataset: str, supervisions: list[str], seeds: int = 2, swept: tuple[float, ...] = ()) -> pd.DataFrame:
    """Scores of everything that tables and figures show; the last supervision is trained at `swept` too."""
    rng = np.random.default_rng(3)
    rows = []
    methods = [(name, float(name != "none")) for name in supervisions] + [(supervisions[-1], w) for w in swept]
    keys = [quantity.key for quantity in dict.fromkeys(QUANTITIES[dataset])]
    keys += [(name, "accuracy", group) for name, group in DETAILS] if dataset == "imagenet" else []
    for (supervision, weight), seed, key in itertools.product(methods, range(seeds), keys):
        point = any(quantity.key == key and quantity.needs_point for quantity in QUANTITIES[dataset])
        if not (point and supervision == "none"):
            rows.append((dataset, "resnet18", supervision, weight, seed, *key, rng.uniform(0.2, 0.8), 100, "by hand"))
    return pd.DataFrame(rows, columns=COLUMNS)


def drawn(scores: Callable[[str], pd.DataFrame]) -> set[str]:
    """Names of the products that are drawn; every other one is refused by its name."""
    names = set()
    for kind, products in (("table", TABLES), ("figure", list(FIGURES))):
        for name in products:
            chosen = scores(DATASETS[name])
            try:
                table = tables.score_table(name, chosen) if kind == "table" else FIGURES[name](chosen, 1.0)
                assert table is not None
                names.add(f"{kind} {name}")
            except DataError as error:
                assert str(error).startswith(f"{name}: "), error
    return names


@pytest.mark.parametrize(
    ("supervisions", "seeds", "swept", "left_out"),
    [
        (["none", "random", "click"], 2, (0.1,), set()),
        (["none", "click_j10"], 2, (0.1, 10.0), set()),
        (["none", "click"], 1, (0.1,), set()),
        (["none", "random", "trace"], 2, (), SWEEP),
        (["none"], 2, (), SWEEP | COMPARED),
    ],
)
def test_any_supervisions_are_drawn(
    supervisions: list[str], seeds: int, swept: tuple[float, ...], left_out: set[str]
) -> None:
    assert drawn(lambda dataset: scores_of(dataset, supervisions, seeds, swept)) == ALL - left_out


@pytest.mark.parametrize(
    ("benchmarks", "present"),
    [
        ({"imagenet_val"}, {"table imagenet_main", "figure robustness_gain"}),
        ({"siscore_location"}, {"table background_robustness", "figure robustness_gain", "figure si_score_factors"}),
        ({"siscore_size"}, {"table background_robustness", "figure robustness_gain", "figure si_score_factors"}),
        ({"in9"}, {"table background_robustness", "figure robustness_gain", "figure background_gap"}),
        ({"imagenet_c"}, {"table imagenet_main", "figure robustness_gain", "figure corruption_severity"}),
        ({"wsol_test"}, {"table localization", "figure robustness_gain"}),
        ({"coco_size"}, {"table coco_main", "figure coco_gain_by_size"}),
        ({"coco_context"}, {"table coco_main"}),
        ({"coco_localization"}, {"table coco_localization"}),
        (set(), set()),
    ],
)
def test_a_study_with_one_benchmark_draws_what_shows_it(benchmarks: set[str], present: set[str]) -> None:
    def scores(dataset: str) -> pd.DataFrame:
        every = scores_of(dataset, ["none", "click_j10"])
        return every[every["benchmark"].isin(benchmarks)]

    assert drawn(scores) == present


def test_an_unknown_supervision_is_called_by_its_name() -> None:
    scores = scores_of("imagenet", ["none", "random", "click_j10"], swept=(0.1,))
    for name in ("robustness_gain", "background_gap", "corruption_severity", "si_score_factors", "lambda_sweep"):
        texts = [text.get_text() for text in FIGURES[name](scores, 1.0).findobj(Text)]
        assert "click_j10" in texts and "Random points" in texts, name
    assert "click_j10" in list(tables.score_table("imagenet_main", scores).cells["Supervision"])
    titles = [axes.get_title() for axes in FIGURES["si_score_factors"](scores, 1.0).axes]
    assert "Place: click_j10 − baseline" in titles


def test_titles_of_the_config_are_shown() -> None:
    scores = scores_of("imagenet", ["none", "random", "click_j10"], swept=(0.1,))
    scores["title"] = scores["supervision"].map({"none": "Baseline", "random": "Chance", "click_j10": "Clicks ± 10 %"})
    for name in ("robustness_gain", "background_gap", "corruption_severity", "si_score_factors", "lambda_sweep"):
        texts = [text.get_text() for text in FIGURES[name](scores, 1.0).findobj(Text)]
        assert {"Clicks ± 10 %", "Chance"} <= set(texts), name
    assert {"Clicks ± 10 %", "Chance"} <= set(tables.score_table("imagenet_main", scores).cells["Supervision"])


def test_the_baseline_comes_first_and_every_supervision_has_its_own_colour() -> None:
    looks = style.looks(["trace", "click_j10", "none", "click", "7"])
    assert list(looks) == ["none", "trace", "click_j10", "click", "7"]
    assert [look.title for look in looks.values()] == ["Baseline", "LUAB (traces)", "click_j10", "LUAB (clicks)", "7"]
    assert len({look.colour for look in looks.values()}) == len({look.marker for look in looks.values()}) == 5
    assert looks["click"].colour == style.COLOURS["click"]
    assert len(style.looks(f"s{k}" for k in range(30))) == 30  # more than the palette has
