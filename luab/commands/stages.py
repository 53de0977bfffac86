"""The stages as the workflow calls them: each takes the study and passes its paths and settings to a plain function."""

import dataclasses
import datetime
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from luab.benchmarks.catalogue import TRACES
from luab.errors import ConfigError
from luab.files import file_sha256, read_fields
from luab.planning.plan import CAPTIONS, Plan
from luab.render.products import Inputs, Product, find_product, products_of
from luab.study.config import OWN_TESTS, Study
from luab.study.paths import Layout, Run, card
from luab.study.roots import HELD_OUT, OWN, source_root
from luab.study.supervisions import FROM_TAGS
from luab.tasks import task_of, task_with

_FILES = {"table": (Layout.table, ("csv", "md", "tex")), "figure": (Layout.figure, ("pdf", "png"))}
SCORE_PROCESSES = 4
"""Maximum number of processes that score one suite, which takes minutes at full size."""


def make_index(study: Study, byproducts: str) -> str:
    """Indexes the byproducts of a data set; returns a sentence that compares its counts with those of the release.

    Raises:
        ConfigError: The name of the byproducts is unknown.
    """
    from luab.fetch.listing import load_archives
    from luab.fetch.verify import archived

    layout, task = study.layout, task_with(byproducts)
    parquet = layout.index(byproducts)
    if own := task.own_byproducts(study):
        file, sha256, known = own, file_sha256(own), None
    else:
        file, sha256 = archived(layout.archive_folder(), layout.archive_card(byproducts))
        listed = load_archives(study.paths.archives).get(byproducts)
        known = listed.counts if listed and listed.sha256 == sha256 else None
    reader: Any = importlib.import_module(f"luab.byproducts.{byproducts}")
    options = {"known": known, **task.index_options(study)}
    return str(reader.agreement(reader.index(file, parquet, card(parquet), sha256, study.on_bad, **options)))


def index_archive(archive: Path, out: Path | None, on_bad: str) -> str:
    """Indexes a released archive that lies anywhere; returns its counts and the path of the index.

    Args:
        archive: Of ImageNet-AB or COCO-AB, recognised by its content.
        out: Index to write, its card next to it; None for a file of the same stem next to the archive.
        on_bad: "raise" or "count".

    Raises:
        ConfigError: The index would not end in .parquet.
        DataError: The file is missing or is neither archive.
    """
    from luab.byproducts.flat import index_file

    stem = archive.name.removesuffix(".gz").removesuffix(".bz2").removesuffix(".xz")
    out = out or archive.with_name(stem).with_suffix(".parquet")
    if out.suffix != ".parquet":
        raise ConfigError(f"--out {out}: expected a name that ends in .parquet.")
    sha256 = file_sha256(archive) if archive.is_file() else None
    return f"{index_file(archive, out, card(out), archive_sha256=sha256, on_bad=on_bad)}\n{out}"


def make_targets(study: Study, target: str, dataset: str) -> None:
    """Writes a file of training points of one data set.

    Args:
        study: The configuration.
        target: Stem of the file (`Supervision.target`), name of an entry of `supervisions`, or name of points; or
            "held_out_traces", the mouse traces of ImageNet's images that no training sees.
        dataset: Data set that the study trains on.

    Raises:
        ConfigError: The data set or the points are unknown.
    """
    from luab.data.supervisions.makers import Sources, write_targets

    task, layout = task_of(dataset), study.layout
    module: Any = importlib.import_module(Plan.target_module(dataset))
    if target == TRACES and hasattr(module, "traces"):
        _make_traces(layout, module)
        return
    supervision = study.of_target(target, dataset)
    path = layout.target(supervision.target or target, dataset)
    images = source_root(study, task.train) if task.targets_read else None
    index, manifest = layout.index(task.byproducts), layout.manifest(task.train)
    from_tags = supervision.records in FROM_TAGS and supervision.records in study.part(dataset).makers
    tags = study.paths.tags if from_tags else None
    sources = Sources(index, manifest, study.random_points_seed, images=images, tags=tags)
    write_targets(module.BYPRODUCTS, sources, supervision, path, card(path))


def _make_traces(layout: Layout, module: Any) -> None:
    from luab.data.manifests.manifest import read_manifest_table
    from luab.data.supervisions.makers import Sources
    from luab.data.supervisions.point_files import write_traces

    held_out, path = layout.manifest(HELD_OUT), layout.target(TRACES)
    ids = set(read_manifest_table(held_out)["image_id"].to_pylist())
    write_traces(module.traces(Sources(layout.index(), held_out), ids), path, card(path))


def make_manifest(study: Study, dataset: str) -> None:
    """Writes the manifest of one data set."""
    from luab.data.manifests.build_manifest import build_manifest

    layout = study.layout
    path = layout.manifest(dataset)
    extra: dict[str, Any] = {}
    if dataset == "imagenet_real":
        from luab.fetch.verify import archived

        real, _ = archived(layout.archive_folder(), layout.archive_card("imagenet_real"))
        extra = {"val": layout.manifest("imagenet_val"), "real": real}
    if dataset.startswith("wsol_"):
        extra = {"lists": layout.archive_folder()}
    if dataset in ("imagenet_train", HELD_OUT):
        extra = {"held_out": study.held_out_byproducts}
    if study.folder and dataset in OWN:
        extra = {"lists": study.folder.labels, "held_out": study.folder.held_out}
    if study.folder and dataset == OWN_TESTS:
        names = read_fields(card(layout.manifest(OWN[0])), ("names",))["names"]
        extra = {"tests": study.folder.tests, "names": names}
    build_manifest(dataset, source_root(study, dataset), path, card(path), partial=study.paths.partial, **extra)


def make_pack(study: Study) -> None:
    """Packs the training images with the settings in `packing`.

    Raises:
        ConfigError: `packing` is null.
    """
    if study.packing is None:
        raise ConfigError(
            "`packing` is null, so there is nothing to pack. docs/full-study.md explains when packing is worthwhile."
        )
    from luab.data.images.build_pack import build_pack

    name, layout = Plan.of(study).packed, study.layout
    build_pack(source_root(study, name), layout.manifest(name), study.packing, layout.pack(name), study.compute.workers)


def about_model(study: Study, run: Run) -> dict[str, Any]:
    """What run.json says of the model beyond its training, so that it can be exported without the configuration."""
    task = task_of(run.dataset)
    names = {} if task.in_the_paper else task.names(study)  # those of the paper's data sets are known
    return {"label": study.label, "outputs": task.outputs(study, run)._asdict(), **names}


def has_results(study: Study) -> bool:
    """Whether a training of the study began."""
    return any(study.layout.run(run).is_dir() for run in study.runs())


def study_of_results(study: Study, results: Path) -> Study:
    """The study with another folder of results, whose run.json says what must be known of the models."""
    return study.model_copy(update={"paths": study.paths.model_copy(update={"results": results.resolve()})})


def score_suite(study: Study, run: Run, suite: str) -> None:
    """Scores one suite's benchmarks of one run."""
    from luab.benchmarks.catalogue import find_benchmark
    from luab.benchmarks.score import score

    layout = study.layout
    recipe = study.predicted_with(run)
    benchmarks = study.suite(suite).benchmarks
    score(
        benchmarks,
        layout.prediction_folder(run),
        layout.manifest_folder(),
        run.identity(),
        layout.run(run) / "scores",
        recipe.input_px,
        recipe.crop_pct,
        min(study.compute.threads, SCORE_PROCESSES),
        {root: source_root(study, root) for name in benchmarks for root in find_benchmark(name).roots},
        layout.target_folder(),
    )


def collect_scores(study: Study) -> None:
    """Gathers every score of the study in scores.csv."""
    from luab.benchmarks.collect import collect

    layout = study.layout
    runs = study.runs()
    expected = [run.identity() | {"benchmark": name} for run in runs for name in study.part(run.dataset).benchmarks]
    folders = {tuple(run.identity().values()): layout.run(run) / "scores" for run in runs}
    collect(expected, lambda cell: folders[tuple(cell.values())[:5]], layout.scores_csv())


def collect_transfer_scores(study: Study) -> None:
    """Gathers the scores of all fine-tunings in transfer.csv."""
    from luab.transfer.score import collect

    layout = study.layout
    collect([layout.fine_tuning(one) for one in Plan.of(study).transfers.scored()], layout.transfer_scores_csv())


def render_one_table(study: Study, name: str) -> None:
    """Renders one table in three formats.

    Raises:
        ConfigError: The table is unknown, or the study lacks what it requires.
    """
    from luab.render.tables import render_table

    csv, md, tex = (study.layout.table(name, suffix) for suffix in ("csv", "md", "tex"))
    render_table(name, csv, md, tex, _inputs(study, find_product("table", name)))


def render_one_figure(study: Study, name: str) -> None:
    """Renders one figure as PDF and PNG.

    Raises:
        ConfigError: The figure is unknown, or the study lacks what it requires.
    """
    from luab.render.figures.figures import render_figure

    render_figure(name, study.layout.figure(name, "pdf"), _inputs(study, find_product("figure", name)))


def _inputs(study: Study, product: Product) -> Inputs:
    """A product's inputs, with the folder of its images where it shows any."""
    inputs = product.inputs(study)
    if inputs.images_of is None:
        return inputs
    return dataclasses.replace(inputs, images_root=source_root(study, inputs.images_of))


def render_whole_report(study: Study) -> None:
    """Renders the report."""
    from luab.data.manifests.labels import class_names, wnids
    from luab.render.headline import answers_of, findings, headline_sheets
    from luab.render.report.deviations import tagged_choices
    from luab.render.report.report import Sources, render_report
    from luab.render.tables import read_table

    layout, plan = study.layout, Plan.of(study)
    tables = {}
    for product in products_of(study, "table"):
        table = read_table(product.name, layout.table(product.name, "csv"), product.inputs(study))
        tables[product.name] = table.sheet(study.label)
    sources = Sources(
        label=study.label,
        findings=findings(study),
        headline=headline_sheets(study),
        tables=tables,
        figures={name: layout.figure(name, "png") for name in plan.figures},
        captions=CAPTIONS,
        runs={run: layout.run(run) for run in study.runs()},
        titles={run.supervision: study.supervision(run).title for run in reversed(study.runs())},
        scores=layout.scores_csv(),
        browser=next((_inputs(study, product) for product in products_of(study, "section")), None),
        class_names=dict(zip(wnids(), class_names(), strict=True)),
        deviations=tagged_choices(Path()),
        question=study.study,
        answers=answers_of(study),
    )
    render_report(sources, layout.report())


def track_results(study: Study) -> None:
    """Writes what DVC shows of the results: names of models, headline numbers, training curves."""
    from luab.benchmarks.collect import read_scores
    from luab.provenance.dvc import write_curves, write_dvc_file, write_metrics

    layout, label = study.layout, study.label
    runs = study.headline_runs()
    files: dict[Path, list[Run]] = {}
    for run in runs:
        files.setdefault(layout.metrics(run), []).append(run)
    write_metrics(read_scores(layout.scores_csv()), files)
    alike = [tuple(of_file) for of_file in files.values()]
    logs: dict[Sequence[Run], Sequence[Path]] = {of_file: [layout.log_csv(run) for run in of_file] for of_file in alike}
    quantities = write_curves(layout.curves_csv(), logs)
    models = {run: layout.model(run) for run in runs}
    sweep = layout.table("lambda_sweep", "csv") if "lambda_sweep" in Plan.of(study).tables else None
    about = {run: f"{study.supervision(run).title}, {study.supervision(run).about}" for run in runs}
    write_dvc_file(layout.dvc_file(), models, files, sweep, layout.curves_csv(), quantities, label, about)


def describe_results(study: Study) -> None:
    """Writes the RO-Crate of all results."""
    from luab.fetch.listing import load_archives
    from luab.files import read_json
    from luab.provenance.crate import Byproducts, Contents, Step, write_crate

    layout, plan = study.layout, Plan.of(study)
    # The demo world's archives have the released ones' names; their addresses and licences they have not.
    listed = {} if study.demo else load_archives(study.paths.archives)
    byproducts = []
    for dataset in study.parts:
        name, index_card = task_of(dataset).byproducts, task_of(dataset).index_card(study)
        entry, sha256 = listed.get(name), read_json(index_card).get("source_sha256")
        byproducts.append(
            Byproducts(name, sha256, entry.sources[0].url, entry.licence or "") if entry else Byproducts(name, sha256)
        )
    scores, report = layout.scores_csv(), layout.report()
    steps = [Step("collect", sorted(map(Path, plan.scores())), [scores])]
    if of_fine_tunings := sorted(map(Path, plan.transfers.scores())):
        steps.append(Step("collect_transfers", of_fine_tunings, [layout.transfer_scores_csv()]))
    for product in [*products_of(study, "table"), *products_of(study, "figure")]:
        place, suffixes = _FILES[product.kind]
        outputs = [place(layout, product.name, suffix) for suffix in suffixes]
        steps.append(Step(f"{product.kind}_{product.name}", list(product.inputs(study).waits_for), outputs))
    drawn = [step for step in steps if not step.name.startswith("collect")]
    shown = [path for step in drawn for path in step.outputs if path.suffix in (".csv", ".png")]
    steps.append(Step("report", [*shown, scores], [report]))
    contents = Contents(
        folder=layout.results,
        label=study.label,
        byproducts=byproducts,
        runs={run: layout.run(run) for run in study.runs()},
        suites={run: [suite.name for suite in study.part(run.dataset).suites] for run in study.runs()},
        steps=steps,
        day=_last_day(study),
        fine_tunings={one: layout.fine_tuning(one) for one in study.fine_tunings()},
    )
    write_crate(contents, layout.crate())


def _last_day(study: Study) -> str:
    """UTC date of the last training, or today if no training recorded one, so that equal results give equal bytes."""
    from luab.training.heartbeat import read_attempts

    entries = [entry for run in study.runs() for entry in read_attempts(study.layout.run(run))]
    times = [entry["time"] for entry in entries if isinstance(entry["time"], float)]
    day = datetime.datetime.fromtimestamp(max(times), datetime.UTC) if times else datetime.datetime.now(datetime.UTC)
    return day.date().isoformat()
