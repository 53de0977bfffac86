"""Writes an RO-Crate: a machine-readable description of all results, from the archives to tables and figures.

RO-Crate 1.1 with the Process Run Crate profile 0.5 (researchobject.org/ro-crate and /workflow-run-crate). Each
training, prediction, scoring and rendering is an action with its inputs, outputs and code. The code is described as far
as it was recorded: commit and versions for trainings, a digest for predictions, nothing for the cheap steps after them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luab.files import file_sha256, read_fields, write_json
from luab.study.paths import Run
from luab.study.transfers import FineTuning

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_TERMS = "https://w3id.org/ro/terms/workflow-run/context"
_PAPER = "https://arxiv.org/abs/2303.17595"
_LICENCES = {"apache-2.0": "https://spdx.org/licenses/Apache-2.0", "mit": "https://spdx.org/licenses/MIT"}
_FORMATS = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".safetensors": "application/octet-stream",
    ".tex": "text/x-tex",
    ".yaml": "application/yaml",
}


@dataclass(frozen=True)
class Step:
    """One rendering step: name, input files and output files."""

    name: str
    inputs: Sequence[Path]
    outputs: Sequence[Path]


@dataclass(frozen=True)
class Byproducts:
    """One archive of annotation byproducts as it was indexed; None and "" if unknown."""

    name: str
    sha256: str | None
    url: str | None = None
    licence: str = ""


@dataclass(frozen=True)
class Contents:
    """What the crate describes."""

    folder: Path  # of results; paths in the crate are relative to it
    label: str  # part of the crate's name, for example "demo world"
    byproducts: Sequence[Byproducts]
    runs: Mapping[Run, Path]  # folder of each training
    suites: Mapping[Run, Sequence[str]]  # names of the prediction cards of each training
    steps: Sequence[Step]  # that made files from scores, cards and indexes
    day: str  # on which the results were made, as "2026-11-26"
    fine_tunings: Mapping[FineTuning, Path] = field(default_factory=dict)  # folder of each fine-tuning


def write_crate(contents: Contents, output: Path) -> None:
    """Writes ro-crate-metadata.json to `output`, in `contents.folder`.

    Digests of models and predictions come from their cards; small files are hashed here.

    Raises:
        DataError: A card is missing or damaged.
    """
    from rocrate.rocrate import ROCrate

    crate = ROCrate(version="1.1")
    crate.metadata.extra_contexts.append(_TERMS)
    writer = _Writer(crate, contents)
    writer.write_root()
    for archive in contents.byproducts:
        writer.add_archive(archive)
    for run in contents.runs:
        writer.add_run(run)
    for one in contents.fine_tunings:
        writer.add_fine_tuning(one)
    for step in contents.steps:
        writer.add_step(step)
    write_json(output, crate.metadata.generate())


class _Writer:
    """Adds each entity to the crate once; `entities` holds them by identifier, `archives` by name."""

    def __init__(self, crate: "ROCrate", contents: Contents) -> None:
        self.crate = crate
        self.contents = contents
        self.entities: dict[str, Any] = {}
        self.archives: dict[str, Any] = {}

    def write_root(self) -> None:
        root, label = self.crate.root_dataset, self.contents.label
        title = "Learning image classifiers using annotation byproducts: results"
        paper = "Neglected Free Lunch: Learning Image Classifiers Using Annotation Byproducts"
        root["name"] = f"{title} ({label})" if label else title
        root["description"] = (
            "Models, predictions, scores, tables and figures of baseline, random-points control and LUAB, made by luab."
            + (f" From the {label}, a drawn toy dataset: no result on ImageNet or COCO." if label else "")
        )
        root["datePublished"] = self.contents.day
        root["license"] = self._add(_LICENCES["mit"], "CreativeWork", name="MIT License")
        root["conformsTo"] = self._add(_PROFILE, "CreativeWork", name="Process Run Crate", version="0.5")
        root["citation"] = self._add(_PAPER, "ScholarlyArticle", name=paper)

    def add_archive(self, archive: Byproducts) -> None:
        licence = _LICENCES.get(archive.licence)
        self.archives[archive.name] = self._add(
            archive.url or f"#{archive.name}",
            "CreativeWork",
            name=f"Annotation byproducts {archive.name}",
            sha256=archive.sha256,
            license={"@id": licence} if licence else archive.licence or None,
        )
        if licence:
            self._add(licence, "CreativeWork", name=archive.licence)

    def add_step(self, step: Step) -> None:
        inputs, outputs = map(self._input, step.inputs), map(self._file, step.outputs)
        self._action(f"#render/{step.name}", step.name, self._luab(), [*inputs], [*outputs])

    def add_run(self, run: Run) -> None:
        """Adds training, predictions and scoring of one run."""
        folder = self.contents.runs[run]
        card = read_fields(folder / "run.json", ("inputs", "model_sha256", "recipe", "versions", "seconds"))
        code, recipe = self._code(card), json.dumps(card["recipe"], sort_keys=True)
        model = self._file(folder / "model.safetensors", card["model_sha256"])
        digests = sorted(card["inputs"].items())
        inputs = [self._digest(name, digest) for name, digest in digests]
        if archive := self.archives.get(f"{run.dataset}_ab"):
            for (name, _), points in zip(digests, inputs, strict=True):
                if name.startswith(("targets_", "labels_")):
                    points["isBasedOn"] = archive
        outputs = [model, self._file(folder / "run.json"), self._file(folder / "log.csv")]
        inputs.append(self._add(f"#recipe/{_short(recipe)}", "CreativeWork", name="Training recipe", text=recipe))
        text = f"lambda {run.weight:g}, seed {run.seed}; {_duration(card)}"
        self._action(f"#train/{run.folder}", f"Train {run.folder}", code, inputs, outputs, text)
        tables: list[Any] = []
        for suite in self.contents.suites[run]:
            path = folder / "predictions" / f"{suite}.json"
            suite_card = read_fields(path, ("files", "code"))
            files = suite_card["files"].items()
            predictions = [self._file(path.with_name(f"{name}.parquet"), file["sha256"]) for name, file in files]
            made = [*predictions, self._file(path)]
            predictor = self._luab(suite_card["code"])
            self._action(f"#predict/{run.folder}/{suite}", f"Predict {suite}", predictor, [model], made)
            tables += predictions
        scores = sorted((folder / "scores").glob("*.json"))
        self._action(f"#score/{run.folder}", "Score", self._luab(), tables, [self._file(path) for path in scores])

    def add_fine_tuning(self, one: FineTuning) -> None:
        """Adds training, predictions and scoring of one fine-tuning, which begins with the model of a run."""
        folder = self.contents.fine_tunings[one]
        card = read_fields(folder / "run.json", ("inputs", "model_sha256", "recipe", "versions", "seconds"))
        recipe = json.dumps(card["recipe"], sort_keys=True)
        model = self._file(folder / "model.safetensors", card["model_sha256"])
        inputs = [
            self._file(self.contents.runs[one.run] / "model.safetensors"),
            *(self._digest(name, digest) for name, digest in sorted(card["inputs"].items())),
            self._add(f"#recipe/{_short(recipe)}", "CreativeWork", name="Recipe of a fine-tuning", text=recipe),
        ]
        outputs = [model, self._file(folder / "run.json"), self._file(folder / "log.csv")]
        text = f"seed {one.run.seed}; {_duration(card)}"
        self._action(f"#fine-tune/{one.folder}", f"Fine-tune {one.folder}", self._code(card), inputs, outputs, text)
        path = folder / "predictions.json"
        if not path.is_file():  # nothing can score it
            return
        about = read_fields(path, ("sha256", "code"))
        table = self._file(folder / "predictions.parquet", about["sha256"])
        made = [table, self._file(path)]
        self._action(f"#predict-dense/{one.folder}", "Predict", self._luab(about["code"]), [model], made)
        scores = [self._file(folder / name) for name in ("scores.csv", "per_image.parquet")]
        self._action(f"#score-dense/{one.folder}", "Score", self._luab(), [table], scores)

    def _action(
        self, name: str, title: str, code: Any, inputs: list[Any], outputs: list[Any], text: str | None = None
    ) -> None:
        properties = {"name": title} | ({"description": text} if text else {})
        action = self.crate.add_action(code, identifier=name, object=inputs, result=outputs, properties=properties)
        self.crate.root_dataset.append_to("mentions", action)  # required by the profile

    def _file(self, path: Path, sha256: str | None = None) -> Any:
        relative = path.relative_to(self.contents.folder).as_posix()
        if relative not in self.entities:
            properties: dict[str, Any] = {"name": path.name, "encodingFormat": _FORMATS[path.suffix]}
            if path.is_file():
                properties["contentSize"] = str(path.stat().st_size)
                sha256 = sha256 or file_sha256(path)
            if sha256:
                properties["sha256"] = sha256
            self.entities[relative] = self.crate.add_file(dest_path=relative, properties=properties)
        return self.entities[relative]

    def _input(self, path: Path) -> Any:
        """Entity of a result file, or of the archive or list that a card outside the results describes."""
        if path.is_relative_to(self.contents.folder):
            return self._file(path)
        card = read_fields(path, ())
        archive = self.archives.get(path.stem)
        return archive or self._digest(path.stem, str(card.get("ids_sha256") or card.get("sha256") or ""))

    def _digest(self, name: str, digest: str) -> Any:
        """Entity of a list of images or points, which is not a result: name and digest of its content."""
        return self._add(f"#data/{name}/{digest[:12]}", "CreativeWork", name=name, sha256=digest or None)

    def _code(self, card: Mapping[str, Any]) -> Any:
        """Entity of luab as it trained a run, with the packages that it needs."""
        commit, digest = card.get("commit"), card.get("code", {}).get("train", "unknown")
        versions = sorted(card["versions"].items())
        packages = [
            self._add(f"#package/{name}/{version}", "SoftwareApplication", name=name, softwareVersion=version)
            for name, version in versions
        ]
        return self._luab(
            _short(f"{commit} {digest} {versions}"),
            version=f"commit {commit}" if commit else f"code digest {digest}",
            softwareRequirements=[{"@id": package.id} for package in packages],
        )

    def _luab(self, digest: str = "", **properties: Any) -> Any:
        """Entity of luab with the code digest of a card, or without a version if none was recorded."""
        identifier, version = (f"#luab/{digest}", f"code digest {digest}") if digest else ("#luab", None)
        given = {"name": "luab", "license": {"@id": _LICENCES["mit"]}, "version": version} | properties
        return self._add(identifier, "SoftwareSourceCode", **given)

    def _add(self, identifier: str, kind: str, **properties: Any) -> Any:
        """The entity with an identifier; a new one gets the properties that are not None."""
        from rocrate.model.contextentity import ContextEntity

        if identifier not in self.entities:
            given = {"@type": kind} | {name: value for name, value in properties.items() if value is not None}
            self.entities[identifier] = self.crate.add(ContextEntity(self.crate, identifier, properties=given))
        return self.entities[identifier]


def _duration(card: Mapping[str, Any]) -> str:
    """Duration of a training and its machine, from its run.json."""
    hardware = card.get("hardware", {})
    device = hardware.get("gpu") or hardware.get("processor") or "unknown hardware"
    return f"{card['seconds']:,.0f} s on {device}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
