"""The section `study`: the question of a study beside the main one, and what would count as an answer."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from luab.study.recipes import Closed


class Question(Closed):
    """A study that asks one question and shares its equal trainings with the main study.

    Its scores, tables, figures and report are in results/studies/<name>/; its trainings are where all trainings are. A
    study that shares nothing (`over: []`) has `paths` of its own, and everything is there.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")] = Field(description="Folder below results/studies.")
    title: str = Field(min_length=1, description="Heading of its page.")
    question: str = Field(min_length=1, description="What it asks, in one or two sentences.")
    answer_if: str = Field(min_length=1, description="What would count as an answer, written before it runs.")
    runs: str = Field("", description="What is trained for it, and why; printed below the question.")
    compares: Literal["supervisions", "noise", "lambda", "backbones", "uses"] = Field(
        "supervisions",
        description="What its answer compares: supervisions; levels of one kind of noise; lambdas; how many backbones "
        "agree; or uses, each with the controls of its own.",
    )
    compared: list[str] | None = Field(
        None, description="Supervisions that are compared; null: all but the controls random, shuffled and centre."
    )
    against: list[str] = Field(
        ["none", "shuffled"],
        min_length=1,
        description="Supervisions that every other one but the controls is compared with, and those of this list with "
        "the ones before them; shuffled points of certain points (`of`) with these points only. With `compares: "
        "uses`, points of the controls of each use, and none for the baseline.",
    )
    also: list[Literal["in9_challenge", "siscore_size", "siscore_location", "siscore_rotation"]] = Field(
        [], description="Benchmarks whose numbers answer, too, besides the few that always do (docs/studies.md)."
    )
    over: list[Path] = Field(
        [Path("config/config.yaml")],
        description="Configuration files of the main study, whose equal trainings are shared; an empty list for a "
        "study that shares nothing, with `paths.data` and `paths.results` of its own.",
    )
    drawn_world: dict[str, Any] = Field(
        {}, description="Keys that replace others where the configuration has a drawn world (`demo`), as in the pilot."
    )
