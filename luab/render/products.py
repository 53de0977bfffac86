"""Every table, figure and report section, and what each is made from.

The plan, the workflow and the command line read this one list. To add a product, add an entry here, a function of its
name to `luab.render.tables` or `luab.render.figures.figures`, and a caption in workflow/report. The module is light,
because every start of the workflow reads it; the drawing functions are imported when they are called.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from luab.benchmarks.catalogue import TRACES, find_benchmark
from luab.errors import ConfigError, did_you_mean
from luab.render import quantities as q
from luab.study.config import Study, StudyPart
from luab.study.paths import DATASET, Run, card
from luab.study.question import Question
from luab.study.supervisions import BASELINE, Supervision
from luab.tasks import task_of

Kind = Literal["table", "figure", "section"]
STATISTICS = ("byproduct_statistics", "coco_statistics")
"""Tables of the byproducts of ImageNet and of COCO; the comparison of the two interfaces reads both."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a product is drawn from; fields that it does not use keep their defaults."""

    scores: Path | None = None  # results/scores.csv
    index: Path | None = None  # byproduct index of ImageNet-AB
    tags: Path | None = None  # byproduct index of COCO-AB
    manifest: Path | None = None  # manifest of the images shown
    images_of: str | None = None  # name of that manifest, from which the command line finds `images_root`
    images_root: Path | None = None  # folder that the manifest's paths are relative to
    traces: Path | None = None  # mouse traces of held-out images
    predictions: tuple[tuple[str, Path], ...] = ()  # of the compared runs, by supervision, baseline first
    statistics: tuple[Path, ...] = ()  # CSV files of the tables in `STATISTICS`
    published: Path | None = None  # config/published.csv
    supervisions: Mapping[str, str] = dataclasses.field(default_factory=dict)  # name -> title, in the order of display
    controls: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)  # supervision -> its controls
    question: Question | None = None  # of a study beside the main one
    entries: Mapping[str, Supervision] = dataclasses.field(default_factory=dict)  # supervisions of such a study
    logs: Mapping[Run, Path] = dataclasses.field(default_factory=dict)  # log.csv of the swept runs of such a study
    transfers: Mapping[str, str] = dataclasses.field(default_factory=dict)  # fine-tunings of a task: name -> title
    dense: Callable[[], tuple[Any, list[str]]] | None = None  # opens their data set, and returns its classes
    headline_lambda: float = 1.0  # lambda of the main tables
    label: str = ""  # words in the caption, such as "demo world"; empty for the full study
    waits_for: tuple[Path, ...] = ()  # files that must exist first; a card represents the large file of the same stem


@dataclasses.dataclass(frozen=True)
class Product:
    """A table, a figure, or a section of the report."""

    kind: Kind
    name: str  # stem of its files
    title: str  # heading for people
    dataset: str  # data set that it shows: "imagenet" or "coco"
    requires: str  # what a study must have for it, to complete the sentence "this product requires ..."
    needs: Callable[[Study], Inputs | None]  # its inputs in a study, or None if the study lacks what it requires
    optional: bool = False  # whether a study without it is complete, so that nobody is told

    @property
    def from_scores(self) -> bool:
        """Whether it shows scores, so that it has a protocol and a number of seeds."""
        return isinstance(self.needs, Scored)

    def inputs(self, study: Study) -> Inputs:
        """The inputs in a study; ConfigError if it lacks what the product requires."""
        inputs = self.needs(study)
        if inputs is None:
            raise ConfigError(f"The {self.kind} {self.name} is not part of this study: it requires {self.requires}.")
        return inputs


def find_product(kind: Kind, name: str) -> Product:
    """The product of that kind and name; ConfigError, which lists the closest names, if there is none."""
    products = {product.name: product for product in PRODUCTS if product.kind == kind}
    if name not in products:
        raise ConfigError(f"There is no {kind} {name!r}. {did_you_mean(name, products)}")
    return products[name]


def products_of(study: Study, kind: Kind) -> list[Product]:
    """The products of that kind which a study can draw, in the order of the list."""
    return [product for product in PRODUCTS if product.kind == kind and product.needs(study) is not None]


def left_out(study: Study) -> str:
    """One line that names the tables, figures and sections a study cannot draw, and why; empty if it draws all.

    In a study of the paper's data sets, those of others are left out silently, and the other way round.
    """
    names: dict[str, list[str]] = {}
    of_the_paper = any(task_of(name).in_the_paper for name in study.parts)
    for product in PRODUCTS:
        expected = product.dataset in study.parts or (of_the_paper and task_of(product.dataset).in_the_paper)
        if expected and not product.optional and product.needs(study) is None:
            names.setdefault(product.requires, []).append(f"{product.kind} {product.name}")
    reasons = [f"{', '.join(products)} (requires {requires})" for requires, products in names.items()]
    return f"Left out: {'; '.join(reasons)}." if reasons else ""


def compared_runs(study: Study, dataset: str = DATASET) -> tuple[Run, Run] | None:
    """Baseline and LUAB of a data set's first backbone and seed, shown side by side; None without both.

    LUAB is the supervision "click" if the study has it, else the last one.
    """
    part = study.parts.get(dataset)
    supervision = q.main_supervision(part.supervisions) if part else None
    if part is None or supervision is None:
        return None
    backbone, seed = part.backbone_names[0], study.seeds[0]
    return Run(dataset, backbone, "none", 0.0, seed), Run(dataset, backbone, supervision, part.luab_lambda, seed)


@dataclasses.dataclass(frozen=True)
class Scored:
    """Inputs of a product that is made from scores."""

    quantities: Sequence[q.Quantity]  # the study must score the benchmark of at least one of these
    dataset: str = DATASET
    compared: bool = False  # whether it shows differences to the baseline, so that another supervision is required
    swept: bool = False  # whether a supervision must be trained at several lambdas

    def __call__(self, study: Study) -> Inputs | None:
        """The inputs in a study, or None if it lacks the benchmarks or trainings."""
        part = study.parts.get(self.dataset)
        if part is None or {quantity.benchmark for quantity in self.quantities}.isdisjoint(part.benchmarks):
            return None
        if (self.compared and set(part.supervisions) == {"none"}) or (self.swept and not _is_swept(part)):
            return None
        scores = study.layout.scores_csv()
        return _inputs(study, self.dataset, scores=scores, published=study.paths.published, waits_for=(scores,))


@dataclasses.dataclass(frozen=True)
class Uses:
    """Inputs of the table of uses of byproducts, for studies that have a use besides regression."""

    quantities: Sequence[q.Quantity]  # the study must score the benchmark of at least one of these
    dataset: str = DATASET

    def __call__(self, study: Study) -> Inputs | None:
        """The inputs in a study, or None if it has no other use, or lacks the benchmarks."""
        inputs, part = Scored(self.quantities, self.dataset)(study), study.parts.get(self.dataset)
        if inputs is None or part is None or not _has_uses(part):
            return None
        return dataclasses.replace(inputs, controls=controls_of(part.supervisions))


@dataclasses.dataclass(frozen=True)
class Answered:
    """Inputs of a product of studies beside the main one (`study`)."""

    dataset: str = DATASET
    compares: str = ""  # what the study must compare; "" for anything

    def __call__(self, study: Study) -> Inputs | None:
        """The inputs in a study, or None if it is the main one, compares something else or lacks the benchmarks."""
        question, part = study.study, study.parts.get(self.dataset)
        if question is None or part is None or self.compares not in ("", question.compares):
            return None
        quantities = q.answering(self.dataset, question.also)
        inputs = Scored(quantities, self.dataset, compared=True, swept=self.compares == "lambda")(study)
        if inputs is None:
            return None
        swept = [run for run in study.runs() if run.dataset == self.dataset and question.compares == "lambda"]
        logs = {
            run: study.layout.log_csv(run) for run in swept if run.weight and run.supervision in part.sweep.supervisions
        }
        waits_for = (*inputs.waits_for, *logs.values())
        entries = dict(part.supervisions)
        return dataclasses.replace(inputs, question=question, entries=entries, logs=logs, waits_for=waits_for)


@dataclasses.dataclass(frozen=True)
class Transferred:
    """Inputs of a product of fine-tunings for a task of `transfer`."""

    task: str  # detection or segmentation
    examples: bool = False  # whether it shows images of the first entry, backbone and seed instead of scores

    def __call__(self, study: Study) -> Inputs | None:
        """The inputs in a study, or None if it has no fine-tuning for the task that is scored."""
        entries = {name: entry for name, entry in study.transfer.items() if entry.task == self.task and entry.scored}
        if not entries:
            return None
        scores, (first, entry) = study.layout.transfer_scores_csv(), next(iter(entries.items()))
        parts = [study.part(of.on).supervisions for of in entries.values()]
        inputs = dataclasses.replace(
            _inputs(study, entry.on),
            supervisions={name: supervision.title for part in parts for name, supervision in part.items()},
            transfers={name: of.title or name for name, of in entries.items()},
        )
        if not self.examples:
            return dataclasses.replace(inputs, scores=scores, waits_for=(scores,))
        ones = [one for one in study.fine_tunings() if one.transfer == first]
        if not ones:
            return None
        shown = (BASELINE, "shuffled", q.main_supervision(one.run.supervision for one in ones))
        of_first = {
            one.run.supervision: study.layout.fine_tuning_predictions(one)
            for one in reversed(ones)  # the first of several lambdas stays
            if (one.run.backbone, one.run.seed) == (ones[0].run.backbone, ones[0].run.seed)
        }
        predictions = tuple((name, of_first[name]) for name in dict.fromkeys(shown) if name in of_first)

        def dense() -> tuple[Any, list[str]]:
            from luab.data.dense.dense_sets import classes_of, dense_set

            return dense_set(study, entry.data, "val", entry.task), classes_of(entry.data)

        waits_for = tuple(card(path) for _, path in predictions)
        return dataclasses.replace(inputs, predictions=predictions, dense=dense, waits_for=waits_for)


def controls_of(supervisions: Mapping[str, Supervision]) -> dict[str, tuple[str, ...]]:
    """What each supervision that is no control is compared with: the baseline, and those of its use.

    Controls of a use have the same settings and random, shuffled, central or no points.
    """
    controls = ("none", "random", "shuffled", "centre")
    return {
        name: (
            BASELINE,
            *(
                other
                for other, control in supervisions.items()
                if other not in (name, BASELINE)
                and control.points in controls
                and (control.use, control.settings) == (entry.use, entry.settings)
                and (control.target is None or control.scale == entry.scale)
            ),
        )
        for name, entry in supervisions.items()
        if name != BASELINE and entry.points not in controls[1:]
    }


def _has_uses(part: StudyPart) -> bool:
    """Whether a supervision has a use besides the paper's regression."""
    return {entry.use for entry in part.supervisions.values()} != {"regress"}


def _uses_maps(study: Study) -> Inputs | None:
    """Predictions of the baseline and of one run for each use and settings: the first entry that is no control.

    Images with mouse traces that no training saw if the study has the benchmark trace_alignment, else those of
    wsol_test.
    """
    part = study.parts.get(DATASET)
    if part is None or not _has_uses(part):
        return None
    benchmark = next((name for name in ("trace_alignment", "wsol_test") if name in part.benchmarks), None)
    if benchmark is None:
        return None
    shown: dict[str, str] = {}
    for name in controls_of(part.supervisions):
        entry = part.supervisions[name]
        shown.setdefault(f"{entry.target is None} {entry.use} {entry.settings}", name)
    traces = study.layout.target(TRACES) if benchmark == "trace_alignment" else None
    inputs = _predicted(study, benchmark, [BASELINE, *shown.values()], traces=traces)
    inputs = dataclasses.replace(inputs, waits_for=(*inputs.waits_for, *([card(traces)] if traces else [])))
    return _with_images(study, inputs, find_benchmark(benchmark).test_sets[0])


def _predicted(study: Study, benchmark: str, supervisions: Sequence[str], **fields: Any) -> Inputs:
    """Predictions of a benchmark's test set by runs of ImageNet's first backbone and seed at the main lambda."""
    part, (test_set,) = study.part(DATASET), find_benchmark(benchmark).test_sets
    suite = next(suite.name for suite in part.suites if benchmark in suite.benchmarks)
    runs = [
        Run(DATASET, part.backbone_names[0], name, 0.0 if name == BASELINE else part.luab_lambda, study.seeds[0])
        for name in supervisions
    ]
    folder = study.layout.prediction_folder
    predictions = tuple((run.supervision, folder(run) / f"{test_set}.parquet") for run in runs)
    cards = tuple(study.layout.prediction_card(run, suite) for run in runs)
    return _inputs(study, DATASET, predictions=predictions, waits_for=cards, **fields)


def _is_swept(part: StudyPart) -> bool:
    return any(len(part.weights(backbone, name)) > 1 for backbone in part.backbone_names for name in part.supervisions)


def _index(study: Study) -> Inputs | None:
    if study.parts.get(DATASET) is None:
        return None
    index = study.layout.index()
    return _inputs(study, DATASET, index=index, waits_for=(card(index),))


def _images(study: Study) -> Inputs | None:
    inputs = _index(study)
    return _with_images(study, inputs, "imagenet_train") if inputs else None


def _tags(study: Study) -> Inputs | None:
    if study.parts.get("coco") is None:
        return None
    tags = study.layout.index("coco_ab")
    return _with_images(study, _inputs(study, "coco", tags=tags, waits_for=(card(tags),)), "coco_train")


def _statistics(study: Study) -> Inputs | None:
    if _index(study) is None or _tags(study) is None:
        return None
    tables = tuple(study.layout.table(name, "csv") for name in STATISTICS)
    return _inputs(study, "coco", statistics=tables, waits_for=tables)


def _statistics_and_indexes(study: Study) -> Inputs | None:
    inputs = _statistics(study)
    if inputs is None:
        return None
    index, tags = study.layout.index(), study.layout.index("coco_ab")
    return dataclasses.replace(inputs, index=index, tags=tags, waits_for=(*inputs.waits_for, card(index), card(tags)))


@dataclasses.dataclass(frozen=True)
class ScoreMaps:
    """Inputs of a figure of score maps: the predictions of two runs for the test set of a benchmark's name.

    Where the study has the benchmark at stride 1 too (`wsol_test_stride1`), those finer maps are shown.
    """

    benchmark: str
    manifest: str
    dataset: str = DATASET

    def __call__(self, study: Study) -> Inputs | None:
        """The inputs in a study, or None if it lacks the benchmark or a second supervision."""
        runs, part = compared_runs(study, self.dataset), study.parts.get(self.dataset)
        if runs is None or part is None or self.benchmark not in part.benchmarks:
            return None
        finer = f"{self.benchmark}_stride1"
        test_set = finer if finer in part.benchmarks else self.benchmark
        suite = next(suite.name for suite in part.suites if test_set in suite.benchmarks)
        folder, name = study.layout.prediction_folder, f"{test_set}.parquet"
        predictions = tuple((run.supervision, folder(run) / name) for run in runs)
        cards = tuple(study.layout.prediction_card(run, suite) for run in runs)
        inputs = _inputs(study, self.dataset, predictions=predictions, waits_for=cards)
        return _with_images(study, inputs, self.manifest)


def _inputs(study: Study, dataset: str, **fields: Any) -> Inputs:
    part = study.part(dataset)
    supervisions = {name: entry.title for name, entry in part.supervisions.items()}
    return Inputs(supervisions=supervisions, headline_lambda=part.luab_lambda, label=study.label, **fields)


def _with_images(study: Study, inputs: Inputs, manifest: str) -> Inputs:
    path = study.layout.manifest(manifest)
    return dataclasses.replace(inputs, manifest=path, images_of=manifest, waits_for=(*inputs.waits_for, card(path)))


_IMAGENET, _COCO = "ImageNet (`backbones`)", "COCO (`coco`)"
_COMPARED = "a supervision besides `none`"
_SWEPT = ", ".join(quantity.benchmark for quantity in q.SWEPT)
_SWEEP = f"a supervision at several lambdas (`sweep`) and one of the benchmarks {_SWEPT}"
_STUDY = "a section `study` (config/studies)"
_BOTH = f"both {_IMAGENET} and {_COCO}"

PRODUCTS: tuple[Product, ...] = (
    Product("table", "byproduct_statistics", "Annotation byproducts of ImageNet", DATASET, _IMAGENET, _index),
    Product(
        "table", "imagenet_main", "ImageNet-1k and distribution shifts", DATASET,
        "a benchmark of ImageNet-1k or of a distribution shift", Scored(q.MAIN),
    ),
    Product(
        "table", "background_robustness", "Backgrounds Challenge and SI-Score", DATASET,
        "a benchmark in9, in9_challenge or siscore_*", Scored(q.BACKGROUND),
    ),
    Product("table", "lambda_sweep", "Weight of the byproduct loss", DATASET, _SWEEP, Scored(q.SWEPT, swept=True)),
    Product(
        "table", "uses", "Uses of byproducts", DATASET, f"a `use` besides regress and one of the benchmarks {_SWEPT}",
        Uses(q.USES), optional=True,
    ),
    Product(
        "table", "localization", "Localisation", DATASET, "the benchmark wsol_test or trace_alignment",
        Scored(q.LOCALIZATION),
    ),
    Product("table", "coco_statistics", "Annotation byproducts of COCO", "coco", _COCO, _tags),
    Product("table", "interfaces", "Byproducts of browsing and of tagging", "coco", _BOTH, _statistics),
    Product(
        "table", "coco_main", "COCO 2014, multi-label classification", "coco",
        "a benchmark coco_val, coco_size or coco_context", Scored(q.COCO_MAIN, "coco"),
    ),
    Product(
        "table", "coco_localization", "COCO 2014, localisation by class", "coco", "the benchmark coco_localization",
        Scored(q.COCO_LOCALIZATION, "coco"),
    ),
    Product(
        "table", "folder_main", "Your own images, classification", "folder", "the benchmark folder_val",
        Scored(q.FOLDER_MAIN, "folder"),
    ),
    Product(
        "table", "folder_tests", "Your own test sets", "folder", "the benchmark folder_tests",
        Scored(q.FOLDER_TESTS, "folder"), optional=True,
    ),
    Product(
        "table", "folder_points", "Your own images, localisation", "folder", "the benchmark folder_points",
        Scored(q.FOLDER_POINTS, "folder"),
    ),
    Product("figure", "byproduct_samples", "Clicks and mouse traces", DATASET, _IMAGENET, _images),
    Product("figure", "click_density", "Where people click", DATASET, _IMAGENET, _index),
    Product("figure", "hover_time", "Time per image", DATASET, _IMAGENET, _index),
    Product("figure", "worker_spread", "Images and time per worker", DATASET, _IMAGENET, _index),
    Product("figure", "lambda_sweep", "Weight of the byproduct loss", DATASET, _SWEEP, Scored(q.SWEPT, swept=True)),
    Product(
        "figure", "robustness_gain", "Difference to the baseline", DATASET, f"{_COMPARED} and a benchmark of ImageNet",
        Scored(q.GAINS, compared=True),
    ),
    Product("figure", "background_gap", "Background gap", DATASET, "the benchmark in9", Scored([q.BG_GAP])),
    Product(
        "figure", "corruption_severity", "Accuracy by severity of the corruption", DATASET, "the benchmark imagenet_c",
        Scored([q.MCE]),
    ),
    Product(
        "figure", "si_score_factors", "Accuracy by size, location and rotation", DATASET, "a benchmark siscore_*",
        Scored(q.SI_SCORE),
    ),
    Product(
        "figure", "cam_examples", "Score maps", DATASET, f"{_COMPARED} and the benchmark wsol_test",
        ScoreMaps("wsol_test", "wsol_test"),
    ),
    Product("figure", "coco_samples", "Icons and mouse traces", "coco", _COCO, _tags),
    Product("figure", "interfaces", "Browsing and tagging", "coco", _BOTH, _statistics_and_indexes),
    Product(
        "figure", "coco_gain_by_size", "Difference to the baseline by object size", "coco",
        f"{_COMPARED} on COCO and the benchmark coco_size", Scored(q.COCO_SIZES, "coco", compared=True),
    ),
    Product(
        "figure", "folder_maps", "Score maps of your own images", "folder",
        f"{_COMPARED} and the benchmark folder_points", ScoreMaps("folder_points", "folder_val", "folder"),
    ),
    *(
        Product("table", name, "Comparisons of this study", dataset, _STUDY, Answered(dataset), optional=True)
        for dataset, name in (("imagenet", "answers"), ("coco", "coco_answers"), ("folder", "folder_answers"))
    ),
    Product(
        "figure", "noise_levels", "Noise of the points", DATASET, _STUDY, Answered(compares="noise"), optional=True,
    ),
    *(
        Product(
            "figure", name, "Weight of the byproduct loss and ratio of gradients", dataset, _STUDY,
            Answered(dataset, "lambda"), optional=True,
        )
        for dataset, name in (("imagenet", "lambda_gradients"), ("coco", "coco_lambda_gradients"))
    ),
    Product(
        "figure", "uses_maps", "Score maps of the uses", DATASET,
        "a `use` besides regress and the benchmark trace_alignment or wsol_test", _uses_maps, optional=True,
    ),
    *(
        Product(
            "table", task, title, DATASET, f"an entry of `transfer` with task {task}", Transferred(task), optional=True,
        )
        for task, title in (("detection", "Transfer to detection"), ("segmentation", "Transfer to segmentation"))
    ),
    *(
        Product(
            "figure", f"{task}_examples", title, DATASET, f"an entry of `transfer` with task {task}",
            Transferred(task, examples=True), optional=True,
        )
        for task, title in (("detection", "Boxes after fine-tuning"), ("segmentation", "Masks after fine-tuning"))
    ),
    Product("section", "byproduct_browser", "Look at byproducts", DATASET, _IMAGENET, _images),
)  # fmt: skip
