"""The table of uses: which controls belong to a use, exact cells, and that only studies with uses have it."""

import pandas as pd
import pytest

from luab.render import tables
from luab.render.products import controls_of, find_product, products_of
from luab.study.config import parse_study
from luab.study.supervisions import Supervision, entries

ENTRIES = {
    "none": {},
    "click": {},
    "random": {},
    "click_map": {"points": "click", "use": "attribution"},
    "random_map": {"points": "random", "use": "attribution"},
    "shuffled_map": {"points": "shuffled", "use": "attribution"},
    "energy": {"points": "click", "use": "attribution", "loss": "energy"},
    "pooled": {"points": "none", "use": "pooling"},
    "click_pool": {"points": "click", "use": "pooling"},
    "louder_map": {"points": "click", "use": "attribution", "scale": 3.0},
    "louder_pool": {"points": "click", "use": "pooling", "scale": 3.0},
    "latent_pool": {"points": "click", "use": "pooling", "pool": "latent"},
}
COLUMNS = ["dataset", "backbone", "supervision", "lambda", "seed", "benchmark", "metric", "group", "value", "n"]


def test_controls_have_the_same_use_and_settings():
    supervisions = {name: Supervision.model_validate(entry) for name, entry in entries(ENTRIES).items()}
    assert controls_of(supervisions) == {
        "click": ("none", "random"),
        "click_map": ("none", "random_map", "shuffled_map"),
        "energy": ("none",),
        "pooled": ("none",),
        "click_pool": ("none", "pooled"),
        "louder_map": ("none",),
        "louder_pool": ("none", "pooled"),
        "latent_pool": ("none",),
    }


def test_cells_worked_by_hand():
    # Click gains .02 .03 .04 over the baseline, mean .03; over the control .01 .04 .04, mean .03.
    values = {"none": [0.70, 0.71, 0.72], "random_map": [0.71, 0.70, 0.72], "click_map": [0.72, 0.74, 0.76]}
    rows = [
        ("imagenet", "resnet18", name, 0.0 if name == "none" else 1.0, seed, "imagenet_val", "top1", "", value, 1000)
        for name, series in values.items()
        for seed, value in enumerate(series)
    ]
    scores = pd.DataFrame(rows, columns=COLUMNS).assign(protocol="by hand")
    table = tables.uses_table(scores, {"click_map": ("none", "random_map")})
    # t(2, .975) = 4.303; standard deviations .01 and .0173; the p of t = 3 with 2 degrees of freedom is .095.
    assert list(table.cells["IN-1k ↑"]) == ["+3.0 [+0.5, +5.5], p = 0.035", "+3.0 [−1.3, +7.3], p = 0.095"]
    assert list(table.cells["Compared with"]) == ["Baseline", "random_map"]
    assert table.raw["control"].tolist() == ["none", "random_map"]
    assert table.raw["p_holm"].tolist() == pytest.approx([0.0351, 0.0955], abs=1e-3)


def test_the_note_has_the_alignment_of_people():
    place = ("imagenet", "resnet18")
    rows = [
        (*place, name, weight, seed, "trace_alignment", "alignment", "", value, 9)
        for name, weight, value in (("none", 0.0, 0.2), ("click_map", 1.0, 0.3))
        for seed in (0, 1)
    ]
    rows += [
        (*place, name, weight, 0, "trace_alignment", metric, "alignment", value, 9)
        for name, weight in (("none", 0.0), ("click_map", 1.0))
        for metric, value in (("chance", 0.0), ("image centre", 0.25), ("another person", 0.5))
    ]
    scores = pd.DataFrame(rows, columns=COLUMNS).assign(protocol="by hand")
    table = tables.uses_table(scores, {"click_map": ("none",)})
    assert list(table.cells["Trace alignment ↑"]) == ["+10.0 (n = 2)"]
    assert (
        table.notes[-1] == "Trace alignment without a model, in %: chance 0.0, image centre 25.0, another person 50.0."
    )
    # Being worse than the centre is marked; being worse than another person is not.
    maps = tables.score_table("localization", scores.replace({"value": {0.3: 0.9, 0.5: 0.95}}))
    cells = dict(zip(maps.cells["Supervision"], maps.cells["Trace alignment ↑"], strict=True))
    assert "°" in cells["Baseline"] and "°" not in cells["click_map"] and cells["Another person"] == "95.0"
    assert tables.PERSON_NOTE in maps.notes


def test_only_studies_with_another_use_have_the_table(toy_study):
    assert "uses" not in [product.name for product in products_of(toy_study(), "table")]
    study = toy_study(supervisions={"none": {}, "pooled": {"points": "none", "use": "pooling"}})
    assert "uses" in [product.name for product in products_of(study, "table")]
    assert find_product("table", "uses").inputs(study).controls == {"pooled": ("none",)}


def test_maps_of_uses_have_one_entry_for_each_use_and_its_settings(toy_study):
    assert find_product("figure", "uses_maps").needs(toy_study()) is None
    content = toy_study(supervisions=ENTRIES).model_dump(mode="json")
    assert find_product("figure", "uses_maps").needs(parse_study(content)) is None  # no benchmark with score maps
    content["suites"][0]["benchmarks"] += ["wsol_test"]
    inputs = find_product("figure", "uses_maps").inputs(parse_study(content))
    names = [name for name, _ in inputs.predictions]
    assert names == ["none", "click", "click_map", "energy", "pooled", "click_pool", "latent_pool"]
    assert inputs.traces is None and {path.name for _, path in inputs.predictions} == {"wsol_test.parquet"}
    content["suites"][0]["benchmarks"] += ["trace_alignment"]
    inputs = find_product("figure", "uses_maps").inputs(parse_study({**content, "held_out_byproducts": 0.1}))
    assert {path.name for _, path in inputs.predictions} == {"imagenet_held_out.parquet"}
    assert inputs.traces.name == "held_out_traces.parquet" and inputs.images_of == "imagenet_held_out"
    assert {path.name for path in inputs.waits_for} == {"all.json", "held_out_traces.json", "imagenet_held_out.json"}
