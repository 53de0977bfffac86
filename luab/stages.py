"""Stages as the workflow calls them: paths and settings of one study, handed to functions that know of neither."""

from luab.config import Study
from luab.errors import ConfigError
from luab.files import read_json
from luab.paths import Run, card
from luab.plan import Plan
from luab.sources import source_root

SCORE_PROCESSES = 4
"""Most processes that scoring one suite uses; it is minutes of work at full size."""


def make_manifest(study: Study, dataset: str) -> None:
    """Lists the images of one dataset."""
    from luab.data.build_manifest import build_manifest

    layout = study.layout
    path = layout.manifest(dataset)
    extra = {}
    if dataset == "imagenet_real":
        real = layout.archive_folder() / read_json(layout.archive_card("imagenet_real"))["file"]
        extra = {"val": layout.manifest("imagenet_val"), "real": real}
    if dataset.startswith("wsol_"):
        extra = {"lists": layout.archive_folder()}
    build_manifest(dataset, source_root(study, dataset), path, card(path), partial=study.paths.partial, **extra)


def make_pack(study: Study) -> None:
    """Packs the training images as the config says."""
    if study.packing is None:
        raise ConfigError(
            "The configuration packs nothing: `packing` is null. See docs/full-study.md for when it pays."
        )
    from luab.data.build_pack import build_pack

    name, layout = "imagenet_train", study.layout
    build_pack(source_root(study, name), layout.manifest(name), study.packing, layout.pack(name), study.compute.workers)


def score_suite(study: Study, run: Run, suite: str) -> None:
    """Scores one suite's benchmarks of one run."""
    from luab.score import score

    layout, recipe = study.layout, study.recipe(run.backbone)
    benchmarks = next(s.benchmarks for s in study.suites if s.name == suite)
    score(
        benchmarks,
        layout.prediction_folder(run),
        layout.manifest_folder(),
        run.identity(),
        layout.run(run) / "scores",
        recipe.input_px,
        recipe.crop_pct,
        min(study.compute.threads, SCORE_PROCESSES),
    )


def collect_scores(study: Study) -> None:
    """Gathers every score of the study in scores.csv."""
    from luab.collect import collect

    layout = study.layout
    expected = [run.identity() | {"benchmark": name} for run in study.runs() for name in study.benchmarks]
    folders = {tuple(run.identity().values()): layout.run(run) / "scores" for run in study.runs()}
    collect(expected, lambda cell: folders[tuple(cell.values())[:5]], layout.scores_csv())


def render_one_table(study: Study, name: str) -> None:
    """Renders one table in three formats."""
    from luab.render.tables import render_table

    layout = study.layout
    csv, md, tex = (layout.table(name, suffix) for suffix in ("csv", "md", "tex"))
    render_table(
        name,
        csv,
        md,
        tex,
        scores=layout.scores_csv(),
        index=layout.index(),
        published=study.paths.published,
        label=study.label,
        headline_lambda=study.luab_lambda,
    )


def render_one_figure(study: Study, name: str) -> None:
    """Renders one figure as PDF and PNG."""
    from luab.render.figures import render_figure
    from luab.render.registry import FIGURES

    layout = study.layout
    shown = "wsol_test" if FIGURES.get(name) == "cams" else "imagenet_train"
    render_figure(
        name,
        layout.figure(name, "pdf"),
        scores=layout.scores_csv(),
        index=layout.index(),
        manifest=layout.manifest(shown),
        images_root=source_root(study, shown),
        runs=[layout.prediction_folder(run) / "wsol_test.parquet" for run in Plan.of(study).example_runs()],
        label=study.label,
        headline_lambda=study.luab_lambda,
    )
