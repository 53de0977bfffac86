"""Exports of a collection: the schemas of the release, and a plain table of points."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from luab.annotate.desk import Desk
from luab.annotate.pool import Pair
from luab.annotate.store import StoredPage
from luab.byproducts.coco_classes import INDEX_OF_NAME
from luab.byproducts.writing import Content, Tags, element, repeated, write_tar
from luab.errors import DataError
from luab.files import replacing, write_json

FORMATS = {
    "imagenet_ab": "imagenet_ab.tar.gz",
    "coco_ab": "coco_ab.json",
    "coco_ab_images": "coco_ab_images.csv",
    "points_csv": "points.csv",
    "points_parquet": "points.parquet",
    "quality": "quality.json",
}
"""Name of each export -> name of its file."""

POINTS = pa.schema(
    [
        pa.field("image", pa.string(), False),
        pa.field("x", pa.float64(), False),
        pa.field("y", pa.float64(), False),
        pa.field("time_ms", pa.int64(), False),
        pa.field("worker", pa.string(), False),
        pa.field("class", pa.string(), False),
    ]
)
"""One point: path of the image below the images' folder; x right, y down, fractions of the image; time in ms that the
release calls estimateTime (browsing) or timeAt (tagging); worker; class."""


@dataclass
class _Choice:
    """The pages to export, and how many were left out."""

    desk: Desk
    without: Sequence[str]
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def pages(self, interface: Any) -> Iterator[StoredPage]:
        if interface not in self.desk.collection.interfaces:
            raise DataError(f"{self.desk.collection.title}: this collection has no {interface} pages to export.")
        for page in self.desk.store.pages(interface):
            if page.assignment.worker in self.without:
                self.count("pages_of_excluded_workers")
            else:
                self.count(f"{interface}_pages")
                yield page


def export_all(desk: Desk, folder: Path, without: Sequence[str] = ()) -> list[Path]:
    """Writes every export that the collection has, each with a card; returns the files.

    Args:
        desk: The collection.
        folder: Where to write.
        without: Ids of workers to leave out; the cards name them.
    """
    names = [name for name in FORMATS if _applies(desk, name)]
    for name in names:
        export(desk, name, folder / FORMATS[name], without)
    return [folder / FORMATS[name] for name in names]


def _applies(desk: Desk, name: str) -> bool:
    tagging = desk.collection.tagging
    if name.startswith("coco_ab"):
        return tagging is not None and all(icon.name in INDEX_OF_NAME for icon in tagging.icons)
    return name != "imagenet_ab" or desk.collection.browsing is not None


def export(desk: Desk, name: str, file: Path, without: Sequence[str] = ()) -> dict[str, int]:
    """Writes one export and its card, `<file>.card.json`; returns the counts of the card.

    Raises:
        DataError: The collection does not have what the format needs.
        JobError: The disk is full.
    """
    choice = _Choice(desk, without)
    _WRITERS[name](choice, file)
    withdrawn = desk.store.event_counts()
    counts = choice.counts | {
        "withdrawn_workers": withdrawn.get("withdrawn", 0),
        "withdrawn_pages": withdrawn["withdrawn_pages"],
    }
    card = {"format": name, "counts": counts, "excluded_workers": sorted(without), "faithful": desk.collection.faithful}
    write_json(file.with_name(f"{file.name}.card.json"), card)
    return counts


# ---- ImageNet-AB ----------------------------------------------------------------------------------------------------


def _write_imagenet_ab(choice: _Choice, file: Path) -> None:
    """imagenet_ab.tar.gz: one XML per image, with one metadata element per annotator."""
    names = choice.desk.pools.pools["browsing"].names if choice.desk.collection.browsing else {}
    records: dict[Pair, list[Tags]] = {}
    for page in choice.pages("browsing"):
        for place, (slot, record) in enumerate(zip(page.slots, page.body["page"]["annotations"], strict=True)):
            pair = Pair(slot.image, slot.label)
            if slot.role == "distractor" or pair not in names:
                choice.count(f"images_left_out_{'distractor' if slot.role == 'distractor' else 'no_longer_listed'}")
                continue
            choice.count("annotations")
            fields = metadata(page, place, record, f"{slot.label}/{names[pair]}", choice.desk.collection.faithful)
            records.setdefault(pair, []).append(fields)
    choice.count("records", len(records))

    def members() -> Iterator[tuple[str, bytes]]:
        for pair in sorted(records, key=lambda pair: (pair.label, names[pair])):
            content: Tags = [("filename", names[pair]), ("folder", pair.label)]
            content += [("metadata", fields) for fields in records[pair]]
            yield f"train_xml/{pair.label}/{names[pair]}.xml", element("annotation", content).encode()

    with replacing(file) as aside:
        write_tar(aside, members(), compressed=True)


def metadata(page: StoredPage, place: int, record: dict[str, Any], image_id: str, faithful: bool) -> Tags:
    """Returns the tags of one annotation as the release has them, in alphabetical order.

    Args:
        page: The page.
        place: Of the image on the page, from 0.
        record: What the browser sent about the image.
        image_id: Class and name of the image.
        faithful: Whether imageWidth is a copy of imageHeight, as everywhere in the release. DEVIATES: exports of
            luab annotate have the true displayed width; the release has a copy of the height.
    """
    owner = page.assignment
    fields: dict[str, Content] = {
        "assignment_id": owner.assignment_ref or "None",
        "estimateTime": str(record["estimateTime"]),
        "hit_id": owner.hit_ref or "None",
        "hit_submit_time": str(int(owner.done_s or page.received_s)),
        "hoveredCount": str(record["hoveredCount"]),
        "imageHeight": str(record["imageHeight"]),
        "imageID": image_id,
        "imagePosition": [("x", _number(record["imagePosition"]["x"])), ("y", _number(record["imagePosition"]["y"]))],
        "imageWidth": str(record["imageHeight" if faithful else "imageWidth"]),
        "image_idx": str(place),
        "imagenet_hit_id": owner.id,
        "originalImageHeight": str(record["originalImageHeight"]),
        "originalImageWidth": str(record["originalImageWidth"]),
        "page_idx": str(page.number - 1),
        "selected": str(record["selected"]),
        "selectedCount": str(record["selectedCount"]),
        "worker_id": owner.worker,
    }
    hovers: list[Tags] = [[("action", one["action"]), ("time", str(one["time"]))] for one in record["hoveredRecord"]]
    lists = [
        *repeated("hoveredRecord", hovers),
        *repeated("mouseTracking", [_point(one) for one in record["mouseTracking"]]),
        *repeated("selectedRecord", [_point(one) for one in record["selectedRecord"]]),
    ]
    return sorted([*fields.items(), *lists], key=lambda entry: entry[0])


def _point(sample: dict[str, Any]) -> Tags:
    return [("time", str(sample["time"])), ("x", _number(sample["x"])), ("y", _number(sample["y"]))]


def _number(value: float) -> str:
    return repr(value)


# ---- COCO-AB --------------------------------------------------------------------------------------------------------


def image_numbers(images: Sequence[str]) -> dict[str, int]:
    """Returns the number of each image, which the schema needs: COCO's where names have it, else 1, 2, 3 ...

    Args:
        images: Paths. Names such as COCO_train2014_000000000009.jpg hold a number.
    """
    ends = {image: Path(image).stem.rpartition("_")[2] for image in images}
    numbers = {image: int(end) for image, end in ends.items() if end.isdecimal() and end.isascii() and len(end) == 12}
    if len(numbers) == len(images) == len(set(numbers.values())) and max(numbers.values()) < 2**31:
        return numbers
    return {image: number for number, image in enumerate(sorted(images), start=1)}


def _numbers(choice: _Choice) -> dict[str, int]:
    pools = choice.desk.pools.pools
    if "tagging" not in pools:
        raise DataError(f"{choice.desk.collection.title}: this collection has no tagging pages to export.")
    return image_numbers(pools["tagging"].candidates[""])


def _write_coco_ab(choice: _Choice, file: Path) -> None:
    """coco_ab.json: one array with a record per page; the icons must be classes of COCO."""
    numbers, tagging = _numbers(choice), choice.desk.collection.tagging
    other = [icon.name for icon in tagging.icons if icon.name not in INDEX_OF_NAME] if tagging else []
    if other:
        raise DataError(
            f"coco_ab: expected icons of COCO's 80 classes, found {other[0]!r}. Use points_csv or points_parquet."
        )
    with replacing(file) as aside, open(aside, "w", encoding="utf-8") as out:
        separator = "["
        for page in choice.pages("tagging"):
            number = numbers.get(page.slots[0].image)
            if number is None:
                choice.count("images_left_out_no_longer_listed")
                continue
            choice.count("records")
            out.write(separator + json.dumps(tag_record(page, number, choice.desk.collection.faithful)))
            separator = ",\n"
        out.write("[]\n" if separator == "[" else "]\n")


def tag_record(page: StoredPage, image_id: int, faithful: bool) -> dict[str, Any]:
    """Returns one record of COCO-AB: keys renamed as in the release, our own keys left out. `faithful` as above."""
    record = page.body["page"]["annotation"]
    return {
        "image_id": image_id,
        "originalImageHeight": record["originalImageHeight"],
        "originalImageWidth": record["originalImageWidth"],
        "imageHeight": record["imageHeight"],
        "imageWidth": record["imageHeight" if faithful else "imageWidth"],
        "timeSpent": record["timeSpend"],
        "actionHistories": record["actionHistories"],
        "categoryHistories": record["categoryHistories"],
        "mouseTracking": record["mouseTracking"],
        "worker_id": page.assignment.worker,
        "hit_id": page.assignment.id,
        "page_id": page.number - 1,
    }


def _write_coco_ab_images(choice: _Choice, file: Path) -> None:
    """coco_ab_images.csv: number of each image in coco_ab.json."""
    numbers = _numbers(choice)
    choice.count("images", len(numbers))
    table = pa.table({"image_id": list(numbers.values()), "image": [_safe(image) for image in numbers]})
    with replacing(file) as aside:
        pyarrow.csv.write_csv(table, aside)


# ---- points and quality ---------------------------------------------------------------------------------------------


def points(choice: _Choice) -> pa.Table:
    """The table of points, schema POINTS: one row per selected image, or per icon that was left on an image."""
    rows: list[dict[str, Any]] = []
    for interface in choice.desk.collection.interfaces:
        for page in choice.pages(interface):
            rows += _clicked(page, choice) if interface == "browsing" else _tagged(page)
    choice.count("points", len(rows))
    return pa.Table.from_pylist(rows, schema=POINTS)


def _clicked(page: StoredPage, choice: _Choice) -> Iterator[dict[str, Any]]:
    for slot, record in zip(page.slots, page.body["page"]["annotations"], strict=True):
        if record["selected"] and slot.role == "distractor":
            choice.count("selected_distractors_left_out")
        elif record["selected"] and not record["selectedRecord"]:
            choice.count("selected_by_keyboard_without_a_place")
        elif record["selected"]:
            # The official loader, too, takes the first selecting click.
            yield _row(slot.image, record["selectedRecord"][0], record["estimateTime"], page, slot.label)


def _tagged(page: StoredPage) -> Iterator[dict[str, Any]]:
    left: dict[str, dict[str, Any]] = {}
    for action in page.body["page"]["annotation"]["actionHistories"]:
        left.pop(action["iconType"], None)
        if action["actionType"] != "remove":
            left[action["iconType"]] = action
    for icon, action in left.items():
        yield _row(page.slots[0].image, action["pointTo"], action["timeAt"], page, icon)


def _row(image: str, place: dict[str, Any], time_ms: int, page: StoredPage, label: str) -> dict[str, Any]:
    x, y = float(place["x"]), float(place["y"])
    return {"image": image, "x": x, "y": y, "time_ms": time_ms, "worker": page.assignment.worker, "class": label}


def _write_points_csv(choice: _Choice, file: Path) -> None:
    table = points(choice)
    for name in ("image", "class"):
        cells = [_safe(cell) for cell in table[name].to_pylist()]
        table = table.set_column(table.schema.get_field_index(name), POINTS.field(name), [pa.array(cells, pa.string())])
    with replacing(file) as aside:
        pyarrow.csv.write_csv(table, aside)


def _safe(cell: str) -> str:
    """A cell that a spreadsheet would run as a formula begins with an apostrophe."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _write_points_parquet(choice: _Choice, file: Path) -> None:
    with replacing(file) as aside:
        pq.write_table(points(choice), aside)


def _write_quality(choice: _Choice, file: Path) -> None:
    from luab.annotate.quality import quality_report

    write_json(file, quality_report(choice.desk))


_WRITERS: dict[str, Callable[[_Choice, Path], None]] = {
    "imagenet_ab": _write_imagenet_ab,
    "coco_ab": _write_coco_ab,
    "coco_ab_images": _write_coco_ab_images,
    "points_csv": _write_points_csv,
    "points_parquet": _write_points_parquet,
    "quality": _write_quality,
}
