"""Compares indexing COCO-AB with `json.load` and a loop over the records, on a generated file of the release's size.

    python speed/coco_index.py                 # 398 MB: about a minute and 3 GB of memory for json.load
    python speed/coco_index.py --megabytes 40

Three processes read the same file, one after the other: `json.load` with a loop that collects the added points (as the
official loader does), only the stream of records, and the whole index (records checked, counted, written as Parquet).
The script prints seconds, records per second, peak memory, and ratios to the first; the index may use 300 MB at most.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measuring import command_line

BOUND_MB = 300
_ICONS = ("person", "bicycle", "car", "dog", "cup", "pizza", "cake", "banana")

_LOAD = """
with open(path) as file:
    records = json.load(file)
points = {}
for record in records:
    added = [action for action in record["actionHistories"] if action["actionType"] == "add"]
    points[record["image_id"]] = {a["iconType"]: (a["pointTo"]["x"], a["pointTo"]["y"]) for a in added}
count = len(records)
"""
_STREAM = """
from luab.byproducts.json_stream import array_items
with array_items(path) as items:
    count = sum(1 for _ in items)
"""
_INDEX = """
from luab.byproducts.coco_ab import index
count = index(path, path.with_suffix(".parquet"), path.with_suffix(".card.json"))["rows"]
"""
_TIMED = """
import json, resource, sys, time
from pathlib import Path
path = Path(sys.argv[1])
start = time.perf_counter()
{body}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
print(count, time.perf_counter() - start, peak, file=sys.stdout)
"""


def write_archive(path: Path, megabytes: float, seed: int = 0) -> int:
    """Writes an array of records like those of the release, about 4.8 kB each; returns their number."""
    rng, written, count = np.random.default_rng(seed), 1, 0
    with open(path, "w", encoding="utf-8") as file:
        file.write("[")
        while written < megabytes * 1e6:
            text = (", " if count else "") + json.dumps(_record(count, rng))
            written += file.write(text)
            count += 1
        file.write("]")
    return count


def _record(number: int, rng: np.random.Generator) -> dict[str, object]:
    samples = int(rng.integers(10, 90))
    x, y = (rng.integers(0, 676, samples) / 675).tolist(), (rng.integers(0, 451, samples) / 450).tolist()
    times = np.sort(rng.integers(4000, 60_000, samples)).tolist()
    icons = [_ICONS[int(k)] for k in rng.integers(0, len(_ICONS), 3)]
    return {
        "image_id": 9 + 7 * number,
        "originalImageHeight": 480,
        "originalImageWidth": 640,
        "imageHeight": 450,
        "imageWidth": 450,
        "timeSpent": int(times[-1]) + 900,
        "actionHistories": [
            {"actionType": "add", "iconType": icon, "pointTo": {"x": x[k], "y": y[k]}, "timeAt": times[k]}
            for k, icon in enumerate(icons)
        ],
        "categoryHistories": [
            {"categoryIndex": pane, "categoryName": "IndoorObjects", "timeAt": times[-1], "usingKeyboard": False}
            for pane in range(1, 11)
        ],
        "mouseTracking": [{"x": a, "y": b, "timeAt": t} for a, b, t in zip(x, y, times, strict=True)],
        "hit_id": rng.bytes(16).hex(),
        "page_id": number % 20,
        "worker_id": rng.bytes(5).hex().upper(),
    }


def measure(body: str, path: Path) -> tuple[int, float, float]:
    """Returns records, seconds and peak MB of a process that runs `body`."""
    command = [sys.executable, "-c", _TIMED.format(body=body), str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, encoding="utf-8", errors="replace")
    count, seconds, peak = done.stdout.split()
    return int(count), float(seconds), float(peak)


def main() -> None:
    """Prints the table."""
    parser = command_line(__doc__)
    parser.add_argument("--megabytes", type=float, default=398.3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coco_ab.json"
        count = write_archive(path, options.megabytes)
        print(f"{count:,} records, {path.stat().st_size / 1e6:,.1f} MB")
        first = None
        for name, body in (("json.load and loop", _LOAD), ("only the stream", _STREAM), ("index", _INDEX)):
            records, seconds, peak = measure(body, path)
            assert records == count, f"{name}: expected {count} records, found {records}"
            first = first or (seconds, peak)
            print(
                f"{name:20} {seconds:7.1f} s {records / seconds:8,.0f} records/s {peak:7,.0f} MB   "
                f"speed x{first[0] / seconds:.2f}, memory x{peak / first[1]:.2f}"
            )
        print(f"index: {BOUND_MB - peak:,.0f} MB below the limit of {BOUND_MB} MB")


if __name__ == "__main__":
    main()
