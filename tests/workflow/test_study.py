"""The whole graph on a tiny study: what it makes, and what it makes again after each kind of change."""

import contextlib
import csv
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from luab.files import file_sha256, read_json
from luab.render.headline import BEGIN, END
from luab.render.products import PRODUCTS as ALL_PRODUCTS

from ..conftest import Browser
from .conftest import CONFIGS, TINY, Checkout

pytestmark = pytest.mark.slow

RUN = "imagenet/test_resnet/click-0.1/seed1"  # shown in no figure of examples
# The study has no images of its own, and no use of byproducts but regression.
PRODUCTS = [product for product in ALL_PRODUCTS if product.dataset != "folder" and not product.optional]
TABLES = [product.name for product in PRODUCTS if product.kind == "table"]
FIGURES = [product.name for product in PRODUCTS if product.kind == "figure"]
FROM_SCORES = {f"{product.kind}_{product.name}" for product in PRODUCTS if product.from_scores}
RENDERED = (
    {f"table_{name}" for name in TABLES} | {f"figure_{name}" for name in FIGURES} | {"report", "track", "describe"}
)


@contextlib.contextmanager
def changed(path: Path, change: Callable[[str], str]) -> Iterator[None]:
    """The file with another content; content and times come back."""
    kept = path.with_name(path.name + ".kept")
    shutil.copy2(path, kept)
    before = path.read_text(encoding="utf-8")
    path.write_text(change(before), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != before
    try:
        yield
    finally:
        kept.replace(path)


def test_every_table_and_figure_is_there(tiny: Checkout) -> None:
    results = tiny.folder / "results"
    assert {path.name for path in (results / "tables").iterdir()} == {
        f"{name}.{suffix}" for name in TABLES for suffix in ("csv", "md", "tex")
    }
    assert {path.name for path in (results / "figures").iterdir()} == {
        f"{name}.{suffix}" for name in FIGURES for suffix in ("pdf", "png")
    }
    assert len(list(results.glob("runs/imagenet/*/*/seed*/run.json"))) == 8
    assert all(path.stat().st_size > 5000 for path in (results / "figures").glob("*.png"))


def words_of(pdf: Path) -> str:
    """What a figure says: matplotlib writes two bytes for a character, in strings with kerning between."""
    shown = b""
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf.read_bytes(), re.DOTALL):
        with contextlib.suppress(zlib.error):
            # Not zlib.decompress: a checksum that ends in a carriage return loses it to the pattern above.
            drawn = zlib.decompressobj().decompress(stream)
            shown += b"".join(re.findall(rb"\(((?:\\.|[^\\)])*)\)", drawn, re.DOTALL))
    return shown.replace(b"\0", b"").decode("latin1")


def test_tables_and_figures_say_that_it_is_the_demo_world(tiny: Checkout) -> None:
    for name in TABLES:
        assert "demo world" in (tiny.folder / f"results/tables/{name}.md").read_text(encoding="utf-8")
        assert "demo world" in (tiny.folder / f"results/tables/{name}.tex").read_text(encoding="utf-8")
    for name in FIGURES:
        assert "demo world" in words_of(tiny.folder / f"results/figures/{name}.pdf"), name


def test_the_report_holds_the_study_and_asks_for_nothing_else(tiny: Checkout, browser: Browser) -> None:
    page = tiny.folder / "results" / "report.html"
    assert 500_000 < page.stat().st_size < 15_000_000
    for width in (375, 1600):
        driver = browser.open(page, width)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.complaints() == [] and browser.requested() == {page.as_uri()}
    shown = {element.get_attribute("id") for element in driver.find_elements("css selector", "article, figure[id]")}
    assert shown == {f"table-{name}" for name in TABLES} | {f"figure-{name}" for name in FIGURES}
    cards = len(list((tiny.folder / "results").glob("runs/*/*/*/seed*/run.json")))
    assert len(driver.find_elements("css selector", "#runs-table tbody tr")) == cards > 8
    assert len(driver.find_elements("css selector", "#browser-class option")) > 20
    assert len(driver.find_elements("css selector", "#headline table")) == 2  # ImageNet and COCO, one backbone each
    assert len(driver.find_elements("css selector", "#headline tbody tr")) > 20


OF_TINY = ("-c", CONFIGS[0], "-c", CONFIGS[1])


def test_sanity_gives_the_study_s_own_numbers(tiny: Checkout) -> None:
    """The demo's expected values are its scores: another way to the same numbers, from the weights alone."""
    run = "imagenet/test_resnet/none-0/seed0"
    with open(tiny.folder / "results" / "scores.csv", newline="", encoding="utf-8") as file:
        scores = [row for row in csv.DictReader(file) if row["group"] == ""]
    of_run = {"dataset": "imagenet", "backbone": "test_resnet", "supervision": "none", "seed": "0"}
    chosen = [row for row in scores if of_run.items() <= row.items()]
    with open(tiny.folder / "expected.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("model", "benchmark", "metric", "value", "tolerance", "source"))
        for row in chosen:
            writer.writerow(
                ("test_resnet", row["benchmark"], row["metric"], 100 * float(row["value"]), 0, "scores.csv")
            )
    weights = f"results/runs/{run}/model.safetensors"
    options = ("--backbone", "test_resnet", "--weights", weights, "--expected", "expected.csv")
    done = tiny.python("-m", "luab", "sanity", *options, *OF_TINY, COLUMNS="80")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("agrees") == len(chosen) > 20
    shutil.rmtree(tiny.folder / "results" / "sanity")
    (tiny.folder / "expected.csv").unlink()


def test_two_runs_are_compared_image_by_image(tiny: Checkout) -> None:
    runs = ("imagenet/test_resnet/none-0/seed0", "imagenet/test_resnet/none-0/seed1")
    options = ("--resamples", "200", "--csv", "compared.csv")
    done = tiny.python("-m", "luab", "compare", *runs, *options, *OF_TINY, COLUMNS="80")
    assert done.returncode == 0, done.stdout + done.stderr
    with open(tiny.folder / "compared.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (tiny.folder / "compared.csv").unlink()
    with open(tiny.folder / "results" / "scores.csv", newline="", encoding="utf-8") as file:
        scores = {(r["supervision"], r["backbone"], r["seed"], r["benchmark"], r["metric"], r["group"]): r["value"]
                  for r in csv.DictReader(file)}  # fmt: skip
    assert len(rows) > 10
    for row in rows:
        for seed, column in (("0", "first"), ("1", "second")):
            assert row[column] == scores["none", "test_resnet", seed, row["benchmark"], row["metric"], ""]
            assert 0 <= float(row[f"{column}_low"]) <= float(row[f"{column}_high"]) or row["better"] == "lower"


def test_the_crate_names_every_result_with_its_digest(tiny: Checkout) -> None:
    results = tiny.folder / "results"
    entities = read_json(results / "ro-crate-metadata.json")["@graph"]
    listed = {entity["@id"]: entity for entity in entities if entity["@type"] == "File"}
    there = {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()}
    beside = {"ro-crate-metadata.json", "provenance.jsonl", "dvc.yaml", ".gitkeep"}  # of it, after it, for DVC
    assert {name for name in there - beside if not name.startswith(("metrics/", "plots/"))} - listed.keys() == {
        name
        for name in there
        if name.endswith(("attempts.jsonl", "progress.json"))  # how a training went
    }
    for name, entity in listed.items():
        assert file_sha256(results / name) == entity["sha256"], name
        assert (results / name).stat().st_size == int(entity["contentSize"])


def test_the_headline_fits_a_narrow_terminal(tiny: Checkout) -> None:
    said = tiny.python("-m", "luab", "headline", *OF_TINY, COLUMNS="80").stdout
    assert "test_resnet (demo world)" in said and "test_resnet on COCO (demo world)" in said and "mAP small" in said
    assert "…" not in said and all(len(line) <= 80 for line in said.splitlines())


def test_nothing_is_left_to_do(tiny: Checkout) -> None:
    assert tiny.plan(*TINY) == {}


def test_a_touched_card_redoes_nothing(tiny: Checkout) -> None:
    (tiny.folder / f"results/runs/{RUN}/predictions/all.json").touch()
    (tiny.folder / "data/manifests/imagenet_val.json").touch()
    assert tiny.plan(*TINY) == {}


def test_a_changed_prediction_redoes_what_hangs_on_it(tiny: Checkout) -> None:
    with changed(
        tiny.folder / f"results/runs/{RUN}/predictions/all.json", lambda text: text.replace("{", '{"a": 1,', 1)
    ):
        counts = tiny.plan(*TINY)
    assert counts == dict.fromkeys({"score_all", "collect", "report", "track", "describe", "all"} | FROM_SCORES, 1)


def test_a_changed_label_draws_again_and_trains_nothing(tiny: Checkout) -> None:
    assert set(tiny.plan(*TINY, "--config", "label=another world")) == RENDERED | {"all"}


EDITS = {
    "sweep: null": {"lambda_sweep"},
    "supervisions: [none, random]\nsweep: null": {"lambda_sweep"},
    "supervisions: [none]\nsweep: null": {"lambda_sweep", "robustness_gain", "cam_examples"},
    "suites: [{name: all, benchmarks: [imagenet_val, in9]}]": {
        "localization", "cam_examples", "corruption_severity", "si_score_factors",
    },
    "coco: null": {
        "coco_main", "coco_localization", "coco_statistics", "interfaces", "coco_samples", "coco_gain_by_size",
    },
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_a_reduced_study_draws_from_the_stored_scores(tiny: Checkout, tmp_path: Path, edit: str) -> None:
    """Every product that the edited study can draw is drawn without ImageNet's images; the rest is refused by name."""
    overlay = tmp_path / "edit.yaml"
    overlay.write_text(f"{edit}\npaths: {{results: {tmp_path / 'my results'}}}\n", encoding="utf-8")
    (tmp_path / "my results").mkdir()
    shutil.copy(tiny.folder / "results" / "scores.csv", tmp_path / "my results")
    without_images = tmp_path / "without.yaml"
    without_images.write_text("paths: {imagenet: null}\n", encoding="utf-8")
    options = ["config/config.yaml", *CONFIGS, str(overlay), str(without_images)]
    program = (
        "import sys\n"
        "from luab.commands.stages import render_one_figure, render_one_table\n"
        "from luab.errors import ConfigError\n"
        "from luab.render.products import PRODUCTS\n"
        "from luab.study.config import load_study\n"
        "study = load_study(sys.argv[1:])\n"
        "for product in [one for one in PRODUCTS if one.dataset != 'folder' and not one.optional]:\n"
        "    if product.from_scores or product.needs(study) is None and product.kind != 'section':\n"
        "        try:\n"
        "            {'table': render_one_table, 'figure': render_one_figure}[product.kind](study, product.name)\n"
        "        except ConfigError as error:\n"
        "            print(product.name, error)\n"
    )
    done = tiny.python("-c", program, *options)
    assert done.returncode == 0, done.stderr
    refused = {line.split()[0] for line in done.stdout.splitlines() if "is not part of this study" in line}
    assert refused == EDITS[edit] and len(done.stdout.splitlines()) >= len(refused)
    drawn = {path.stem for path in (tmp_path / "my results").glob("*/*.pdf")}
    assert drawn == {p.name for p in PRODUCTS if p.kind == "figure" and p.from_scores} - refused


def test_a_changed_recipe_retrains_its_own_backbone(tiny: Checkout) -> None:
    """A second backbone joins, with one training; then its recipe changes."""
    both = tiny.folder / "both.yaml"
    both.write_text(
        "backbones:\n"
        "  - {name: test_resnet, recipe: tiny_cnn, gpu_images_per_s: 1}\n"
        "  - {name: test_vit, recipe: tiny_vit, gpu_images_per_s: 1}\n",
        encoding="utf-8",
    )
    recipes = tiny.folder / "tests/workflow/tiny/recipes"
    (recipes / "tiny_vit.yaml").write_text(
        (recipes / "tiny_cnn.yaml").read_text(encoding="utf-8") + "model_kwargs: {img_size: 32, patch_size: 8}\n",
        encoding="utf-8",
    )
    cards = [f"results/runs/imagenet/{name}/none-0/seed0/run.json" for name in ("test_resnet", "test_vit")]
    arguments = (*cards, *TINY, "both.yaml")
    assert tiny.plan(*arguments) == {"train": 1}
    done = tiny.snakemake(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tiny.plan(*arguments) == {}
    with changed(recipes / "tiny_vit.yaml", lambda text: text.replace("lr: 4.0e-3", "lr: 1.0e-3")):
        assert tiny.plan(*arguments) == {"train": 1}
        assert tiny.plan(cards[0], *TINY, "both.yaml") == {}
    assert tiny.plan(*TINY) == {}


def test_changed_code_redoes_cheap_stages_only(tiny: Checkout) -> None:
    with changed(tiny.folder / "luab" / "benchmarks" / "collect.py", lambda text: text + "\n# Only a comment.\n"):
        assert tiny.plan(*TINY) == {}
    with changed(tiny.folder / "luab" / "benchmarks" / "collect.py", lambda text: text + "\n_ANOTHER = 1\n"):
        counts = tiny.plan(*TINY)
    assert {"collect", "all"} | FROM_SCORES <= set(counts) <= {"collect", "all"} | RENDERED
    with (
        changed(tiny.folder / "luab" / "training" / "train.py", lambda text: text + "\n_ANOTHER = 1\n"),
        changed(tiny.folder / "luab" / "predict.py", lambda text: text + "\n_ANOTHER = 1\n"),
    ):
        assert tiny.plan(*TINY) == {}


def test_results_stand_without_the_unpacked_trees(tiny: Checkout) -> None:
    raw = tiny.folder / "data" / "raw"
    away = tiny.folder / "away"
    away.mkdir()
    trees = [path for path in raw.iterdir() if path.is_dir()]
    assert len(trees) > 5
    for tree in trees:
        tree.rename(away / tree.name)
    try:
        assert tiny.plan(*TINY) == {}
    finally:
        for tree in trees:
            (away / tree.name).rename(tree)


def test_another_checkout_gives_the_same_bytes(tiny: Checkout, tmp_path: Path) -> None:
    made = shutil.ignore_patterns("results", ".snakemake", "logs")
    other = Checkout(Path(shutil.copytree(tiny.folder, tmp_path / "another place", symlinks=True, ignore=made)))
    options = [word for config in CONFIGS for word in ("--config", config)]
    for command in (["train", RUN], ["predict", RUN, "all"], ["score", RUN, "all"]):
        done = other.python("-m", "luab", *command, *options)
        assert done.returncode == 0, done.stderr
    first, second = (checkout.folder / "results" / "runs" / RUN for checkout in (tiny, other))
    names = sorted(str(path.relative_to(first)) for path in first.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(second)) for path in second.rglob("*") if path.is_file())
    assert len(names) > 30
    differing = [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()]
    assert set(differing) <= {"run.json", "progress.json", "attempts.jsonl"}  # they tell machine, time and duration
    one, two = read_json(first / "run.json"), read_json(second / "run.json")
    assert one["model_sha256"] == two["model_sha256"] and one["code"] == two["code"]


def test_the_headline_compares_the_supervisions(tiny: Checkout) -> None:
    options = [word for config in CONFIGS for word in ("--config", config)]
    shown = tiny.python("-m", "luab", "headline", *options, COLUMNS="160")
    assert shown.returncode == 0, shown.stderr
    assert all(word in shown.stdout for word in ("test_resnet (demo world)", "baseline", "2 seeds", "±", "report.html"))
    page = tiny.folder / "page.md"
    page.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n", encoding="utf-8")
    try:
        written = tiny.python("-m", "luab", "headline", *options, "--into", "page.md")
        assert written.returncode == 0, written.stderr
        text = page.read_text(encoding="utf-8")
    finally:
        page.unlink()
    assert text.startswith(f"above\n{BEGIN}\n\n- ImageNet") and text.endswith(f"{END}\nbelow\n") and "old" not in text
    assert "**test_resnet (demo world)" in text and "trainings on " in text


def test_status_follows_the_code(tiny: Checkout) -> None:
    options = [word for config in CONFIGS for word in ("--config", config)]
    status = tiny.python("-m", "luab", "status", *options, COLUMNS="200")
    assert status.returncode == 0, status.stderr
    lines = [line for line in status.stdout.splitlines() if "imagenet/test_resnet" in line]
    assert len(lines) == 8 and all(line.count("done") == 3 for line in lines)
    with changed(tiny.folder / "luab" / "training" / "train.py", lambda text: text + "\n_ANOTHER = 1\n"):
        status = tiny.python("-m", "luab", "status", *options, COLUMNS="200")
    assert len([line for line in status.stdout.splitlines() if "older code" in line]) >= 8
