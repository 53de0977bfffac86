"""The columns of the indexes of ImageNet-AB and COCO-AB; schema.csv has the type, meaning, unit and frame of each."""

import csv
from pathlib import Path

import pyarrow as pa


def _schema(release: str) -> pa.Schema:
    with open(Path(__file__).with_name("schema.csv"), newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["release"] == release]
    return pa.schema([pa.field(row["column"], _type(row["type"]), metadata={"doc": row["doc"]}) for row in rows])


def _type(text: str) -> pa.DataType:
    """The type that a text names; double[2][] are lists of pairs."""
    if not text.endswith("]"):
        return pa.type_for_alias(text)
    inner, _, length = text[:-1].rpartition("[")
    return pa.list_(_type(inner), int(length or -1))


SCHEMA = _schema("ImageNet-AB")
"""Index of ImageNet-AB."""

COCO_SCHEMA = _schema("COCO-AB")
"""Index of COCO-AB."""
