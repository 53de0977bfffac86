"""Tables of fine-tunings for detection and segmentation: means over seeds, and differences to the controls."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from luab.comparison.over_seeds import difference_to, mean_std
from luab.errors import DataError
from luab.render import style, summaries
from luab.render.products import find_product
from luab.render.table_text import Table
from luab.study.supervisions import BASELINE

METRICS = {
    "detection": {
        "ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "AP small", "ap_medium": "AP medium",
        "ap_large": "AP large", "ap_in_context": "AP in context", "ap_out_of_context": "AP out of context",
        "voc_ap": "VOC AP", "voc_ap_11": "VOC AP (11 points)",
    },
    "segmentation": {
        "miou": "mIoU", "miou_small": "mIoU small", "miou_medium": "mIoU medium", "miou_large": "mIoU large",
        "miou_in_context": "mIoU in context", "miou_out_of_context": "mIoU out of context",
    },
}  # fmt: skip
"""Metric of the scores -> heading, by product. The first one is the headline."""
CONTROLS = (BASELINE, "shuffled")
"""Supervisions whose backbones the others are compared with."""
_NUMBERS = ("difference", "low", "high", "p", "p_holm")
_ROW = ["transfer", "backbone", "supervision", "lambda"]
_NOTES = {
    "detection": "AP: mean over IoU 0.50 to 0.95 and classes, by COCO's rules; small, medium, large: by area of the "
    "object, with limits of 32 and 96 px squared; VOC AP: at IoU 0.5, area below the curve, difficult objects ignored. "
    "In and out of context: objects of a class in images with and without its usual companions, on the same classes.",
    "segmentation": "mIoU: intersection over union over the pixels of all images, mean over the classes that occur and "
    "the background; small, medium, large: by the pixels of a class in the image, with limits of 32 and 96 px squared, "
    "without the background. In and out of context: a class in images with and without its usual companions, on the "
    "same classes.",
}
"""What the columns are, by product."""


def transfer_table(
    name: str, scores: pd.DataFrame, transfers: Mapping[str, str], supervisions: Mapping[str, str]
) -> Table:
    """The table of all fine-tunings of one task.

    Args:
        name: detection or segmentation.
        scores: From `luab.transfer.score.read_scores`.
        transfers: Name -> title of the entries of `transfer` that are shown, in order.
        supervisions: Name -> title, in order.

    Returns:
        A table whose raw numbers have the columns transfer, backbone, supervision, lambda, metric, group, mean, std, n,
        images, protocol, and for each control difference_<control>, low_, high_, p_ and p_holm_<control>.

    Raises:
        DataError: The scores have no fine-tuning of these, or one lacks a metric that others of its transfer have.
    """
    shown = scores[scores["transfer"].isin(list(transfers)) & (scores["group"] == "")]
    metrics = {metric: title for metric, title in METRICS[name].items() if (shown["metric"] == metric).any()}
    if not metrics:
        raise DataError(
            f"{name}: expected scores of {', '.join(transfers)}, found {', '.join(sorted(set(scores['transfer'])))}. "
            "Score these fine-tunings and collect again."
        )
    shown = shown[shown["metric"].isin(list(metrics))]
    _refuse_holes(name, shown)
    raw = _numbers(shown, next(iter(metrics)))
    looks = style.looks([key for key in supervisions if key in set(raw["supervision"])], supervisions)
    raw = _sorted(raw, {"transfer": list(transfers), "supervision": list(looks), "metric": list(metrics)})
    rows, groups = list[list[str]](), list[int]()
    for (transfer, backbone), here in raw.groupby(["transfer", "backbone"], sort=False):
        groups.append(len(rows))
        heads = [transfers[str(transfer)], style.backbone_name(str(backbone))]
        for key in looks:
            for line in _lines(here[here["supervision"] == key], looks, list(metrics)):
                rows.append([*(heads if len(rows) == groups[-1] else ["", ""]), *line])
    head = ["Fine-tuned on", "Backbone", "Supervision", "λ", *(f"{title} ↑" for title in metrics.values())]
    cells, notes = pd.DataFrame(rows, columns=head), _notes(name, raw, transfers)
    return Table(name, f"{find_product('table', name).title} (%)", cells, raw, notes, groups)


def _sorted(raw: pd.DataFrame, orders: Mapping[str, list[str]]) -> pd.DataFrame:
    """The rows by transfer, backbone, supervision, lambda and metric, each in its order of display."""
    orders = {**orders, "backbone": style.backbone_order(raw["backbone"])}
    places = raw[["lambda"]].assign(**{key: raw[key].map(order.index) for key, order in orders.items()})
    return raw.loc[places.sort_values([*_ROW, "metric"]).index].reset_index(drop=True)


def _lines(runs: pd.DataFrame, looks: style.Looks, metrics: Sequence[str]) -> Iterator[list[str]]:
    """The lines of one supervision, for each lambda: the means, and the differences to each control."""
    for weight, run in runs.groupby("lambda"):
        row = run.set_index("metric").reindex(metrics)
        supervision = str(run["supervision"].iloc[0])
        lambda_text = "–" if supervision == BASELINE else f"{weight:g}"
        yield [looks[supervision].title, lambda_text, *(_mean(of) for _, of in row.iterrows())]
        for control in CONTROLS:
            if f"difference_{control}" in row and row[f"difference_{control}"].notna().any():
                of_control = row[[f"{number}_{control}" for number in _NUMBERS]].set_axis(list(_NUMBERS), axis=1)
                of_control = of_control.assign(n=row["n"])
                cells = [summaries.difference_text(of_control.iloc[[k]]) for k in range(len(row))]
                yield [f"  Δ {looks[control].title}", "", *cells]


def _mean(row: pd.Series) -> str:
    if pd.isna(row["mean"]):
        return "–"
    spread = f" ± {style.percent(row['std'])}" if row["n"] > 1 else ""
    return f"{style.percent(row['mean'])}{spread} (n = {int(row['n'])})"


def _numbers(scores: pd.DataFrame, headline: str) -> pd.DataFrame:
    """One row per fine-tuning without its seed and metric, see `transfer_table`."""
    places, key = scores.rename(columns={"transfer": "benchmark"}), [*_ROW, "metric", "group"]
    about = scores.groupby(key, as_index=False).agg(images=("n", "max"), protocol=("protocol", "first"))
    table = mean_std(places).rename(columns={"benchmark": "transfer"}).drop(columns="dataset")
    table = table.merge(about, on=key, validate="one_to_one")
    headlines = dict.fromkeys(scores["transfer"], headline)
    for control in CONTROLS:
        if pairs := list(_pairs(places, control, headlines)):
            named = pd.concat(pairs)[[*key, *_NUMBERS]].rename(columns={of: f"{of}_{control}" for of in _NUMBERS})
            table = table.merge(named, on=key, how="left", validate="one_to_one")
    return table


def _pairs(places: pd.DataFrame, control: str, headlines: Mapping[str, str]) -> Iterator[pd.DataFrame]:
    """The differences of each supervision and lambda to the baseline, or to a control of the same lambda."""
    methods = places.loc[~places["supervision"].isin([control, BASELINE]), ["supervision", "lambda"]].drop_duplicates()
    for method, weight in methods.itertuples(index=False, name=None):
        of_method = (places["supervision"] == method) & summaries.has_lambda(places, weight)
        of_control = places["supervision"] == control
        of_control &= summaries.has_lambda(places, 0.0 if control == BASELINE else weight)
        if of_control.any():
            pairs = difference_to(places[of_method | of_control], method, control, headlines)
            yield pairs.rename(columns={"benchmark": "transfer"})


def _notes(name: str, raw: pd.DataFrame, transfers: Mapping[str, str]) -> list[str]:
    protocols = raw.groupby("transfer", sort=False)["protocol"].first()
    return [
        f"Cells: {summaries.spread_text(raw)}.",
        "Lines marked Δ: difference to the fine-tuning of the named backbone with the same seed, in percentage points, "
        "with the 95 % interval and p of a paired t-test. No interval: too few seeds, or all differences are equal.",
        f"p: Holm's correction of {next(iter(METRICS[name].values()))} over the data sets, for each backbone, "
        "supervision and control; uncorrected in the other columns.",
        _NOTES[name],
        *(f"{transfers[str(transfer)]}: {str(of).rstrip('.')}." for transfer, of in protocols.items()),
    ]


def _refuse_holes(name: str, scores: pd.DataFrame) -> None:
    """DataError if a fine-tuning lacks a metric that another one of its transfer has."""
    for transfer, here in scores.groupby("transfer"):
        counts = here.groupby([*_ROW, "seed"])["metric"].agg(frozenset)
        everything = frozenset(here["metric"])
        missing = [(*place[1:], sorted(everything - found)) for place, found in counts.items() if found != everything]
        if missing:
            backbone, supervision, weight, seed, metrics = missing[0]
            raise DataError(
                f"{name}: {len(missing)} fine-tunings of {transfer} lack numbers that others have, first "
                f"{backbone}/{supervision}-{weight:g}/seed{seed}: {', '.join(metrics)}. Score them and collect again."
            )
