"""Fine-tunings through the whole graph: two backbones, boxes and masks, from the drawn VOC to the report."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from luab.files import file_sha256, read_json

from .conftest import CONFIGS, Checkout

pytestmark = pytest.mark.slow

FILES = (*CONFIGS, "tests/workflow/tiny/transfer.yaml")
TUNED = ("--profile", "profiles/demo", "--configfile", *FILES)
OPTIONS = [word for config in FILES for word in ("--config", config)]
RUNS = [f"test_resnet/{name}/seed0" for name in ("none-0", "click-1")]
FOLDERS = [f"{entry}/{run}" for entry in ("boxes", "masks") for run in RUNS]
PRODUCTS = ("detection", "segmentation")


@pytest.fixture(scope="module")
def tuned(copy_checkout: Callable[[str], Checkout]) -> Checkout:
    """A copy in which the tiny study of fine-tunings has been run once."""
    checkout = copy_checkout("tuned")
    done = checkout.snakemake(*TUNED, timeout_s=1800)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return checkout


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_fine_tuning_is_finished_and_begins_with_its_run(tuned: Checkout) -> None:
    results = tuned.folder / "results"
    assert {
        str(path.parent.relative_to(results / "transfer")) for path in results.glob("transfer/*/*/*/*/run.json")
    } == {*FOLDERS}
    for folder in FOLDERS:
        card = read_json(results / "transfer" / folder / "run.json")
        run = read_json(results / "runs" / "imagenet" / folder.partition("/")[2] / "run.json")
        assert card["backbone_sha256"] == run["model_sha256"]
        assert card["model_sha256"] == file_sha256(results / "transfer" / folder / "model.safetensors")
        predictions = read_json(results / "transfer" / folder / "predictions.json")
        assert predictions["model_sha256"] == card["model_sha256"] and predictions["rows"] == 12
    digests = {read_json(results / "transfer" / folder / "run.json")["model_sha256"] for folder in FOLDERS}
    assert len(digests) == 4


def test_scores_are_collected_and_shown(tuned: Checkout) -> None:
    results = tuned.folder / "results"
    scores = rows_of(results / "transfer.csv")
    own = [row for folder in FOLDERS for row in rows_of(results / "transfer" / folder / "scores.csv")]
    assert sorted(map(str, scores)) == sorted(map(str, own))
    whole = {(row["transfer"], row["metric"]) for row in scores if row["group"] == ""}
    assert {("boxes", "ap"), ("boxes", "voc_ap"), ("masks", "miou")} <= whole
    for name in PRODUCTS:
        assert "demo world" in (results / "tables" / f"{name}.md").read_text(encoding="utf-8")
        assert (results / "figures" / f"{name}_examples.png").stat().st_size > 20_000
    page = (results / "report.html").read_text(encoding="utf-8")
    assert all(f'id="table-{name}"' in page and f'id="figure-{name}_examples"' in page for name in PRODUCTS)


def test_nothing_is_left_to_do_and_a_changed_recipe_repeats_its_own(tuned: Checkout) -> None:
    assert tuned.plan(*TUNED) == {}
    recipe = tuned.folder / "tests/workflow/tiny/recipes/transfer/tiny_detection.yaml"
    before = recipe.read_text(encoding="utf-8")
    recipe.write_text(before.replace("lr: 2.0e-3", "lr: 1.0e-3"), encoding="utf-8")
    try:
        counts = tuned.plan(*TUNED)
    finally:
        recipe.write_text(before, encoding="utf-8")
    assert counts["finetune_boxes_test_resnet_seed0"] == counts["table_detection"] == 1
    assert not [name for name in counts if "masks" in name or name.startswith("train")]


def test_a_number_is_traced_to_the_classification(tuned: Checkout) -> None:
    terms = ("--cell", "boxes,click,ap")
    done = tuned.python("-m", "luab", "trace", "results/tables/detection.csv", *terms, *OPTIONS, COLUMNS="160")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "differs" not in done.stdout and "missing" not in done.stdout
    run = read_json(tuned.folder / "results/runs/imagenet/test_resnet/click-1/seed0/run.json")
    assert done.stdout.count(run["model_sha256"]) >= 2 and "targets click" in done.stdout


def test_status_crate_and_compare_know_fine_tunings(tuned: Checkout) -> None:
    status = tuned.python("-m", "luab", "status", *OPTIONS, COLUMNS="200")
    lines = [line for line in status.stdout.splitlines() if "transfer/" in line]
    assert len(lines) == 4 and all(line.count("done") == 3 for line in lines)
    results = tuned.folder / "results"
    listed = {entity["@id"]: entity for entity in read_json(results / "ro-crate-metadata.json")["@graph"]}
    for folder in FOLDERS:
        model = listed[f"transfer/{folder}/model.safetensors"]
        assert model["sha256"] == file_sha256(results / "transfer" / folder / "model.safetensors")
        assert f"transfer/{folder}/per_image.parquet" in listed
    both = [f"masks/{run}" for run in RUNS]
    done = tuned.python("-m", "luab", "transfer", "compare", *both, "--resamples", "100", *OPTIONS, COLUMNS="120")
    assert done.returncode == 0 and "miou" in done.stdout, done.stdout + done.stderr
