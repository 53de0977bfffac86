"""Stages as the workflow calls them: paths and settings of one study, handed to functions that know of neither."""

from luab.config import Study
from luab.errors import ConfigError
from luab.files import read_json
from luab.paths import Run, card
from luab.plan import Plan
from luab.sources import source_root


def make_index(study: Study, byproducts: str) -> str:
    """Indexes ImageNet-AB or COCO-AB; returns a sentence on how it compares with the known counts.

    Raises:
        ConfigError: There are no such byproducts.
    """
    if byproducts == "imagenet_ab":
        from luab.byproducts.imagenet_ab import index
    elif byproducts == "coco_ab":
        from luab.byproducts.coco_ab import index
    else:
        raise ConfigError(f"index: expected imagenet_ab or coco_ab, found {byproducts!r}.")
    from luab.byproducts.parquet import agreement

    layout = study.layout
    archive, path = read_json(layout.archive_card(byproducts)), layout.index(byproducts)
    return agreement(index(layout.archive_folder() / archive["file"], path, card(path), archive["sha256"]))


def make_targets(study: Study, supervision: str, dataset: str) -> None:
    """Writes the training points of one supervision on one data set.

    Raises:
        ConfigError: There is no such data set or supervision.
    """
    layout, seed = study.layout, study.random_points_seed
    path = layout.target(supervision, dataset)
    if dataset == "imagenet":
        from luab.data.targets import write_targets

        write_targets(layout.index(), supervision, seed, path, card(path))
    elif dataset == "coco":
        from luab.data.coco_targets import write_coco_targets

        index, manifest = layout.index("coco_ab"), layout.manifest("coco_train")
        write_coco_targets(index, manifest, supervision, seed, path, card(path))
    else:
        raise ConfigError(f"targets: expected imagenet or coco as the data set, found {dataset!r}.")


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
