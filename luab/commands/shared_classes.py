"""`luab shared-classes`: prepares a study of browsed against tagged points on the classes of ImageNet and COCO."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from luab.commands.templates import fill_in
from luab.data.shared_classes import (
    Candidate,
    Candidates,
    Examined,
    PointOf,
    Shown,
    candidates,
    equal_numbers,
    halves,
    in9_candidates,
    in9_names,
    points_by_class,
    points_by_image,
    shared_classes,
    shown_by_coco,
    shown_by_imagenet,
    without,
)
from luab.data.supervisions import coco, imagenet
from luab.data.supervisions.makers import Sources
from luab.errors import ConfigError, DataError, listed
from luab.files import read_fields, replacing_folder, write_csv, write_json
from luab.progress import progress
from luab.study.config import Study
from luab.study.paths import card
from luab.study.roots import source_root

SOURCES = ("imagenet", "coco")
"""Where images come from, and the names of the test sets of held-out images."""
KINDS = ("browsed", "tagged")
"""Kinds of their points."""
_MANIFESTS = ("imagenet_train", "imagenet_val", "coco_train", "coco_val")
_SI_SCORE = ("siscore_size", "siscore_location", "siscore_rotation")
_FEWEST_CLASSES = 2


class Chosen(NamedTuple):
    """What is chosen: images of both sources by split and class, and test sets by name.

    classes_left_out, left_out: classes and images that are left out, each with the reason.
    """

    train: dict[str, list[list[Candidate]]]
    val: dict[str, list[list[Candidate]]]
    tests: dict[str, Candidates]
    classes_left_out: list[str]
    left_out: list[str]


def prepare(study: Study, out: Path, seed: int) -> str:
    """Writes images (as links), points, test sets and the configuration of a study; returns a summary.

    Args:
        study: The main study, whose manifests and byproduct indexes are read.
        out: Folder to write: images/train/<class>/, images/val/<class>/, tests/<name>/<class>/, points.csv, study.yaml
            and card.json.
        seed: Decides which images are chosen, and which of them have the points `both`.

    Raises:
        ConfigError: The folder exists.
        DataError: A manifest or index is missing, or too few classes have images of both sources.
    """
    if os.path.lexists(out):
        raise ConfigError(f"{out}: this folder exists. Choose another one (--out), or remove it.")
    _require(study)
    with progress("shared classes", None, "images") as advance:
        chosen = _choose(study, seed, Examined(advance))
    with replacing_folder(out) as aside:
        _link(chosen, aside)
        write_csv(aside / "points.csv", ("image", "x", "y", "class", "kind"), _rows_of_points(chosen.train))
        write_json(aside / "card.json", _card(study, chosen, seed))
        (aside / "study.yaml").write_text(_configuration(study, out, list(chosen.tests)), encoding="utf-8")
    return _summary(chosen, out)


def _require(study: Study) -> None:
    """Raises DataError, which lists all, unless the manifests and indexes of the main study exist."""
    layout = study.layout
    files = [*map(layout.manifest, _MANIFESTS), layout.index("imagenet_ab"), layout.index("coco_ab")]
    missing = [str(card(file)) for file in files if not (file.is_file() and card(file).is_file())]
    if missing:
        raise DataError(
            f"Expected manifests and byproduct indexes of the main study, found {len(files) - len(missing)} of "
            f"{len(files)}. Missing:\n{listed(missing)}\nMake them first, with the same configuration files: snakemake "
            f"--cores all {' '.join(missing)}"
        )


def _choose(study: Study, seed: int, examined: Examined) -> Chosen:
    layout = study.layout
    clicks = imagenet.click(Sources(layout.index("imagenet_ab"), layout.manifest("imagenet_train"))).points
    tags = coco.click(Sources(layout.index("coco_ab"), layout.manifest("coco_train"))).points
    train = [
        _candidates(study, "imagenet_train", shown_by_imagenet, points_by_image(clicks)),
        _candidates(study, "coco_train", shown_by_coco, points_by_class(tags)),
    ]
    val = [_candidates(study, "imagenet_val", shown_by_imagenet), _candidates(study, "coco_val", shown_by_coco)]
    if layout.manifest("in9").is_file():
        train[0] = without(in9_names(layout.manifest("in9")), train[0])
    of_both: list[dict[str, list[list[Candidate]]]] = [{}, {}]
    for name in shared_classes():
        for found, sources in zip(of_both, (train, val), strict=True):
            found[name] = equal_numbers([source.get(name, []) for source in sources], seed, examined.new)
    used = [name for name in of_both[0] if all(found[name][0] for found in of_both)]
    unused = [_why(name, train, val) for name in of_both[0] if name not in used]
    if len(used) < _FEWEST_CLASSES:
        raise DataError(
            "Expected two or more classes with usable images of ImageNet and of COCO, for training and held out, found "
            f"{len(used)}:\n{listed([*unused, *examined.left_out])}\nNothing was written. Are the manifests of "
            f"{layout.manifest_folder()} those of the whole data sets?"
        )
    kept_train, kept_val = ({name: found[name] for name in used} for found in of_both)
    held_out = {name: {label: both[place] for label, both in kept_val.items()} for place, name in enumerate(SOURCES)}
    tests = held_out | _shifted(study, used, examined)
    return Chosen(kept_train, kept_val, tests, unused, examined.left_out)


def _candidates(study: Study, manifest: str, shown: Shown, point_of: PointOf | None = None) -> Candidates:
    return candidates(study.layout.manifest(manifest), source_root(study, manifest), shown, point_of)


def _shifted(study: Study, used: Sequence[str], examined: Examined) -> dict[str, Candidates]:
    """Test sets of SI-Score and the Backgrounds Challenge by name, of those that have a manifest."""
    layout, found = study.layout, dict[str, Candidates]()
    for name in filter(lambda name: layout.manifest(name).is_file(), _SI_SCORE):
        found[name] = _candidates(study, name, shown_by_imagenet)
    if layout.manifest("in9").is_file():
        variants = in9_candidates(layout.manifest("in9"), source_root(study, "in9"))
        found |= {f"in9_{variant}": of_class for variant, of_class in variants.items()}
    kept = {
        name: {label: list(filter(examined.readable, of_class[label])) for label in used if label in of_class}
        for name, of_class in found.items()
    }
    return {name: of_class for name, of_class in kept.items() if any(of_class.values())}


def _why(name: str, train: Sequence[Candidates], val: Sequence[Candidates]) -> str:
    """Why a class is left out: how many images each source has."""
    counts = [
        f"{len(source.get(name, [])):,} of {where} {split}"
        for split, sources in (("for training", train), ("held out", val))
        for where, source in zip(("ImageNet", "COCO"), sources, strict=True)
    ]
    return f"the class {name}, which has {', '.join(counts)}; it needs usable images of both"


def _link(chosen: Chosen, folder: Path) -> None:
    for split, of_class in (("train", chosen.train), ("val", chosen.val)):
        for label, both in of_class.items():
            for one in [one for source in both for one in source]:
                _symlink(one.file, folder / "images" / split / label / one.file.name)
    for test, candidates_of in chosen.tests.items():
        for label, several in candidates_of.items():
            for one in several:
                name = one.image_id.replace("/", "_") + one.file.suffix
                _symlink(one.file, folder / "tests" / test / label / name)


def _symlink(file: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.abspath(file))


def _rows_of_points(train: Mapping[str, Sequence[Sequence[Candidate]]]) -> list[tuple[Any, ...]]:
    """Rows of the table of points: image, x, y, class, kind, in the order of the files."""
    rows = []
    for place, (label, both) in enumerate(train.items()):
        # The halves of both kinds together have as many points as each kind.
        firsts = halves(len(both[0]), place)
        for kind, source, first in zip(KINDS, both, firsts, strict=True):
            for number, one in enumerate(source):
                x, y = one.point or (0.0, 0.0)
                half = f"{kind}_{1 if number < first else 2}"
                rows.append((f"train/{label}/{one.file.name}", float(x), float(y), label, half))
    return sorted(rows)


def _card(study: Study, chosen: Chosen, seed: int) -> dict[str, Any]:
    layout = study.layout
    indexes = {name: layout.index(name) for name in ("imagenet_ab", "coco_ab")}
    inputs = {name: read_fields(card(path), ("sha256",))["sha256"] for name, path in indexes.items()}
    for name in (*_MANIFESTS, *_SI_SCORE, "in9"):
        if card(layout.manifest(name)).is_file():
            inputs[name] = read_fields(card(layout.manifest(name)), ("ids_sha256",))["ids_sha256"]
    splits = (("train", chosen.train), ("held_out", chosen.val))
    return {
        "seed": seed,
        "images_of_each_source": {split: {name: len(both[0]) for name, both in of.items()} for split, of in splits},
        "tests": {name: {label: len(several) for label, several in of.items()} for name, of in chosen.tests.items()},
        "classes_left_out": chosen.classes_left_out,
        "left_out": chosen.left_out,
        "inputs": inputs,
    }


def _configuration(study: Study, out: Path, tests: Sequence[str]) -> str:
    cores = os.cpu_count() or 1
    values = {
        "images": str(out / "images"), "byproducts": str(out / "points.csv"), "label": study.label,
        "data": str(study.paths.data / out.name), "results": str(study.paths.results / out.name),
    }  # fmt: skip
    quoted = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}  # JSON is YAML
    plain: dict[str, Any] = {"file": str(out / "study.yaml"), "cores": cores, "workers": max(1, cores // 2)}
    folders = [(name, json.dumps(str(out / "tests" / name), ensure_ascii=False)) for name in tests]
    return fill_in("shared_study.yaml.jinja", **quoted | plain, tests=folders)


def _summary(chosen: Chosen, out: Path) -> str:
    of_class = [
        f"  {name}: {len(both[0]):,} training and {len(chosen.val[name][0]):,} held-out images of each source"
        for name, both in chosen.train.items()
    ]
    tests = [f"{name} ({sum(map(len, of.values())):,})" for name, of in chosen.tests.items()]
    left_out = [
        f"left out: {len(reasons):,} {what}\n{listed(reasons, most)}"
        for what, reasons, most in (("classes", chosen.classes_left_out, 20), ("images", chosen.left_out, 5))
        if reasons
    ]
    file = out / "study.yaml"
    return "\n".join(
        [
            f"{len(of_class)} classes, {sum(len(both[0]) for both in chosen.train.values()):,} points of each kind:",
            *of_class,
            f"test sets: {', '.join(tests)}",
            *left_out,
            f"written: {out}",
            f"next: snakemake -n --configfile {file} shows the plan; snakemake --cores all --configfile {file} runs it",
        ]
    )
