"""Which numbers tables and figures show, under which heading, and which direction is better.

Light: the plan reads this module to find out which products a study can draw.
"""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One number per run; benchmark, metric and group as in the scores."""

    benchmark: str
    metric: str
    title: str  # heading of a column or panel, without arrow and unit
    lower: bool = False  # whether lower is better
    group: str = ""  # row of a benchmark's details; "" for its own metrics
    needs_point: bool = False  # whether only models with a byproduct head have it; the baseline lacks it then

    @property
    def key(self) -> tuple[str, str, str]:
        """Its place in the scores."""
        return self.benchmark, self.metric, self.group

    @property
    def heading(self) -> str:
        """Title with the arrow in the direction of better values."""
        return f"{self.title} {'↓' if self.lower else '↑'}"

    @property
    def possible(self) -> tuple[float, float]:
        """The range of its values, in percent: only mCE can exceed 100; only gaps and correlations can be negative."""
        if self.metric.endswith("gap") or self.metric == "alignment":
            return -100.0, 100.0
        return 0.0, float("inf") if self.metric == "mce" else 100.0

    @property
    def gain_sign(self) -> int:
        """Turns a difference into a gain: -1 where lower is better."""
        return -1 if self.lower else 1


VAL = Quantity("imagenet_val", "top1", "IN-1k")
MCE = Quantity("imagenet_c", "mce", "C (mCE)", lower=True)
MAIN = (
    VAL,
    Quantity("imagenet_v2", "top1", "V2"),
    Quantity("imagenet_real", "accuracy", "ReaL"),
    Quantity("imagenet_a", "accuracy", "A"),
    MCE,
    Quantity("imagenet_o", "aupr", "O (AUPR)"),
    Quantity("imagenet_sketch", "top1", "Sketch"),
    Quantity("imagenet_r", "accuracy", "R"),
    Quantity("imagenet_cocc", "top1", "Cocc"),
    Quantity("objectnet", "accuracy", "ObjectNet"),
)
BG_GAP = Quantity("in9", "bg_gap", "BG-gap", lower=True)
MIXED_SAME = Quantity("in9", "mixed_same", "Mixed-same")
MIXED_RAND = Quantity("in9", "mixed_rand", "Mixed-rand")
CHALLENGE = Quantity("in9_challenge", "challenge_accuracy", "BG challenge")
SI_SCORE = tuple(Quantity(f"siscore_{name}", "accuracy", f"SI {name}") for name in ("size", "location", "rotation"))
BACKGROUND = (
    Quantity("in9", "original", "Original"),
    MIXED_SAME,
    MIXED_RAND,
    Quantity("in9", "mixed_next", "Mixed-next"),
    Quantity("in9", "only_fg", "Only-FG"),
    Quantity("in9", "no_fg", "No-FG"),
    Quantity("in9", "only_bg_b", "Only-BG-B"),
    Quantity("in9", "only_bg_t", "Only-BG-T"),
    BG_GAP,
    CHALLENGE,
    *SI_SCORE,
)
MAX_BOX_V2 = Quantity("wsol_test", "max_box_acc_v2", "MaxBoxAccV2")
ALIGNMENT = Quantity("trace_alignment", "alignment", "Trace alignment")
LOCALIZATION = (
    Quantity("wsol_test", "max_box_acc", "MaxBoxAcc"),
    MAX_BOX_V2,
    Quantity("wsol_test", "point_in_box", "Point in box", needs_point=True),
    Quantity("wsol_test", "point_distance", "Point distance (% of diagonal)", lower=True, needs_point=True),
    Quantity("wsol_test", "energy_in_box", "Energy in box"),
    Quantity("wsol_test", "pointing_game", "Pointing game"),
    ALIGNMENT,
)
COCO_SIZES = tuple(Quantity("coco_size", f"map_{name}", f"mAP {name}") for name in ("small", "medium", "large"))
COCO_CONTEXTS = (
    Quantity("coco_context", "map_in_context", "mAP in context"),
    Quantity("coco_context", "map_out_of_context", "mAP out of context"),
)
COCO_MAIN = (
    Quantity("coco_val", "map", "mAP"),
    Quantity("coco_val", "cf1", "CF1"),
    Quantity("coco_val", "of1", "OF1"),
    *COCO_SIZES,
    *COCO_CONTEXTS,
    Quantity("coco_context", "context_gap", "Context gap", lower=True),
)
COCO_LOCALIZATION = (
    Quantity("coco_localization", "pointing_game", "Pointing game"),
    Quantity("coco_localization", "pxap", "PxAP"),
    Quantity("coco_localization", "point_in_mask", "Point on mask", needs_point=True),
)
FOLDER_MAIN = (
    Quantity("folder_val", "balanced_accuracy", "Balanced accuracy"),
    Quantity("folder_val", "top1", "Top-1"),
    Quantity("folder_val", "top5", "Top-5"),
)
FOLDER_POINTS = (
    Quantity("folder_points", "map_rank", "Map at the point"),
    Quantity("folder_points", "point_distance", "Point distance (% of diagonal)", lower=True, needs_point=True),
    Quantity("folder_points", "centre_distance", "Centre distance (% of diagonal)", lower=True, needs_point=True),
    Quantity("folder_points", "point_in_box", "Point in box", needs_point=True),
    Quantity("folder_points", "max_box_acc_v2", "MaxBoxAccV2"),
)
FOLDER_TESTS = (
    Quantity("folder_tests", "balanced_accuracy", "Test sets, balanced"),
    Quantity("folder_tests", "top1", "Test sets, top-1"),
)
"""Means over the test sets of the user's own; `by_test` returns those of each test set."""
SWEPT = (VAL, MAIN[3], MAIN[4], BG_GAP, MAX_BOX_V2)
USES = (*SWEPT, *LOCALIZATION[-3:])
ANSWERS = {
    "imagenet": (VAL, MAIN[-1], BG_GAP, MAX_BOX_V2, LOCALIZATION[2], ALIGNMENT),
    "coco": (COCO_MAIN[0], COCO_CONTEXTS[1], *COCO_LOCALIZATION[:1], COCO_LOCALIZATION[2]),
    "folder": (FOLDER_MAIN[0], FOLDER_TESTS[0], *FOLDER_POINTS[:2]),
}
"""Quantities that answer the question of every study beside the main one, by data set."""
_ALSO = {"imagenet": (CHALLENGE, *SI_SCORE)}
"""Quantities that answer where a study names their benchmarks in `also`, by data set."""


def answering(dataset: str, also: Iterable[str] = (), tests: Iterable[str] = ()) -> tuple[Quantity, ...]:
    """Returns the quantities that answer the question of a study.

    Those of the benchmarks `also`, and the balanced accuracy of the user's own test sets `tests`, are at the end.
    """
    more = (quantity for quantity in _ALSO.get(dataset, ()) if quantity.benchmark in set(also))
    return (*ANSWERS[dataset], *more, *by_test(tests, FOLDER_TESTS[:1]))


def by_test(tests: Iterable[str], means: Iterable[Quantity] = FOLDER_TESTS) -> list[Quantity]:
    """The quantities of each test set of the user's own, in the place of the means over all of them."""
    parts = [(mean, mean.title.partition(", ")[2]) for mean in means]
    return [dataclasses.replace(mean, group=test, title=f"{test}, {part}") for test in tests for mean, part in parts]


TRACKED = {
    "imagenet": (*MAIN, BG_GAP, CHALLENGE, *SI_SCORE, MAX_BOX_V2, LOCALIZATION[2]),
    "coco": (*COCO_MAIN[:4], COCO_CONTEXTS[1], *COCO_LOCALIZATION),
    "folder": (*FOLDER_MAIN, *FOLDER_TESTS, *FOLDER_POINTS[:2]),
}
"""Quantities that DVC shows, by data set."""
GAINS = (*MAIN, MIXED_RAND, BG_GAP, CHALLENGE, *SI_SCORE, MAX_BOX_V2)


class Headline(NamedTuple):
    """Quantities that the terminal and the top of the report show, and the tables that have their numbers."""

    tables: tuple[str, ...]
    quantities: tuple[Quantity, ...]


HEADLINE = {
    "imagenet": Headline(
        ("imagenet_main", "background_robustness", "localization"),
        (*GAINS, *(quantity for quantity in LOCALIZATION if quantity.needs_point)),
    ),
    "coco": Headline(("coco_main", "coco_localization"), (*COCO_MAIN, *COCO_LOCALIZATION)),
    "folder": Headline(("folder_main", "folder_tests", "folder_points"), (*FOLDER_MAIN, *FOLDER_TESTS, *FOLDER_POINTS)),
}
"""By data set."""

INTERFACES = {"browsing": "Browsing (ImageNet-AB)", "tagging": "Tagging (COCO-AB)"}
BOTH_INTERFACES = (  # title, statistic of browsing, of tagging; None if the interface has none
    ("Images with a point", "with_click", "images_with_tags"),
    ("Labels with a point", "with_click", "classes_tagged"),
    ("Points of a label that the image has", None, "tags_right"),
    ("Points in a box of their class", "click_in_box", "tags_in_box"),
    ("Middle of the image in such a box", "centre_in_box", "centre_in_box"),
    ("Points on a mask of their class", None, "tags_in_mask"),
    ("Distance to the middle, mean", "click_to_centre_mean", "tag_to_centre_mean"),
    ("Time per image, first quartile", "estimate_time_quartile_1", "time_spent_quartile_1"),
    ("Time per image, median", "estimate_time_median", "time_spent_median"),
    ("Time per image, third quartile", "estimate_time_quartile_3", "time_spent_quartile_3"),
    ("Time per point, first quartile", "estimate_time_quartile_1", "time_per_tag_quartile_1"),
    ("Time per point, median", "estimate_time_median", "time_per_tag_median"),
    ("Time per point, third quartile", "estimate_time_quartile_3", "time_per_tag_quartile_3"),
    ("Samples of a trace, mean", "trace_points_mean", "trace_points_mean"),
    ("Traces without a sample", "trace_empty", "trace_empty"),
    ("Points taken back", None, "tags_taken_back"),
    ("Workers", "workers", "workers"),
    ("Images of a worker, median", "images_per_worker_median", "images_per_worker_median"),
)


def main_supervision(supervisions: Iterable[str]) -> str | None:
    """The supervision that is compared with the baseline: click, else the last one; None if the baseline is alone."""
    others = [name for name in supervisions if name != "none"]
    return "click" if "click" in others else others[-1] if others else None
