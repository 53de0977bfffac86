"""`luab trace`: the lineage of every number of every table, and files that have changed since."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from luab.errors import ConfigError, DataError
from luab.provenance.lineage import _NAMES, Link, find_cell, lineage
from luab.render.products import PRODUCTS
from luab.study.config import Study, load_study

from .conftest import CONFIGS, Checkout

pytestmark = pytest.mark.slow

MAIN = Path("results/tables/imagenet_main.csv")
CELL = ["test_resnet,click", "benchmark=imagenet_a"]
RUN = Path("results/runs/imagenet/test_resnet/click-1/seed1")


@pytest.fixture
def study(tiny: Checkout, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tiny.folder)
    return load_study(["config/config.yaml", *CONFIGS])


@contextlib.contextmanager
def away(path: Path) -> Iterator[None]:
    """Removes a file, which may then be overwritten, and restores it at the end."""
    kept = path.with_name(path.name + ".kept")
    shutil.copy2(path, kept)
    path.unlink()
    try:
        yield
    finally:
        kept.replace(path)


def every(link: Link) -> Iterator[Link]:
    yield link
    for inner in link.links:
        yield from every(inner)


@pytest.mark.parametrize(
    "name",
    [one.name for one in PRODUCTS if one.kind == "table" and one.dataset != "folder" and not one.optional],
)
def test_every_number_matches_its_files(study: Study, name: str) -> None:
    path = study.layout.table(name, "csv")
    numbers = pd.read_csv(path, keep_default_na=False)
    names = [column for column in _NAMES if column in numbers]
    traced = 0
    for _, row in numbers.iterrows():
        cell = [f"{column}={row[column]}" for column in names]
        if row.get("value") == "":  # an interface without this number
            with pytest.raises(ConfigError, match="its cell is empty"):
                lineage(study, path, cell)
            continue
        found = lineage(study, path, cell)
        states = {link.state for link in every(found)}
        assert states <= {"ok", ""} and "ok" in states, list(found.problems())
        traced += 1
    assert traced >= 5


def test_a_number_depends_on_everything_that_made_it(study: Study) -> None:
    found = lineage(study, MAIN, CELL)
    said = {link.what: link.found for link in every(found)}
    assert {
        "protocol", "seed 0", "seed 1", "score", "images", "predictions imagenet_a", "training", "model", "recipe",
        "seed", "commit", "code", "images imagenet_train", "targets click", "index imagenet_ab", "archive imagenet_ab",
        "versions", "hardware", "time", "card in the file", "url",
    } <= said.keys()  # fmt: skip
    assert "lr=0.004" in said["recipe"] and "torch" in said["versions"] and "n = 2 seeds" in found.found
    assert str(RUN / "predictions" / "imagenet_a.parquet") in said["predictions imagenet_a"]


@pytest.mark.parametrize(
    ("file", "what"),
    [
        (RUN / "scores" / "imagenet_a.json", "score"),
        (RUN / "predictions" / "imagenet_a.parquet", "predictions imagenet_a"),
        (RUN / "model.safetensors", "model"),
        (Path("data/targets/imagenet/click.json"), "targets click"),
        (Path("data/archives/imagenet_ab.json"), "archive imagenet_ab"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_missing_files_are_shown_but_are_not_problems(study: Study, file: Path, what: str) -> None:
    with away(file):
        found = lineage(study, MAIN, CELL)
    assert not list(found.problems())
    absent = [link for link in every(found) if link.state == "missing"]
    assert absent and {link.what for link in absent} == {what} and f"luab pull {file}" in absent[0].found


def test_initial_weights_have_a_lineage_too(study: Study) -> None:
    found = lineage(study, Path("results/tables/coco_main.csv"), ["click", "coco_val", "map"])
    begun = [link for link in every(found) if link.what == "initial weights"]
    assert [link.state for link in begun] == ["ok", "ok"] and "imagenet/test_resnet/none-0/seed0" in begun[0].found
    assert "images imagenet_train" in {link.what for link in every(begun[0])}


def test_changed_files_are_found(study: Study) -> None:
    def problems() -> set[str]:
        return {link.what for link in lineage(study, MAIN, CELL).problems()}

    table = MAIN.read_text(encoding="utf-8")
    row = next(line for line in table.splitlines() if "click,1.0,imagenet_a" in line)
    mean = row.split(",")[6]
    with away(MAIN):
        MAIN.write_text(table.replace(row, row.replace(mean, "0.999", 1)), encoding="utf-8")
        assert any(what.startswith("imagenet_main: test_resnet click imagenet_a") for what in problems())
    with away(RUN / "predictions" / "imagenet_a.parquet"):
        (RUN / "predictions" / "imagenet_a.parquet").write_bytes(b"others")
        assert problems() == {"predictions imagenet_a"}
    score = json.loads((RUN / "scores" / "imagenet_a.json").read_text(encoding="utf-8"))
    with away(RUN / "scores" / "imagenet_a.json"):
        score["metrics"]["accuracy"] = 0.5
        (RUN / "scores" / "imagenet_a.json").write_text(json.dumps(score), encoding="utf-8")
        assert problems() == {"score"}
    other = RUN.with_name("seed0") / "model.safetensors"
    with away(RUN / "model.safetensors"):
        shutil.copy(other, RUN / "model.safetensors")
        assert problems() == {"model", "card in the file"}
        (RUN / "model.safetensors").write_bytes(b"no weights")
        assert problems() == {"model", "card in the file"}
    with away(RUN / "run.json"):
        (RUN / "run.json").write_text("{}", encoding="utf-8")
        with pytest.raises(DataError, match=r"run.json: expected a card with model_sha256"):
            problems()
    card = Path("data/manifests/imagenet_train.json")
    content = json.loads(card.read_text(encoding="utf-8"))
    with away(card):
        card.write_text(json.dumps(content | {"ids_sha256": "0"}), encoding="utf-8")
        assert problems() == {"images imagenet_train"}
    assert problems() == set()


def test_the_command_prints_a_tree_or_json_and_fails_if_a_file_differs(tiny: Checkout) -> None:
    options = [
        str(MAIN),
        *(word for cell in CELL for word in ("--cell", cell)),
        *(w for c in CONFIGS for w in ("-c", c)),
    ]
    text = tiny.python("-m", "luab", "trace", *options, COLUMNS="200")
    assert text.returncode == 0 and "├── seed 0" in text.stdout and "targets click ok" in text.stdout, text.stderr
    found = json.loads(tiny.python("-m", "luab", "trace", *options, "--json").stdout)
    assert found["state"] == "ok" and [link["what"] for link in found["links"]] == ["protocol", "seed 0", "seed 1"]
    predictions = tiny.folder / RUN / "predictions" / "imagenet_a.parquet"
    with away(predictions):
        predictions.write_bytes(b"others")
        text = tiny.python("-m", "luab", "trace", *options, COLUMNS="200")
    assert text.returncode == 1 and "predictions imagenet_a differs" in text.stdout


NUMBERS = pd.DataFrame(
    {
        "backbone": ["resnet50", "resnet50", "vit"],
        "supervision": ["click", "none", "click"],
        "lambda": [1.0, 0.0, 1.0],
        "benchmark": ["imagenet_a"] * 3,
    }
)


@pytest.mark.parametrize(
    ("cell", "row"),
    [(["resnet50,click"], 0), (["backbone=vit"], 2), (["resnet50", "lambda=0"], 1), (["vit", "1"], 2)],
)
def test_a_number_is_selected_by_values_or_columns(cell: list[str], row: int) -> None:
    assert find_cell(NUMBERS, cell, MAIN) == NUMBERS.iloc[row].to_dict()


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (["resnet5"], "Did you mean resnet50"),
        (["backbon=vit"], "Did you mean backbone"),
        (["vit,none"], "--cell none: no number"),
        (["click"], "found 2:\n  backbone=resnet50 supervision=click lambda=1.0 benchmark=imagenet_a\n  backbone=vit"),
        ([], "found 3"),
    ],
)
def test_terms_that_match_none_or_several_raise(cell: list[str], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_cell(NUMBERS, cell, MAIN)
    assert text in str(caught.value)


def test_an_unknown_table_raises(study: Study) -> None:
    with pytest.raises(ConfigError, match="Did you mean imagenet_main"):
        lineage(study, Path("results/tables/imagenet_man.csv"), CELL)
