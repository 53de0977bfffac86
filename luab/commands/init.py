"""`luab init`: checks your own images and byproducts, and writes the configuration of a study on them."""

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

from luab.byproducts.folder_ab import read_points
from luab.commands.templates import fill_in
from luab.data.manifests.folder_images import folder_entries, own_test_entries
from luab.data.manifests.tree import Entry, Tree
from luab.data.own_points import OwnPoints, own_points
from luab.errors import ConfigError, DataError
from luab.files import replacing
from luab.study.config import OWN_TESTS, Folder
from luab.study.roots import OWN, common_folder

T = TypeVar("T")


class Examined(NamedTuple):
    """What `examine` found: entries of the training and of the held-out images, class names, points."""

    train: list[Entry]
    held_out: list[Entry]
    names: list[str]
    points: OwnPoints


def examine(folder: Folder, skip_bad: bool = False) -> Examined:
    """Reads images and byproducts as the study will.

    Raises:
        DataError: Images, labels or byproducts have mistakes; those of all three are listed.
    """
    mistakes: list[str] = []
    trees = [Tree(name, folder.images, lists=folder.labels, held_out=folder.held_out) for name in OWN]

    def attempt(read: Callable[[], T]) -> T | None:
        try:
            return read()
        except DataError as error:
            if str(error) not in mistakes:
                mistakes.append(str(error))
        return None

    def entries(tree: Tree) -> list[Entry]:
        with tree.reading():
            return list(folder_entries(tree))

    splits = [attempt(lambda tree=tree: entries(tree)) for tree in trees]  # type: ignore[misc]
    if folder.tests and trees[0].names:
        attempt(lambda: _read_tests(folder, trees[0].names))
    table = attempt(lambda: read_points(folder.byproducts, skip_bad)[0])
    if table is None:  # check the rows that can be read as well
        with contextlib.suppress(DataError):
            table = read_points(folder.byproducts, skip_bad=True)[0]
    train, held_out = splits
    points = None
    if table is not None and train is not None and held_out is not None:
        both, names = [*train, *held_out], trees[0].names
        points = attempt(lambda: own_points(table, both, names, folder.images, folder.points, skip_bad))
    if mistakes or train is None or held_out is None or points is None:
        raise DataError("\n".join(mistakes) + "\nNothing was written.")
    return Examined(train, held_out, trees[0].names, points)


def _read_tests(folder: Folder, names: list[str]) -> None:
    """Lists the images of the test sets; raises DataError like `examine`."""
    tree = Tree(OWN_TESTS, common_folder(folder.tests.values()), names=names, tests=folder.tests)
    with tree.reading():
        list(own_test_entries(tree))
    tree.check_readable()


def named_folders(given: Sequence[str]) -> dict[str, Path]:
    """Reads test sets as people write them, NAME=FOLDER; ConfigError lists those of another form and names twice."""
    pairs = [text.partition("=") for text in given]
    wrong = [text for text, (name, _, folder) in zip(given, pairs, strict=True) if not (name and folder)]
    if wrong:
        raise ConfigError(
            f"--test: expected NAME=FOLDER, found {', '.join(wrong)}, for example --test night=photos/night."
        )
    names = [name for name, _, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"--test: {', '.join(twice)} is given twice. Give each test set a name of its own.")
    return {name: Path(folder) for name, _, folder in pairs}


def write_study(name: str, folder: Folder, backbone: str, out: Path) -> str:
    """Checks the data, writes the configuration and returns a summary with the next command.

    Args:
        name: Name of the study, for its folders.
        folder: Images and byproducts.
        backbone: timm name; with a tag, training starts from timm's weights.
        out: YAML file to write.

    Raises:
        ConfigError: The file exists.
        DataError: See `examine`.
    """
    if out.exists():
        raise ConfigError(f"{out}: this file exists. Choose another name, or remove it.")
    examined = examine(folder)
    cores = os.cpu_count() or 1
    values = {
        "images": str(folder.images), "labels": str(folder.labels) if folder.labels else None,
        "byproducts": str(folder.byproducts), "points": folder.points, "held_out": folder.held_out, "label": name,
        "backbone": backbone, "recipe": "own_finetune" if "." in backbone else "own_scratch",
        "data": f"data/{name}", "results": f"results/{name}",
        "tests": {test: str(path) for test, path in folder.tests.items()}, "benchmarks": folder.benchmarks,
    }  # fmt: skip
    quoted = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}  # JSON is YAML
    plain = {"name": out.stem, "cores": cores, "workers": max(1, cores // 2), "results": values["results"]}
    with replacing(out) as aside:
        aside.write_text(fill_in("own_study.yaml.jinja", **quoted | plain), encoding="utf-8")
    return _summary(examined, out)


def _summary(examined: Examined, out: Path) -> str:
    train, held_out, names, points = examined
    counts = [sum(entry.labels[0] == label for entry in train) for label in range(len(names))]
    pointed = [sum(entry.image_id in points.rows for entry in entries) for entries in (train, held_out)]
    left_out = "".join(f", {count:,} {reason.replace('_', ' ')}" for reason, count in points.notes.items() if count)
    return "\n".join(
        [
            f"{len(names):,} classes, {len(train):,} training images ({min(counts):,} to {max(counts):,} per class, "
            f"median {median(counts):g}), {len(held_out):,} held out",
            f"points: {pointed[0]:,} training and {pointed[1]:,} held-out images have one{left_out}",
            f"written: {out}",
            f"next: snakemake -n --configfile {out} shows the plan; snakemake --cores all --configfile {out} runs it",
        ]
    )
