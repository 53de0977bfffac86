"""`luab publish` pushes a finished study to a DVC remote; `luab pull` fetches results, or the inputs of a file."""

import configparser
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from luab.errors import ConfigError, DataError, JobError, did_you_mean
from luab.files import read_json
from luab.planning.plan import Plan
from luab.provenance.snakemake_records import PROVENANCE, Record, read_records
from luab.study.config import Study
from luab.study.paths import Layout

DVC_FILE = Path("dvc.yaml")
LOCK = Path("dvc.lock")
REMOTES = Path(".dvc/config")
FINE_TUNINGS = "transfer"
"""Folder of the fine-tunings below the results. DVC stores it by a file of its own, transfer.dvc, instead of a stage of
dvc.yaml, because not every study has it."""
IN_GIT = ("scores.csv", PROVENANCE, "dvc.yaml", "metrics", "plots", "ro-crate-metadata.json", "tables")
"""Results that publish commits, in addition to dvc.lock, dvc.yaml, .dvc/config and the configuration."""
_PYTHON = (sys.executable, "-m")
_TOOLS = {"DVC": (*_PYTHON, "dvc"), "Snakemake": (*_PYTHON, "snakemake"), "git": ("git",)}
_SECRET = ("password", "secret", "token", "account_key", "connection_string", "passphrase")
_SHOWN = 5
_TAIL_LINES = 12


def publish(study: Study, remote: str | None = None, message: str | None = None) -> str:
    """Records a finished study in dvc.lock, pushes its files to a DVC remote, and commits the small ones to git.

    Returns a message to the user: what was done and what to do next. Without `remote` it takes DVC's default.

    Raises:
        ConfigError: The study is not in the folders of dvc.yaml, the remote is unknown, or .dvc/config has a password.
        DataError: Files are missing or out of date.
        JobError: DVC, git or Snakemake failed.
    """
    layout = study.layout
    if (layout.data, layout.results) != (Path("data"), Path("results")):
        raise ConfigError(
            f"dvc.yaml expects the folders data and results, but this study uses {layout.data} and {layout.results}. "
            "Set `paths.data: data` and `paths.results: results` in config/config.yaml."
        )
    remote_options = _remote(remote)
    check_no_secrets(REMOTES)
    _check_complete(study)
    _check_up_to_date()
    _run("DVC", "commit", "--force", "--quiet", shown=True)
    if study.transfer:
        _run("DVC", "add", "--quiet", str(layout.results / FINE_TUNINGS), shown=True)
    _run("DVC", "push", *remote_options, shown=True)
    return f"{_commit(study, message)}\nNow run `git push`. In a clone, `luab pull` then fetches the results."


def pull(study: Study, targets: Sequence[str] = (), needs: bool = False, remote: str | None = None) -> str:
    """Pulls files and folders from a DVC remote, everything without `targets`; returns a message like `publish`.

    With `needs`, pulls the inputs that Snakemake makes the targets from instead of the targets.

    Raises:
        ConfigError: A target is unknown, `needs` is set without targets, or the remote is unknown.
        DataError: Snakemake's exported records are damaged, or DVC has no such file.
        JobError: DVC failed, for example because the remote cannot be reached.
    """
    if needs and not targets:
        raise ConfigError("luab pull --needs: add the file to make, for example results/scores.csv.")
    paths = [os.path.relpath(target) for target in targets]
    if outside := [path for path in paths if path == os.curdir or path.startswith(os.pardir)]:
        raise ConfigError(f"{outside[0]}: expected a file or folder in {Path.cwd()}.")
    if needs:
        return _pull_needs(study.layout, paths, remote)
    stored = stored_in_dvc()
    not_stored = [path for path in paths if not _is_stored(path, stored)]
    if in_git := [path for path in not_stored if Path(path).exists()]:
        return f"{', '.join(in_git)}: in git, nothing to pull. DVC stores {', '.join(sorted(stored))}."
    if not_stored:
        raise ConfigError(f"{not_stored[0]}: not stored in DVC. DVC stores {', '.join(sorted(stored))}.")
    _run("DVC", "pull", *_remote(remote), *paths, shown=True)
    if absent := [path for path in paths if not Path(path).exists()]:  # DVC ignores unknown files in stored folders
        raise DataError(
            f"{absent[0]}: DVC stores no such file or folder in this commit. To list its files: "
            f"dvc list --recursive . {Path(absent[0]).parents[-2] if '/' in absent[0] else '.'}"
        )
    return f"Pulled {', '.join(paths) or 'everything that DVC stores'}."


def missing_inputs(target: str, records: dict[str, Record], stored: Collection[str], layout: Layout) -> list[str]:
    """Missing files stored in DVC that Snakemake needs to make a target, according to its records by output.

    For a missing input that DVC does not store, its own inputs are needed, and so on.
    """
    if target not in records:
        raise ConfigError(
            f"{target}: {PROVENANCE} has no record of this file; expected a file made by the workflow. "
            f"{did_you_mean(target, records)}"
        )
    outputs_of_job: dict[tuple[str, ...], list[str]] = {}
    for name, record in records.items():
        outputs_of_job.setdefault(_job(record), []).append(name)
    inputs: set[str] = set()
    pending, visited = list(records[target].get("input") or []), {target}
    while pending:
        name = pending.pop()
        if name in visited:
            continue
        visited.add(name)
        outputs = outputs_of_job[_job(records[name])] if name in records else [name]
        missing = [path for path in (*outputs, *_archive_of(name, layout)) if not Path(path).exists()]
        if stored_and_missing := {path for path in missing if _is_stored(path, stored)}:
            inputs |= stored_and_missing
        elif missing and name in records:
            pending += records[name].get("input") or []
    return sorted(inputs)


def stored_in_dvc() -> set[str]:
    """Files and folders, in the working directory, whose content DVC stores: those of dvc.yaml, and fine-tunings."""
    if not DVC_FILE.is_file():
        raise ConfigError(f"{DVC_FILE} not found in {Path.cwd()}. Run this command in the checkout.")
    stored = set()
    for stage in yaml.safe_load(DVC_FILE.read_text(encoding="utf-8"))["stages"].values():
        for out in stage.get("outs", []):
            for path, options in (out if isinstance(out, dict) else {out: {}}).items():
                if options.get("cache", True):
                    stored.add(path)
    fine_tunings = Path("results") / FINE_TUNINGS
    return stored | ({str(fine_tunings)} if fine_tunings.with_suffix(".dvc").is_file() else set())


def check_no_secrets(config: Path) -> None:
    """Checks that DVC's configuration file in git contains no password or key; an error names the option alone."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(config)
    except configparser.Error as error:
        raise ConfigError(f"{config}: not a valid DVC configuration ({error.message}).") from error
    for section in parser.sections():
        for option, value in parser[section].items():
            in_url = option == "url" and urlsplit(value.strip("\"'")).password
            if in_url or (any(word in option for word in _SECRET) and not option.startswith("ask_")):
                raise ConfigError(
                    f"{config}, {section}: {'the url contains a password' if in_url else f'{option} is a secret'}, and "
                    "git would publish it. Move it to .dvc/config.local, which git ignores: "
                    "dvc remote modify --local <name> <option> <value>; then remove it here."
                )


def _pull_needs(layout: Layout, targets: list[str], remote: str | None) -> str:
    records = {record["output"]: record for record in read_records(layout.results / PROVENANCE)}
    stored, pulled = stored_in_dvc(), set[str]()
    for _ in range(2):  # twice: the card of an archive, once pulled, names the archive
        inputs = dict.fromkeys(path for target in targets for path in missing_inputs(target, records, stored, layout))
        if inputs:
            _run("DVC", "pull", *_remote(remote), *inputs, shown=True)
        pulled |= set(inputs)
    count = len(pulled)
    return f"Pulled {count} file{'' if count == 1 else 's'}. Now run: snakemake --cores all {' '.join(targets)}"


def _job(record: Record) -> tuple[str, ...]:
    """A key that all outputs of one job share and that is unique to the job: rule and log."""
    return (str(record.get("rule")), *map(str, record.get("log") or [record["output"]]))


def _archive_of(name: str, layout: Layout) -> list[str]:
    """The archive that a card names; it is not a declared output, so it has no record."""
    path = Path(name)
    if path.parent != layout.archive_folder() or path.suffix != ".json" or not path.is_file():
        return []
    file = read_json(path).get("file")
    return [str(path.parent / Path(str(file)).name)] if file else []


def _is_stored(path: str, stored: Iterable[str]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in stored)


def _check_complete(study: Study) -> None:
    layout, plan = study.layout, Plan.of(study)
    listed = (*plan.prepared(), *plan.tracking_outputs(), *plan.crate_inputs(), *plan.scores())
    expected = [layout.crate(), *map(Path, dict.fromkeys(listed))]
    for run in study.runs():
        tests = [name for suite in study.part(run.dataset).suites for name in plan.test_sets(suite.name)]
        expected += [layout.model(run), *(layout.prediction_folder(run) / f"{name}.parquet" for name in tests)]
    for one in plan.transfers.scored():
        expected += [layout.fine_tuning_predictions(one), layout.fine_tuning_images(one)]
    expected += [layout.fine_tuning_model(one) for one in study.fine_tunings()]
    missing = [str(path) for path in expected if not path.exists()]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise DataError(
            f"The study of config/config.yaml is incomplete: of {len(expected):,} files {len(missing):,} are missing: "
            f"{', '.join(missing[:_SHOWN])}{more}. Make them with Snakemake, or fetch them with `luab pull`. "
            "Publishing an incomplete study would hide these files from others."
        )


def _check_up_to_date() -> None:
    dry_run = _run("Snakemake", "--dry-run", "all")
    if "Nothing to be done" not in dry_run:
        jobs = [line for line in dry_run.splitlines() if line.startswith("total")]
        raise DataError(
            f"The results are out of date: Snakemake would run {' '.join(jobs[0].split()[1:]) if jobs else 'some'} "
            "jobs for this code and config/config.yaml. See `snakemake -n`, run Snakemake, then publish again."
        )


def _commit(study: Study, message: str | None) -> str:
    results = study.paths.results
    of_transfers = (f"{FINE_TUNINGS}.dvc", f"{FINE_TUNINGS}.csv") if study.transfer else ()
    more = [name for name in of_transfers if (results / name).is_file()]  # without scores there is no transfer.csv
    small = [str(LOCK), str(DVC_FILE), str(REMOTES), "config", *(str(results / name) for name in (*IN_GIT, *more))]
    _run("git", "add", "--", *small)
    if not _run("git", "diff", "--cached", "--name-only", "--", *small).strip():
        return "Nothing has changed since the last publish; the remote is complete."
    trainings = f"{len(study.runs())} training{'' if len(study.runs()) == 1 else 's'}"
    message = message or f"Results: {trainings}"
    _run("git", "commit", "--quiet", "--message", message, "--", *small)
    return f"Published {trainings} with predictions and scores; committed as {message!r}."


def _remote(name: str | None) -> list[str]:
    listed = [line.split()[0] for line in _run("DVC", "remote", "list").splitlines() if line.strip()]
    default = _run("DVC", "config", "core.remote", may_fail=True).strip()  # fails without a default
    if name is None and not default:
        choices = f". Choose one of {', '.join(listed)} with --remote, or add" if listed else ". Add"
        raise ConfigError(
            f"DVC has no default remote{choices} a default: dvc remote add --default storage <folder, s3://…, ssh://…, "
            "https://…>. docs/sharing.md has examples."
        )
    if name is not None and name not in listed:
        raise ConfigError(f"DVC has no remote {name!r}. {did_you_mean(name, listed)}")
    return ["--remote", name] if name else []


def _run(tool: str, *arguments: str, shown: bool = False, may_fail: bool = False) -> str:
    """Output of a tool; for Snakemake, its log too. With `shown`, the output goes to the terminal instead."""
    stdout = None if shown else subprocess.PIPE
    try:
        done = subprocess.run(
            [*_TOOLS[tool], *arguments],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise JobError(f"{tool} is not installed ({error.strerror}).") from error
    output = done.stdout or ""
    if done.returncode and not may_fail:
        tail = "\n  ".join((done.stderr or output).strip().splitlines()[-_TAIL_LINES:])
        raise JobError(
            f"`{tool.lower()} {arguments[0]}` failed:\n  {tail}\nNothing was lost. Fix the problem and run it again."
        )
    return output + (done.stderr if tool == "Snakemake" else "")
