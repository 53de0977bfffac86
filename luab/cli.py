"""The `luab` command: every stage of the study by hand; the workflow's rules call the same functions."""

import dataclasses
import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luab.errors import ConfigError, LuabError
from luab.study.config import Study, load_study
from luab.study.paths import DATASET, Run
from luab.training import processes

if TYPE_CHECKING:
    from luab.fetch.listing import Archive

app = typer.Typer(
    help="Learning image classifiers using annotation byproducts: every stage of the study by hand.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
render_app = typer.Typer(help="Tables and figures, from scores, index or predictions.", no_args_is_help=True)
app.add_typer(render_app, name="render")

Config = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        "-c",
        help="Configuration, repeated: later files override earlier ones. Default: config/config.yaml.",
        show_default=False,
    ),
]
RunName = Annotated[str, typer.Argument(help="imagenet/<backbone>/<supervision>-<lambda>/seed<k>")]
DEFAULT_CONFIG = Path("config/config.yaml")


def main() -> None:
    """Runs the command line; a foreseen error is one paragraph on stderr and exit code 1."""
    try:
        app()
    except LuabError as error:
        if processes.note(error, _way(error)):  # the process that launched this one says it, at the end of the log
            sys.exit(1)
        if not sys.stderr.isatty():  # a log also tells where, a person at a terminal gets the reason alone
            print(f"raised by {_way(error)}\n", file=sys.stderr)
        print(f"{error.kind}: {error}", file=sys.stderr)
        sys.exit(1)


def _way(error: LuabError) -> str:
    """luab's own part of a traceback in one line, innermost first."""
    package = Path(__file__).parent
    frames = [f for f in traceback.extract_tb(error.__traceback__) if package in Path(f.filename).parents]
    return " < ".join(f"{Path(f.filename).relative_to(package)}:{f.lineno} {f.name}" for f in reversed(frames))


def study_of(config: list[Path] | None) -> Study:
    """The study that a command is about: --config, else what the workflow passes on, else the default.

    Files other than the default are laid over config/config.yaml.
    """
    if not config and (kept := os.environ.get("LUAB_CONFIG")):
        return load_study([Path(kept)])
    over = [path for path in config or [] if path.resolve() != DEFAULT_CONFIG.resolve()]
    return load_study([DEFAULT_CONFIG, *over])


def run_of(name: str) -> Run:
    """The run that a folder name means.

    Raises:
        ConfigError: The name has another form.
    """
    try:
        return Run.parse(name.strip("/"))
    except ValueError as error:
        raise ConfigError(f"{error}, for example imagenet/resnet50/click-1/seed0.") from error


def _archive(study: Study, name: str) -> "Archive":
    from luab.errors import did_you_mean
    from luab.fetch.listing import load_archives

    known = load_archives(study.paths.archives)
    if name not in known:
        raise ConfigError(f"{study.paths.archives}: no archive is called {name!r}. {did_you_mean(name, known)}")
    return known[name]


@app.command("demo-world")
def demo_world(config: Config = None) -> None:
    """Draw the demo world and pack it in the official formats."""
    from luab.demo.world import draw_world

    study = study_of(config)
    if study.demo is None:
        raise ConfigError("The configuration has no `demo` section; use --config config/demo.yaml.")
    draw_world(study.layout.data / "world", study.demo.seed, study.demo.size_px)


@app.command()
def fetch(name: str, config: Config = None) -> None:
    """Download one archive of the list, verify it, and write its card."""
    from luab.fetch import fetch as fetching

    study = study_of(config)
    fetching.fetch(_archive(study, name), study.layout.archive_folder(), study.layout.archive_card(name))


@app.command()
def verify(name: str, config: Config = None) -> None:
    """Hash a downloaded archive again and compare it with the list."""
    from luab.fetch import verify as verifying

    study = study_of(config)
    verifying.verify(_archive(study, name), study.layout.archive_folder())
    typer.echo(f"{name}: as listed")


@app.command()
def unpack(dataset: str, config: Config = None) -> None:
    """Unpack the verified archives of one dataset."""
    from luab.fetch.unpack import unpack_all
    from luab.fetch.verify import archived
    from luab.planning.plan import Plan

    study = study_of(config)
    layout = study.layout
    names = Plan.of(study).trees(dataset)
    if not names:
        raise ConfigError(f"{dataset}: config/archives.yaml has no archive to unpack for this dataset.")
    files = {name: archived(layout.archive_folder(), layout.archive_card(name))[0] for name in names}
    unpack_all(files, layout.raw_folder(dataset), layout.raw_card(dataset), dataset)


@app.command()
def index(
    byproducts: Annotated[str, typer.Argument(help="imagenet_ab or coco_ab")] = "imagenet_ab", config: Config = None
) -> None:
    """Turn the archive of ImageNet-AB or COCO-AB into one Parquet file, and compare its counts with what is known."""
    from luab.commands.stages import make_index

    typer.echo(make_index(study_of(config), byproducts))


@app.command()
def manifest(dataset: str, config: Config = None) -> None:
    """List the images of one dataset with labels, counts and digest."""
    from luab.commands.stages import make_manifest

    make_manifest(study_of(config), dataset)


@app.command()
def targets(
    supervision: str,
    dataset: Annotated[str, typer.Option(help="imagenet or coco")] = DATASET,
    config: Config = None,
) -> None:
    """Write the training points of one supervision."""
    from luab.commands.stages import make_targets

    make_targets(study_of(config), supervision, dataset)


@app.command()
def pack(config: Config = None) -> None:
    """Pack the training images into a few large files, as the config's `packing` says."""
    from luab.commands.stages import make_pack

    make_pack(study_of(config))


@app.command()
def train(run: RunName, config: Config = None) -> None:
    """Train one run; taken up where it stopped if it was interrupted. Several processes are started as needed."""
    study, wanted = study_of(config), run_of(run)  # first: the imports below take seconds
    if study.compute.processes > 1 and not processes.launched():
        processes.launch(study, wanted)
        return
    processes.follow_launcher()
    from luab.provenance.code import provenance
    from luab.training.train import train as train_run

    train_run(study, wanted, provenance() if processes.first() else None, ready=processes.ready)


@app.command()
def predict(run: RunName, suite: str, config: Config = None) -> None:
    """Predict every test set of a suite with a trained run."""
    from luab.planning.plan import Plan

    study, wanted = study_of(config), run_of(run)
    test_sets = Plan.of(study).test_sets(suite)
    from luab.predict import predict as predict_suite
    from luab.provenance.code import PREDICTION, code_digest

    predict_suite(study, wanted, suite, test_sets, code_digest(*PREDICTION))


@app.command()
def score(run: RunName, suite: str, config: Config = None) -> None:
    """Score a suite's benchmarks from stored predictions."""
    from luab.commands.stages import score_suite

    score_suite(study_of(config), run_of(run), suite)


@app.command()
def collect(config: Config = None) -> None:
    """Gather every score of the study in results/scores.csv."""
    from luab.commands.stages import collect_scores

    collect_scores(study_of(config))


@app.command()
def track(config: Config = None) -> None:
    """Write what DVC shows of the results: names of models, headline numbers, data of plots."""
    from luab.commands.stages import track_results

    track_results(study_of(config))


@app.command()
def describe(config: Config = None) -> None:
    """Describe all results for machines, as an RO-Crate: results/ro-crate-metadata.json."""
    from luab.commands.stages import describe_results

    describe_results(study_of(config))


@app.command()
def publish(
    remote: Annotated[str | None, typer.Option(help="DVC's name of it; else its default.", show_default=False)] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Of the commit.", show_default=False)] = None,
    config: Config = None,
) -> None:
    """Send a finished study to DVC's remote and commit what git keeps of it."""
    from luab.provenance.publish import publish as publish_results

    typer.echo(publish_results(study_of(config), remote, message))


@app.command()
def pull(
    targets: Annotated[list[str] | None, typer.Argument(help="Files or folders; all where none is named.")] = None,
    needs: Annotated[bool, typer.Option("--needs", help="Not them, but what Snakemake makes them from.")] = False,
    remote: Annotated[str | None, typer.Option(help="DVC's name of it; else its default.", show_default=False)] = None,
    config: Config = None,
) -> None:
    """Fetch results from DVC's remote: all, some, or what a file is made from."""
    from luab.provenance.publish import pull as pull_results

    typer.echo(pull_results(study_of(config), targets or [], needs, remote))


@render_app.command("table")
def render_table(name: str, config: Config = None) -> None:
    """Render one table as csv, md and tex."""
    from luab.commands.stages import render_one_table

    render_one_table(study_of(config), name)


@render_app.command("figure")
def render_figure(name: str, config: Config = None) -> None:
    """Render one figure as pdf and png."""
    from luab.commands.stages import render_one_figure

    render_one_figure(study_of(config), name)


@render_app.command("report")
def render_report(config: Config = None) -> None:
    """Render the whole study as one page, results/report.html."""
    from luab.commands.stages import render_whole_report

    render_whole_report(study_of(config))


@app.command()
def compare(
    first: RunName,
    second: RunName,
    benchmark: Annotated[
        list[str] | None, typer.Option("--benchmark", "-b", help="Only this one, repeated.", show_default=False)
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the numbers to this file.")] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Draws of the bootstrap.")] = 10_000,
    config: Config = None,
) -> None:
    """Compare two runs image by image: intervals, paired tests, corrected for the number of benchmarks."""
    from luab.benchmarks.imagenet import find_benchmark
    from luab.comparison.two_runs import compare_runs, print_comparison, write_comparison

    study, runs = study_of(config), (run_of(first), run_of(second))
    names = [find_benchmark(name).name for name in benchmark or []]
    rows = compare_runs(study, *runs, names, resamples)
    if csv:
        write_comparison(csv, rows, resamples)
    print_comparison(study, *runs, rows, resamples)


@app.command()
def trace(
    table: Annotated[Path, typer.Argument(help="E.g. results/tables/imagenet_main.csv")],
    cell: Annotated[
        list[str],
        typer.Option(help="What names the number: resnet50,click,imagenet_a or backbone=resnet50,...; repeated."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    config: Config = None,
) -> None:
    """Follow a number back to scores, predictions, model, recipe, data and machine; exit code 1 where one differs."""
    from luab.provenance.lineage import print_trace
    from luab.provenance.lineage import trace as follow_back

    found = follow_back(study_of(config), table, cell)
    typer.echo(json.dumps(dataclasses.asdict(found), ensure_ascii=False)) if as_json else print_trace(found)
    if any(found.problems()):
        raise typer.Exit(1)


@app.command()
def sanity(
    backbone: Annotated[str, typer.Option(help="Pretrained timm model with its tag, for example resnet50.tv_in1k.")],
    weights: Annotated[
        Path | None, typer.Option(help="Its safetensors file; by default from timm's collection.", show_default=False)
    ] = None,
    expected: Annotated[Path, typer.Option(help="Table of published numbers.")] = Path("config/expected.csv"),
    benchmark: Annotated[
        list[str] | None, typer.Option("--benchmark", "-b", help="Only this one, repeated.", show_default=False)
    ] = None,
    config: Config = None,
) -> None:
    """Evaluate a pretrained model on your data beside its published numbers; exit code 1 where one differs."""
    from luab.benchmarks.imagenet import find_benchmark

    study = study_of(config)
    names = [find_benchmark(name).name for name in benchmark or []]
    from luab.commands.sanity import print_verdicts
    from luab.commands.sanity import sanity as evaluate

    if not print_verdicts(evaluate(study, backbone, weights, expected, names), study.label):
        raise typer.Exit(1)


@app.command()
def export(
    run: RunName,
    out: Annotated[Path, typer.Option(help="Folder to make; nothing may be there but an empty folder.")],
    config: Config = None,
) -> None:
    """Write a trained run as a folder that timm loads without luab, in the usual layout of the Hugging Face hub."""
    study = study_of(config)
    # The folder itself, as a shell completes it, is a name too.
    wanted = run_of(run.removeprefix(f"{study.paths.results / 'runs'}/"))
    from luab.commands.export import export as export_run

    typer.echo(export_run(study, wanted, out))


@app.command()
def plan(config: Config = None) -> None:
    """List the trainings of the study with an estimate of their GPU hours."""
    from luab.commands.status import print_plan

    print_plan(study_of(config))


@app.command()
def status(
    config: Config = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the trainings until all are done.")] = False,
    interval: Annotated[float, typer.Option(min=1, help="Seconds between two looks of --watch.")] = 15,
) -> None:
    """Show which runs, predictions and scores exist, are missing, or stem from older code; or follow the trainings."""
    from luab.commands.status import print_status
    from luab.commands.watch import watch as follow

    study = study_of(config)
    follow(study, interval) if watch else print_status(study)


@app.command()
def headline(config: Config = None) -> None:
    """Print the main table and where to look."""
    from luab.render.headline import print_headline

    print_headline(study_of(config))


@app.command()
def doctor(config: Config = None) -> None:
    """Check Python, torch, GPU, disk, Slurm and data paths; say what is missing and how to get it."""
    from luab.commands.doctor import examine

    if not examine(study_of(config)):
        raise typer.Exit(1)


@app.command()
def docs() -> None:
    """Write the generated pages: config/schema.json, docs/config.md, docs/protocols.md, docs/deviations.md."""
    from luab.commands.reference import write_pages

    for path in write_pages(Path()):
        typer.echo(path)
