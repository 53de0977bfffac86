"""Tables of the study: rows, columns, the text of each cell, and the notes below."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from luab.benchmarks.collect import read_scores
from luab.benchmarks.formula import PERSON
from luab.byproducts.coco_ab import read_index
from luab.byproducts.imagenet_ab import read_index_pieces
from luab.byproducts.statistics import coco, imagenet
from luab.comparison.over_seeds import difference_to
from luab.data.manifests.manifest import read_manifest_table
from luab.data.supervisions.aim import aim_of_tags
from luab.errors import ConfigError, DataError, did_you_mean
from luab.files import read_percent, read_rows
from luab.render import answers, style, summaries, transfers
from luab.render import quantities as q
from luab.render.products import PRODUCTS, STATISTICS, Inputs, Product, Scored, find_product
from luab.render.table_text import AT_CHANCE, BOLD, Table, write_table
from luab.study.config import known_backbones
from luab.study.question import Question
from luab.study.supervisions import MAKERS, Supervision
from luab.transfer.score import read_scores as read_transfer_scores

PUBLISHED = "Published IN-1k"
_BOLD_NOTE = (
    "Bold: best mean of its backbone, if its difference to the baseline is significant (p as printed below 0.05). A "
    "baseline is bold if all others differ significantly from it."
)
_DIFF_NOTE = (
    "Lines marked Δ: difference to the baseline with the same seed, in percentage points, with the 95 % interval and p "
    "of a paired t-test. No interval: too few seeds, or all differences are equal."
)
_USES_NOTES = [
    "Cells: difference to the supervision in the third column with the same seed, with the 95 % interval and p of a "
    "paired t-test. No interval: too few seeds, or all differences are equal.",
    "p: Holm's correction over the headline numbers of all benchmarks, for each line; other numbers are uncorrected.",
    "Controls of a use have the same use and settings, and random points, those of other images of the class, the "
    "image's centre, or none (attention pooling).",
]
CONTROL_NOTE = (
    f"{AT_CHANCE}: not better than a control by 1.96 standard errors of a share over the images. Controls need no "
    "model: a guess among the classes of the images, the image's centre as the point, the whole image as the box."
)
PERSON_NOTE = (
    "Another person: correlation of two people's traces of one image, the noise ceiling; ° does not refer to it."
)
_STATISTICS_NOTES = {
    "byproduct_statistics": ["n: number of records or clicks behind each value."],
    "coco_statistics": [
        "n: number of records, tags, classes of images or workers behind each value. If an image has several records, "
        "the last one counts.",
        "Tags follow the rule of the official loader: the place of the last added icon counts; moves and removals are "
        "ignored.",
        "Right, in a box, on a mask: by the annotations of the tag's class, crowds included. In a box and on a mask "
        "are shares of the right tags of records with an image size; the middle of the image is tested on these tags.",
        "Times: as long as the page was open; the mean after clipping at ten minutes.",
    ],
}


def statistics_table(name: str, statistics: pd.DataFrame) -> Table:
    """One of the tables `STATISTICS`, from columns statistic, value, unit, n; DataError if there is no row."""
    if statistics.empty:
        raise DataError(f"{name}: there are no statistics to show. Index the byproducts again.")
    cells = pd.DataFrame(
        {
            "Statistic": [str(statistic).replace("_", " ") for statistic in statistics["statistic"]],
            "Value": [_value(*row) for row in statistics[["value", "unit", "n"]].itertuples(index=False)],
        }
    )
    return Table(name, find_product("table", name).title, cells, statistics, _STATISTICS_NOTES[name])


def interfaces(browsing: pd.DataFrame, tagging: pd.DataFrame) -> Table:
    """The raw numbers of the tables `STATISTICS` side by side; DataError if a statistic is missing."""
    numbers = summaries.interface_numbers(browsing, tagging)
    columns = {"Byproducts": list(dict.fromkeys(numbers["title"]))}
    for name, heading in q.INTERFACES.items():
        rows = numbers.loc[numbers["interface"] == name, ["value", "unit", "n"]].itertuples(index=False)
        columns[heading] = ["–" if pd.isna(n) else _value(value, unit, n) for value, unit, n in rows]
    notes = [
        "Browsing: annotators choose the images of one class from a grid, with one click each. Tagging: annotators "
        "drag icons of all classes onto one image. –: the interface has no such number.",
        "Labels: one per image of ImageNet; on COCO, each class that the annotations give an image.",
        "In a box, on a mask: of the point's own class; images without a box and wrong tags are left out. The middle "
        "of the image is tested on the same images or tags.",
        "Time: for browsing, recorded while the pointer was on the image; for tagging, as long as the page of the "
        "image was open. These are different quantities. A browsed image has one point, so its two times are equal.",
        "Images, classes and workers differ too, so differences are not due to the interface alone. There are no "
        "seeds, so no spread over seeds; n: number of items behind each value.",
    ]
    return Table("interfaces", find_product("table", "interfaces").title, pd.DataFrame(columns), numbers, notes)


def score_table(
    name: str, scores: pd.DataFrame, headline_lambda: float = 1.0, published: pd.DataFrame | None = None
) -> Table:
    """A table of scores: every backbone and supervision, with the difference of each to the baseline.

    Args:
        name: Table lambda_sweep shows all lambdas of the swept backbones, the others show `headline_lambda`.
        scores: Tidy scores of one data set; supervisions are shown in the order of their first row.
        published: From `read_published`; adds a column if it has values for a shown backbone.

    Raises:
        DataError: A number is missing, or the scores contain nothing that the table shows.
    """
    product = find_product("table", name)
    assert isinstance(product.needs, Scored)
    title = f"{product.title} (%)"
    if name == "lambda_sweep":
        chosen = scores[scores["backbone"].isin(summaries.swept_backbones(scores))]
    else:
        chosen = summaries.at_headline(scores, headline_lambda)
        title += f", λ = {headline_lambda:g}"
    quantities = product.needs.quantities
    if name == "localization":
        quantities = (*quantities[:2], *_per_iou(chosen), *quantities[2:])
    if name == "folder_tests":
        quantities = (*quantities, *q.by_test(summaries.own_tests(chosen)))
    shown = summaries.present(chosen, quantities, name)
    summary = summaries.summarise(chosen, shown)
    looks, controls = style.looks_of(scores), summaries.controls_of(scores)
    rows: list[list[str]] = []
    groups: list[int] = []
    for backbone in style.backbone_order(list(summary["backbone"])):
        groups.append(len(rows))
        rows += _block(summary[summary["backbone"] == backbone], backbone, looks, shown, controls)
    if rows_of_controls := _controls(controls, shown):
        groups.append(len(rows))
        rows += rows_of_controls
    cells = pd.DataFrame(rows, columns=["Backbone", "Supervision", "λ", *(quantity.heading for quantity in shown)])
    raw, notes = _raw(summary, shown, controls), _notes(summary, shown, bool(rows_of_controls))
    notes += [PERSON_NOTE] if PERSON in controls and q.ALIGNMENT in shown else []
    table = Table(name, title, cells, raw, notes, groups)
    return table if published is None else _published(table, published, looks)


def uses_table(scores: pd.DataFrame, controls: Mapping[str, Sequence[str]], headline_lambda: float = 1.0) -> Table:
    """The table of uses: the differences of each supervision to the baseline and to each control of its use.

    Args:
        scores: See `score_table`.
        controls: Supervisions that each supervision is compared with; see `luab.render.products.controls_of`.
        headline_lambda: Lambda of all of them.
    """
    product = find_product("table", "uses")
    chosen = summaries.at_headline(scores, headline_lambda)
    shown = summaries.present(chosen, q.USES, "uses")
    looks, rows, raw, groups = style.looks_of(scores), list[list[str]](), list[pd.DataFrame](), list[int]()
    for backbone in style.backbone_order(list(chosen["backbone"].unique())):
        of_backbone = chosen[chosen["backbone"] == backbone]
        groups.append(len(rows))
        for method, others in controls.items():
            for other in others:
                pairs = difference_to(of_backbone, method, other).assign(control=other)
                heads = [style.backbone_name(backbone), looks[method].title, looks[other].title]
                rows.append(heads + [summaries.difference_text(summaries.of(pairs, quantity)) for quantity in shown])
                raw.append(summaries.only(pairs, shown))
    cells = pd.DataFrame(
        rows, columns=["Backbone", "Supervision", "Compared with", *(quantity.heading for quantity in shown)]
    )
    without_model, key = summaries.controls_of(chosen), q.ALIGNMENT.key
    values = ", ".join(f"{name} {style.percent(of[key])}" for name, of in without_model.items() if key in of)
    notes = [*_USES_NOTES, *([f"{q.ALIGNMENT.title} without a model, in %: {values}."] if values else [])]
    return Table(
        "uses", f"{product.title} (percentage points), λ = {headline_lambda:g}", cells,
        pd.concat(raw, ignore_index=True), notes, groups,
    )  # fmt: skip


def answers_table(
    name: str, scores: pd.DataFrame, question: Question, entries: Mapping[str, Supervision], headline_lambda: float
) -> Table:
    """The comparisons of a study beside the main one, see `luab.render.answers.comparisons`.

    Args:
        name: Name of the product.
        scores: See `score_table`.
        question: The study.
        entries: Supervisions of the data set.
        headline_lambda: Lambda of the main tables.
    """
    raw = answers.comparisons(scores, question, headline_lambda, entries)
    if raw.empty:
        raise DataError(f"{name}: the scores have nothing to compare with {', '.join(question.against)}.")
    of_study = answers.answering(raw, question)
    shown = [quantity for quantity in of_study if len(summaries.of(raw, quantity))]
    rows, groups = list[list[str]](), list[int]()
    for backbone, of_backbone in raw.groupby("backbone", sort=False):
        groups.append(len(rows))
        for (method, weight, control), of in of_backbone.groupby(["supervision", "lambda", "control"], sort=False):
            heads = [style.backbone_name(str(backbone)), answers.title_of(method, entries), f"{weight:g}"]
            rows.append(
                [
                    *heads,
                    answers.title_of(control, entries),
                    *(summaries.difference_text(summaries.of(of, k)) for k in shown),
                ]
            )
    cells = pd.DataFrame(rows, columns=["Backbone", "Supervision", "λ", "Compared with", *(k.heading for k in shown)])
    images = [f"{k.title} {int(summaries.of(raw, k)['images'].max()):,}" for k in shown]
    family = "all backbones and supervisions" if question.compares == "backbones" else "all supervisions and lambdas"
    same = "controls with the same points" if question.compares == "uses" else "the same one"
    if any(entries[name].of != "click" for name in question.against if name in entries):
        same += ", or with shuffled points of their own,"
    notes = [
        f"Cells: difference to the supervision in the fourth column (paired seeds); n = {summaries.span(raw['n'])}.",
        "In brackets the 95 % interval, then p of a paired t-test. No interval: too few seeds, or all differences are "
        "equal.",
        f"p: Holm's correction over {family} that are compared with {same} on the same benchmark"
        f"{'' if question.compares == 'backbones' else ' and backbone'}.",
        f"Controls and other supervisions in the fourth column have λ = {headline_lambda:g}.",
        f"Images: {', '.join(images)}.",
    ]
    return Table(name, f"{question.title}: differences in percentage points", cells, raw, notes, groups)


def render_table(name: str, csv: Path | str, md: Path | str, tex: Path | str, inputs: Inputs) -> None:
    """Makes a table of `luab.render.products.PRODUCTS` and writes it in three formats.

    Raises:
        ConfigError: There is no such table, or an input was not given.
        DataError: An input is missing or incomplete.
    """
    product = find_product("table", name)
    write_table(TABLES[name](product, inputs), csv, md, tex, inputs.label)


def _from_scores(product: Product, inputs: Inputs) -> Table:
    published = read_published(inputs.published, inputs.supervisions) if inputs.published else None
    return score_table(product.name, scores_of(product, inputs), inputs.headline_lambda, published)


def _from_uses(product: Product, inputs: Inputs) -> Table:
    return uses_table(scores_of(product, inputs), inputs.controls, inputs.headline_lambda)


def _from_answers(product: Product, inputs: Inputs) -> Table:
    if inputs.question is None:
        raise ConfigError(f"{product.name}: the input `question` is missing. Pass Inputs(question=...).")
    scores = scores_of(product, inputs)
    return answers_table(product.name, scores, inputs.question, inputs.entries, inputs.headline_lambda)


def _from_transfers(product: Product, inputs: Inputs) -> Table:
    (path,) = required(product.name, inputs, "scores")
    return transfers.transfer_table(product.name, read_transfer_scores(path), inputs.transfers, inputs.supervisions)


def scores_of(product: Product, inputs: Inputs) -> pd.DataFrame:
    """The rows of scores.csv about the product's data set, with the supervisions in the order of the config.

    The column `title` has the names of the supervisions for people.
    """
    (path,) = required(product.name, inputs, "scores")
    scores = read_scores(path)
    scores = scores[scores["dataset"] == product.dataset]
    order = {name: place for place, name in enumerate(inputs.supervisions)}
    if inputs.supervisions:
        scores = scores.assign(title=[inputs.supervisions.get(name, name) for name in scores["supervision"]])
    return scores.sort_values(
        "supervision", key=lambda names: names.map(order).fillna(len(order)), kind="stable", ignore_index=True
    )


def _from_index(product: Product, inputs: Inputs) -> Table:
    (index,) = required(product.name, inputs, "index")
    return statistics_table(product.name, imagenet.byproduct_statistics(read_index_pieces(index, imagenet.COLUMNS)))


def _from_tags(product: Product, inputs: Inputs) -> Table:
    tags, manifest, root = required(product.name, inputs, "tags", "manifest", "images_root")
    images = read_manifest_table(manifest).select(["image_id", "labels"]).to_pylist()
    classes_of = {int(image["image_id"][-12:]): image["labels"] for image in images}
    aim = aim_of_tags(tags, manifest, root / "annotations" / "instances_train2014.json")
    return statistics_table(product.name, coco.coco_statistics(read_index(tags, coco.COLUMNS), classes_of, aim))


TABLES: dict[str, Callable[[Product, Inputs], Table]] = {
    "byproduct_statistics": _from_index,
    "coco_statistics": _from_tags,
    "interfaces": lambda product, inputs: interfaces(*read_statistics(product.name, inputs.statistics)),
    **{product.name: _from_scores for product in PRODUCTS if product.kind == "table" and product.from_scores},
    "uses": _from_uses,
    **dict.fromkeys(transfers.METRICS, _from_transfers),
    **dict.fromkeys(("answers", "coco_answers", "folder_answers"), _from_answers),
}
"""Drawing functions, by the name of the product."""


def read_table(name: str, csv: Path, inputs: Inputs) -> Table:
    """Builds a rendered table again, for the report; reads no byproduct index and no image.

    Tables in `STATISTICS` are built from `csv`, the raw numbers of the rendered table, the rest from `inputs`.
    """
    if name in STATISTICS:
        return statistics_table(name, _read_statistics(csv))
    return TABLES[name](find_product("table", name), inputs)


def required(product: str, inputs: Inputs, *names: str) -> list[Path]:
    """The paths in these fields of `inputs`; ConfigError if one was not given."""
    for name in names:
        if getattr(inputs, name) is None:
            raise ConfigError(f"{product}: the input `{name}` is missing. Pass Inputs({name}=...) with its path.")
    return [getattr(inputs, name) for name in names]


def read_statistics(name: str, paths: Sequence[Path]) -> list[pd.DataFrame]:
    """The raw numbers of the tables `STATISTICS`, from the CSV files of both."""
    if len(paths) != len(STATISTICS):
        raise ConfigError(
            f"{name}: expected the CSV files of the tables {' and '.join(STATISTICS)}, found {len(paths)}."
        )
    return [_read_statistics(path) for path in paths]


def _read_statistics(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected statistics of byproducts; {error}. Render this table again.") from error
    if list(table.columns) != ["statistic", "value", "unit", "n"]:
        raise DataError(
            f"{path}: expected the columns statistic, value, unit, n, found {', '.join(table.columns)}. Render this "
            "table again."
        )
    return table


_PUBLISHED_COLUMNS = ("table", "backbone", "supervision", "benchmark", "metric", "value", "source")


def read_published(path: Path | str, supervisions: Iterable[str] = ()) -> pd.DataFrame:
    """Reads the published values: percent as printed in the source; unknown values are empty.

    `supervisions` are the study's; those named like points that luab can make are always accepted.

    For example: imagenet_main,vit_base_patch16_224,click,imagenet_val,top1,82.5,<who says so>

    Raises:
        DataError: The file is missing or malformed; a table, backbone, supervision, benchmark or metric does not exist;
            or a value has no source or is not in percent.
    """
    rows = []
    for place, row in read_rows(path, _PUBLISHED_COLUMNS, _PUBLISHED_COLUMNS[:5]):
        for column, known in _names(row, supervisions).items():
            if known and row[column].split(".")[0] not in known:
                raise DataError(f"{place}: there is no {column} {row[column]!r}. {did_you_mean(row[column], known)}")
        value = read_percent(row["value"], place, row["metric"]) if row["value"] else float("nan")
        if value == 0:
            raise DataError(f"{place}: expected a percentage, found 0. Leave the value empty if it is unknown.")
        if row["value"] and not row["source"]:
            raise DataError(f"{place}: the value {row['value']} has no source. Give the source of every value.")
        rows.append(row | {"value": value})
    return pd.DataFrame(rows, columns=list(_PUBLISHED_COLUMNS))


def _names(row: dict[str, str], supervisions: Iterable[str]) -> dict[str, Iterable[str]]:
    """The names that each column of published.csv may hold, given the names to its left."""
    shown = {
        product.name: product.needs.quantities
        for product in PRODUCTS
        if product.kind == "table" and isinstance(product.needs, Scored)
    }
    quantities = shown.get(row["table"], ())
    return {
        "table": shown,
        "backbone": known_backbones(),
        "supervision": {*MAKERS, *supervisions, "click_shared"},
        "benchmark": {quantity.benchmark for quantity in quantities},
        "metric": {quantity.metric for quantity in quantities if quantity.benchmark == row["benchmark"]},
    }


def _value(value: float, unit: str, n: int) -> str:
    if pd.isna(value):
        shown = "–"
    elif unit in ("share", "fraction"):
        shown = f"{style.percent(value)} %"
    else:
        number = f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:,.4g}"
        shown = f"{number} {unit}" if unit not in ("", "count") else number
    return f"{shown} (n = {int(n):,})"


Controls = dict[str, dict[tuple[str, str, str], float]]
"""From `summaries.controls_of`."""


def _controls(controls: Controls, quantities: Sequence[q.Quantity]) -> list[list[str]]:
    """A row for each control that some number of the table has."""
    rows: list[list[str]] = []
    for control, values in controls.items():
        cells = [style.percent(values[k.key]) if k.key in values else "–" for k in quantities]
        if set(cells) != {"–"}:
            rows.append(["" if rows else "Controls", control.capitalize(), "–", *cells])
    return rows


def _block(
    summary: pd.DataFrame,
    backbone: str,
    looks: dict[str, style.Look],
    quantities: Sequence[q.Quantity],
    controls: Controls,
) -> list[list[str]]:
    """The rows of one backbone: its runs, each followed by its difference to the baseline."""
    best = {quantity: _best(summary, quantity) for quantity in quantities}
    rows: list[list[str]] = []
    for supervision, look in looks.items():
        runs = summary[summary["supervision"] == supervision]
        for weight in sorted(runs["lambda"].unique()):
            run = runs[runs["lambda"] == weight]
            lambda_text = "–" if supervision == "none" else f"{weight:g}"
            heads = ["" if rows else style.backbone_name(backbone), look.title, lambda_text]
            rows.append(
                heads + [_cell(summaries.of(run, k), best[k] == (supervision, weight), k, controls) for k in quantities]
            )
            if supervision != "none":
                rows.append(["", "  Δ", ""] + [summaries.difference_text(summaries.of(run, k)) for k in quantities])
    return rows


def _cell(row: pd.DataFrame, bold: bool, quantity: q.Quantity, controls: Controls) -> str:
    """A mean over seeds: "71.2 ± 0.4 (n = 3)"; one seed gives "71.2 (n = 1)"; "°" where a control is as good."""
    if row.empty:
        return "–"
    mean, std, n = row.iloc[0][["mean", "std", "n"]]
    spread = f" ± {style.percent(std)}" if n > 1 else ""
    mark = AT_CHANCE if summaries.no_better(row.iloc[0], quantity, _values(controls, quantity)) else ""
    return f"{BOLD if bold else ''}{style.percent(mean)}{spread}{mark} (n = {int(n)})"


def _values(controls: Controls, quantity: q.Quantity) -> list[float]:
    return [controls[name][quantity.key] for name in summaries.CONTROLS if quantity.key in controls.get(name, {})]


def _best(summary: pd.DataFrame, quantity: q.Quantity) -> tuple[str, float] | None:
    """The cell to print bold, if any: see `_BOLD_NOTE`."""
    rows = summaries.of(summary, quantity)
    others = rows[rows["supervision"] != "none"]
    if others.empty or len(others) == len(rows):
        return None
    top = rows.loc[(rows["mean"] * quantity.gain_sign).idxmax()]
    significant = others["significant"].all() if top["supervision"] == "none" else top["significant"]
    return (top["supervision"], top["lambda"]) if significant else None


def _raw(summary: pd.DataFrame, quantities: Sequence[q.Quantity], controls: Controls) -> pd.DataFrame:
    keys = [quantity.key for quantity in quantities]
    order = pd.Series([keys.index(key) for key in summary[summaries.PLACE].itertuples(index=False, name=None)])
    numbers = ["mean", "std", "n", "difference", "low", "high", "p", "p_holm", "images", "protocol"]
    ordered = summary.assign(_order=order.to_numpy()).sort_values([*summaries.CELL, "_order"])
    raw = ordered[[*summaries.CELL, *summaries.PLACE, *numbers]].reset_index(drop=True)
    places = list(raw[summaries.PLACE].itertuples(index=False, name=None))
    found = {name: [values.get(key, float("nan")) for key in places] for name, values in controls.items()}
    return raw.assign(**{name.replace(" ", "_"): column for name, column in found.items()})


def _notes(summary: pd.DataFrame, quantities: Sequence[q.Quantity], controlled: bool) -> list[str]:
    notes = [f"Cells: {summaries.spread_text(summary)}.", _DIFF_NOTE, *_p_note(summary, quantities), _BOLD_NOTE]
    notes += [CONTROL_NOTE] if controlled else []
    about: dict[str, list[str]] = {}
    for quantity in quantities:
        rows = summaries.of(summary, quantity)
        # Crops may differ between backbones: every protocol is named.
        protocols = "; or ".join(dict.fromkeys(rows["protocol"].str.rstrip(".")))
        about.setdefault(f"{rows['images'].max():,} images; {protocols}.", []).append(quantity.title)
    return notes + [f"{', '.join(titles)}: {text}" for text, titles in about.items()]


def _p_note(summary: pd.DataFrame, quantities: Sequence[q.Quantity]) -> list[str]:
    """Says which p were corrected; empty if there is no p."""
    if summary["p"].isna().all():
        return []
    rows = [(quantity.title, summaries.of(summary, quantity)) for quantity in quantities]
    plain = [title for title, row in rows if row["p"].notna().any() and row["p_holm"].isna().all()]
    note = "p: Holm's correction over the headline numbers of all benchmarks, for each backbone and supervision"
    return [f"{note}; uncorrected in {', '.join(plain)}." if plain else f"{note}."]


def _per_iou(scores: pd.DataFrame) -> list[q.Quantity]:
    """The parts of MaxBoxAccV2 in the details of the scores, one per overlap."""
    here = (scores["benchmark"] == "wsol_test") & scores["group"].str.startswith("iou_")
    parts = scores.loc[here, ["metric", "group"]].drop_duplicates().sort_values(["metric", "group"])
    quantities = []
    for metric, group in parts.itertuples(index=False, name=None):
        digits = re.sub(r"\D", "", group)
        title = ("V2 " if "v2" in metric else "") + (f"IoU {digits}" if digits else group)
        quantities.append(q.Quantity("wsol_test", metric, title, group=group))
    return quantities


def _published(table: Table, published: pd.DataFrame, looks: dict[str, style.Look]) -> Table:
    """The table with a column of published values, if there are any for its backbones."""
    ours = published[(published["table"] == table.name)]
    fits = (ours["benchmark"] == q.VAL.benchmark) & (ours["metric"] == q.VAL.metric) & (table.name != "lambda_sweep")
    fits &= ours["supervision"].isin(table.raw["supervision"]) & ours["backbone"].isin(table.raw["backbone"])
    hidden = ours[~fits & ours["value"].notna()].itertuples()
    if unseen := [f"{r.backbone} {r.supervision} {r.benchmark} {r.metric} {r.value:g} ({r.source})" for r in hidden]:
        text = f"Published values that this table does not show: {'; '.join(unseen)}."
        table = dataclasses.replace(table, notes=[*table.notes, text])
    if not ours["backbone"].isin(table.raw["backbone"]).any():
        return table
    here = ours[fits & ours["value"].notna()]
    values = {(r.backbone, r.supervision): (r.value, r.source) for r in here.itertuples()}
    shown = {
        (style.backbone_name(b), looks[s].title): f"{value:.1f} (published)" for (b, s), (value, _) in values.items()
    }
    backbones = table.cells["Backbone"].where(table.cells["Backbone"] != "").ffill()
    column = [shown.get(row, "") for row in zip(backbones, table.cells["Supervision"], strict=True)]
    sources = sorted({source for _, source in values.values()})
    note = [f"{PUBLISHED}: percent as published; its spread and n are unknown; source: {source}." for source in sources]
    raw = table.raw.assign(
        published=[
            values[key[:2]][0] / 100 if key[:2] in values and key[2:] == q.VAL.key else float("nan")
            for key in table.raw[["backbone", "supervision", *summaries.PLACE]].itertuples(index=False, name=None)
        ]
    )
    return dataclasses.replace(
        table, cells=table.cells.assign(**{PUBLISHED: column}), raw=raw, notes=table.notes + note
    )
