"""`snakemake-submitit`: what runs and what waits, and what ended jobs used; reads files, and never calls Slurm."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from . import efficiency, history
from .controller import notice
from .registry import CHECKED, Entry, Registry

_FOLDER = ".snakemake/submitit"
_SHOWN = 40
_HEADER = ("job", "id", "state", "node or reason", "since submission", "attempt")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    folder = Path(options.folder)
    if not folder.is_dir():
        print(
            f"{folder}: expected the plugin's folder, found none. Run this in the folder of the workflow, or name the "
            "folder with --folder (submitit-folder of the profile).",
            file=sys.stderr,
        )
        return 1
    print(status(folder, options.all) if options.command == "status" else _efficiency(folder, options.csv))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("snakemake-submitit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    shown = commands.add_parser("status", help="show the jobs that run or wait")
    shown.add_argument("--all", action="store_true", help=f"show all jobs, not only the first {_SHOWN}")
    used = commands.add_parser("efficiency", help="show CPU time and memory that ended jobs used and requested")
    used.add_argument("--csv", metavar="FILE", help="also write one line for each job to this file")
    for command in (shown, used):
        command.add_argument("--folder", default=_FOLDER, help="folder of the plugin; default: %(default)s")
    return parser


def status(folder: Path, show_all: bool = False) -> str:
    """Describes the live jobs from their records.

    Args:
        folder: Folder of the plugin.
        show_all: Whether to show all jobs, not only the first ones.
    """
    entries = Registry(folder / "live").unended()
    if not entries:
        return "No live jobs."
    counts = Counter(_state(entry) for entry in entries)
    parts = [f"{len(entries)} live jobs: {', '.join(f'{number} {state}' for state, number in counts.most_common())}"]
    parts[0] += f"; {_checked(folder / 'live' / CHECKED)}."
    ordered = sorted(entries, key=lambda entry: (_state(entry) != "running", entry.submitted, entry.index))
    shown = ordered if show_all else ordered[:_SHOWN]
    parts.append(efficiency.text_table(_HEADER, [_line(entry) for entry in shown]))
    if len(shown) < len(ordered):
        parts.append(f"... and {len(ordered) - len(shown)} more (--all)")
    return "\n".join(filter(None, [*parts, notice(folder)]))


def _line(entry: Entry) -> tuple[str, ...]:
    running = entry.node if _state(entry) == "running" else ""
    where = running or (entry.reason.strip("()") if entry.reason != "None" else "")
    age = duration(time.time() - entry.submitted) if entry.submitted else "-"
    return entry.name, entry.id or "-", _state(entry), where or "-", age, str(entry.attempt)


def _state(entry: Entry) -> str:
    return entry.state.lower() or "submitted"


def _checked(path: Path) -> str:
    try:
        return f"checked {duration(time.time() - path.stat().st_mtime)} ago"
    except OSError:
        return "not checked yet"


def duration(seconds: float) -> str:
    """Returns a time span in at most two units: 2 d 3 h, 4 h 05 min, 12 min, 30 s."""
    minutes = int(seconds // 60)
    if minutes >= 24 * 60:
        return f"{minutes // 1440} d {minutes % 1440 // 60} h"
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes else f"{max(0, seconds):.0f} s"


def _efficiency(folder: Path, csv_file: str | None) -> str:
    rows = efficiency.rows(history.lines(folder), {})
    if not rows:
        return "No job has ended yet."
    if csv_file:
        efficiency.write_csv(rows, Path(csv_file))
    return efficiency.table(rows)


if __name__ == "__main__":
    sys.exit(main())
