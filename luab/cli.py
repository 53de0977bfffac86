"""The `luab` command line: runs each stage of the study by hand, through the functions that the workflow calls."""

import contextlib
import dataclasses
import importlib.util
import io
import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import luab
from luab.commands import stages
from luab.errors import ConfigError, JobError, LuabError, did_you_mean
from luab.planning.plan import Plan, check_copies
from luab.study.config import Study, load_study
from luab.study.paths import DATASET, Run
from luab.study.transfers import FineTuning
from luab.training import processes

if TYPE_CHECKING:
    from luab.fetch.listing import Archive

# Headings of `luab --help`.
_DATA, _RUNS, _RESULTS = "Data", "Training and scoring", "Results"
_SHARING, _CHECKS = "Sharing results", "Planning and checks"

app = typer.Typer(
    help="Learning image classifiers using annotation byproducts: run any stage of the study by hand.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
render_app = typer.Typer(help="Render tables, figures and the report from stored results.", no_args_is_help=True)
app.add_typer(render_app, name="render", rich_help_panel=_RESULTS)
transfer_app = typer.Typer(
    help="Fine-tune trained backbones for detection and segmentation, predict, score and export.", no_args_is_help=True
)
app.add_typer(transfer_app, name="transfer", rich_help_panel=_RUNS)

Config = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        "-c",
        help="Configuration file, repeatable: later files override earlier ones. Default: config/config.yaml.",
    ),
]
RunName = Annotated[str, typer.Argument(help="Run, as <dataset>/<backbone>/<supervision>-<lambda>/seed<k>.")]
RunNames = Annotated[
    list[str],
    typer.Argument(
        help="Run, as <dataset>/<backbone>/<supervision>-<lambda>/seed<k>; several differ in the third part alone."
    ),
]
FineTuningNames = Annotated[
    list[str],
    typer.Argument(help="Fine-tuning, as <transfer>/<backbone>/<supervision>-<lambda>/seed<k>; several in turn."),
]
FineTuningName = Annotated[
    str, typer.Argument(help="Fine-tuning, as <transfer>/<backbone>/<supervision>-<lambda>/seed<k>.")
]
ArchiveName = Annotated[str, typer.Argument(help="Archive in config/archives.yaml.")]
Dataset = Annotated[str, typer.Argument(help="Dataset, for example imagenet_v2.")]
Suite = Annotated[str, typer.Argument(help="Suite in the configuration.")]
Remote = Annotated[str | None, typer.Option(help="Name of the DVC remote. Default: DVC's default remote.")]
Benchmarks = Annotated[
    list[str] | None, typer.Option("--benchmark", "-b", help="Use only this benchmark, repeatable. Default: all.")
]
DEFAULT_CONFIG, DEMO_CONFIG = Path("config/config.yaml"), Path("config/demo.yaml")
_WORKFLOW = ("snakemake", "dvc", "submitit", "snakemake_interface_executor_plugins", "snakemake_interface_common")
"""Packages of the extra `workflow`, without which the library and most commands work."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"luab {luab.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command line; an expected error prints one paragraph to stderr and exits with code 1."""
    for stream in (sys.stdout, sys.stderr):  # logs are UTF-8; a terminal shows "?" for what its locale lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")
    try:
        _check_checkout(Path(sys.argv[0]).absolute())
        _run()
    except LuabError as error:
        if processes.note(error, _origin(error)):  # the launcher of this process prints it at the end of the log
            sys.exit(1)
        if not sys.stderr.isatty():  # a log also records where it was raised; a terminal shows only the reason
            print(f"raised by {_origin(error)}\n", file=sys.stderr)
        print(f"{error.kind}: {error}", file=sys.stderr)
        sys.exit(1)


def _run() -> None:
    """Runs the command; JobError if it needs a package of the workflow that is not installed."""
    try:
        app()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _WORKFLOW:
            raise
        raise _not_installed(str(error.name)) from error


def _not_installed(package: str) -> JobError:
    return JobError(
        f"This command needs the package {package}, which belongs to the workflow and is not installed. In a checkout "
        "run `make setup`; elsewhere `pip install 'luab[workflow]'`."
    )


def _need(*packages: str) -> None:
    """Raises JobError unless these packages, which run as commands, are installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise _not_installed(package)


def _check_checkout(script: Path) -> None:
    """Raises JobError if `luab` was started from a .venv that was copied here and runs another checkout's code."""
    if script.parts[-3:] != (".venv", "bin", "luab") or not (script.parents[2] / "luab" / "cli.py").is_file():
        return
    package, chosen = Path(__file__).resolve().parents[1], os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if script.parents[2].resolve() != package and str(package) not in chosen:
        raise JobError(
            f"{script} runs the code of {package}, because its .venv was copied from there. Run `make setup` in "
            f"{script.parents[2]} to make a .venv of its own."
        )


def _origin(error: LuabError) -> str:
    """luab's own frames of the traceback in one line, innermost first."""
    package = Path(__file__).parent
    frames = [f for f in traceback.extract_tb(error.__traceback__) if package in Path(f.filename).parents]
    return " < ".join(f"{Path(f.filename).relative_to(package)}:{f.lineno} {f.name}" for f in reversed(frames))


def study_of(config: list[Path] | None) -> Study:
    """Loads the study from --config, else from the file that the workflow names in LUAB_CONFIG, else from the default.

    Files given by --config override values of config/config.yaml.
    """
    if not config and (from_workflow := os.environ.get("LUAB_CONFIG")):
        return load_study([Path(from_workflow)])
    overrides = [path for path in config or [] if path.resolve() != DEFAULT_CONFIG.resolve()]
    study = load_study([DEFAULT_CONFIG, *overrides])
    check_copies(study)
    return study


def run_of(name: str, study: Study | None = None) -> Run:
    """Parses the folder name of a run, or the path of its folder or of a file in it, as a shell completes them.

    Raises:
        ConfigError: The name is not of the form <dataset>/<backbone>/<supervision>-<lambda>/seed<k>, or the path is not
            below the results of the study.
    """
    above, runs, below = name.rpartition("runs/") if "/runs/" in f"/{name}" else ("", "", name)
    if runs and study and Path(above, "runs").resolve() != (study.paths.results / "runs").resolve():
        raise ConfigError(
            f"{name}: this run is not below {study.paths.results}, the results of this configuration. Pass --config "
            "with the file that it was trained with."
        )
    try:
        return Run.parse("/".join(below.strip("/").split("/")[: 4 if runs else None]))
    except ValueError as error:
        raise ConfigError(f"{error}, for example imagenet/resnet50/click-1/seed0.") from error


def _archive(study: Study, name: str) -> "Archive":
    from luab.fetch.listing import load_archives

    listing = Plan.of(study).list_of(name)
    archives = load_archives(listing)
    if name not in archives:
        raise ConfigError(f"{listing}: no archive is called {name!r}. {did_you_mean(name, archives)}")
    return archives[name]


def fine_tuning_of(name: str, study: Study) -> FineTuning:
    """Parses the folder name of a fine-tuning, or the path of its folder or of a file in it.

    Raises:
        ConfigError: The name is not of the form <transfer>/<backbone>/<supervision>-<lambda>/seed<k>, the study has no
            such entry, or the path is not below its results.
    """
    above, found, below = name.rpartition("transfer/") if "/transfer/" in f"/{name}" else ("", "", name)
    if found and Path(above, "transfer").resolve() != (study.paths.results / "transfer").resolve():
        raise ConfigError(
            f"{name}: this fine-tuning is not below {study.paths.results}, the results of this configuration. Pass "
            "--config with the file that it was trained with."
        )
    return study.fine_tuning("/".join(below.strip("/").split("/")[: 4 if found else None]))


@app.command("demo-world", rich_help_panel=_DATA)
def demo_world(
    config: Config = None,
    tags: Annotated[
        bool, typer.Option("--tags", help="Draw only tags on its training images, into the file `paths.tags`.")
    ] = False,
    voc: Annotated[bool, typer.Option("--voc", help="Draw PASCAL VOC instead, which only fine-tunings read.")] = False,
) -> None:
    """Draw the demo world and pack it in the official archive formats."""
    study = study_of(config)
    if study.demo is None:
        raise ConfigError("The configuration has no `demo` section. Add --config config/demo.yaml.")
    if voc:
        from luab.demo.voc import draw_voc

        draw_voc(study.layout.data / "world_voc", study.demo)
    elif tags:
        from luab.demo.tags import draw_tags

        if study.paths.tags is None:
            raise ConfigError(
                "`paths.tags` is null, so there is no file to draw tags into. Set it, or leave out --tags."
            )
        draw_tags(study.demo, study.paths.tags)
    else:
        from luab.demo.world import draw_world

        draw_world(study.layout.data / "world", study.demo)


@app.command(rich_help_panel=_DATA)
def init(
    name: Annotated[str, typer.Argument(help="Name of the study; the file is <name>.yaml.")],
    images: Annotated[
        Path, typer.Option(help="Folder of your images: <class>/*, or train/<class>/* and val/<class>/*.")
    ],
    byproducts: Annotated[
        Path, typer.Option(help="Table image, x, y [, time_ms, worker, class], or a released archive.")
    ],
    labels: Annotated[
        Path | None, typer.Option(help="Table image, label [, split], instead of folders by class.")
    ] = None,
    points: Annotated[str, typer.Option(help="Unit of x and y: fractions or pixels.")] = "fractions",
    held_out: Annotated[float, typer.Option(help="Share of each class to evaluate on, if there is no split.")] = 0.2,
    backbone: Annotated[str, typer.Option(help="timm model; with a tag it starts from timm's weights.")] = "resnet18",
    test: Annotated[
        list[str] | None, typer.Option(help="Further test set as NAME=FOLDER with <class>/*, repeatable.")
    ] = None,
) -> None:
    """Check your own images and byproducts, and write the configuration of a study on them."""
    from luab.commands.init import named_folders, write_study
    from luab.study.config import own_folder

    given: dict[str, Any] = {"images": images, "byproducts": byproducts, "labels": labels}
    given |= {"points": points, "held_out": held_out}
    given |= {"tests": named_folders(test)} if test else {}
    out = Path(f"{name.removesuffix('.yaml')}.yaml")
    typer.echo(write_study(out.stem, own_folder(given, backbone), backbone, out))


@app.command("shared-classes", rich_help_panel=_DATA)
def shared_classes(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("shared"),
    seed: Annotated[int, typer.Option(min=0, help="Decides which images are chosen.")] = 0,
    config: Config = None,
) -> None:
    """Prepare a study of ImageNet-AB against COCO-AB on the classes that ImageNet and COCO share."""
    from luab.commands.shared_classes import prepare

    typer.echo(prepare(study_of(config), out, seed))


@app.command(rich_help_panel=_DATA)
def fetch(name: ArchiveName, config: Config = None) -> None:
    """Download and verify one archive, and write its card."""
    from luab.fetch.fetch import fetch as fetch_archive

    study = study_of(config)
    fetch_archive(_archive(study, name), study.layout.archive_folder(), study.layout.archive_card(name))


@app.command(rich_help_panel=_DATA)
def verify(name: ArchiveName, config: Config = None) -> None:
    """Check a downloaded archive again: compare its size and checksum with the published ones."""
    from luab.fetch.verify import verify as verify_archive

    study = study_of(config)
    verify_archive(_archive(study, name), study.layout.archive_folder())
    typer.echo(f"{name}: size and checksum are correct")


@app.command(rich_help_panel=_DATA)
def unpack(dataset: Dataset, config: Config = None) -> None:
    """Unpack the downloaded archives of one dataset."""
    from luab.fetch.unpack import unpack_all
    from luab.fetch.verify import archived

    study = study_of(config)
    layout = study.layout
    names = Plan.of(study).trees(dataset)
    if not names:
        raise ConfigError(f"{dataset}: {study.paths.archives} lists no archive to unpack for this dataset.")
    files = {name: archived(layout.archive_folder(), layout.archive_card(name))[0] for name in names}
    unpack_all(files, layout.raw_folder(dataset), layout.raw_card(dataset), dataset)


@app.command(rich_help_panel=_DATA)
def index(
    byproducts: Annotated[
        str, typer.Argument(help="imagenet_ab, coco_ab or folder_ab; or a released archive, anywhere.")
    ] = "imagenet_ab",
    out: Annotated[
        Path | None, typer.Option(help="Index of a given archive. Default: next to it, with the suffix .parquet.")
    ] = None,
    on_bad: Annotated[
        str | None, typer.Option(help="Bad records of a given archive: raise stops (default), count leaves them out.")
    ] = None,
    config: Config = None,
) -> None:
    """Convert the ImageNet-AB or COCO-AB archive into one Parquet file and check its counts."""
    if Path(byproducts).exists() or len(Path(byproducts).parts) > 1 or "." in byproducts:
        typer.echo(stages.index_archive(Path(byproducts), out, on_bad or "raise"))
        return
    if out or on_bad:
        raise ConfigError("--out and --on-bad belong to an archive that is given by its path; the study has its own.")
    typer.echo(stages.make_index(study_of(config), byproducts))


@app.command(rich_help_panel=_DATA)
def manifest(dataset: Dataset, config: Config = None) -> None:
    """List the images of one dataset with their labels, and check how many they are."""
    stages.make_manifest(study_of(config), dataset)


@app.command(rich_help_panel=_DATA)
def targets(
    target: Annotated[str, typer.Argument(help="Points or supervision, for example click.")],
    dataset: Annotated[str, typer.Option(help="imagenet, coco or folder.")] = DATASET,
    config: Config = None,
) -> None:
    """Write the training points of one supervision."""
    stages.make_targets(study_of(config), target, dataset)


@app.command(rich_help_panel=_DATA)
def annotate(
    configuration: Annotated[
        Path | None, typer.Argument(help="Configuration of the collection; see docs/annotate.md.")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Serve drawn images instead, from ./annotate-demo.")] = False,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    export_to: Annotated[
        Path | None, typer.Option("--export", help="Write all exports to this folder, and stop.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Worker to leave out of the exports, repeatable; the cards name them.")
    ] = None,
) -> None:
    """Collect annotation byproducts on your own images: serve pages to annotators, or export what they recorded."""
    if (configuration is None) != demo:
        raise ConfigError("Expected either a configuration file or --demo. Try `luab annotate --demo`.")
    if configuration is None:
        from luab.demo.collection import draw_collection

        configuration = draw_collection(Path("annotate-demo"))
    from luab.annotate.commands import export_collection, serve_collection

    if export_to is None:
        serve_collection(configuration, host, port)
        return
    for path in export_collection(configuration, export_to, without or []):
        typer.echo(path)


@app.command(rich_help_panel=_DATA)
def pack(config: Config = None) -> None:
    """Pack the training images into a few large files, as set by `packing` in the configuration."""
    stages.make_pack(study_of(config))


@app.command(rich_help_panel=_RUNS)
def train(runs: RunNames, config: Config = None) -> None:
    """Train a run, or several that see the same images together, or resume what was interrupted.

    Starts as many processes as the configuration sets.
    """
    processes.follow_launcher()
    study = study_of(config)
    parsed = [run_of(run, study) for run in runs]  # before the slow imports, so that mistakes show at once
    if processes.launched():
        _train_here(study, parsed)
        return
    with contextlib.ExitStack() as locks:
        for run in parsed:
            locks.enter_context(processes.only_writer(study.layout.run(run)))
        if study.compute.processes > 1 and len(parsed) == 1:
            processes.launch(study, study.layout.run(parsed[0]), ["train", parsed[0].folder])
        else:
            _train_here(study, parsed)


def _train_here(study: Study, runs: list[Run]) -> None:
    from luab.commands.backbones import check_backbone
    from luab.provenance.code import provenance
    from luab.training.train import train_cohort

    first = processes.first()
    for run in {study.supervision(run).use: run for run in runs}.values() if first else ():
        check_backbone(study, run)  # before hours on a GPU: predictions would refuse a backbone without score maps
    versions = [
        provenance(run.dataset, study.supervision(run).use) | stages.about_model(study, run) if first else {}
        for run in runs
    ]
    train_cohort(study, runs, versions, ready=processes.ready)


@app.command(rich_help_panel=_RUNS)
def predict(runs: RunNames, suite: Suite, config: Config = None) -> None:
    """Predict all test sets of a suite with a trained model, or with several that see the same images."""
    study = study_of(config)
    parsed = [run_of(run, study) for run in runs]
    test_sets = Plan.of(study).test_sets(suite)
    from luab.predict import predict_cohort
    from luab.provenance.code import code_digest, prediction_code

    predict_cohort(study, parsed, suite, test_sets, code_digest(*prediction_code(parsed[0].dataset)))


@app.command(rich_help_panel=_RUNS)
def score(runs: RunNames, suite: Suite, config: Config = None) -> None:
    """Score the benchmarks of a suite from stored predictions, of one run or several."""
    study = study_of(config)
    for run in [run_of(name, study) for name in runs]:
        stages.score_suite(study, run, suite)


@transfer_app.command("train")
def transfer_train(names: FineTuningNames, config: Config = None) -> None:
    """Fine-tune the backbone of a finished run, or resume what was interrupted.

    Starts as many processes as the configuration sets.
    """
    processes.follow_launcher()
    study = study_of(config)
    ones = [fine_tuning_of(name, study) for name in names]
    for one in ones:
        folder = study.layout.fine_tuning(one)
        if processes.launched():
            _fine_tune_here(study, one)
            continue
        with processes.only_writer(folder):
            if study.compute.processes > 1:
                processes.launch(study, folder, ["transfer", "train", one.folder])
            else:
                _fine_tune_here(study, one)


def _fine_tune_here(study: Study, one: FineTuning) -> None:
    from luab.provenance.code import fine_tuning_provenance
    from luab.transfer.fit import fit

    fit(study, one, fine_tuning_provenance() if processes.first() else {}, ready=processes.ready)


@transfer_app.command("predict")
def transfer_predict(names: FineTuningNames, config: Config = None) -> None:
    """Predict boxes or masks of the test images with fine-tuned models."""
    study = study_of(config)
    ones = [fine_tuning_of(name, study) for name in names]
    from luab.provenance.code import DENSE_PREDICTION_CODE, code_digest
    from luab.transfer.predict import predict as predict_images

    for one in ones:
        predict_images(study, one, code_digest(*DENSE_PREDICTION_CODE))


@transfer_app.command("score")
def transfer_score(names: FineTuningNames, config: Config = None) -> None:
    """Score the stored predictions of fine-tunings."""
    study = study_of(config)
    ones = [fine_tuning_of(name, study) for name in names]
    from luab.transfer.score import score as score_predictions

    for one in ones:
        score_predictions(study, one)


@transfer_app.command("collect")
def transfer_collect(config: Config = None) -> None:
    """Collect the scores of all fine-tunings in results/transfer.csv."""
    stages.collect_transfer_scores(study_of(config))


@transfer_app.command("compare")
def transfer_compare(
    first: FineTuningName,
    second: FineTuningName,
    csv: Annotated[Path | None, typer.Option(help="Also write the numbers to this CSV file.")] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Number of bootstrap resamples.")] = 1_000,
    config: Config = None,
) -> None:
    """Compare two fine-tunings image by image: intervals and paired tests."""
    study = study_of(config)
    one, other = fine_tuning_of(first, study), fine_tuning_of(second, study)
    from luab.transfer.compare import compare as compare_images
    from luab.transfer.compare import print_comparison, write_comparison

    images = study.layout.fine_tuning_images
    rows = compare_images(images(one), images(other), resamples)
    if csv:
        write_comparison(csv, rows, resamples)
    print_comparison(one.folder, other.folder, rows, resamples)


@transfer_app.command("export")
def transfer_export(
    name: FineTuningName,
    out: Annotated[Path, typer.Option(help="Output folder, new or empty.")],
    config: Config = None,
) -> None:
    """Export a fine-tuned model as a state dict of torchvision's model."""
    study = study_of(config)
    one = fine_tuning_of(name, study)
    from luab.transfer.export import export as export_model

    typer.echo(export_model(study, one, out))


@app.command(rich_help_panel=_RESULTS)
def collect(config: Config = None) -> None:
    """Collect all scores of the study into results/scores.csv."""
    stages.collect_scores(study_of(config))


@app.command(rich_help_panel=_SHARING)
def track(config: Config = None) -> None:
    """Write what DVC shows: model names, headline numbers and plot data."""
    stages.track_results(study_of(config))


@app.command(rich_help_panel=_SHARING)
def describe(config: Config = None) -> None:
    """Describe all results as an RO-Crate, for machines: results/ro-crate-metadata.json."""
    stages.describe_results(study_of(config))


@app.command(rich_help_panel=_SHARING)
def publish(
    remote: Remote = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Commit message.")] = None,
    config: Config = None,
) -> None:
    """Push a finished study to a DVC remote and commit its small files to git."""
    _need("snakemake", "dvc")
    from luab.provenance.publish import publish as publish_results

    typer.echo(publish_results(study_of(config), remote, message))


@app.command(rich_help_panel=_SHARING)
def pull(
    targets: Annotated[list[str] | None, typer.Argument(help="Files or folders. Default: all results.")] = None,
    needs: Annotated[bool, typer.Option("--needs", help="Pull the inputs of the targets instead.")] = False,
    remote: Remote = None,
    config: Config = None,
) -> None:
    """Pull results from a DVC remote: everything, some files, or the inputs of a file."""
    _need("dvc")
    from luab.provenance.publish import pull as pull_results

    typer.echo(pull_results(study_of(config), targets or [], needs, remote))


@render_app.command("table")
def render_table(
    name: Annotated[str, typer.Argument(help="Table, for example imagenet_main.")], config: Config = None
) -> None:
    """Render one table as CSV, Markdown and LaTeX."""
    stages.render_one_table(study_of(config), name)


@render_app.command("figure")
def render_figure(
    name: Annotated[str, typer.Argument(help="Figure, for example lambda_sweep.")], config: Config = None
) -> None:
    """Render one figure as PDF and PNG."""
    stages.render_one_figure(study_of(config), name)


@render_app.command("report")
def render_report(config: Config = None) -> None:
    """Render the report of the whole study, results/report.html."""
    stages.render_whole_report(study_of(config))


@app.command(rich_help_panel=_RESULTS)
def compare(
    first: RunName,
    second: RunName,
    benchmark: Benchmarks = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the numbers to this CSV file.")] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Number of bootstrap resamples.")] = 10_000,
    config: Config = None,
) -> None:
    """Compare two runs image by image: intervals and paired tests, corrected for multiple benchmarks."""
    from luab.benchmarks.catalogue import find_benchmark
    from luab.comparison.two_runs import compare_runs, print_comparison, write_comparison

    study = study_of(config)
    runs = run_of(first, study), run_of(second, study)
    names = [find_benchmark(name).name for name in benchmark or []]
    rows = compare_runs(study, *runs, names, resamples)
    if csv:
        write_comparison(csv, rows, resamples)
    print_comparison(study, *runs, rows, resamples)


@app.command(rich_help_panel=_RESULTS)
def trace(
    table: Annotated[Path, typer.Argument(help="Table, for example results/tables/imagenet_main.csv.")],
    cell: Annotated[
        list[str],
        typer.Option(
            help="Terms that select one number: resnet50,click,imagenet_a or backbone=resnet50,...; repeatable."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """Show where a number came from: scores, predictions, model, recipe, data and machine; fails if any differs."""
    from luab.provenance.lineage import lineage, print_lineage

    number = lineage(study_of(config), table, cell)
    typer.echo(json.dumps(dataclasses.asdict(number), ensure_ascii=False)) if as_json else print_lineage(number)
    if any(number.problems()):
        raise typer.Exit(1)


@app.command(rich_help_panel=_CHECKS)
def sanity(
    backbone: Annotated[str, typer.Option(help="Pretrained timm model with its tag, for example resnet50.tv_in1k.")],
    weights: Annotated[Path | None, typer.Option(help="Its safetensors file. Default: download from timm.")] = None,
    expected: Annotated[Path, typer.Option(help="Table of published numbers.")] = Path("config/expected.csv"),
    benchmark: Benchmarks = None,
    config: Config = None,
) -> None:
    """Evaluate a pretrained model on your data and compare with published numbers; fails if any differs."""
    from luab.benchmarks.catalogue import find_benchmark

    study = study_of(config)
    names = [find_benchmark(name).name for name in benchmark or []]
    from luab.commands.sanity import print_verdicts
    from luab.commands.sanity import sanity as evaluate

    if not print_verdicts(evaluate(study, backbone, weights, expected, names), study.label):
        raise typer.Exit(1)


@app.command(rich_help_panel=_CHECKS)
def evaluate(
    checkpoint: Annotated[
        str,
        typer.Argument(help="A safetensors file, timm's name with tag (resnet50.tv_in1k), or hf-hub:owner/name."),
    ],
    backbone: Annotated[
        str | None, typer.Option(help="timm model of the weights; its tag chooses the preprocessing.")
    ] = None,
    benchmark: Benchmarks = None,
    images: Annotated[
        Path | None, typer.Option(help="Evaluate on this folder instead: <class>/*.jpg, or val/<class>/*.jpg.")
    ] = None,
    published: Annotated[
        Path | None, typer.Option(help="Table of published numbers. Default: config/expected.csv, if it is there.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for predictions and scores.")] = None,
    config: Config = None,
) -> None:
    """Evaluate any timm checkpoint on benchmarks of the study, or on a folder of images."""
    from luab.commands import evaluate as evaluation

    outside = images is not None and not config and not DEFAULT_CONFIG.is_file()
    study = evaluation.study_of_folder() if outside else study_of(config)
    found = evaluation.find_checkpoint(checkpoint, backbone)
    default = Path("config/expected.csv")
    table = published or (default if default.is_file() else None)
    numbers, left_out, folder = evaluation.evaluate(study, found, benchmark or [], images, table, out)
    evaluation.print_numbers(numbers, left_out, folder, found, study.label)


@app.command(rich_help_panel=_RUNS)
def export(
    run: RunName, out: Annotated[Path, typer.Option(help="Output folder, new or empty.")], config: Config = None
) -> None:
    """Export a trained model as a folder that timm loads without luab, in the layout of the Hugging Face Hub."""
    from luab.files import read_fields

    study = study_of(config)
    above = Path(f"{run.rpartition('runs/')[0]}.")
    if not config and "/runs/" in f"/{run}" and above.resolve() != study.paths.results.resolve():
        study = stages.study_of_results(study, above)
        if "label" not in read_fields(study.layout.run_json(run_of(run, study)), ("run",)):
            raise ConfigError(
                f"{run}: run.json of this older version does not say which study it belongs to. Pass --config with the "
                "file that it was trained with."
            )
    parsed = run_of(run, study)
    from luab.commands.export import export as export_run

    typer.echo(export_run(study, parsed, out))


@app.command(rich_help_panel=_CHECKS)
def plan(config: Config = None) -> None:
    """Show how many models the study trains, with an estimate of the GPU hours."""
    from luab.commands.status import print_plan

    print_plan(study_of(config))


@app.command(rich_help_panel=_CHECKS)
def status(
    config: Config = None,
    watch: Annotated[bool, typer.Option("--watch", help="Update until all trainings are done.")] = False,
    interval: Annotated[float, typer.Option(min=1, help="Seconds between updates of --watch.")] = 15,
) -> None:
    """Show which trainings, predictions and scores are done, missing, or made by older code; or watch the trainings."""
    from luab.commands.status import print_status
    from luab.commands.watch import watch as watch_trainings

    study = study_of(config)
    if not config and not stages.has_results(study) and DEMO_CONFIG.is_file():
        demo = study_of([DEMO_CONFIG])
        if stages.has_results(demo):
            typer.echo(f"No results of {DEFAULT_CONFIG} in {study.paths.results}: this is the demo, {DEMO_CONFIG}.")
            study = demo
    watch_trainings(study, interval) if watch else print_status(study)


@app.command(rich_help_panel=_RESULTS)
def headline(
    config: Config = None,
    into: Annotated[Path | None, typer.Option(help="Markdown page whose marked block gets the numbers.")] = None,
) -> None:
    """Print the main table and where to find the results, or write the numbers into a page such as README.md."""
    from luab.render.headline import print_headline, write_into

    study = study_of(config)
    write_into(study, into) if into else print_headline(study)


@app.command(rich_help_panel=_CHECKS)
def backbones(out: Annotated[Path, typer.Option(help="Page to write.")] = Path("docs/backbones.md")) -> None:
    """Try the smallest model of each of timm's families, and write which ones work; takes about ten minutes."""
    from luab.commands.backbones import page, try_families
    from luab.files import replacing

    text = page(try_families(log=typer.echo))
    with replacing(out) as aside:
        aside.write_text(text, encoding="utf-8")


@app.command(rich_help_panel=_CHECKS)
def doctor(
    backbones: Annotated[bool, typer.Option("--backbones", help="Also build each backbone; takes a minute.")] = False,
    config: Config = None,
) -> None:
    """Check Python, torch, GPU, disk, Slurm and data paths, and say how to fix what is missing."""
    from luab.commands.doctor import examine

    if not examine(study_of(config), backbones):
        raise typer.Exit(1)


@app.command(rich_help_panel=_CHECKS)
def docs() -> None:
    """Write the generated pages in docs/ and config/schema.json."""
    from luab.commands.reference import write_pages

    for path in write_pages(Path()):
        typer.echo(path)
