"""Collecting score files: the table by hand, and every kind of wrong file."""

import json
from pathlib import Path

import pandas as pd
import pytest

from luab.benchmarks.collect import COLUMNS, collect, read_scores
from luab.errors import DataError

BENCHMARKS = ("imagenet_val", "siscore_size")
SCORES_FOLDER = "runs/{dataset}/{backbone}/{supervision}-{lambda:g}/seed{seed}/scores"


def cells(**narrow):
    runs = [("none", 0.0), ("click", 1.0), ("click", 0.1)]
    everything = [
        {"dataset": "imagenet", "backbone": "resnet18", "supervision": s, "lambda": weight, "seed": seed}
        | {"benchmark": benchmark}
        for s, weight in runs
        for seed in (0, 1)
        for benchmark in BENCHMARKS
    ]
    return [cell for cell in everything if all(cell[key] == value for key, value in narrow.items())]


def content(cell):
    run = {key: value for key, value in cell.items() if key != "benchmark"}
    details = [{"group": "0.2", "metric": "accuracy", "value": 1 / 3, "n": 4}]
    return {
        "benchmark": cell["benchmark"],
        "protocol": 'arg-max, "crop" 64',
        "run": run,
        "n": 10,
        "ids_sha256": "ab" * 32,
        "metrics": {"top1": 0.1 + cell["seed"] / 10, "top5": 0.3},
        "details": details if cell["benchmark"] == "siscore_size" else [],
    }


@pytest.fixture
def folder(tmp_path):
    def of(cell) -> Path:
        return tmp_path / SCORES_FOLDER.format_map(cell)

    for cell in cells():
        save(of(cell), cell, content(cell))
    return of


def file_of(folder, cell) -> Path:
    return folder(cell) / f"{cell['benchmark']}.json"


def save(folder: Path, cell, what) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{cell['benchmark']}.json").write_text(json.dumps(what), encoding="utf-8")


def rewrite(path, **change):
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")


def test_the_table_by_hand(folder, tmp_path):
    one = cells(supervision="click", seed=1)
    one = [cell for cell in one if cell["lambda"] == 0.1]
    assert collect(one, folder, tmp_path / "scores.csv") == 2 + 3
    head = "imagenet,resnet18,click,0.1,1"
    tail = '"arg-max, ""crop"" 64"'
    assert (tmp_path / "scores.csv").read_bytes().decode() == "\n".join(
        [
            ",".join(COLUMNS),
            f"{head},imagenet_val,top1,,0.2,10,{tail}",
            f"{head},imagenet_val,top5,,0.3,10,{tail}",
            f"{head},siscore_size,accuracy,0.2,0.3333333333333333,4,{tail}",
            f"{head},siscore_size,top1,,0.2,10,{tail}",
            f"{head},siscore_size,top5,,0.3,10,{tail}",
            "",
        ]
    )


def test_the_order_of_cells_does_not_change_the_file(folder, tmp_path):
    collect(cells(), folder, tmp_path / "a.csv")
    collect(reversed(cells()), folder, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_reading_gives_back_what_was_written(folder, tmp_path):
    collect(cells(), folder, tmp_path / "scores.csv")
    table = read_scores(tmp_path / "scores.csv")
    assert len(table) == 3 * 2 * (2 + 3)
    assert set(table["supervision"]) == {"none", "click"}
    assert set(table["group"]) == {"", "0.2"}  # text, though it looks like a number
    numbers = {"lambda": "float64", "seed": "int64", "value": "float64", "n": "int64"}
    assert {name: str(table[name].dtype) for name in numbers} == numbers
    assert all(pd.api.types.is_string_dtype(table[name]) for name in COLUMNS if name not in numbers)
    part = table[(table["seed"] == 1) & (table["metric"] == "top1")]
    assert (part["value"] == 0.1 + 1 / 10).all()
    assert (table.loc[table["group"] == "0.2", "value"] == 1 / 3).all()


def test_all_missing_cells_are_listed(folder, tmp_path):
    gone = cells(seed=1, benchmark="imagenet_val")
    for cell in gone:
        file_of(folder, cell).unlink()
    with pytest.raises(DataError) as error:
        collect(cells(), folder, tmp_path / "scores.csv")
    assert "3 problems" in str(error.value)
    for run in ("none-0", "click-1", "click-0.1"):
        assert f"missing: imagenet/resnet18/{run}/seed1 imagenet_val" in str(error.value)
    assert not (tmp_path / "scores.csv").exists()


def test_a_long_list_is_truncated(tmp_path):
    many = [cell | {"seed": seed} for cell in cells(seed=0) for seed in range(10)]
    with pytest.raises(DataError, match=r"60 problems[\s\S]*and 40 more"):
        collect(many, lambda cell: tmp_path / str(cell["seed"]), tmp_path / "scores.csv")


def test_a_cell_that_is_listed_twice(folder, tmp_path):
    with pytest.raises(DataError, match="listed twice: imagenet/resnet18/none-0/seed0 imagenet_val"):
        collect([*cells(), cells()[0]], folder, tmp_path / "scores.csv")


def run_of(cell, **change):
    return {key: value for key, value in cell.items() if key != "benchmark"} | change


ODD = cells(supervision="click", seed=1)[0]  # not the first of its benchmark


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": run_of(ODD, seed=0)}, "another run's"),
        ({"run": run_of(ODD, backbone="resnet50")}, "another run's"),
        ({"benchmark": "imagenet_v2"}, "another run's"),
        ({"ids_sha256": "cd" * 32}, r"scored other images: .*10 images, digest cdcdcdcdcdcd"),
        ({"n": 9}, r"scored other images: .*9 images"),
        ({"protocol": "arg-max, crop 224"}, "used another protocol"),
        ({"metrics": {"top1": float("nan")}}, "top1 is nan"),
        ({"metrics": {"top1": None}}, "top1 is None"),
        ({"metrics": {}}, "no numbers"),
        ({"details": [{"group": "", "metric": "top1", "value": 0.5, "n": 10}]}, "top1 twice"),
    ],
)
def test_wrong_files_are_an_error(folder, tmp_path, change, message):
    rewrite(file_of(folder, ODD), **change)
    with pytest.raises(DataError, match=message):
        collect(cells(), folder, tmp_path / "scores.csv")
    assert not (tmp_path / "scores.csv").exists()


def test_another_backbone_may_use_another_protocol(folder, tmp_path):
    other = ODD | {"backbone": "resnet50"}
    save(folder(other), other, content(other) | {"protocol": "arg-max, crop 224"})
    assert collect([*cells(), other], folder, tmp_path / "scores.csv") == 3 * 2 * 5 + 2


def test_files_that_are_not_score_files(folder, tmp_path):
    file_of(folder, ODD).write_text('{"benchmark": "imagenet_val"}', encoding="utf-8")
    with pytest.raises(DataError, match="lacks protocol, run, n"):
        collect(cells(), folder, tmp_path / "scores.csv")
    file_of(folder, ODD).write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match="not a score file"):
        collect(cells(), folder, tmp_path / "scores.csv")
    file_of(folder, ODD).write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="expected JSON"):
        collect(cells(), folder, tmp_path / "scores.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable table of scores"),
        ("a,b\n1,2\n", "expected the columns"),
        (",".join(COLUMNS) + "\nx,y,z,zero,0,a,b,c,0.5,3,p\n", "a value in .* is not a number"),
    ],
)
def test_other_tables_are_an_error(tmp_path, text, message):
    (tmp_path / "scores.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"scores.csv: {message}"):
        read_scores(tmp_path / "scores.csv")


def test_a_missing_table(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_scores(tmp_path / "scores.csv")
