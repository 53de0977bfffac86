"""The table of uses: which controls belong to a use, exact cells, and that only studies with uses have it."""

import pandas as pd
import pytest

from luab.render import tables
from luab.render.products import controls_of, find_product, products_of
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


def test_only_studies_with_another_use_have_the_table(toy_study):
    assert "uses" not in [product.name for product in products_of(toy_study(), "table")]
    study = toy_study(supervisions={"none": {}, "pooled": {"points": "none", "use": "pooling"}})
    assert "uses" in [product.name for product in products_of(study, "table")]
    assert find_product("table", "uses").inputs(study).controls == {"pooled": ("none",)}
