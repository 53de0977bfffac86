"""Two runs side by side from their stored predictions: rows, table, CSV, and what is refused."""

import csv
import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from luab import cli
from luab.comparison.two_runs import COLUMNS, compare_runs, print_comparison, write_comparison
from luab.errors import DataError
from luab.study.paths import Run

FIRST = Run("imagenet", "test_resnet", "none", 0.0, 0)
SECOND = dataclasses.replace(FIRST, supervision="click", weight=1.0)
N = 40


def write(study, run, test_set, right, ids=None, group=None):
    top5 = np.tile(np.array([7, 1, 2, 3, 4], np.int16), (N, 1))
    top5[~right, 0] = 9
    table = pa.table(
        {
            "image_id": ids or [f"i{k:02d}" for k in range(N)],
            "group": group or [""] * N,
            "labels": pa.array([[7]] * N, pa.list_(pa.int16())),
            "top5": pa.FixedSizeListArray.from_arrays(pa.array(top5.reshape(-1)), 5),
        }
    )
    folder = study.layout.prediction_folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / f"{test_set}.parquet")


@pytest.fixture
def study(toy_study):
    """Predictions of two runs on two test sets: 10 and 22 of 40 correct on one, equal on the other."""
    study = toy_study()
    for run, right in ((FIRST, 10), (SECOND, 22)):
        write(study, run, "imagenet_val", np.arange(N) < right)
        write(study, run, "imagenet_v2", np.arange(N) < 5)
    return study


def test_rows_contain_numbers_intervals_and_corrected_p(study):
    val, v2 = compare_runs(study, FIRST, SECOND, ["imagenet_val", "imagenet_v2"], resamples=500)
    assert (val.first.value, val.second.value) == (10 / 40, 22 / 40)
    assert val.paired.difference == pytest.approx(0.3)
    assert val.paired.p == pytest.approx(2 / 2**12)  # twelve gained, none lost
    assert val.p_holm == pytest.approx(2 * val.paired.p)  # two benchmarks
    assert (v2.paired.difference, v2.paired.p, v2.p_holm) == (0, 1, 1)
    assert val.n == 40 and "centre crop 32" in val.protocol


def test_the_study_s_own_benchmarks_are_the_default(study):
    assert [row.benchmark.name for row in compare_runs(study, FIRST, SECOND, resamples=100)] == ["imagenet_val"]


def test_table_fits_80_columns_and_csv_is_complete(study, tmp_path, monkeypatch, capsys):
    rows = compare_runs(study, FIRST, SECOND, ["imagenet_val", "imagenet_v2"], resamples=500)
    monkeypatch.setenv("COLUMNS", "80")
    print_comparison(study, FIRST, SECOND, rows, 500)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for words in ("25.00", "55.00", "+30.00", "<.001", "imagenet_v2 ↑", "2 benchmarks", "500 resamples"):
        assert words in text
    assert "…" not in text
    write_comparison(tmp_path / "c.csv", rows, 500)
    with open(tmp_path / "c.csv", newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert tuple(read[0]) == COLUMNS and [row["benchmark"] for row in read] == ["imagenet_val", "imagenet_v2"]
    assert float(read[0]["difference"]) == rows[0].paired.difference and read[0]["test"] == "McNemar"


def test_different_images_are_an_error_that_names_all_benchmarks(study):
    for name in ("imagenet_val", "imagenet_v2"):
        write(study, SECOND, name, np.arange(N) < 5, ids=[f"j{k:02d}" for k in range(N)])
    with pytest.raises(DataError, match=r"(?s)imagenet_val: 40 images, digest \w{12} against.*imagenet_v2: 40"):
        compare_runs(study, FIRST, SECOND, ["imagenet_val", "imagenet_v2"])


def test_a_replaced_image_and_another_factor_are_errors(study):
    """The numbers of correct images are equal in both cases."""
    names, right = [f"i{k:02d}" for k in range(N)], np.arange(N) < 10
    write(study, SECOND, "imagenet_val", right, ids=[*names[:-1], "i99"])
    with pytest.raises(DataError, match="imagenet_val: 40 images, digest"):
        compare_runs(study, FIRST, SECOND, ["imagenet_val"])
    for run, sizes in ((FIRST, ["0.1", "0.2"]), (SECOND, ["0.2", "0.1"])):  # the sizes of the images are swapped
        write(study, run, "siscore_size", right, group=np.repeat(sizes, N // 2).tolist())
    with pytest.raises(DataError, match="the same images in the same groups"):
        compare_runs(study, FIRST, SECOND, ["siscore_size"], resamples=10)


def test_two_input_sizes_give_two_protocols(study):
    other = study.backbones[0].model_copy(update={"name": "test_vit", "recipe": "larger"})
    recipes = study.recipes | {"larger": study.recipes["toy"].model_copy(update={"input_px": 64, "crop_pct": 1.0})}
    both = study.model_copy(update={"backbones": [*study.backbones, other], "recipes": recipes})
    vit = dataclasses.replace(FIRST, backbone="test_vit")
    write(both, vit, "imagenet_val", np.arange(N) < 11)
    (row,) = compare_runs(both, FIRST, vit, ["imagenet_val"], resamples=10)
    assert row.protocol.endswith(
        "shorter side to 36, centre crop 32; second run: ImageNet validation set, arg-max over 1000 classes, "
        "shorter side to 64, centre crop 64"
    )
    (row,) = compare_runs(both, FIRST, SECOND, ["imagenet_val"], resamples=10)
    assert "second run" not in row.protocol


def test_the_command(study, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "study_of", lambda config: study)
    names = [FIRST.folder, SECOND.folder]
    options = ["-b", "imagenet_val", "--csv", str(tmp_path / "c.csv"), "--resamples", "200"]
    done = CliRunner().invoke(cli.app, ["compare", *names, *options], env={"COLUMNS": "80"})
    assert done.exit_code == 0 and "+30.00" in done.output
    assert (tmp_path / "c.csv").read_text(encoding="utf-8").count("\n") == 2
    (study.layout.prediction_folder(SECOND) / "imagenet_val.parquet").unlink()
    with pytest.raises(DataError, match=r"imagenet_val\.parquet: expected this file"):
        CliRunner().invoke(cli.app, ["compare", *names], catch_exceptions=False)
