"""The answer of a study: verdicts, levels of noise and sentences, worked out by hand from scores of three seeds."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from luab.errors import ConfigError, DataError
from luab.render import answers, tables
from luab.render.figures import studies
from luab.study.paths import Run
from luab.study.question import Question
from luab.study.supervisions import Supervision, entries

COLUMNS = ["dataset", "backbone", "supervision", "lambda", "seed", "benchmark", "metric", "group", "value", "n"]
BASE = [0.70, 0.71, 0.72]
ENTRIES = {
    "none": {},
    "shuffled": {},
    "click": {},
    "j1": {"points": "click", "noise": {"jitter": 0.1}, "title": "Jitter 0.1"},
    "j3": {"points": "click", "noise": {"jitter": 0.3}, "title": "Jitter 0.3"},
    "k5": {"points": "click", "noise": {"keep": 0.5}},
    "k1": {"points": "click", "noise": {"keep": 0.1}},
    "both": {"points": "click", "noise": {"keep": 0.1, "jitter": 0.1}},
    "box_j": {"points": "box", "noise": {"jitter": 0.1}},
    "fast": {"points": "click", "noise": {"workers": {"fastest": 0.5}}, "title": "Fastest half"},
}


def known() -> dict[str, Supervision]:
    return {name: Supervision.model_validate(entry) for name, entry in entries(ENTRIES).items()}


def scores(gains: dict[Any, list[float]], backbone: str = "resnet18") -> pd.DataFrame:
    """Scores of the baseline, and of supervisions (or supervisions and lambdas) that gain so much per seed."""
    rows = []
    for key, series in {("none", 0.0): [0.0, 0.0, 0.0], **gains}.items():
        name, weight = key if isinstance(key, tuple) else (key, 1.0)
        for seed, gain in enumerate(series):
            rows.append(("imagenet", backbone, name, weight, seed, "imagenet_val", "top1", "", BASE[seed] + gain, 1000))
    table = pd.DataFrame(rows, columns=COLUMNS).assign(protocol="by hand")
    titles = {name: entry.title for name, entry in known().items()}
    return table.assign(title=[titles.get(name, name) for name in table["supervision"]])


def question(**keys: Any) -> Question:
    texts = {"name": "q", "title": "Title", "question": "What?", "answer_if": "This."}
    return Question.model_validate(texts | keys)


# t(2, .975) = 4.303. Gains .02 .03 .04: mean .03, sd .01, t = 5.196, p = .0351; .029 .030 .031: t = 52, p = .00037.
SURE, PLAIN = [0.029, 0.030, 0.031], [0.02, 0.03, 0.04]


def test_p_is_corrected_over_the_supervisions_that_are_compared_with_one() -> None:
    table = answers.comparisons(scores({"click": SURE, "j1": PLAIN}), question(against=["none"]), 1.0, known())
    assert list(table["supervision"]) == ["click", "j1"] and set(table["tests"]) == {2} and set(table["n"]) == {3}
    assert table["p_holm"].tolist() == pytest.approx([2 * 0.00037, 0.0351], abs=1e-4)
    assert list(table["verdict"]) == ["better", "better"] and list(table["images"]) == [1000, 1000]
    three = answers.comparisons(
        scores({"click": SURE, "j1": PLAIN, "j3": [-0.02, -0.03, -0.04]}), question(against=["none"]), 1.0, known()
    )
    # The two equal p are the second and third smallest: both times two.
    assert three["p_holm"].tolist() == pytest.approx([3 * 0.00037, 0.0701, 0.0701], abs=2e-4)
    assert list(three["verdict"]) == ["better", "equal", "equal"]


def test_controls_are_not_compared_with_others_nor_a_supervision_with_itself() -> None:
    table = answers.comparisons(
        scores({"shuffled": PLAIN, "random": PLAIN, "centre": PLAIN, "click": SURE, "j1": SURE}),
        question(against=["none", "click"]), 1.0, known(),
    )  # fmt: skip
    assert list(zip(table["supervision"], table["control"], strict=True)) == [
        ("click", "none"), ("j1", "none"), ("j1", "click"),
    ]  # fmt: skip


def test_uses_are_compared_with_the_baseline_and_with_the_controls_of_their_own_use() -> None:
    uses = {"use": "attribution", "scale": 2.0}
    own = {"map": {"points": "click", **uses}, "map_s": {"points": "shuffled", **uses, "title": "Map, shuffled"}}
    named = {name: Supervision.model_validate(entry) for name, entry in entries(ENTRIES | own).items()}
    given = scores({"shuffled": [0.0, 0.001, -0.001], "click": SURE, "map": PLAIN, "map_s": [0.0, 0.0, 0.0]})
    asked = question(compares="uses", against=["none", "shuffled"])
    table = answers.comparisons(given, asked, 1.0, named)
    assert list(zip(table["supervision"], table["control"], strict=True)) == [
        ("click", "none"), ("click", "shuffled"), ("map", "none"), ("map", "map_s"),
    ]  # fmt: skip
    # Two comparisons with the baseline, and two with the shuffled points of a use: the smaller p counts twice.
    assert set(table["tests"]) == {2}
    by_control = table.set_index("control")["p_holm"]
    assert by_control["map_s"] == pytest.approx(0.0351, abs=1e-4)
    assert by_control["shuffled"] == pytest.approx(2 * table["p"][1])
    [text] = answers.sentences(table, asked, named, {})
    assert "better than Map, shuffled (+3.0 [+0.5, +5.5], p = 0.035)" in text


def test_the_sentence_about_browsing_and_tagging() -> None:
    own = {
        "browsed": {"title": "Browsing"}, "tagged": {"title": "Tagging"},
        "same": {"points": "random", "of": "both", "title": "Random, same"},
        "s_b": {"points": "shuffled", "of": "browsed", "title": "Browsing, shuffled"},
        "s_t": {"points": "shuffled", "of": "tagged", "title": "Tagging, shuffled"},
    }  # fmt: skip
    named = {name: Supervision.model_validate(entry) for name, entry in entries(ENTRIES | own).items()}
    zero = [0.0, 0.001, -0.001]
    given = scores({"click": SURE, "browsed": SURE, "tagged": PLAIN, "same": zero, "s_b": zero, "s_t": zero})
    asked = question(against=["none", "same", "s_b", "s_t", "browsed", "tagged"], compared=["browsed", "tagged"])
    table = answers.comparisons(given, asked, 1.0, named)
    # Clicks are not compared; shuffled points are for their own; the two interfaces are compared once.
    assert list(zip(table["supervision"], table["control"], strict=True)) == [
        ("browsed", "none"), ("browsed", "same"), ("browsed", "s_b"),
        ("tagged", "none"), ("tagged", "same"), ("tagged", "s_t"), ("tagged", "browsed"),
    ]  # fmt: skip
    by_pair = table.set_index(["supervision", "control"])
    assert by_pair["tests"].tolist() == [2, 2, 2, 2, 2, 2, 1]  # both shuffled controls are one family
    # t(2) of .02-.029, .03-.030, .04-.031 is 0: the mean difference is 0.
    assert by_pair.loc[("tagged", "browsed"), "p_holm"] == pytest.approx(1.0)
    assert by_pair.loc[("tagged", "none"), "p_holm"] == pytest.approx(0.0351, abs=1e-4)
    assert by_pair.loc[("browsed", "none"), "p_holm"] == pytest.approx(2 * 0.00037, abs=1e-5)
    [text] = answers.sentences(table, asked, named, {})
    assert text.startswith("ResNet-18, IN-1k: Browsing is better than Baseline (+3.0 [+2.8, +3.2], p < 0.001), ")
    assert "Tagging is better than Baseline (+3.0 [+0.5, +5.5], p = 0.035)" in text
    assert "and not significantly different from Browsing (+0.0 [−2.2, +2.2], p = 1.000). " in text
    assert "n = 3 seeds, 1,000 images; p: paired t-test, Holm's correction over 1 to 2 tests." in text
    notes = tables.answers_table("answers", given, asked, named, 1.0).notes
    assert any("the same one, or with shuffled points of their own, on the same benchmark" in note for note in notes)


def test_further_benchmarks_answer_where_a_study_says_so() -> None:
    moved = scores({"click": SURE}).assign(benchmark="siscore_location", metric="accuracy")
    given = pd.concat([scores({"click": SURE}), moved], ignore_index=True)
    usual = answers.comparisons(given, question(against=["none"]), 1.0, known())
    more = answers.comparisons(given, question(against=["none"], also=["siscore_location"]), 1.0, known())
    assert list(usual["benchmark"]) == ["imagenet_val"]
    assert list(more["benchmark"]) == ["imagenet_val", "siscore_location"]


def test_levels_begin_with_no_noise_and_go_from_weak_to_strong() -> None:
    levels = answers.noise_levels(known())
    assert {kind: [(level.supervision, level.text) for level in of] for kind, of in levels.items()} == {
        "jitter": [("click", "0"), ("j1", "0.1"), ("j3", "0.3")],
        "keep": [("click", "1"), ("k5", "0.5"), ("k1", "0.1")],
        "workers": [("fast", "Fastest half")],
    }


def test_the_sentence_about_noise() -> None:
    asked = question(compares="noise", against=["none", "shuffled"])
    given = scores({"shuffled": [0.0, 0.001, -0.001], "click": SURE, "j1": SURE, "j3": [0.001, -0.001, 0.0]})
    [text] = answers.sentences(answers.comparisons(given, asked, 1.0, known()), asked, known(), {})
    # Against the baseline: click and j1 have p = .00037, times 3 and 2; j3 has t = 0.
    assert text.startswith(
        "ResNet-18, IN-1k: jitter: better than Baseline at 0, 0.1 (at 0.1: +3.0 [+2.8, +3.2], p = 0.001), not at 0.3 "
        "and better than Shuffled points at 0, 0.1 (at 0.1: "
    )
    assert text.endswith(
        "Differences in percentage points with 95 % intervals; n = 3 seeds, 1,000 images; p: paired t-test, Holm's "
        "correction over 3 tests."
    )


def test_the_sentence_about_lambda_names_the_gradient_ratio_of_the_best() -> None:
    asked = question(compares="lambda", against=["none"])
    given = scores(
        {("click", 0.1): [0.001, -0.001, 0.0], ("click", 1.0): SURE, ("click", 10.0): [-0.03, -0.031, -0.029]}
    )
    table = answers.comparisons(given, asked, 1.0, known())
    [text] = answers.sentences(table, asked, known(), {("resnet18", 1.0): 0.871, ("vit", 1.0): 5.0})
    assert text.startswith(
        "ResNet-18, IN-1k: of 3 λ, LUAB (clicks) is better than Baseline at λ = 1 and worse at λ = 10; the largest "
        "gain is at λ = 1 (+3.0 [+2.8, +3.2], p = 0.001; gradient ratio 0.87)."
    )


def test_the_sentence_about_backbones_counts_them() -> None:
    asked = question(compares="backbones", against=["none"])
    given = pd.concat(
        [
            scores({"click": SURE}),
            scores({"click": [0.0, 0.001, -0.001]}, "resnet50"),
            scores({"click": PLAIN}, "convnext_tiny"),
        ]
    )
    table = answers.comparisons(given.reset_index(drop=True), asked, 1.0, known())
    assert set(table["tests"]) == {3}  # over the backbones
    [text] = answers.sentences(table, asked, known(), {})
    assert text.startswith(
        "IN-1k: with LUAB (clicks), of 3 backbones 1 (ResNet-18) are better than with Baseline and 0 worse; from "
        "+0.0 [−0.2, +0.2], p = 1.000 with ResNet-50 to "
    )


def test_the_sentence_about_supervisions_and_one_seed() -> None:
    asked = question(against=["none", "click"])
    given = scores({"click": SURE, "j1": SURE})
    [text] = answers.sentences(answers.comparisons(given, asked, 1.0, known()), asked, known(), {})
    assert "LUAB (clicks) is better than Baseline (+3.0 [+2.8, +3.2], p < 0.001)" in text
    assert "Jitter 0.1 is better than Baseline (+3.0 [+2.8, +3.2], p < 0.001) and not significantly different" in text
    one = given[given["seed"] == 0]
    [text] = answers.sentences(answers.comparisons(one, asked, 1.0, known()), asked, known(), {})
    assert "(+2.9, no interval)" in text and "n = 1 seed, 1,000 images." in text


def test_lower_is_better_where_it_is() -> None:
    given = scores({"click": SURE}).assign(benchmark="in9", metric="bg_gap")
    table = answers.comparisons(given, question(against=["none"]), 1.0, known())
    assert list(table["verdict"]) == ["worse"] and table["difference"].tolist() == pytest.approx([0.03])


def test_gradient_ratios_are_medians_over_epochs_and_means_over_seeds(tmp_path: Path) -> None:
    logs = {}
    for seed, column in enumerate((["1", "2", "9"], ["4", "", "6"])):
        log = tmp_path / f"{seed}.csv"
        rows = "".join(f"{epoch},{value}\n" for epoch, value in enumerate(column))
        log.write_text(f"epoch,byproduct_gradient_ratio\n{rows}", encoding="utf-8")
        logs[Run("imagenet", "resnet18", "click", 1.0, seed)] = log
    assert answers.gradient_ratios(logs) == {("resnet18", 1.0): 3.5}  # of 2 and 5


def test_the_table_has_a_row_per_comparison() -> None:
    asked = question(against=["none", "shuffled"])
    table = tables.answers_table("answers", scores({"shuffled": PLAIN, "click": SURE}), asked, known(), 1.0)
    assert table.title == "Title: differences in percentage points"
    assert list(table.cells["Compared with"]) == ["Baseline", "Shuffled points"]
    assert table.cells["IN-1k ↑"][0] == "+3.0 [+2.8, +3.2], p < 0.001"
    with pytest.raises(DataError, match="nothing to compare"):
        tables.answers_table("answers", scores({"shuffled": PLAIN}), asked, known(), 1.0)


def test_figures_have_intervals_and_the_lines_of_the_controls() -> None:
    given = scores({"shuffled": PLAIN, "centre": PLAIN, "click": SURE, "j1": SURE, "j3": PLAIN, "k5": SURE})
    figure = studies.noise_levels(given, known(), 1.0, "toy")
    panels = [axes for axes in figure.axes if axes.get_xlabel()]
    assert [axes.get_xlabel() for axes in panels] == ["jitter", "share of the clicks"]
    assert {"shuffled", "centre"} <= {line.get_gid() for line in panels[0].lines}
    swept = scores({("click", 0.1): PLAIN, ("click", 1.0): SURE, ("click", 10.0): PLAIN, "shuffled": PLAIN})
    figure = studies.lambda_gradients(swept, {("resnet18", 0.1): 0.09, ("resnet18", 10.0): 9.0}, 1.0, "toy")
    upper = figure.axes[-1]
    assert [text.get_text() for text in upper.get_xticklabels()] == ["0.09"]
    with pytest.raises(DataError, match="no supervision has noise"):
        studies.noise_levels(given, {}, 1.0)


def test_a_table_without_its_question_is_refused(tmp_path: Path) -> None:
    from luab.render.products import Inputs, find_product

    with pytest.raises(ConfigError, match="question"):
        tables.TABLES["answers"](find_product("table", "answers"), Inputs(scores=tmp_path))
