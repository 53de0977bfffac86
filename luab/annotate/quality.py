"""The quality report: what each worker's pages look like. It suggests whom to look at, and excludes nobody."""

import hashlib
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from luab.annotate.desk import Desk
from luab.annotate.store import StoredPage

# ASSUME: limits below which a record is worth a look; the paper does not say how records were screened.

_FAST_MS_PER_IMAGE = 150  # of a browsing page, in all
_FAST_MS_PER_TAGGING_PAGE = 3000
_INSTANT_MS = 50  # between the first movement over an image and the click
_LOW_RECALL = 0.5
_SHARE = 0.2  # of a worker's pages or clicks


def quality_report(desk: Desk) -> list[dict[str, Any]]:
    """Returns one entry per worker and interface: numbers, and in `look_at` what is unusual."""
    report = []
    for interface in desk.collection.interfaces:
        by_worker: dict[str, list[StoredPage]] = defaultdict(list)
        for page in desk.store.pages(interface):
            by_worker[page.assignment.worker].append(page)
        gold = desk.pools.pools[interface].gold
        for worker, pages in sorted(by_worker.items()):
            numbers = _browsing(pages) if interface == "browsing" else _tagging(pages, gold)
            row = {"worker": worker, "interface": interface, "pages": len(pages), **numbers}
            report.append(row | {"look_at": _unusual(row)})
    return report


def _page_ms(page: StoredPage) -> int:
    return max(0, page.body["endedAt"] - page.body["page"]["startedAt"])


def _browsing(pages: list[StoredPage]) -> dict[str, Any]:
    pairs = [pair for page in pages for pair in zip(page.slots, page.body["page"]["annotations"], strict=True)]
    gold = [record["selected"] for slot, record in pairs if slot.role == "gold"]
    wrong = [record["selected"] for slot, record in pairs if slot.role == "distractor"]
    selected = [record for _, record in pairs if record["selected"]]
    seen = Counter((slot.image, slot.label) for slot, _ in pairs)
    traces = [record["mouseTracking"] for record in selected if len(record["mouseTracking"]) > 2]
    return {
        "gold": len(gold),
        "gold_recall": _mean(gold),
        "distractors": len(wrong),
        "distractors_selected": _mean(wrong),
        "selected": len(selected),
        "ms_per_image": round(statistics.median(_page_ms(page) / max(1, len(page.slots)) for page in pages)),
        "estimate_ms": round(statistics.median([one["estimateTime"] for one in selected] or [0])),
        "fast_pages": _mean([_page_ms(page) < _FAST_MS_PER_IMAGE * len(page.slots) for page in pages]),
        "instant_clicks": _mean([0 < one["estimateTime"] < _INSTANT_MS for one in selected]),
        "clicks_without_trace": _mean([not one["mouseTracking"] for one in selected]),
        "touch_or_keyboard": _mean([_no_pointer(one) for one in selected]),
        "duplicate_images": sum(count - 1 for count in seen.values()),
        "duplicate_traces": _repeats([[(one["x"], one["y"]) for one in trace] for trace in traces]),
        "failed_images": sum(record["originalImageWidth"] == 0 for _, record in pairs),
    }


def _no_pointer(record: dict[str, Any]) -> bool:
    return bool(set(record.get("selectedInputs", ())) & {"touch", "keyboard"})


def _tagging(pages: list[StoredPage], gold: dict[str, list[str]]) -> dict[str, Any]:
    found, actions, without_trace, traces = [], 0, [], []
    for page in pages:
        record = page.body["page"]["annotation"]
        left = {action["iconType"] for action in record["actionHistories"] if action["actionType"] == "add"}
        left -= _removed(record["actionHistories"])
        found += [label in left for label in gold.get(page.slots[0].image, [])]
        actions += len(record["actionHistories"])
        if record["actionHistories"]:
            without_trace.append(not record["mouseTracking"])
        if len(record["mouseTracking"]) > 2:
            traces.append([(one["x"], one["y"]) for one in record["mouseTracking"]])
    seen = Counter(page.slots[0].image for page in pages)
    return {
        "gold": len(found),
        "gold_recall": _mean(found),
        "actions": actions,
        "ms_per_image": round(statistics.median(page.body["page"]["annotation"]["timeSpend"] for page in pages)),
        "fast_pages": _mean([_page_ms(page) < _FAST_MS_PER_TAGGING_PAGE for page in pages]),
        "clicks_without_trace": _mean(without_trace),
        "duplicate_images": sum(count - 1 for count in seen.values()),
        "duplicate_traces": _repeats(traces),
        "failed_images": sum(page.body["page"]["annotation"]["originalImageWidth"] == 0 for page in pages),
    }


def _removed(actions: Iterable[dict[str, Any]]) -> set[str]:
    last = {action["iconType"]: action["actionType"] for action in actions}
    return {icon for icon, kind in last.items() if kind == "remove"}


def _unusual(row: dict[str, Any]) -> list[str]:
    """Sentences about numbers that are worth a look."""
    notes = []
    if row["gold"] and row["gold_recall"] < _LOW_RECALL:
        notes.append(f"found {row['gold_recall']:.0%} of {row['gold']} known objects")
    if row.get("distractors_selected") and row["distractors_selected"] > _SHARE:
        notes.append(f"selected {row['distractors_selected']:.0%} of the images of other classes")
    if (row["fast_pages"] or 0) > _SHARE:
        notes.append(f"{row['fast_pages']:.0%} of the pages were very fast")
    if (row.get("instant_clicks") or 0) > _SHARE:
        notes.append(f"{row['instant_clicks']:.0%} of the clicks came within {_INSTANT_MS} ms")
    missing = (row["clicks_without_trace"] or 0) - (row.get("touch_or_keyboard") or 0)
    if missing > _SHARE:
        notes.append(f"{missing:.0%} of the clicks have no trace, though a pointer was used")
    if (row.get("touch_or_keyboard") or 0) > _SHARE:
        notes.append("used touch or keyboard, which leave no trace")
    if row["duplicate_images"]:
        notes.append(f"saw {row['duplicate_images']} images more than once")
    if row["duplicate_traces"]:
        notes.append(f"{row['duplicate_traces']} traces are exact copies of others")
    if row["failed_images"]:
        notes.append(f"{row['failed_images']} images did not load")
    return notes


def _mean(values: list[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _repeats(traces: list[Any]) -> int:
    digests = Counter(hashlib.sha256(json.dumps(trace).encode()).digest() for trace in traces)
    return sum(count - 1 for count in digests.values())
