"""Test sets of the user's own in tables and answers, worked out by hand from scores of three seeds."""

import pandas as pd
import pytest

from luab.render import answers, tables
from luab.render.quantities import by_test
from luab.study.question import Question
from luab.study.supervisions import Supervision, entries

COLUMNS = ["dataset", "backbone", "supervision", "lambda", "seed", "benchmark", "metric", "group", "value", "n"]
VALUES = {"": 0.6, "night": 0.5, "snow": 0.7}


def scores(gains: dict[str, float]) -> pd.DataFrame:
    """Scores of the baseline and of supervisions that gain so much by night, and nothing in snow."""
    rows = []
    for name, gain in {"none": 0.0, **gains}.items():
        for seed in range(3):
            for metric in ("balanced_accuracy", "top1"):
                for test, value in VALUES.items():
                    share = {"": gain / 2, "night": gain, "snow": 0.0}[test] * (1 + 0.01 * seed)
                    rows.append(("folder", "resnet18", name, 0.0 if name == "none" else 1.0, seed, "folder_tests",
                                 metric, test, value + share, 10))  # fmt: skip
                rows.append((*rows[-1][:6], "chance", metric, 0.25, 10))
    return pd.DataFrame(rows, columns=COLUMNS).assign(protocol="by hand")


def test_the_table_has_the_means_and_then_both_numbers_of_each_test_set() -> None:
    table = tables.score_table("folder_tests", scores({"click": 0.1}))
    assert list(table.cells.columns)[3:] == [
        "Test sets, balanced ↑", "Test sets, top-1 ↑", "night, balanced ↑", "night, top-1 ↑", "snow, balanced ↑",
        "snow, top-1 ↑",
    ]  # fmt: skip
    row = table.cells[table.cells["Supervision"] == "Baseline"].iloc[0]
    assert [text.split(" ±")[0] for text in row.iloc[3:]] == ["60.0", "60.0", "50.0", "50.0", "70.0", "70.0"]
    difference = table.cells[table.cells["Supervision"] == "  Δ"].iloc[0]
    assert difference["night, balanced ↑"].startswith("+10.1 [") and difference["snow, top-1 ↑"].startswith("+0.0")
    chance = table.cells[table.cells["Supervision"] == "Chance"].iloc[0]
    assert list(chance.iloc[3:]) == ["25.0", "25.0", "–", "–", "–", "–"]


def test_a_question_is_answered_on_each_test_set() -> None:
    own = {"none": {}, "browsed": {"title": "Browsing"}, "tagged": {"title": "Tagging"}}
    named = {name: Supervision.model_validate(entry) for name, entry in entries(own).items()}
    texts = {"name": "q", "title": "Title", "question": "What?", "answer_if": "This."}
    asked = Question.model_validate(texts | {"against": ["none", "browsed"], "compared": ["browsed", "tagged"]})
    table = answers.comparisons(scores({"browsed": 0.1, "tagged": 0.3}), asked, 1.0, named)
    by_night = table[(table["group"] == "night") & (table["supervision"] == "tagged") & (table["control"] == "browsed")]
    assert by_night["difference"].tolist() == pytest.approx([0.2 * 1.01]) and by_night["verdict"].tolist() == ["better"]
    shown = tables.answers_table("folder_answers", scores({"browsed": 0.1, "tagged": 0.3}), asked, named, 1.0)
    assert list(shown.cells.columns)[4:] == ["Test sets, balanced ↑", "night, balanced ↑", "snow, balanced ↑"]
    sentences = answers.sentences(table, asked, named, {})
    assert [text.split(": ")[0] for text in sentences] == [
        "ResNet-18, Test sets, balanced", "ResNet-18, night, balanced", "ResNet-18, snow, balanced",
    ]  # fmt: skip
    assert "Tagging" in sentences[1] and "better than Browsing (+20.2" in sentences[1]
    assert "not significantly different" in sentences[2]


def test_the_title_of_a_test_set_has_the_name_of_the_user() -> None:
    assert [one.title for one in by_test(["in9_original"])] == ["in9_original, balanced", "in9_original, top-1"]
