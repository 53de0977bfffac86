"""`luab trace`: the lineage of a number, from a table cell back to scores, predictions, model, recipe and data."""

import dataclasses
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from rich.markup import escape
from rich.tree import Tree

from luab.benchmarks.catalogue import BENCHMARKS
from luab.benchmarks.collect import read_scores
from luab.comparison.over_seeds import mean_std
from luab.errors import ConfigError, DataError, did_you_mean
from luab.files import file_sha256, read_fields, read_json
from luab.progress import wide_console
from luab.render.products import find_product
from luab.study.config import Study
from luab.study.paths import Layout, Run, card
from luab.study.recipes import BeginsWith
from luab.study.transfers import FineTuning, TransferLayout
from luab.tasks import task_of
from luab.training.checkpoint import read_card

State = Literal["ok", "differs", "missing", ""]
_MARKS = {"ok": "[green]ok[/]", "differs": "[red]differs[/]", "missing": "[yellow]missing[/]", "": ""}
_NAMES = (
    "title",
    "interface",
    "statistic",
    "transfer",
    "backbone",
    "supervision",
    "lambda",
    "benchmark",
    "metric",
    "group",
)
_STATISTICS = ("mean", "std", "n")
_TOLERANCE = 1e-12
_SHOWN = 12


@dataclasses.dataclass(frozen=True)
class Link:
    """One file or value that a number depends on, with what it depends on itself as `links`."""

    what: str  # for example "predictions imagenet_a"
    found: str  # path, digest or value
    state: State = ""  # whether it matches what the dependent files recorded; "" if nothing was recorded
    links: "list[Link]" = dataclasses.field(default_factory=list)

    def problems(self) -> Iterator["Link"]:
        """This link and all links below it that differ."""
        if self.state == "differs":
            yield self
        for link in self.links:
            yield from link.problems()


def lineage(study: Study, table: Path, cell: Sequence[str]) -> Link:
    """The number of a table and everything that it depends on, compared with what was recorded.

    The table may be given as .csv, .md or .tex. `cell` has terms that select the number: values ("resnet50") or columns
    and values ("benchmark=imagenet_a").

    Raises:
        ConfigError: The table is unknown, or `cell` matches no number or several.
        DataError: The table, the scores or a card is missing or damaged.
    """
    path = table.with_suffix(".csv")
    find_product("table", path.stem)
    try:
        numbers = pd.read_csv(path, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot read this table ({error}). Render it with Snakemake.") from error
    row = find_cell(numbers, cell, path)
    if "transfer" in numbers:
        return _transfer_score(study, path, row)
    return _statistic(study, path.stem, row) if "statistic" in numbers else _score(study, path, row)


def find_cell(numbers: pd.DataFrame, cell: Sequence[str], path: Path) -> Mapping[Hashable, Any]:
    """The one row that matches all terms."""
    names = [name for name in _NAMES if name in numbers]
    rows = numbers
    for text in cell:
        is_one_term = _matches(numbers, names, text.strip()).any()  # a title may contain a comma
        for term in [text.strip()] if is_one_term else [part.strip() for part in text.split(",") if part.strip()]:
            column, equals, value = term.partition("=")
            if equals and column not in names:
                raise ConfigError(f"--cell {term}: {path.name} has no such column. {did_you_mean(column, names)}")
            matching = rows[_matches(rows, names, term)]
            if matching.empty:
                values = {str(entry) for name in ([column] if equals else names) for entry in rows[name]} - {""}
                near = did_you_mean(value if equals else term, values)
                raise ConfigError(f"--cell {term}: no number of {path.name} matches. {near}")
            rows = matching
    if len(rows) > 1:
        shown = ["  " + " ".join(f"{n}={row[n]}" for n in names) for _, row in rows.iterrows()]
        more = [f"  ... and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
        first = f"--cell: expected terms that select one number, found {len(rows)}:"
        last = "Add terms, for example --cell backbone=...,benchmark=...,metric=..."
        raise ConfigError("\n".join([first, *shown[:_SHOWN], *more, last]))
    return rows.iloc[0].to_dict()


def _matches(numbers: pd.DataFrame, names: list[str], term: str) -> pd.Series:
    column, equals, value = term.partition("=")
    columns = [column] if equals and column in names else names
    return numbers[columns].map(_is_equal, text=value if equals else term).any(axis=1)


def _is_equal(value: object, text: str) -> bool:
    if isinstance(value, str):
        return value == text
    try:
        return float(str(value)) == float(text)
    except ValueError:
        return False


def _score(study: Study, path: Path, row: Mapping[Hashable, Any]) -> Link:
    layout, dataset = study.layout, find_product("table", path.stem).dataset
    scores = read_scores(layout.scores_csv())
    matches = scores["dataset"] == dataset
    for name in ("backbone", "supervision", "lambda", "benchmark", "metric", "group"):
        matches &= scores[name] == row[name]
    of_seeds = scores[matches]
    now = mean_std(of_seeds).iloc[0] if len(of_seeds) else {"mean": np.nan, "std": np.nan, "n": 0}
    text, equal = _over_seeds(row, now, layout.scores_csv())
    protocol = str(row["protocol"])
    first = Link("protocol", protocol, _state({protocol}, set(of_seeds["protocol"])))
    seeds = [_seed(layout, score) for _, score in of_seeds.iterrows()]
    name = " ".join(str(row[key]) for key in ("backbone", "supervision", "benchmark", "metric", "group") if row[key])
    return Link(f"{path.stem}: {name}, lambda {row['lambda']}", text, "ok" if equal else "differs", [first, *seeds])


def _over_seeds(row: Mapping[Hashable, Any], now: Mapping[Any, Any], scores: Path) -> tuple[str, bool]:
    """Mean and deviation of a table's row, and whether the scores still have them (`now`)."""
    shown = pd.to_numeric([row[name] for name in _STATISTICS], errors="coerce")
    equal = np.allclose(shown, [now[name] for name in _STATISTICS], rtol=0, atol=_TOLERANCE, equal_nan=True)
    text = f"{row['mean']} ± {row['std']} over n = {row['n']} seeds"
    return text + ("" if equal else f"; from {scores}: {now['mean']} ± {now['std']}, n = {now['n']}"), bool(equal)


def _transfer_score(study: Study, path: Path, row: Mapping[Hashable, Any]) -> Link:
    """A number of fine-tunings, down to the classification that their backbones come from."""
    from luab.transfer.score import read_scores as read_transfer_scores

    file = study.layout.transfer_scores_csv()
    scores = read_transfer_scores(file)
    matches = pd.Series(True, index=scores.index)
    for name in ("transfer", "backbone", "supervision", "lambda", "metric", "group"):
        matches &= scores[name] == row[name]
    of_seeds = scores[matches]
    values = of_seeds["value"]
    text, equal = _over_seeds(row, {"mean": values.mean(), "std": values.std(), "n": len(values)}, file)
    protocols = [Link("protocol", protocol) for protocol in sorted(set(of_seeds["protocol"]))]
    seeds = [_fine_tuning_seed(study.layout, score) for _, score in of_seeds.iterrows()]
    name = " ".join(str(row[key]) for key in ("transfer", "backbone", "supervision", "metric", "group") if row[key])
    state: State = "ok" if equal else "differs"
    return Link(f"{path.stem}: {name}, lambda {row['lambda']}", text, state, [*protocols, *seeds])


def _fine_tuning_seed(layout: TransferLayout, score: pd.Series) -> Link:
    from luab.transfer.score import read_scores as read_transfer_scores

    run = Run(score["dataset"], score["backbone"], score["supervision"], score["lambda"], int(score["seed"]))
    one = FineTuning(score["transfer"], run)
    path = layout.fine_tuning_scores(one)
    if path.is_file():
        own = read_transfer_scores(path)
        now = [*own.loc[(own["metric"] == score["metric"]) & (own["group"] == score["group"]), "value"]]
        state = _state(now, [score["value"]])
        file = Link("score", f"{path}: {', '.join(map(repr, now))}", state)
    else:
        file = _absent("score", path)
    links = [file, _dense_predictions(layout, one), _fine_tuning(layout, one)]
    return Link(f"seed {run.seed}", f"{score['value']!r} of n = {score['n']}", links=links)


def _dense_predictions(layout: TransferLayout, one: FineTuning) -> Link:
    path = layout.fine_tuning_predictions(one)
    if not card(path).is_file():
        return _absent("predictions", path)
    content = read_fields(card(path), ("rows", "sha256", "model_sha256", "code"))
    run_json = layout.fine_tuning_json(one)
    recorded = read_fields(run_json, ("model_sha256",))["model_sha256"] if run_json.is_file() else None
    sha256 = content["model_sha256"]
    model = Link("model", f"SHA-256 {sha256}", _state(sha256, recorded))
    links = [model, Link("code", f"digest {content['code']}")]
    return _recorded("predictions", path, content["sha256"], links=links, more=f", {content['rows']} rows")


def _fine_tuning(layout: TransferLayout, one: FineTuning) -> Link:
    path = layout.fine_tuning_json(one)
    if not path.is_file():
        return _absent("fine-tuning", path)
    content = read_fields(path, ("model_sha256", "recipe", "inputs", "versions", "seconds", "backbone_sha256"))
    digest = content["backbone_sha256"]
    state = _state(digest, _model_sha256(layout, one.run))
    links = [
        _recorded("model", layout.fine_tuning_model(one), content["model_sha256"]),
        Link("backbone", f"{one.run.folder}: SHA-256 {digest}", state, [_training(layout, one.run)]),
        Link("recipe", ", ".join(f"{key}={value}" for key, value in content["recipe"].items())),
        Link("seed", str(one.run.seed)),
        *(Link(f"images {name}", f"SHA-256 {sha256}") for name, sha256 in sorted(content["inputs"].items())),
        *_circumstances(content),
    ]
    return Link("fine-tuning", str(path), links=links)


def _circumstances(content: Mapping[str, Any]) -> list[Link]:
    """Code, versions and machine of a training or fine-tuning, from its run.json."""
    hardware = content.get("hardware", {})
    machine = ", ".join(str(hardware[key]) for key in ("gpu", "processor", "cores", "system") if hardware.get(key))
    return [
        Link("commit", str(content.get("commit") or "none: not a git checkout")),
        Link("code", f"digest {content.get('code', {}).get('train', 'unknown')}"),
        Link("versions", ", ".join(f"{name} {version}" for name, version in content["versions"].items())),
        Link("hardware", machine or "unknown"),
        Link("time", f"{content['seconds'] / 3600:.3g} h, {content.get('processes', 1)} processes"),
    ]


def _seed(layout: Layout, score: pd.Series) -> Link:
    run = Run(score["dataset"], score["backbone"], score["supervision"], score["lambda"], int(score["seed"]))
    links = [_score_file(layout, run, score), *_predictions(layout, run, score["benchmark"]), _training(layout, run)]
    return Link(f"seed {run.seed}", f"{score['value']!r} of n = {score['n']}", links=links)


def _score_file(layout: Layout, run: Run, score: pd.Series) -> Link:
    path = layout.score(run, score["benchmark"])
    if not path.is_file():
        return _absent("score", path)
    content = read_fields(path, ("details", "metrics", "n", "ids_sha256"))
    details = {(part["metric"], part["group"]): part["value"] for part in content["details"]}
    overall = {(metric, ""): value for metric, value in content["metrics"].items()}
    value = (overall | details).get((score["metric"], score["group"]))
    links = [Link("images", f"n = {content['n']}, SHA-256 of their ids {content['ids_sha256']}")]
    return Link("score", f"{path}: {value!r}", _state(value, score["value"]), links)


def _predictions(layout: Layout, run: Run, benchmark: str) -> Iterator[Link]:
    folder = layout.prediction_folder(run)
    cards = [read_fields(path, ("files", "model_sha256", "code")) for path in sorted(folder.glob("*.json"))]
    listed = {name: (file, content) for content in cards for name, file in content["files"].items()}
    for name in BENCHMARKS[benchmark].test_sets:
        path = folder / f"{name}.parquet"
        if name not in listed:
            yield _absent(f"predictions {name}", path)
            continue
        file, content = listed[name]
        sha256 = content["model_sha256"]
        model = Link("model", f"SHA-256 {sha256}", _state(sha256, _model_sha256(layout, run)))
        links = [model, Link("code", f"digest {content['code']}")]
        yield _recorded(f"predictions {name}", path, file["sha256"], links=links, more=f", {file['rows']} rows")


def _model_sha256(layout: Layout, run: Run) -> str | None:
    path = layout.run_json(run)
    return str(read_fields(path, ("model_sha256",))["model_sha256"]) if path.is_file() else None


def _training(layout: Layout, run: Run) -> Link:
    path = layout.run_json(run)
    if not path.is_file():
        return _absent("training", path)
    content = read_fields(path, ("model_sha256", "recipe", "inputs", "versions", "seconds"))
    file = layout.model(run)
    inside = [_card_in_model(file, run)] if file.is_file() else []
    recipe, (commit, code, *rest) = content["recipe"], _circumstances(content)
    links = [
        _recorded("model", file, content["model_sha256"], links=inside),
        Link("recipe", ", ".join(f"{key}={value}" for key, value in recipe.items())),
        Link("seed", str(run.seed)),
        commit,
        code,
        *(_input(layout, run, recipe, name, digest) for name, digest in sorted(content["inputs"].items())),
        *rest,
    ]
    return Link("training", str(path), links=links)


def _card_in_model(model: Path, run: Run) -> Link:
    try:
        identity = read_card(model).get("run")
    except DataError as error:
        return Link("card in the file", str(error), "differs")
    return Link("card in the file", str(identity), "ok" if identity == run.identity() else "differs")


def _input(layout: Layout, run: Run, recipe: Mapping[str, Any], name: str, digest: str) -> Link:
    """One input of a training: images, points with the archive that they come from, or initial weights."""
    kind, _, supervision = name.partition("_")
    if kind in ("targets", "labels"):
        path = card(layout.target(supervision, run.dataset))
        tags = read_json(path).get("tags_sha256") if path.is_file() else None
        links = [_index(layout, task_of(run.dataset).byproducts), *([Link("tags", f"SHA-256 {tags}")] if tags else [])]
        return _recorded(f"{kind} {supervision}", path, digest, "sha256", links)
    if name == "pack":
        return _recorded(name, card(layout.pack(task_of(run.dataset).train)), digest, "sha256")
    if name == "begins_with":
        begins = BeginsWith.model_validate(recipe.get("begins_with", {}))
        first = begins.first_run(run)
        if first is None:
            return Link("initial weights", f"{begins}: SHA-256 {digest}")
        state = _state(digest, _model_sha256(layout, first))
        return Link("initial weights", f"{first.folder}: SHA-256 {digest}", state, [_training(layout, first)])
    return _recorded(f"images {name}", card(layout.manifest(name)), digest, "ids_sha256")


def _index(layout: Layout, name: str) -> Link:
    path = card(layout.index(name))
    if not path.is_file():
        return _absent(f"index {name}", path)
    content = read_fields(path, ("rows",))
    source = content.get("source_sha256")
    archive_card = layout.archive_card(name)
    url = [Link("url", str(read_json(archive_card).get("url")))] if archive_card.is_file() else []
    if source:
        archive = _recorded(f"archive {name}", archive_card, source, "sha256", url)
    else:
        archive = Link(f"archive {name}", "unknown: the index was made from a file without card", links=url)
    return Link(f"index {name}", f"{path}: {content['rows']:,} records", links=[archive])


def _statistic(study: Study, table: str, row: Mapping[Hashable, Any]) -> Link:
    if row["value"] == "":
        raise ConfigError(f"{table}: {row['interface']} has no such number, its cell is empty. Select another one.")
    layout = study.layout
    of_interface = {"browsing": ["imagenet_ab"], "tagging": ["coco_ab"]}.get(str(row.get("interface", "")))
    names = of_interface or (["imagenet_ab"] if table == "byproduct_statistics" else ["coco_ab"])
    links = [_index(layout, name) for name in names]
    if "coco_ab" in names:
        path = card(layout.manifest("coco_train"))
        ids = f"SHA-256 of their ids {read_json(path)['ids_sha256']}" if path.is_file() else ""
        links.append(Link("images coco_train", f"{path}: {ids}") if ids else _absent("images coco_train", path))
    name = " ".join(str(row[key]) for key in ("interface", "statistic") if key in row)
    return Link(f"{table}: {name}", f"{row['value']} ({row['unit']}), n = {row['n']}", links=links)


def _absent(what: str, path: Path) -> Link:
    return Link(what, f"{path}: luab pull {path}", "missing")


def _state(value: object, recorded: object) -> State:
    return "" if recorded is None else ("ok" if value == recorded else "differs")


def _recorded(what: str, path: Path, digest: str, key: str = "", links: Sequence[Link] = (), more: str = "") -> Link:
    """A file, or with `key` the card of one, whose digest is compared with the one that was recorded."""
    text = f"{path}: SHA-256 {digest}{more}"
    if not path.is_file():
        return Link(what, f"{text}; luab pull {path}", "missing", [*links])
    now = read_json(path).get(key) if key else file_sha256(path)
    found = text if now == digest else f"{text}; the {'card' if key else 'file'} has {now}"
    return Link(what, found, _state(now, digest), [*links])


def print_lineage(link: Link) -> None:
    """Prints a tree: the number at the top, what it depends on below."""
    wide_console().print(_tree(link))


def _tree(link: Link) -> Tree:
    tree = Tree(f"[bold]{escape(link.what)}[/] {_MARKS[link.state]} {escape(link.found)}".replace("  ", " "))
    for inner in link.links:
        tree.add(_tree(inner))
    return tree
