"""The files of a study and the files that each depends on, as the workflow's rules need them."""

import functools
import hashlib
import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luab.benchmarks.catalogue import BENCHMARKS, TRACES, test_sets_of
from luab.data.manifests.known_counts import KNOWN_COUNTS
from luab.data.manifests.testsets import TEST_SETS
from luab.errors import ConfigError, DataError, did_you_mean, listed
from luab.files import replacing
from luab.planning.estimate import parts, prediction_hours, published_speeds, training_hours
from luab.planning.transfers import TransferPlan
from luab.render.products import Kind, find_product, left_out, products_of
from luab.study.config import OWN_TESTS, Study, load_study
from luab.study.paths import Run, card
from luab.study.roots import FROM_IMAGENET, HELD_OUT, OWN, own_copy, source_root, tree_of
from luab.study.supervisions import FROM_TAGS
from luab.study.transfers import VOC
from luab.study.yaml_files import read_yaml
from luab.tasks import NAMES, task_of, task_with

CAPTIONS = Path("workflow/report")
"""Captions of tables and figures, relative to the checkout."""
DEVIATIONS = Path("docs/deviations.md")
"""Generated from the tags that the report lists, so a changed tag renders the report again."""
_DOWNLOADED = {*map(tree_of, KNOWN_COUNTS), *(task_of(name).byproducts for name in NAMES), VOC}
"""Data sets that the list of downloads may name."""
_REPORT_PAGE = Path("luab/render/report/page")
_SLACK = 1.5
_PREDICTION_SLACK = 6
_SHORTEST_MINUTES = 60
_GROUPED_MINUTES = 120


def summary(study: Study) -> str:
    """The number of trainings, the estimate of their GPU hours, what is shared, and what the study cannot draw."""
    runs, tuned = study.runs(), len(study.fine_tunings())
    rest = "".join(f" {text}" for text in (sharing(study) or left_out(study),) if text)
    number = f"{len(runs)} trainings" + (f" and {tuned} fine-tunings" if tuned else "")
    where = "an RTX 3090" + (" (for fine-tunings on other GPUs)" if tuned else "")
    if study.demo:
        return f"{number} on the demo world, on the CPU.{rest}"
    hours = sum(part.gpu_hours for part in parts(study, published_speeds(study)))
    return (
        f"{number}, about {hours:,.0f} GPU hours with their predictions: an ESTIMATE from the speeds in "
        f"the config, measured on {where}; `luab plan` shows the parts.{rest}"
    )


def sharing(study: Study) -> str:
    """How many trainings of a study are those of the main one, and the cost of the others; empty if it shares nothing.

    Raises:
        ConfigError: A configuration file in `study.over` is missing or has mistakes.
    """
    if study.study is None or not study.shares:
        return ""
    runs, shared = study.runs(), shared_runs(study)
    new = [run for run in runs if run not in shared]
    cost = ""
    if new and not study.demo:
        speeds = published_speeds(study)
        cost = f" These need about {sum(training_hours(study, run, speeds) for run in new):,.0f} GPU hours (ESTIMATE)."
    return (
        f"{len(runs) - len(new)} of them are shared with the main study ({', '.join(map(str, study.study.over))}), and "
        f"{len(new)} are new.{cost}"
    )


def shared_runs(study: Study) -> frozenset[Run]:
    """Trainings of a study that are equal in the main study (`study.over`); none if there is no such study.

    Equal trainings have the same folder, recipe, points, seed of points and held-out images, so that whichever study
    comes first trains them. ASSUME: both studies read the same data and have the same `packing`.

    Raises:
        ConfigError: A configuration file in `study.over` is missing or has mistakes.
    """
    if study.study is None or not study.shares:
        return frozenset()
    main = _main_study(tuple(study.study.over))
    both = set(study.runs()) & set(main.runs())
    return frozenset(run for run in both if _identity(study, run) == _identity(main, run))


@functools.cache
def _main_study(files: tuple[Path, ...]) -> Study:
    return load_study(files)


def _identity(study: Study, run: Run) -> tuple[object, ...]:
    entry, first = study.supervision(run), study.first_run(run)
    begins = _identity(study, first) if first else None
    return trained_with(study, run), entry.target, study.random_points_seed, entry.head, begins


def trained_with(study: Study, run: Run) -> str:
    """Settings that a training's result depends on besides its inputs, as text."""
    recipe, supervision = study.recipe(run.backbone, run.dataset), study.supervision(run)
    of_weights = "" if recipe.begins_with.is_random else " ".join(recipe.left_to_weights)
    use = "" if supervision.use == "regress" else f" {supervision.use} {supervision.settings}"
    use += "" if supervision.scale == 1 else f" scale {supervision.scale:g}"
    changes = task_of(run.dataset).changes(study)
    return " ".join(filter(None, [recipe.model_dump_json(), of_weights, changes])) + use


def prepare_jobs(study: Study, checkout: Path) -> None:
    """Sets the environment that the jobs of this process inherit.

    Jobs read the merged configuration (profile, --configfile and --config included) from one file named by its
    content. The environment holds its path, not the command line, so that a changed caption does not retrain.
    `python` in a job is the interpreter of this process, and luab is the checkout's.
    """
    os.environ["LUAB_CONFIG"] = str(keep_config(study, Path(".snakemake") / "luab"))
    _prepend("PATH", Path(sys.executable).parent)
    _prepend("PYTHONPATH", checkout)


def lock_hint(command: Sequence[str]) -> str:
    """How to remove the lock that a killed Snakemake left in this folder; empty if the folder is not locked.

    Args:
        command: Command line of this Snakemake, program first.
    """
    if not any((Path(".snakemake") / "locks").glob("*.lock")) or _only_looks(command):
        return ""
    again = shlex.join([Path(command[0]).name, *command[1:]])
    return (
        "This folder is locked: Snakemake is running in it or was killed. If it is not running, remove the lock with\n"
        f"    {again} --unlock\n"
        "and repeat the command; jobs that still run on the cluster are re-attached."
    )


def free_lock(command: Sequence[str]) -> str:
    """Removes the lock of a Snakemake that is gone for certain, as after the requeue of its Slurm job.

    Args:
        command: Command line of this Snakemake, program first.

    Returns:
        A sentence about the removed lock; empty if nothing was removed.
    """
    if _only_looks(command):
        return ""
    try:
        from snakemake_executor_plugin_submitit.controller import free_lock
    except ModuleNotFoundError:  # an older plugin is installed beside this checkout
        return ""
    return free_lock(Path(".snakemake") / "submitit")


def _only_looks(command: Sequence[str]) -> bool:
    return bool({"-n", "--dry-run", "--unlock", "--lint"} & set(command))


def check_copies(study: Study) -> None:
    """Raises ConfigError if `paths.copies` names an unknown data set, which would have no effect."""
    _check_names("paths.copies", study.paths.copies, [VOC, *(name for name in KNOWN_COUNTS if name != HELD_OUT)])


def _check_names(where: str, names: Iterable[Any], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{where}: there is no data set {name!r}. {did_you_mean(str(name), known)}")


def failed_logs(jobs: Iterable[Any], lines: int = 20) -> str:
    """The last lines of the logs of failed jobs, each under the rule's name and the path.

    Args:
        jobs: Snakemake's jobs or groups of jobs.
        lines: Number of lines from each log.
    """
    members = [one for job in jobs for one in (job.jobs if job.is_group() else [job])]
    texts = []
    for job in sorted(members, key=str):
        for path in map(Path, job.log):
            try:
                end = path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
            except OSError:
                end = ["(no log: the job failed before it began)"]
            texts.append("\n".join([f"{job.rule.name} failed; the end of {path}:", *(f"    {line}" for line in end)]))
    return "\n".join(texts)


def _prepend(variable: str, folder: Path) -> None:
    """Puts a folder first, also where it stands further back: `conda activate` may have come after our own."""
    others = [known for known in os.environ.get(variable, "").split(os.pathsep) if known not in ("", str(folder))]
    os.environ[variable] = os.pathsep.join([str(folder), *others])


def keep_config(study: Study, folder: Path) -> Path:
    """Writes the checked study, recipes included, to a file named by its content unless that file exists."""
    path = folder / f"{study.digest()}.yaml"
    if not path.is_file():
        with replacing(path) as aside:
            aside.write_text(study.dump(), encoding="utf-8")
    return path.resolve()


@dataclass(frozen=True)
class Plan:
    """Dependencies of one study, as paths in text; `archives` are the entries of its list of downloads, by name."""

    study: Study
    archives: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, study: Study) -> "Plan":
        """Checks the suites and reads the list of downloads.

        Raises:
            ConfigError: A benchmark is unknown, belongs to another data set or needs images that are not held out, two
                suites need one test set, or `paths.copies` or the list of downloads names an unknown data set.
        """
        for dataset, part in study.parts.items():
            owner: dict[str, str] = {}
            for suite in part.suites:
                for name in test_sets_of(suite.benchmarks):
                    if owner.setdefault(name, suite.name) != suite.name:
                        raise ConfigError(
                            f"suites: {owner[name]} and {suite.name} both need the test set {name}, and both would "
                            "write its predictions. Put their benchmarks into one suite."
                        )
                    if TEST_SETS[name].dataset != dataset:
                        raise ConfigError(
                            f"suites: {suite.name} scores models trained on {dataset}, but its test set {name} is for "
                            f"models trained on {TEST_SETS[name].dataset}. Move the benchmark to the other data set's "
                            "suites."
                        )
                    if HELD_OUT in TEST_SETS[name].manifests and not study.held_out_byproducts:
                        raise ConfigError(
                            f"suites: {suite.name} needs training images that no training sees, for the test set {name}"
                            ", and `held_out_byproducts` is 0. Set it, for example to 0.02, or remove the benchmark."
                        )
        # The demo world writes its own list of the same archives, but only after the plan is made.
        listing = Path("config/archives.yaml") if study.demo else study.paths.archives
        archives = read_yaml(listing)
        check_copies(study)
        entries = [entry if isinstance(entry, dict) else {} for entry in archives.values()]
        _check_names(f"{listing}: `dataset`", [entry.get("dataset") for entry in entries], _DOWNLOADED)
        return cls(study, archives)

    def preflight(self, manifests: Iterable[str], archives: Iterable[str]) -> None:
        """Checks, before anything is fetched, what people must provide.

        Args:
            manifests: Data sets whose images are about to be listed.
            archives: Names of the archives that are about to be fetched.

        Raises:
            DataError: The user's copy of ImageNet or of another data set, or a download by hand, is missing; all are
                listed.
        """
        if self.study.demo:
            return
        missing: list[str] = []
        for name in manifests:
            try:
                root = source_root(self.study, name)
                if self.own_copy(name) and not root.is_dir():
                    missing.append(f"{root}: expected the images of {name}, found no such folder. Correct `paths`.")
            except DataError as error:
                missing.append(str(error))
        for name in archives:
            entry = self.archives.get(name) or {}
            file = self.study.layout.archive_folder() / str(entry.get("file"))
            if entry.get("manual") and not file.is_file():
                missing.append(f"{name}: download {file.name} by hand. {' '.join(str(entry['manual']).split())}")
        if missing := list(dict.fromkeys(missing)):
            raise DataError(
                "Nothing was fetched, since this is missing:\n"
                f"{listed(missing)}\nRemove benchmarks that you cannot provide from `suites`."
            )

    @property
    def tables(self) -> list[str]:
        """Names of the tables that this study can draw."""
        return [product.name for product in products_of(self.study, "table")]

    @property
    def figures(self) -> list[str]:
        """Names of the figures that this study can draw."""
        return [product.name for product in products_of(self.study, "figure")]

    def headline_lambda(self, kind: Kind, name: str) -> float:
        """Lambda of the main tables of the data set that a product shows."""
        return find_product(kind, name).inputs(self.study).headline_lambda

    @property
    def gpus(self) -> int:
        """GPUs of a prediction job."""
        return 0 if self.study.compute.device == "cpu" else 1

    @property
    def train_gpus(self) -> int:
        """GPUs of a training job, per node."""
        return self.gpus * self.study.compute.gpus

    @property
    def job_mem_mb(self) -> int:
        """Memory of a prediction job, in MB: the process and its loader workers."""
        return 6000 + 2500 * self.study.compute.workers

    @property
    def train_mem_mb(self) -> int:
        """Memory of a training job per node, in MB: its processes and their loader workers."""
        compute = self.study.compute
        return (6000 + 2500 * compute.workers_each) * compute.gpus if compute.gpus > 1 else self.job_mem_mb

    @property
    def packing(self) -> str | None:
        """How training images are packed, as JSON; None if they are read from single files."""
        return None if self.study.packing is None else self.study.packing.model_dump_json()

    @property
    def packed(self) -> str:
        """Manifest of the training images that `packing` packs."""
        return next(task.train for task in map(task_of, NAMES) if task.packable)

    def train_minutes(self, run: Run) -> int:
        """Time limit of a training job: 1.5 times the estimate, divided by its GPUs.

        At least one hour and at most `compute.longest_job_hours`; a longer training continues after each limit.
        """
        hours = training_hours(self.study, run, published_speeds(self.study)) / self.study.compute.processes * _SLACK
        longest = round(self.study.compute.longest_job_hours * 60)
        return min(max(_SHORTEST_MINUTES, round(hours * 60)), longest)

    def predict_minutes(self, suite: str) -> int:
        """Time limit of a prediction job: six times the estimate of the slowest backbone, as disks may be slow.

        At least one hour and at most `compute.longest_job_hours`.
        """
        speeds, benchmarks = published_speeds(self.study), self.study.suite(suite).benchmarks
        [dataset] = [name for name, part in self.study.parts.items() if suite in [one.name for one in part.suites]]
        runs = [run for run in self.study.runs() if run.dataset == dataset]
        hours = max((prediction_hours(run, benchmarks, speeds) for run in runs), default=0) * _PREDICTION_SLACK
        longest = round(self.study.compute.longest_job_hours * 60)
        return min(max(_SHORTEST_MINUTES, round(hours * 60)), longest)

    def prediction_group(self, suite: str) -> str | None:
        """Group of a suite's prediction jobs, one per run; None if they are long enough for jobs of their own."""
        return "predictions_{run}" if self.predict_minutes(suite) <= _GROUPED_MINUTES else None

    def archive_list(self, archive: str) -> list[str]:
        """Input of a download: the demo world's own list of archives; empty in the full study."""
        return [str(self.list_of(archive))] if self.study.demo else []

    def list_of(self, archive: str) -> Path:
        """The list that has an archive's address: PASCAL VOC, which not every drawn world has, is in one of its own."""
        if self.study.demo and (self.archives.get(archive) or {}).get("dataset") == VOC:
            return self.drawn_voc
        return self.study.paths.archives

    @property
    def drawn_voc(self) -> Path:
        """The list of the archives of the drawn PASCAL VOC."""
        return self.study.layout.data / "world_voc" / "server" / "archives.yaml"

    def archive_digest(self, name: str) -> str | None:
        """Digest of an archive's entry: a corrected checksum or URL repeats the download."""
        if self.study.demo:
            return None
        return hashlib.sha256(repr(self.archives.get(name)).encode()).hexdigest()[:12]

    def own_copy(self, manifest: str) -> str | None:
        """The user's own folder of a manifest's images; None for downloaded images."""
        own = own_copy(self.study, manifest)
        return None if own is None else str(own)

    def manifest_inputs(self, manifest: str) -> list[str]:
        """Inputs of a manifest: the cards of its tree and of the lists that describe it."""
        layout = self.study.layout
        lists = [str(layout.archive_card(name)) for name in self.lists(manifest)]
        if manifest == "imagenet_real":
            lists.append(self._card("imagenet_val"))
        if manifest in self.study.paths.copies:
            return lists
        if manifest in OWN:
            return [str(self.study.folder.labels)] if self.study.folder and self.study.folder.labels else []
        if manifest == OWN_TESTS:
            return [self._card(OWN[0])]  # it has the names of the classes
        if manifest in FROM_IMAGENET:
            world = [str(layout.data / "world" / "world.json")] if self.study.demo else []
            return [*world, *lists]
        return [str(layout.raw_card(tree_of(manifest))), *lists]

    def manifest_options(self, manifest: str) -> bool | str:
        """Settings of a manifest: whether the tree may lack images and, if there are some, share held out or tests."""
        if manifest == OWN_TESTS and self.study.folder:
            tests = ", ".join(f"{name} {folder}" for name, folder in self.study.folder.tests.items())
            return f"{self.study.paths.partial}, {tests}"
        share = self.study.held_out_byproducts
        held_out = share and manifest in ("imagenet_train", HELD_OUT)
        return f"{self.study.paths.partial}, held out: {share:g}" if held_out else self.study.paths.partial

    def training_inputs(self, run: Run) -> list[str]:
        """Inputs of a training: the cards of its images, its points, and the run or file it begins with."""
        layout = self.study.layout
        regressed = self.study.supervision(run).target
        names = filter(None, dict.fromkeys([task_of(run.dataset).labelling(self.study), regressed]))
        targets = [str(card(layout.target(name, run.dataset))) for name in names]
        first, file = self.study.first_run(run), self.study.recipe(run.backbone, run.dataset).begins_with.file
        begins_with = [layout.run_json(first)] if first else [file] if file else []
        return [*self.training_images(run.dataset), *targets, *map(str, begins_with)]

    def cohorts(self) -> dict[str, list[Run]]:
        """The trainings that share a job with others, by the name of the job."""
        cohorts: dict[str, list[Run]] = {}
        for runs in self.study.cohorts(self._shared_cohorts):
            if len(runs) > 1:
                name = re.sub(r"\W", "_", f"{runs[0].dataset}_{runs[0].backbone}_seed{runs[0].seed}")
                cohorts[name if name not in cohorts else f"{name}_{len(cohorts)}"] = runs
        return cohorts

    @functools.cached_property
    def _shared_cohorts(self) -> list[list[Run]]:
        """Cohorts of the main study whose trainings are all shared; Snakemake knows their results by the whole job."""
        shared = shared_runs(self.study)
        if not shared or self.study.study is None:
            return []
        cohorts = _main_study(tuple(self.study.study.over)).cohorts()
        return [runs for runs in cohorts if shared.issuperset(runs)]

    def outside_cohorts(self) -> str:
        """Regular expression that matches nothing, before any run with a job of its own."""
        shared = "|".join(re.escape(run.folder) for runs in self.cohorts().values() for run in runs)
        return f"(?!(?:{shared})(?:/|$))" if shared else ""

    def cohort_inputs(self, runs: Sequence[Run]) -> list[str]:
        """Inputs of a cohort's training."""
        return list(dict.fromkeys(path for run in runs for path in self.training_inputs(run)))

    def cohort_minutes(self, runs: Sequence[Run]) -> int:
        """Time limit of a cohort's training, at most `compute.longest_job_hours`."""
        longest = round(self.study.compute.longest_job_hours * 60)
        return min(sum(map(self.train_minutes, runs)), longest)

    def cohort_mem_mb(self, runs: Sequence[Run]) -> int:
        """Memory of a cohort's job, in MB: 1 GB for each further model."""
        return self.job_mem_mb + 1000 * (len(runs) - 1)

    def training_images(self, dataset: str) -> list[str]:
        """Cards of the training images of a data set, and of their packs if the config has `packing`."""
        task = task_of(dataset)
        packed = task.packable and self.study.packing is not None
        return [self._card(task.train), *([str(card(self.study.layout.pack(task.train)))] if packed else [])]

    @property
    def transfers(self) -> TransferPlan:
        """Dependencies of the fine-tunings."""
        return TransferPlan(self.study)

    def prepared(self) -> list[str]:
        """Cards of all data that trainings and predictions read."""
        suites = [suite.name for part in self.study.parts.values() for suite in part.suites]
        training = [path for run in self.study.runs() for path in self.training_inputs(run)]
        prediction = [path for suite in suites for path in self.suite_manifests(suite)]
        runs = {str(self.study.layout.run_json(run)) for run in self.study.runs()}
        data = [*training, *prediction, *self.transfers.prepared()]
        return [path for path in dict.fromkeys(data) if path not in runs]

    def trained_with(self, run: Run) -> str:
        """See the function `trained_with`."""
        return trained_with(self.study, run)

    def index_inputs(self, byproducts: str) -> list[str]:
        """Inputs of a byproduct index."""
        own = task_with(byproducts).own_byproducts(self.study)
        return [str(own or self.study.layout.archive_card(byproducts))]

    def index_options(self, byproducts: str) -> str | None:
        """Settings of a byproduct index besides `on_bad`, as text; None if there are none."""
        options = task_with(byproducts).index_options(self.study)
        return ", ".join(f"{name} {value}" for name, value in sorted(options.items())) or None

    def target_inputs(self, dataset: str, target: str = "") -> list[str]:
        """Inputs of the training points of a data set, and of the held-out traces."""
        task = task_of(dataset)
        others = (HELD_OUT,) if target == TRACES else ()
        tags = self.study.paths.tags
        own = [str(tags)] if tags and target in self._targets_from_tags else []
        return [str(task.index_card(self.study)), *map(self._card, (*task.targets_read, *others)), *own]

    @functools.cached_property
    def _targets_from_tags(self) -> set[str]:
        """Stems of the files of ImageNet's training points that are made from the user's own tags."""
        entries = self.study.supervisions.values()
        return {str(entry.target) for entry in entries if entry.records in FROM_TAGS}

    @staticmethod
    def target_module(dataset: str) -> str:
        """Module that makes the training points of a data set."""
        return f"luab.data.supervisions.{task_of(dataset).name}"

    def lists(self, dataset: str) -> tuple[str, ...]:
        """Downloads of a data set that are read without unpacking: lists of labels and boxes."""
        if dataset in ("imagenet_train", "imagenet_val"):  # listed for people, who download them by hand
            return ()
        return self._archives(dataset, unpacked=False)

    def trees(self, dataset: str) -> tuple[str, ...]:
        """Downloads of a data set that are unpacked."""
        return self._archives(dataset, unpacked=True)

    def test_sets(self, suite: str) -> tuple[str, ...]:
        """Test sets that a suite predicts."""
        return test_sets_of(self.study.suite(suite).benchmarks)

    def suite_manifests(self, suite: str) -> list[str]:
        """Cards of the manifests that a suite's predictions read, and of other inputs of its test sets."""
        test_sets = [TEST_SETS[name] for name in self.test_sets(suite)]
        names = [self._card(manifest) for test_set in test_sets for manifest in test_set.manifests]
        others = [path for test_set in test_sets for path in task_of(test_set.dataset).test_inputs(self.study)]
        return list(dict.fromkeys([*names, *map(str, others)]))

    def score_manifests(self, suite: str) -> list[str]:
        """Cards of the manifests and traces that a suite's scores read in addition to the predictions."""
        benchmarks = [BENCHMARKS[name] for name in self.study.suite(suite).benchmarks]
        names = [manifest for benchmark in benchmarks for manifest in (*benchmark.manifests, *benchmark.roots)]
        targets = [str(card(self.study.layout.target(name))) for one in benchmarks for name in one.targets]
        return list(dict.fromkeys([*map(self._card, names), *targets]))

    def scores(self) -> list[str]:
        """Score files of all runs."""
        layout = self.study.layout
        runs = [(run, self.study.part(run.dataset)) for run in self.study.runs()]
        return [str(layout.score(run, name)) for run, part in runs for name in part.benchmarks]

    def product_inputs(self, kind: Kind, name: str) -> list[str]:
        """Inputs of a table or figure."""
        return [str(path) for path in find_product(kind, name).inputs(self.study).waits_for]

    def report_inputs(self) -> list[str]:
        """Inputs of the report, including captions and the templates of its page."""
        layout = self.study.layout
        tables = [layout.table(name, "csv") for name in self.tables]
        figures = [layout.figure(name, "png") for name in self.figures]
        captions = [CAPTIONS / f"table_{name}.rst" for name in self.tables]
        captions += [CAPTIONS / f"figure_{name}.rst" for name in self.figures]
        runs = [path for run in self.study.runs() for path in (layout.run_json(run), layout.log_csv(run))]
        page = [_REPORT_PAGE / name for name in ("page.html", "page.css", "page.js")]
        sections = [
            path for product in products_of(self.study, "section") for path in product.inputs(self.study).waits_for
        ]
        texts = [self.study.paths.published, DEVIATIONS, *page]
        files = [*tables, *figures, *captions, *runs, layout.scores_csv(), *sections, *texts]
        return [str(file) for file in files]

    def descriptions(self) -> list[str]:
        """Files for DVC and the RO-Crate, which describe one folder of results, so studies that share it have none."""
        layout = self.study.layout
        return [] if self.study.shares else [str(layout.dvc_file()), str(layout.crate())]

    def tracking_inputs(self) -> list[str]:
        """Inputs of DVC's artifacts, metrics and plots."""
        layout = self.study.layout
        logs = [layout.log_csv(run) for run in self.study.headline_runs()]
        return [str(layout.scores_csv()), *map(str, logs)]

    def tracking_outputs(self) -> list[str]:
        """Files of headline numbers: one per data set, backbone and supervision."""
        runs = self.study.headline_runs()
        return list(dict.fromkeys(str(self.study.layout.metrics(run)) for run in runs))

    def crate_inputs(self) -> list[str]:
        """Inputs of the RO-Crate."""
        layout = self.study.layout
        suites = [(run, suite.name) for run in self.study.runs() for suite in self.study.part(run.dataset).suites]
        cards = [layout.prediction_card(run, suite) for run, suite in suites]
        figures = [layout.figure(name, "pdf") for name in self.figures]
        tables = [layout.table(name, "tex") for name in self.tables]
        files = [layout.report(), layout.dvc_file(), *figures, *tables, *cards, *self.transfers.finished()]
        indexes = [task_of(dataset).index_card(self.study) for dataset in self.study.parts]
        return list(dict.fromkeys([*self.report_inputs(), *map(str, [*files, *indexes])]))

    def _archives(self, dataset: str, unpacked: bool) -> tuple[str, ...]:
        entries = self.archives.items()
        return tuple(
            name for name, entry in entries if entry["dataset"] == dataset and bool(entry["unpack"]) is unpacked
        )

    def _card(self, manifest: str) -> str:
        return str(card(self.study.layout.manifest(manifest)))
