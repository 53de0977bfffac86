"""Tables: exact cells worked by hand, LaTeX that closes what it opens, no hole filled silently."""

from pathlib import Path

import pandas as pd
import pytest

from luab.benchmarks.catalogue import BENCHMARKS
from luab.errors import ConfigError, DataError
from luab.render import quantities, tables
from luab.render.products import PRODUCTS, Inputs, find_product
from luab.render.table_text import BOLD, Table, escape, latex, markdown

COLUMNS = [
    *("dataset", "backbone", "supervision", "lambda", "seed"),
    *("benchmark", "metric", "group", "value", "n", "protocol"),
]
NOTHING = pd.DataFrame(columns=["table", "backbone", "supervision", "benchmark", "metric", "value", "source"])
# Baseline 0.70 0.71 0.72: mean 0.71, std 0.01. Clicks gain 0.02 0.03 0.04: mean 0.74, std 0.02.
VALUES = {
    ("none", 0.0): [0.70, 0.71, 0.72],
    ("random", 1.0): [0.71, 0.70, 0.72],
    ("click", 1.0): [0.72, 0.74, 0.76],
}


def scores_of(
    values: dict[tuple[str, float], list[float]] = VALUES,
    benchmark: str = "imagenet_val",
    metric: str = "top1",
    backbone: str = "resnet18",
    protocol: str = "by_hand 100%",
) -> pd.DataFrame:
    rows = [
        ("imagenet", backbone, supervision, weight, seed, benchmark, metric, "", value, 1000, protocol)
        for (supervision, weight), series in values.items()
        for seed, value in enumerate(series)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def column(table: Table, heading: str) -> list[str]:
    return list(table.cells[heading])


def test_cells_worked_by_hand() -> None:
    table = tables.score_table("imagenet_main", scores_of(), 1.0, NOTHING)
    # Differences .02 .03 .04: mean .03, t(2, .975) = 4.303, half width 4.303 * .01 / sqrt(3) = .0248;
    # p of t = .03 / (.01 / sqrt(3)) = 5.196 with 2 degrees of freedom is .035; Holm keeps a single p.
    assert column(table, "IN-1k ↑") == [
        "71.0 ± 1.0 (n = 3)",
        "71.0 ± 1.0 (n = 3)",
        "+0.0 [−2.5, +2.5], p = 1.000",
        BOLD + "74.0 ± 2.0 (n = 3)",
        "+3.0 [+0.5, +5.5], p = 0.035",
    ]
    assert column(table, "Supervision") == ["Baseline", "Random points", "  Δ", "LUAB (clicks)", "  Δ"]
    assert column(table, "Backbone") == ["ResNet-18", "", "", "", ""]


def test_one_seed_has_no_spread_and_no_interval() -> None:
    table = tables.score_table(
        "imagenet_main", scores_of({("none", 0.0): [0.5], ("click", 1.0): [0.625]}), 1.0, NOTHING
    )
    assert column(table, "IN-1k ↑") == ["50.0 (n = 1)", "62.5 (n = 1)", "+12.5 (n = 1)"]
    assert table.raw["std"].isna().all() and table.raw["low"].isna().all()


def test_lower_is_better_decides_what_is_bold() -> None:
    worse = {("none", 0.0): [0.70, 0.71, 0.72], ("click", 1.0): [0.60, 0.62, 0.61]}
    table = tables.score_table("imagenet_main", scores_of(worse, "imagenet_c", "mce"), 1.0, NOTHING)
    cells = column(table, "C (mCE) ↓")
    assert cells[1].startswith(BOLD) and not cells[0].startswith(BOLD)
    assert cells[2].startswith("−10.0 [")


def test_best_is_not_bold_when_the_interval_holds_zero() -> None:
    near = {("none", 0.0): [0.70, 0.71, 0.72], ("click", 1.0): [0.74, 0.69, 0.73]}
    table = tables.score_table("imagenet_main", scores_of(near), 1.0, NOTHING)
    assert not any(cell.startswith(BOLD) for cell in column(table, "IN-1k ↑"))


def test_controls_have_rows_and_mark_cells_that_are_no_better() -> None:
    """Chance .7: one standard error of 1,000 images is .0145, so cells up to .728 are marked."""
    chance = scores_of(metric="chance", values={key: [0.7] * 3 for key in VALUES}).assign(group="top1")
    table = tables.score_table("imagenet_main", pd.concat([scores_of(), chance], ignore_index=True), 1.0, NOTHING)
    assert column(table, "Supervision")[-1] == "Chance" and column(table, "Backbone")[-1] == "Controls"
    cells = column(table, "IN-1k ↑")
    assert cells[-1] == "70.0" and [tables.AT_CHANCE in cell for cell in cells] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
    assert cells[0] == "71.0 ± 1.0° (n = 3)" and "$^\\circ$" in latex(table)
    assert set(table.raw["chance"]) == {0.7} and any(note.startswith("°") for note in table.notes)


def test_bold_follows_the_corrected_p() -> None:
    """p = .035 alone; Holm over two benchmarks makes .070 of it, where both have the same differences."""
    two = pd.concat([scores_of(), scores_of(benchmark="imagenet_v2")], ignore_index=True)
    table = tables.score_table("imagenet_main", two, 1.0, NOTHING)
    assert column(table, "IN-1k ↑")[3:] == ["74.0 ± 2.0 (n = 3)", "+3.0 [+0.5, +5.5], p = 0.070"]
    assert not any(cell.startswith(BOLD) for row in table.cells.to_numpy() for cell in row)
    assert any("significant" in note for note in table.notes)


def test_missing_cell_is_refused_by_name() -> None:
    both = pd.concat([scores_of(), scores_of(benchmark="imagenet_v2")])
    hole = both[~((both["benchmark"] == "imagenet_v2") & (both["supervision"] == "click"))]
    with pytest.raises(DataError, match="resnet18 click-1: imagenet_v2/top1"):
        tables.score_table("imagenet_main", hole, 1.0, NOTHING)


def test_absent_benchmarks_and_lambdas_are_refused() -> None:
    with pytest.raises(DataError, match="found imagenet_val"):
        tables.score_table("background_robustness", scores_of(), 1.0, NOTHING)
    with pytest.raises(DataError, match="headline lambda 7, found lambda 1"):
        tables.score_table("imagenet_main", scores_of(), 7.0, NOTHING)
    with pytest.raises(DataError, match="several lambdas"):
        tables.score_table("lambda_sweep", scores_of(), 1.0, NOTHING)


def test_sweep_has_a_row_per_lambda() -> None:
    values = VALUES | {("click", 0.1): [0.70, 0.72, 0.71]}
    table = tables.score_table("lambda_sweep", scores_of(values), 1.0, NOTHING)
    assert column(table, "λ") == ["–", "1", "", "0.1", "", "1", ""]


def test_baseline_has_no_point_and_no_hole() -> None:
    points = scores_of({key: VALUES[key] for key in VALUES if key[0] != "none"}, "wsol_test", "point_in_box")
    boxes = pd.concat([scores_of(benchmark="wsol_test", metric=m) for m in ("max_box_acc", "max_box_acc_v2")])
    parts = scores_of(benchmark="wsol_test", metric="max_box_acc_v2").assign(group="iou_30")
    table = tables.score_table("localization", pd.concat([boxes, parts, points]), 1.0, NOTHING)
    assert column(table, "Point in box ↑") == [
        *("–", "71.0 ± 1.0 (n = 3)", "–", "74.0 ± 2.0 (n = 3)", "–"),
    ]
    assert "V2 IoU 30 ↑" in table.cells


def test_published_values_stand_beside_ours_and_unknown_ones_stay_empty(repository: Path) -> None:
    published = tables.read_published(repository / "config" / "published.csv")
    assert published["value"].dropna().tolist() == [81.6, 82.5]
    assert not (published["value"] == 0).any()
    table = tables.score_table("imagenet_main", scores_of(backbone="vit_base_patch16_224"), 1.0, published)
    assert column(table, tables.PUBLISHED) == ["81.6 (published)", "", "", "82.5 (published)", ""]
    assert table.raw["published"].dropna().tolist() == pytest.approx([0.825, 0.816])
    assert any("not seen in the paper" in note for note in table.notes)
    other = tables.score_table("imagenet_main", scores_of(), 1.0, published)
    assert column(other, tables.PUBLISHED) == [""] * 5
    assert other.raw["published"].isna().all()


def test_published_value_without_source_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "published.csv"
    file.write_text(
        ",".join(NOTHING.columns) + "\nimagenet_main,resnet18,none,imagenet_val,top1,69.8,\n", encoding="utf-8"
    )
    with pytest.raises(DataError, match=r"line 2: .*69\.8"):
        tables.read_published(file)


def test_markdown_carries_label_and_notes() -> None:
    text = markdown(tables.score_table("imagenet_main", scores_of(), 1.0, NOTHING).sheet("demo world"))
    assert text.startswith("**ImageNet-1k and distribution shifts (%), λ = 1 (demo world)**\n")
    assert "| **74.0 ± 2.0 (n = 3)** |" in text
    assert "- IN-1k: 1,000 images; by\\_hand 100%.\n" in text


def test_latex_closes_what_it_opens_and_escapes_what_it_prints() -> None:
    two = pd.concat([scores_of(), scores_of(backbone="resnet50_odd")])
    text = latex(tables.score_table("imagenet_main", two, 1.0, NOTHING), "demo_world")
    bare = text.replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")
    opened = [line.split("{")[1].split("}")[0] for line in text.splitlines() if line.startswith(r"\begin")]
    closed = [line.split("{")[1].split("}")[0] for line in text.splitlines() if line.startswith(r"\end")]
    assert sorted(opened) == sorted(closed)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {row.count(" & ") for row in rows} == {3}
    assert rows[0].count(" & ") + 1 == text.split(r"\begin{tabular}{")[1].split("}")[0].count("l")
    assert text.count(r"\midrule") == 2
    assert r"(demo\_world)" in text and r"by\_hand 100\%" in text and r"resnet50\_odd" in text
    assert r"\textbf{74.0 $\pm$ 2.0 (n = 3)}" in text


def test_escape_leaves_no_command() -> None:
    assert escape(r"a\b_c & 5% {x} #1 $~^") == (
        r"a\textbackslash{}b\_c \& 5\% \{x\} \#1 \$\textasciitilde{}\textasciicircum{}"
    )


def test_render_writes_three_files_and_repeats_itself(tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    scores_of().to_csv(scores, index=False)
    first, second = ([tmp_path / f"{i}.{kind}" for kind in ("csv", "md", "tex")] for i in range(2))
    for csv, md, tex in (first, second):
        tables.render_table("imagenet_main", csv, md, tex, Inputs(scores=scores, label="demo world"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    raw = pd.read_csv(first[0]).set_index("supervision")
    assert raw.loc["click", "mean"] == pytest.approx(0.74) and raw.loc["click", "low"] == pytest.approx(
        0.0052, abs=1e-4
    )
    assert raw.loc["click", "n"] == 3 and pd.isna(raw.loc["none", "difference"])


def test_the_report_gets_the_table_as_it_was_rendered(tmp_path: Path) -> None:
    scores, index = tmp_path / "scores.csv", tmp_path / "byproduct_statistics.csv"
    scores_of().to_csv(scores, index=False)
    numbers = [("selected", 0.8636, "share", 1281167), ("nothing", float("nan"), "ms", 0)]
    rendered = tables.statistics_table(
        "byproduct_statistics", pd.DataFrame(numbers, columns=["statistic", "value", "unit", "n"])
    )
    rendered.raw.to_csv(index, index=False)
    for name, table in (
        ("byproduct_statistics", rendered),
        (
            "imagenet_main",
            tables.TABLES["imagenet_main"](find_product("table", "imagenet_main"), Inputs(scores=scores)),
        ),
    ):
        assert isinstance(table, Table)
        again = tables.read_table(name, tmp_path / f"{name}.csv", Inputs(scores=scores))
        assert again.sheet("demo") == table.sheet("demo") and again.sheet("demo").title.endswith(" (demo)")


def test_unknown_table_and_missing_input_are_told(tmp_path: Path) -> None:
    out = [tmp_path / kind for kind in ("csv", "md", "tex")]
    with pytest.raises(ConfigError, match=r"There is no table 'imagenet_mian'\. Did you mean imagenet_main"):
        tables.render_table("imagenet_mian", *out, Inputs())
    with pytest.raises(ConfigError, match="input `scores`"):
        tables.render_table("imagenet_main", *out, Inputs())


def test_byproduct_statistics_always_tell_n() -> None:
    found = pd.DataFrame(
        [
            ("selected", 0.8636, "share", 1281167),
            ("time_median", 512.5, "ms", 10),
            ("workers", 1705.0, "count", 9),
            ("nothing", float("nan"), "ms", 0),
        ],
        columns=["statistic", "value", "unit", "n"],
    )
    table = tables.statistics_table("byproduct_statistics", found)
    assert column(table, "Value") == [
        *("86.4 % (n = 1,281,167)", "512.5 ms (n = 10)", "1,705 (n = 9)", "– (n = 0)"),
    ]


def test_directions_and_names_agree_with_the_benchmarks() -> None:
    shown = {*quantities.MAIN, *quantities.BACKGROUND, *quantities.LOCALIZATION}
    assert {quantity.benchmark for quantity in shown} <= set(BENCHMARKS)
    for quantity in shown:
        benchmark = BENCHMARKS[quantity.benchmark]
        if quantity.metric == benchmark.headline:
            assert quantity.lower == (benchmark.better == "lower"), quantity
    assert sorted(tables.TABLES) == sorted(product.name for product in PRODUCTS if product.kind == "table")


def interface_tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Statistics of both interfaces: the k-th has the value k / 100 over 10 k; of tagging 100 more of n."""
    tables = []
    for column, more in ((1, 0), (2, 100)):
        names = list(dict.fromkeys(line[column] for line in quantities.BOTH_INTERFACES if line[column]))
        rows = [(name, k / 100, "ms" if "time" in name else "share", 10 * k + more) for k, name in enumerate(names)]
        tables.append(pd.DataFrame(rows, columns=["statistic", "value", "unit", "n"]))
    return tables[0], tables[1]


def test_interfaces_stand_side_by_side() -> None:
    table = tables.interfaces(*interface_tables())
    assert list(table.cells.columns) == ["Byproducts", "Browsing (ImageNet-AB)", "Tagging (COCO-AB)"]
    cells = table.cells.set_index("Byproducts")
    assert list(cells.loc["Labels with a point"]) == ["0.0 % (n = 0)", "1.0 % (n = 110)"]
    assert list(cells.loc["Points in a box of their class"]) == ["1.0 % (n = 10)", "3.0 % (n = 130)"]
    assert list(cells.loc["Points on a mask of their class"]) == ["–", "5.0 % (n = 150)"]
    # The time of an image is that of its one point where people browse.
    per_image, per_point = cells.loc["Time per image, median"], cells.loc["Time per point, median"]
    assert per_image.iloc[0] == per_point.iloc[0] and per_image.iloc[1] != per_point.iloc[1]
    raw = table.raw.set_index(["title", "interface"])
    assert raw.loc[("Points on a mask of their class", "tagging"), "value"] == 0.05
    assert pd.isna(raw.loc[("Points on a mask of their class", "browsing"), "value"])


def test_interfaces_refuse_a_statistic_that_is_not_there() -> None:
    browsing, tagging = interface_tables()
    with pytest.raises(DataError, match="tagging: the statistic tags_in_mask is missing"):
        tables.interfaces(browsing, tagging[tagging["statistic"] != "tags_in_mask"])


def test_interfaces_are_made_from_the_files_of_both_tables(tmp_path: Path) -> None:
    paths = [tmp_path / "browsing.csv", tmp_path / "tagging.csv"]
    for path, table in zip(paths, interface_tables(), strict=True):
        table.to_csv(path, index=False)
    out = [tmp_path / f"interfaces.{suffix}" for suffix in ("csv", "md", "tex")]
    tables.render_table("interfaces", *out, Inputs(statistics=tuple(paths), label="demo world"))
    assert "| Points on a mask of their class | – | 5.0 % (n = 150) |" in out[1].read_text(encoding="utf-8")
    assert out[1].read_text(encoding="utf-8").startswith("**Byproducts of browsing and of tagging (demo world)**")
    with pytest.raises(ConfigError, match="byproduct_statistics and coco_statistics, found 1"):
        tables.render_table("interfaces", *out, Inputs(statistics=tuple(paths[:1])))
    paths[1].write_text("statistic,value\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"tagging\.csv: expected the columns statistic, value, unit, n"):
        tables.render_table("interfaces", *out, Inputs(statistics=tuple(paths)))
    paths[1].unlink()
    with pytest.raises(DataError, match=r"tagging\.csv: expected statistics"):
        tables.render_table("interfaces", *out, Inputs(statistics=tuple(paths)))


def test_statistics_of_coco_need_index_manifest_and_tree(tmp_path: Path) -> None:
    out = [tmp_path / f"t.{suffix}" for suffix in ("csv", "md", "tex")]
    with pytest.raises(ConfigError, match="input `manifest`"):
        tables.render_table("coco_statistics", *out, Inputs(tags=tmp_path / "coco_ab.parquet"))
    with pytest.raises(DataError, match="coco_statistics: there are no statistics"):
        tables.statistics_table("coco_statistics", pd.DataFrame(columns=["statistic", "value", "unit", "n"]))


HEAD = "table,backbone,supervision,benchmark,metric,value,source\n"
ROW = "imagenet_main,resnet18,click,imagenet_val,top1,{},a paper\n"


@pytest.mark.parametrize(
    "content",
    [
        (HEAD + ROW.format("77.5")).encode("utf-8-sig"),
        (HEAD.replace(",", ";") + "imagenet_main;resnet18;click;imagenet_val;top1;77,5;a paper\n;;;;;;\n").encode(),
        (HEAD + ROW.format(" 77.5 % ")).replace(",", "\t").replace("\n", "\r\n").encode(),
        (HEAD.strip() + ",,\n" + ROW.format('"77,5"')).encode(),
    ],
    ids=["byte order mark", "semicolons and decimal comma", "tabs and blanks", "empty columns"],
)
def test_published_values_are_read_as_spreadsheets_save_them(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "published.csv").write_bytes(content)
    assert tables.read_published(tmp_path / "published.csv")["value"].tolist() == [77.5]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (HEAD + ROW.format("0.775"), r"line 2: expected top1 in percent, .* found 0\.775\. .* write 77\.5"),
        (HEAD + ROW.format("775"), r"line 2: expected top1 in percent, from 1 to 100, found 775"),
        (HEAD + ROW.format("0"), "line 2: expected a percentage, found 0"),
        (HEAD + ROW.format("NaN"), "line 2: expected a number such as 76.1, found 'NaN'"),
        (HEAD + ROW.format('"1.077,5"'), "line 2: expected a number"),
        (HEAD + "\n" + ROW.format("77,5"), "line 3: expected 7 cells, found 8"),
        (HEAD + ROW.format("77") + ROW.format("78"), r"line 3: imagenet_main, .* is already in .* line 2"),
        (HEAD + ROW.format(77).replace("_main", "_mian"), "no table 'imagenet_mian'. Did you mean imagenet_main"),
        (
            HEAD + ROW.format(77).replace("click", "clik"),
            "no supervision 'clik'. Did you mean click",
        ),
        (HEAD + ROW.format(77).replace("resnet18", "resnet19"), "no backbone 'resnet19'. Did you mean resnet1"),
        (HEAD + ROW.format(77).replace("_val", "_vla"), "no benchmark 'imagenet_vla'. Did you mean imagenet_v"),
        (HEAD + ROW.format(77).replace("top1", "top_1"), "no metric 'top_1'. Did you mean top1"),
        (
            HEAD.replace("value", "values") + ROW.format(77),
            "'values' is unknown. Did .* 'value' is missing",
        ),
        (HEAD + '"imagenet_main', "line 2: not a row of a table"),
        ("", "found an empty file"),
    ],
)
def test_a_wrong_row_of_published_values_is_named(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "published.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=sentence):
        tables.read_published(tmp_path / "published.csv")


def test_other_encodings_of_published_values_are_named(tmp_path: Path) -> None:
    (tmp_path / "published.csv").write_bytes((HEAD + ROW.format(77).replace("a p", "un p\xe9")).encode("latin-1"))
    with pytest.raises(DataError, match=r"found another encoding, such as Latin-1, in line 2\. Save it again as UTF-8"):
        tables.read_published(tmp_path / "published.csv")


def test_published_values_that_the_table_does_not_show_are_named() -> None:
    rows = [
        ("imagenet_main", "resnet18", "click", "imagenet_a", "accuracy", 5.0, "a paper"),
        ("imagenet_main", "resnet34", "click", "imagenet_val", "top1", 73.5, "a paper"),
        ("localization", "resnet18", "click", "wsol_test", "max_box_acc_v2", 63.7, "a paper"),
    ]
    published = pd.DataFrame(rows, columns=NOTHING.columns)
    notes = tables.score_table("imagenet_main", scores_of(backbone="resnet18"), 1.0, published).notes
    assert notes[-1] == (
        "Published values that this table does not show: resnet18 click imagenet_a accuracy 5 (a paper); resnet34 "
        "click imagenet_val top1 73.5 (a paper)."
    )
