"""Tables of the study: which rows and columns, what stands in a cell, what is said beneath."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from luab.errors import ConfigError, DataError
from luab.render import quantities as q
from luab.render import style, summaries
from luab.render.products import STATISTICS, Inputs, Product, find_product
from luab.render.table_text import write_table

BOLD = "\u0001"  # marks a bold cell until a format is chosen; a control character stands in no name
PUBLISHED = "Published IN-1k"
_BOLD_NOTE = "Bold: best mean of its backbone, where the 95 % interval of its difference to the baseline excludes 0."
_DIFF_NOTE = (
    "Lines marked Δ: difference to the baseline, seed against the same seed, in percentage points, with the "
    "95 % interval and p of a paired t-test; without an interval there are too few seeds for one, or all differ alike."
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table before a file format is chosen.

    Attributes:
        name: Stem of its files.
        title: One line.
        cells: Text of every cell; first columns name the row. A leading `BOLD` marks a bold cell.
        raw: The same numbers, unrounded fractions, one row per number.
        notes: What is said beneath: n, protocol, source.
        groups: Index of the first row of each block of rows (rules are drawn before them).
    """

    name: str
    title: str
    cells: pd.DataFrame
    raw: pd.DataFrame
    notes: list[str]
    groups: list[int] = dataclasses.field(default_factory=list)


def byproduct_statistics(statistics: pd.DataFrame) -> Table:
    """Statistics of the byproducts.

    Args:
        statistics: statistic, value, unit, n (records behind the value), as luab.byproducts.statistics.imagenet gives.

    Raises:
        DataError: It is empty.
    """
    notes = ["n: records or clicks behind each value."]
    return _statistics("byproduct_statistics", "Annotation byproducts of ImageNet", statistics, notes)


def coco_statistics(statistics: pd.DataFrame) -> Table:
    """Statistics of the byproducts of COCO, as luab.byproducts.statistics.coco gives them.

    Raises:
        DataError: It is empty.
    """
    notes = [
        "n: records, tags, classes of images or workers behind each value. Of an image with several records the last "
        "counts.",
        "Tags are those of the official loader: added icons, the last place counts, moves and removals have no say.",
        "Tags are right, in a box and on a mask by the annotations of their class, crowds included; in a box and on a "
        "mask are shares of right tags of records with an image size. The image's middle is judged on the same tags.",
        "Times: as long as the page was open; the mean after clipping at ten minutes.",
    ]
    return _statistics("coco_statistics", "Annotation byproducts of COCO", statistics, notes)


def interfaces(browsing: pd.DataFrame, tagging: pd.DataFrame) -> Table:
    """What the two interfaces leave behind, side by side.

    Args:
        browsing: Raw numbers of `byproduct_statistics`.
        tagging: Raw numbers of `coco_statistics`.

    Raises:
        DataError: A statistic is missing.
    """
    both = summaries.interface_numbers(browsing, tagging)
    cells = pd.DataFrame(
        {
            "Byproducts": list(dict.fromkeys(both["title"])),
            **{
                heading: [
                    "–" if pd.isna(n) else _value(value, unit, n)
                    for value, unit, n in both.loc[both["interface"] == name, ["value", "unit", "n"]].itertuples(
                        index=False
                    )
                ]
                for name, heading in q.INTERFACES.items()
            },
        }
    )
    notes = [
        "Browsing: images of one class are chosen from a grid by a click each. Tagging: icons of all classes are "
        "dragged onto one image. –: the interface has no such number.",
        "Labels: of ImageNet one for each image, of COCO each class that the annotations give an image.",
        "In a box, on a mask: of the point's own class; images without a box, and wrong tags, have no say. The middle "
        "of the image is judged on the same images or tags.",
        "Time: browsing, as recorded while the pointer was on the image; tagging, as long as the page of the image was "
        "open. They are not the same quantity. Of browsing, an image has one point, so both of its times are one.",
        "Other images, classes and workers: differences are not of the interface alone. No seeds, so no spread over "
        "them; n: what each value is over.",
    ]
    return Table("interfaces", "Byproducts of browsing and of tagging", cells, both, notes)


def _statistics(name: str, title: str, statistics: pd.DataFrame, notes: list[str]) -> Table:
    if statistics.empty:
        raise DataError(f"{name.replace('_', ' ')}: expected at least one, found none. Index the byproducts again.")
    cells = pd.DataFrame(
        {
            "Statistic": [str(name).replace("_", " ") for name in statistics["statistic"]],
            "Value": [_value(v, u, n) for v, u, n in statistics[["value", "unit", "n"]].itertuples(index=False)],
        }
    )
    return Table(name, title, cells, statistics, notes)


def imagenet_main(scores: pd.DataFrame, headline_lambda: float, published: pd.DataFrame) -> Table:
    """ImageNet and its shifted relatives, every backbone and supervision, at the headline lambda.

    Raises:
        DataError: A cell is missing.
    """
    title = f"ImageNet-1k and distribution shifts (%), λ = {headline_lambda:g}"
    chosen = summaries.at_headline(scores, headline_lambda)
    return _published(_by_backbone("imagenet_main", title, chosen, summaries.present(chosen, q.MAIN)), published)


def background_robustness(scores: pd.DataFrame, headline_lambda: float, published: pd.DataFrame) -> Table:
    """Backgrounds Challenge and SI-Score, at the headline lambda.

    Raises:
        DataError: A cell is missing.
    """
    title = f"Backgrounds Challenge and SI-Score (%), λ = {headline_lambda:g}"
    chosen = summaries.at_headline(scores, headline_lambda)
    return _by_backbone("background_robustness", title, chosen, summaries.present(chosen, q.BACKGROUND))


def localization(scores: pd.DataFrame, headline_lambda: float, published: pd.DataFrame) -> Table:
    """Localisation by class activation maps and by the predicted point, at the headline lambda.

    Raises:
        DataError: A cell is missing.
    """
    title = f"Localisation (%), λ = {headline_lambda:g}"
    chosen = summaries.at_headline(scores, headline_lambda)
    wanted = [*q.LOCALIZATION[:2], *_per_iou(chosen), *q.LOCALIZATION[2:]]
    return _by_backbone("localization", title, chosen, summaries.present(chosen, wanted))


def lambda_sweep(scores: pd.DataFrame, headline_lambda: float, published: pd.DataFrame) -> Table:
    """Swept backbones: a row for every lambda, beside the baseline and the control.

    Raises:
        DataError: No backbone has several lambdas, or a cell is missing.
    """
    chosen = scores[scores["backbone"].isin(swept_backbones(scores))]
    return _by_backbone("lambda_sweep", "Weight of the byproduct loss (%)", chosen, summaries.present(chosen, q.SWEPT))


def coco_main(scores: pd.DataFrame, headline_lambda: float, published: pd.DataFrame) -> Table:
    """COCO: mean average precision, F1, and what is left of it for small objects and out of context.

    Raises:
        DataError: A cell is missing.
    """
    chosen = summaries.at_headline(scores, headline_lambda)
    title = f"COCO 2014, multi-label classification (%), λ = {headline_lambda:g}"
    return _by_backbone("coco_main", title, chosen, summaries.present(chosen, q.COCO_MAIN))


def coco_localization(scores: pd.DataFrame, headline_lambda: float, published: pd.DataFrame) -> Table:
    """COCO: where score maps and regressed points lie, by the masks.

    Raises:
        DataError: A cell is missing.
    """
    chosen = summaries.at_headline(scores, headline_lambda)
    title = f"COCO 2014, localisation by class (%), λ = {headline_lambda:g}"
    return _by_backbone("coco_localization", title, chosen, summaries.present(chosen, q.COCO_LOCALIZATION))


def swept_backbones(scores: pd.DataFrame) -> list[str]:
    """Backbones with a supervision that was trained at several lambdas.

    Raises:
        DataError: There is none.
    """
    counts = scores.groupby(["backbone", "supervision"])["lambda"].nunique()
    swept = [backbone for (backbone, _), n in counts.items() if n > 1]
    if not swept:
        raise DataError(
            "scores: expected a backbone with several lambdas, found one lambda for each. "
            "Add backbones to `sweep` in the configuration, or leave the lambda sweep out."
        )
    return style.backbone_order(swept)


def render_table(name: str, csv: Path | str, md: Path | str, tex: Path | str, inputs: Inputs) -> None:
    """Makes one table and writes it in three formats.

    Args:
        name: Name of a table in `luab.render.products.PRODUCTS`, which also says which inputs it needs.
        csv: Raw numbers, fractions, one row per number.
        md: For people.
        tex: LaTeX; needs booktabs, threeparttable and graphicx.
        inputs: Paths, label and headline lambda.

    Raises:
        ConfigError: There is no such table, or an input was not given.
        DataError: An input is missing or incomplete.
    """
    table = find_product("table", name).draw(inputs)
    assert isinstance(table, Table)
    write_table(table, csv, md, tex, inputs.label)


def _from_scores(draw: Callable[[pd.DataFrame, float, pd.DataFrame], Table]) -> Callable[[Product, Inputs], Table]:
    def from_file(product: Product, inputs: Inputs) -> Table:
        published = read_published(inputs.published) if inputs.published else _NOTHING_PUBLISHED
        return draw(scores_of(product, inputs), inputs.headline_lambda, published)

    return from_file


def scores_of(product: Product, inputs: Inputs) -> pd.DataFrame:
    """The rows of scores.csv about the product's data set.

    Raises:
        ConfigError: The scores were not given.
        DataError: They are missing or damaged.
    """
    from luab.benchmarks.collect import read_scores

    scores = read_scores(required(inputs.scores, product.name, "scores"))
    return scores[scores["dataset"] == product.dataset]


def _from_index(product: Product, inputs: Inputs) -> Table:
    from luab.byproducts.imagenet_ab import read_index_pieces
    from luab.byproducts.statistics.imagenet import COLUMNS
    from luab.byproducts.statistics.imagenet import byproduct_statistics as numbers

    index = required(inputs.index, product.name, "index")
    return byproduct_statistics(numbers(read_index_pieces(index, COLUMNS)))


def _from_tags(product: Product, inputs: Inputs) -> Table:
    paths = {"tags": inputs.tags, "manifest": inputs.manifest, "images_root": inputs.images_root}
    tags, manifest, root = (required(path, product.name, what) for what, path in paths.items())
    return coco_statistics(_tagging_numbers(tags, manifest, root))


def _from_statistics(product: Product, inputs: Inputs) -> Table:
    return interfaces(*read_statistics(product.name, inputs.statistics))


TABLES: dict[str, Callable[[Product, Inputs], Table]] = {
    "byproduct_statistics": _from_index,
    "imagenet_main": _from_scores(imagenet_main),
    "background_robustness": _from_scores(background_robustness),
    "lambda_sweep": _from_scores(lambda_sweep),
    "localization": _from_scores(localization),
    "coco_statistics": _from_tags,
    "interfaces": _from_statistics,
    "coco_main": _from_scores(coco_main),
    "coco_localization": _from_scores(coco_localization),
}
"""Drawing functions, by the name of the product."""


def required(path: Path | None, name: str, what: str) -> Path:
    """An input that a product cannot be drawn without.

    Raises:
        ConfigError: It was not given.
    """
    if path is None:
        raise ConfigError(f"{name}: the input `{what}` is missing. Pass Inputs({what}=...) with its path.")
    return path


def read_statistics(name: str, paths: Sequence[Path]) -> list[pd.DataFrame]:
    """The raw numbers of both tables of byproducts, of ImageNet and of COCO.

    Raises:
        ConfigError: Not both were given.
        DataError: A file is missing or has other columns.
    """
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


def _tagging_numbers(index: Path, manifest: Path, root: Path) -> pd.DataFrame:
    from luab.byproducts.coco_ab import read_index
    from luab.byproducts.statistics.coco import COLUMNS
    from luab.byproducts.statistics.coco import coco_statistics as numbers
    from luab.data.manifests.manifest import read_manifest_table
    from luab.data.supervisions.aim import aim_of_tags

    images = read_manifest_table(manifest).select(["image_id", "labels"]).to_pylist()
    classes_of = {int(image["image_id"][-12:]): image["labels"] for image in images}
    aim = aim_of_tags(index, manifest, root / "annotations" / "instances_train2014.json")
    return numbers(read_index(index, COLUMNS), classes_of, aim)


_NOTHING_PUBLISHED = pd.DataFrame(
    columns=["table", "backbone", "supervision", "benchmark", "metric", "value", "source"]
)


def read_published(path: Path | str) -> pd.DataFrame:
    """Published values: percent as printed there; an empty value is unknown and stays empty.

    Columns: table, backbone (timm name), supervision, benchmark, metric, value, source. For example

        imagenet_main,vit_base_patch16_224,click,imagenet_val,top1,82.5,<who says so>

    Raises:
        DataError: The file or a column is missing, a value is no number, or a value has no source.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise DataError(f"{path}: expected the published values; the file is not there.") from error
    lacking = [column for column in _NOTHING_PUBLISHED.columns if column not in table]
    if lacking:
        raise DataError(f"{path}: lacks the columns {', '.join(lacking)}; it has {', '.join(table.columns)}.")
    numbers = pd.to_numeric(table["value"].where(table["value"] != ""), errors="coerce")
    wrong = table[(numbers.isna() & (table["value"] != "")) | (numbers.notna() & (table["source"] == ""))]
    if len(wrong):
        raise DataError(
            f"{path}: expected a percentage with its source, or nothing; found in line {wrong.index[0] + 2}: "
            f"{', '.join(wrong.iloc[0])}. Give the source of every value."
        )
    return table.assign(value=numbers)


def _value(value: float, unit: str, n: int) -> str:
    if pd.isna(value):
        return f"– (n = {int(n):,})"
    if unit in ("share", "fraction"):
        number, unit = style.percent(value), "%"
    else:
        number = f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:,.4g}"
    shown = f"{number} {unit}" if unit not in ("", "count") else number
    return f"{shown} (n = {int(n):,})"


def _by_backbone(name: str, title: str, scores: pd.DataFrame, quantities: Sequence[q.Quantity]) -> Table:
    summary = summaries.summarise(scores, quantities)
    rows: list[list[str]] = []
    groups: list[int] = []
    for backbone in style.backbone_order(list(summary["backbone"])):
        groups.append(len(rows))
        rows += _block(summary[summary["backbone"] == backbone], backbone, quantities)
    headings = [quantity.heading for quantity in quantities]
    cells = pd.DataFrame(rows, columns=["Backbone", "Supervision", "λ", *headings])
    return Table(name, title, cells, _raw(summary, quantities), _notes(summary, quantities), groups)


def _block(summary: pd.DataFrame, backbone: str, quantities: Sequence[q.Quantity]) -> list[list[str]]:
    best = {quantity: _best(summary, quantity) for quantity in quantities}
    rows: list[list[str]] = []
    for supervision in style.supervision_order(list(summary["supervision"])):
        weights = sorted(summary.loc[summary["supervision"] == supervision, "lambda"].unique())
        for weight in weights:
            run = summary[(summary["supervision"] == supervision) & (summary["lambda"] == weight)]
            name = "" if rows else style.backbone_name(backbone)
            lambda_text = "–" if supervision == "none" else f"{weight:g}"
            heads = [name, style.SUPERVISIONS.get(supervision, supervision), lambda_text]
            rows.append(heads + [_cell(summaries.of(run, k), best[k] == (supervision, weight)) for k in quantities])
            if supervision != "none":
                rows.append(["", "  Δ", ""] + [_difference(summaries.of(run, k)) for k in quantities])
    return rows


def _cell(row: pd.DataFrame, bold: bool) -> str:
    if row.empty:
        return "–"
    return (BOLD if bold else "") + mean_text(*row.iloc[0][["mean", "std", "n"]])


def mean_text(mean: float, std: float, n: int) -> str:
    """A cell: 0.7123, 0.0041 of 3 seeds give "71.2 ± 0.4 (n = 3)"; one seed gives "71.2 (n = 1)"."""
    spread = f" ± {style.percent(std)}" if n > 1 else ""
    return f"{style.percent(mean)}{spread} (n = {int(n)})"


def _difference(row: pd.DataFrame) -> str:
    if row.empty or pd.isna(row.iloc[0]["difference"]):
        return "–"
    first = row.iloc[0]
    p = first["p"] if pd.isna(first["p_holm"]) else first["p_holm"]
    return difference_text(first["difference"], first["low"], first["high"], p, first["n"])


def difference_text(difference: float, low: float, high: float, p: float, n: int) -> str:
    """A difference to the baseline: "+0.9 [+0.5, +1.3], p = 0.003"; "+0.9 (n = 1)" without interval."""
    shown = style.percent(difference, signed=True)
    if pd.isna(low):
        return f"{shown} (n = {int(n)})"
    interval = f"[{style.percent(low, signed=True)}, {style.percent(high, signed=True)}]"
    return f"{shown} {interval}, {_p_text(p)}"


def _p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _best(summary: pd.DataFrame, quantity: q.Quantity) -> tuple[str, float] | None:
    """The cell to print bold, if any: see `_BOLD_NOTE`."""
    rows = summaries.of(summary, quantity)
    if "none" not in set(rows["supervision"]):
        return None
    top = rows.loc[(rows["mean"] * quantity.gain_sign).idxmax()]
    others = rows[rows["supervision"] != "none"]
    excludes = (others["low"] > 0) | (others["high"] < 0)
    sure = excludes.all() if top["supervision"] == "none" else excludes.get(top.name, False)
    return (top["supervision"], top["lambda"]) if sure else None


def _raw(summary: pd.DataFrame, quantities: Sequence[q.Quantity]) -> pd.DataFrame:
    keys = [quantity.key for quantity in quantities]
    order = pd.Series([keys.index(key) for key in summary[summaries.PLACE].itertuples(index=False, name=None)])
    columns = [
        *summaries.CELL,
        *summaries.PLACE,
        "mean",
        "std",
        "n",
        "difference",
        "low",
        "high",
        "p",
        "p_holm",
        "images",
    ]
    return (
        summary.assign(_order=order.to_numpy())
        .sort_values([*summaries.CELL, "_order"])[[*columns, "protocol"]]
        .reset_index(drop=True)
    )


def _notes(summary: pd.DataFrame, quantities: Sequence[q.Quantity]) -> list[str]:
    notes = [f"Cells: {summaries.spread_text(summary)}.", _DIFF_NOTE, *_p_note(summary, quantities), _BOLD_NOTE]
    about: dict[str, list[str]] = {}
    for quantity in quantities:
        rows = summaries.of(summary, quantity)
        # Backbones may see other crops: every protocol in use is named.
        protocols = "; or ".join(dict.fromkeys(rows["protocol"].str.rstrip(".")))
        about.setdefault(f"{rows['images'].max():,} images; {protocols}.", []).append(quantity.title)
    return notes + [f"{', '.join(titles)}: {text}" for text, titles in about.items()]


def _p_note(summary: pd.DataFrame, quantities: Sequence[q.Quantity]) -> list[str]:
    """Which p were corrected; nothing where there is no p at all."""
    if summary["p"].isna().all():
        return []
    rows = [(quantity.title, summaries.of(summary, quantity)) for quantity in quantities]
    plain = [title for title, row in rows if row["p"].notna().any() and row["p_holm"].isna().all()]
    note = "p: Holm's correction over the headline numbers of all benchmarks, for each backbone and supervision"
    return [f"{note}; uncorrected in {', '.join(plain)}." if plain else f"{note}."]


def _per_iou(scores: pd.DataFrame) -> list[q.Quantity]:
    """MaxBoxAccV2's parts, one per overlap, as the details of the scores have them."""
    here = (scores["benchmark"] == "wsol_test") & (scores["group"] != "")
    parts = scores.loc[here, ["metric", "group"]].drop_duplicates().sort_values(["metric", "group"])
    return [
        q.Quantity("wsol_test", metric, f"{'V2 ' if 'v2' in metric else ''}{_iou_name(group)}", group=group)
        for metric, group in parts.itertuples(index=False, name=None)
    ]


def _iou_name(group: str) -> str:
    digits = "".join(character for character in group if character.isdigit())
    return f"IoU {digits}" if digits else group


def _published(table: Table, published: pd.DataFrame) -> Table:
    """The table with a column of published values where we know some for its backbones."""
    here = published[(published["table"] == table.name) & published["backbone"].isin(table.raw["backbone"])]
    if here.empty:
        return table
    here = here[here["value"].notna() & (here["benchmark"] == q.VAL.benchmark) & (here["metric"] == q.VAL.metric)]
    known = {(r.backbone, r.supervision): (r.value, r.source) for r in here.itertuples()}
    rows = table.raw[["backbone", "supervision"]].itertuples(index=False, name=None)
    known = {key: known[key] for key in dict.fromkeys(rows) if key in known}
    names = {style.backbone_name(key[0]): key[0] for key in known}
    words = {style.SUPERVISIONS[key[1]]: key[1] for key in known}
    backbones = table.cells["Backbone"].where(table.cells["Backbone"] != "").ffill()
    column = [
        _published_cell(known.get((names.get(backbone, ""), words.get(supervision, ""))))
        for backbone, supervision in zip(backbones, table.cells["Supervision"], strict=True)
    ]
    sources = sorted({source for _, source in known.values()})
    note = [f"{PUBLISHED}: percent as published, no spread or n known to us; source: {s}." for s in sources]
    raw = table.raw.assign(
        published=[
            known[key[:2]][0] / 100 if key[:2] in known and key[2:] == q.VAL.key else float("nan")
            for key in table.raw[["backbone", "supervision", *summaries.PLACE]].itertuples(index=False, name=None)
        ]
    )
    return dataclasses.replace(
        table, cells=table.cells.assign(**{PUBLISHED: column}), raw=raw, notes=table.notes + note
    )


def _published_cell(known: tuple[float, str] | None) -> str:
    return "" if known is None else f"{known[0]:.1f} (published)"
