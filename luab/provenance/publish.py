"""Sending a finished study to DVC's remote, and fetching from it what a file needs."""

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
KEPT_BY_GIT = ("scores.csv", PROVENANCE, "dvc.yaml", "metrics", "plots", "ro-crate-metadata.json", "tables")
"""What publish commits of the folder of results, beside dvc.lock, the names of remotes and the configuration."""
_TOOLS = {
    "DVC": (sys.executable, "-m", "dvc"),
    "Snakemake": (sys.executable, "-m", "snakemake"),
    "git": ("git",),
}
_SECRET = ("password", "secret", "token", "account_key", "connection_string", "passphrase")
_NOTHING_TO_DO = "Nothing to be done"
_SHOWN = 5
_TAIL_LINES = 12


def publish(study: Study, remote: str | None = None, message: str | None = None) -> str:
    """Records the study's files in dvc.lock, sends them to a remote, and commits the small ones to git.

    Args:
        study: Finished, and made by config/config.yaml.
        remote: DVC's name of it; None for its default one.
        message: Of the commit; by default the numbers of trainings.

    Returns:
        What was done and what is left to do, for a person.

    Raises:
        ConfigError: The study lies in other folders than dvc.yaml names, DVC has no such remote, or a password stands
            where git would take it up.
        DataError: Files are missing, or Snakemake would make some anew.
        JobError: DVC, git or Snakemake failed.
    """
    _refuse_other_folders(study.layout)
    to = _remote(remote)
    refuse_secrets(REMOTES)
    _refuse_missing(study)
    _refuse_outdated()
    _dvc("commit", "--force", "--quiet")
    _dvc("push", *to)
    return f"{_commit(study, message)}\nNow `git push`: a clone of it fetches with `luab pull`."


def pull(study: Study, targets: Sequence[str] = (), needs: bool = False, remote: str | None = None) -> str:
    """Fetches results from a remote.

    Args:
        study: Says where the results lie.
        targets: Files or folders below this one; all that DVC keeps where there are none.
        needs: Fetch not the targets but what Snakemake makes them from.
        remote: DVC's name of it; None for its default one.

    Returns:
        What was fetched and what to do next, for a person.

    Raises:
        ConfigError: A target is unknown, `needs` has no target, or DVC has no such remote.
        DataError: A file of the records is damaged.
        JobError: DVC failed: the remote cannot be reached, or lacks a file.
    """
    if needs and not targets:
        raise ConfigError("luab pull --needs: expected the file that is to be made, found none. Name it.")
    paths = [_inside(target) for target in targets]
    if needs:
        return _pull_needs(study.layout, paths, remote)
    kept = kept_by_dvc()
    if by_git := [path for path in paths if not _is_kept(path, kept) and Path(path).exists()]:
        return f"{', '.join(by_git)}: kept by git and here already; DVC keeps {', '.join(sorted(kept))}."
    if unknown := [path for path in paths if not _is_kept(path, kept)]:
        raise ConfigError(f"{unknown[0]}: expected a file or folder that DVC keeps, below {', '.join(sorted(kept))}.")
    _dvc("pull", *_remote(remote), *paths)
    if absent := [path for path in paths if not Path(path).exists()]:  # below a folder that is kept DVC passes it over
        raise DataError(
            f"{absent[0]}: expected it in what this commit names; DVC keeps no such file or folder. See what there is: "
            f"dvc list --recursive . {Path(absent[0]).parents[-2] if '/' in absent[0] else '.'}"
        )
    return f"Here now: {', '.join(paths) or 'all that DVC keeps'}."


def needed(target: str, records: dict[str, Record], kept: Collection[str], layout: Layout) -> list[str]:
    """Missing files that DVC keeps and that Snakemake needs to make a target, by its records.

    A missing input that DVC does not keep is to be made itself, so its own inputs are needed.

    Args:
        target: A file, as Snakemake names it.
        records: luab.provenance.snakemake_records.read_records, by output.
        kept: Paths that DVC keeps, with all below them.
        layout: Where the archives lie.

    Raises:
        ConfigError: There is no record of the target; near names are told.
    """
    if target not in records:
        raise ConfigError(
            f"{target}: {PROVENANCE} says nothing of it; expected a file that the workflow has made. "
            f"{did_you_mean(target, records)}"
        )
    siblings: dict[tuple[str, ...], list[str]] = {}
    for name, known in records.items():
        siblings.setdefault(_job(known), []).append(name)
    found: dict[str, None] = {}
    pending, seen = list(records[target].get("input") or []), {target}
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        record = records.get(name)
        together = [*(siblings[_job(record)] if record else [name]), *_archive_of(name, layout)]
        missing = [path for path in together if not Path(path).exists()]
        if any(_is_kept(path, kept) for path in missing):
            found |= dict.fromkeys(path for path in missing if _is_kept(path, kept))
        elif record and missing:
            pending += record.get("input") or []
    return sorted(found)


def kept_by_dvc() -> set[str]:
    """Files and folders whose content DVC keeps, as dvc.yaml names them.

    Raises:
        ConfigError: This is not a checkout of luab.
    """
    if not DVC_FILE.is_file():
        raise ConfigError(f"{DVC_FILE}: expected it in {Path.cwd()}. Run this in the checkout.")
    kept = set()
    for stage in yaml.safe_load(DVC_FILE.read_text())["stages"].values():
        for out in stage.get("outs", []):
            for path, options in (out if isinstance(out, dict) else {out: {}}).items():
                if options.get("cache", True):
                    kept.add(path)
    return kept


def refuse_secrets(config: Path) -> None:
    """Refuses to hand DVC's tracked configuration to git while a password or key stands in it.

    Raises:
        ConfigError: It names the option, not its value, and says where it belongs.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(config)
    except configparser.Error as error:
        raise ConfigError(f"{config}: expected DVC's configuration, found something else ({error.message}).") from error
    for section in parser.sections():
        for option, value in parser[section].items():
            in_url = option == "url" and urlsplit(value.strip("\"'")).password
            if in_url or (any(word in option for word in _SECRET) and not option.startswith("ask_")):
                raise ConfigError(
                    f"{config}, {section}: {'its url holds a password' if in_url else f'{option} is a secret'}, and "
                    "git would take it up. Keep it in .dvc/config.local, which git ignores: "
                    "dvc remote modify --local <name> <option> <value>; then remove it here."
                )


def _pull_needs(layout: Layout, targets: list[str], remote: str | None) -> str:
    records = {record["output"]: record for record in read_records(layout.results / PROVENANCE)}
    kept = kept_by_dvc()
    wanted = dict.fromkeys(path for target in targets for path in needed(target, records, kept, layout))
    if wanted:
        _dvc("pull", *_remote(remote), *wanted)
    # A card came; what it is the card of may have another place in the remote, and is known only now.
    late = dict.fromkeys(path for target in targets for path in needed(target, records, kept, layout))
    if late:
        _dvc("pull", *_remote(remote), *late)
    count = len(wanted | late)
    return f"{count} file{'' if count == 1 else 's'} fetched. Now: snakemake --cores all {' '.join(targets)}"


def _job(record: Record) -> tuple[str, ...]:
    """What the outputs of one job have in common, and no other job has: its log."""
    return (str(record.get("rule")), *map(str, record.get("log") or [record["output"]]))


def _archive_of(name: str, layout: Layout) -> list[str]:
    """The download beside its card: no declared output, so no record tells of it."""
    path = Path(name)
    if path.parent != layout.archive_folder() or path.suffix != ".json" or not path.is_file():
        return []
    file = read_json(path).get("file")
    return [str(path.parent / Path(str(file)).name)] if file else []


def _is_kept(path: str, kept: Iterable[str]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in kept)


def _inside(target: str) -> str:
    path = os.path.relpath(target)
    if path == os.curdir or path.startswith(os.pardir):
        raise ConfigError(f"{target}: expected a file or folder below {Path.cwd()}.")
    return path


def _refuse_other_folders(layout: Layout) -> None:
    if (layout.data, layout.results) != (Path("data"), Path("results")):
        raise ConfigError(
            f"dvc.yaml speaks of data and results, this study lies in {layout.data} and {layout.results}. "
            "Publish the study of config/config.yaml, with `paths` as they come; copy yours there."
        )


def _refuse_missing(study: Study) -> None:
    layout, plan = study.layout, Plan.of(study)
    listed = (*plan.prepared(), *plan.tracking_outputs(), *plan.crate_inputs(), *plan.scores())
    wanted = [layout.crate(), *map(Path, dict.fromkeys(listed))]
    for run in study.runs():
        tests = [name for suite in study.part(run.dataset).suites for name in plan.test_sets(suite.name)]
        wanted += [layout.model(run), *(layout.prediction_folder(run) / f"{name}.parquet" for name in tests)]
    missing = [str(path) for path in wanted if not path.exists()]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise DataError(
            f"Expected the whole study of config/config.yaml, {len(wanted):,} files; {len(missing):,} are missing: "
            f"{', '.join(missing[:_SHOWN])}{more}. Make them with Snakemake, or fetch them with `luab pull`: what is "
            "published without them would hide them from others."
        )


def _refuse_outdated() -> None:
    told = _run("Snakemake", "--dry-run", "all")
    if _NOTHING_TO_DO not in told:
        jobs = [line for line in told.splitlines() if line.startswith("total")]
        raise DataError(
            f"Snakemake would make files anew ({' '.join(jobs[0].split()[1:]) if jobs else 'some'} jobs): the results "
            "are not those of config/config.yaml and of this code. Look with `snakemake -n`, run Snakemake, publish."
        )


def _commit(study: Study, message: str | None) -> str:
    results = study.paths.results
    small = [str(LOCK), str(DVC_FILE), str(REMOTES), "config", *(str(results / name) for name in KEPT_BY_GIT)]
    _run("git", "add", "--", *small)
    if not _run("git", "diff", "--cached", "--name-only", "--", *small).strip():
        return "Nothing has changed since it was published last; the remote has all of it."
    trainings = len(study.runs())
    said = message or f"Results: {trainings} training{'' if trainings == 1 else 's'}"
    _run("git", "commit", "--quiet", "--message", said, "--", *small)
    return f"Published {trainings} trainings with their predictions and scores; committed as {said!r}."


def _remote(name: str | None) -> list[str]:
    listed = [line.split()[0] for line in _run("DVC", "remote", "list").splitlines() if line.strip()]
    default = _run("DVC", "config", "core.remote", may_fail=True).strip()  # it fails where there is none
    if name is None and not default:
        known = f"; it knows {', '.join(listed)}: choose with --remote" if listed else ""
        raise ConfigError(
            f"DVC has no default remote{known}. Name one: dvc remote add --default storage <folder, s3://…, ssh://…, "
            "https://…>; docs/sharing.md shows each."
        )
    if name is not None and name not in listed:
        raise ConfigError(f"DVC has no remote {name!r}. {did_you_mean(name, listed)}")
    return ["--remote", name] if name else []


def _dvc(*arguments: str) -> None:
    """Runs DVC with its progress on the terminal; what it says of a failure becomes the error's text."""
    done = subprocess.run([*_TOOLS["DVC"], *arguments], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise _failed("DVC", arguments[0], done.stderr)


def _run(tool: str, *arguments: str, may_fail: bool = False) -> str:
    """What a tool prints; of Snakemake also what it logs."""
    try:
        done = subprocess.run([*_TOOLS[tool], *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise JobError(f"{tool}: expected it on this machine; {error.strerror}. Install it.") from error
    if done.returncode and not may_fail:
        raise _failed(tool, arguments[0], done.stderr or done.stdout)
    return done.stdout + (done.stderr if tool == "Snakemake" else "")


def _failed(tool: str, what: str, told: str) -> JobError:
    tail = "\n  ".join(told.strip().splitlines()[-_TAIL_LINES:])
    return JobError(
        f"{tool} could not finish `{what}`:\n  {tail}\nNothing was lost: put right what it says and run it again."
    )
