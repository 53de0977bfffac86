"""Building a manifest: lists a data set's images, checks them against published counts, and writes a card."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from luab.data.manifests.known_counts import KNOWN_COUNTS
from luab.data.manifests.layouts import LAYOUTS
from luab.data.manifests.manifest import INSTANCES_SCHEMA, SCHEMA
from luab.data.manifests.tree import ELSEWHERE, Entry, Tree
from luab.errors import ConfigError, DataError, did_you_mean
from luab.files import lines_sha256, replacing, write_json
from luab.progress import progress

_CHUNK = 10_000


def build_manifest(
    dataset: str,
    root: Path,
    parquet: Path,
    card: Path,
    *,
    partial: bool = False,
    val: Path | None = None,
    real: Path | None = None,
    lists: Path | None = None,
    held_out: float = 0.0,
    names: Sequence[str] = (),
    tests: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Lists a data set's images with labels, writes the manifest and its card, and returns the card.

    Rows are sorted by image_id as text. No image is opened. A number of images other than the published one is an
    error, or a warning on stderr for partial trees.

    Args:
        dataset: A key of `LAYOUTS`.
        root, partial, val, real, lists, held_out, names, tests: See `Tree`.
        parquet: Manifest to write.
        card: JSON to write: dataset, n, ids_sha256, classes (distinct labels), names (of the user's own classes), known
            (published counts), agrees (null for partial trees and if no count is known), ignored (counts by kind).

    Raises:
        ConfigError: The data set is unknown, or the share that is held out leaves it without images.
        DataError: The tree is not as expected, lacks classes or images, has images that cannot be read, or two files
            have the same image_id.
    """
    if dataset not in LAYOUTS:
        raise ConfigError(f"{dataset!r} is not a data set with a manifest. {did_you_mean(dataset, LAYOUTS)}")
    tree = Tree(dataset, root, partial, val, real, lists, held_out, names=list(names), tests=tests or {})
    schema = INSTANCES_SCHEMA if dataset.startswith("coco_") else SCHEMA
    with tree.reading(), progress(f"manifest {dataset}", KNOWN_COUNTS[dataset]["n"], "images") as advance:
        if dataset != "imagenet_real":  # its files are those of imagenet_val
            tree.require("")
        table = _table(LAYOUTS[dataset](tree), schema, advance)
    tree.check_readable()
    if table.num_rows == 0:
        if tree.ignored[ELSEWHERE]:
            raise ConfigError(
                f"{dataset}: `held_out_byproducts` of {held_out:g} leaves no image of {tree.ignored[ELSEWHERE]:,}. Set "
                "a share between 0 and 1 that leaves some in imagenet_train and some in imagenet_held_out."
            )
        raise tree.nothing()
    _check_unique(table, tree.root)
    if difference := tree.difference(_listed(tree, table)):
        if not partial:
            raise DataError(
                f"{difference}. Copy or unpack the missing images, or set `paths.partial: true` if the folder is meant "
                "to hold only some."
            )
        print(
            f"WARNING: {difference}. Accepted because of `paths.partial: true`: do not report results on these images "
            f"as results on {dataset}.",
            file=sys.stderr,
            flush=True,
        )
    with replacing(parquet) as aside:
        pq.write_table(table, aside, compression="zstd", write_page_checksum=True)
    content = _card(tree, table)
    write_json(card, content)
    return content


def _table(entries: Iterator[Entry], schema: pa.Schema, advance: Callable[[float], None]) -> pa.Table:
    """Converts entries to a sorted Arrow table, in chunks, so that millions of tuples never pile up in memory."""
    batches = []
    while chunk := list(islice(entries, _CHUNK)):
        fields = zip(zip(*chunk, strict=True), schema, strict=False)  # the schema may have fewer fields than an entry
        columns = [pa.array(column, field.type) for column, field in fields]
        batches.append(pa.record_batch(columns, schema=schema))
        advance(len(chunk))
    table = pa.Table.from_batches(batches, schema=schema).combine_chunks()
    return table.take(pc.sort_indices(table["image_id"])).combine_chunks()


def _check_unique(table: pa.Table, root: Path) -> None:
    ids = table["image_id"]
    first = pc.index(pc.equal(ids.slice(1), ids.slice(0, len(ids) - 1)), True).as_py()
    if first >= 0:
        one, other = table["path"].slice(first, 2).to_pylist()
        raise DataError(
            f"{root}: expected one file per image, found two for {ids[first].as_py()!r}: {one} and {other}. Remove "
            "one of them."
        )


def _listed(tree: Tree, table: pa.Table) -> int:
    """Number of images in the folder: those of this manifest, and those that another one lists."""
    return int(table.num_rows + tree.ignored[ELSEWHERE])


def _card(tree: Tree, table: pa.Table) -> dict[str, Any]:
    known = KNOWN_COUNTS[tree.dataset]
    n, classes = table.num_rows, len(pc.unique(pc.list_flatten(table["labels"])))
    complete = None not in known.values() and not tree.partial
    return {
        "dataset": tree.dataset,
        "n": n,
        "ids_sha256": lines_sha256(table["image_id"].to_pylist()),
        "classes": classes,
        "known": known,
        "agrees": {"n": _listed(tree, table), "classes": classes} == known if complete else None,
        "ignored": {kind: count for kind, count in sorted(tree.ignored.items()) if count},
    } | ({"names": tree.names} if tree.names else {})
