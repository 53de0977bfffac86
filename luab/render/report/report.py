"""results/report.html: the whole study in one page that opens without a network."""

import base64
import dataclasses
import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from luab.errors import DataError
from luab.files import read_json, replacing
from luab.render import style
from luab.render.products import Inputs, find_product
from luab.render.report import curves, samples
from luab.render.table_text import BOLD, Sheet
from luab.render.tables import required
from luab.study.paths import Run
from luab.study.question import Question

PAGE = Path(__file__).parent / "page"
_BIG_PNG = 300_000  # bytes from which a figure, then one with photographs, is embedded as WebP
_COLOURS = list(style.COLOURS.values())  # page.css has a class s-<k> for the k-th, in shades that suit its background


@dataclasses.dataclass(frozen=True)
class Sources:
    """Inputs of the page."""

    label: str  # for example "demo world"; empty for the full study
    findings: Sequence[str]  # from luab.render.headline.findings
    headline: Sequence[Sheet]  # from luab.render.headline.headline_sheets
    tables: Mapping[str, Sheet]  # by name of the table
    figures: Mapping[str, Path]  # figure name -> results/figures/<name>.png
    captions: Path  # folder of table_<name>.rst and figure_<name>.rst
    runs: Mapping[Run, Path]  # folder of each run
    titles: Mapping[str, str]  # of the supervisions, by name
    scores: Path  # results/scores.csv
    browser: Inputs | None  # index, manifest and images of ImageNet-AB; None leaves out the browser of byproducts
    class_names: Mapping[str, str]  # by wnid
    deviations: Mapping[str, Sequence[tuple[str, str]]]  # from luab.render.report.deviations.tagged_choices
    question: Question | None = None  # of a study beside the main one
    answers: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)  # luab.render.headline.answers_of


def render_report(sources: Sources, output: Path) -> None:
    """Writes the page; equal inputs give equal bytes. DataError if an input is missing or damaged."""
    cards = {run: read_json(folder / "run.json") for run, folder in sources.runs.items()}
    logs = {run: folder / "log.csv" for run, folder in sources.runs.items()}
    looks = style.looks((run.supervision for run in cards), sources.titles)
    css, script = ((PAGE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    ).get_template("page.html", globals={"bold": BOLD}).render(
        label=sources.label,
        css=Markup(css),
        script=Markup(script),
        css_hash=csp_hash(css),
        script_hash=csp_hash(script),
        question=sources.question,
        answers=sources.answers,
        findings=sources.findings,
        headline=[_difference_first(sheet) for sheet in sources.headline],
        tables=[
            {"name": name, "sheet": sheet, "caption": caption(sources.captions / f"table_{name}.rst")}
            for name, sheet in sources.tables.items()
        ],
        figures=[_figure(name, png, sources.captions) for name, png in sources.figures.items()],
        protocols=_protocols(sources.scores),
        browser=_browser(sources.browser, sources.class_names),
        samples_seed=samples.SEED,
        curves=curves,
        panels=curves.panels(list(sources.runs), logs),
        supervisions={name: (look.title, _COLOURS.index(look.colour)) for name, look in looks.items()},
        runs=[_run(run, looks[run.supervision].title, card) for run, card in cards.items()],
        environment=_shared(list(cards.values())),
        deviations=sources.deviations,
    )  # fmt: skip
    with replacing(output) as aside:
        aside.write_text(page, encoding="utf-8")


def _difference_first(sheet: Sheet) -> Sheet:
    """The sheet with the difference to the baseline next to the names, where a phone shows it."""
    if not sheet.head[-1].endswith("− baseline"):
        return sheet
    head, *rows = ([row[0], row[-1], *row[1:-1]] for row in (sheet.head, *sheet.rows))
    return dataclasses.replace(sheet, head=head, rows=rows)


def _browser(inputs: Inputs | None, names: Mapping[str, str]) -> dict[str, Any] | None:
    if inputs is None:
        return None
    index, manifest, root = required("byproduct_browser", inputs, "index", "manifest", "images_root")
    return samples.browser_samples(index, manifest, root, names)


def csp_hash(text: str) -> str:
    """The source by which a content security policy allows an inline style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def caption(file: Path) -> Markup:
    """A caption as HTML, without its label (a Snakemake parameter), which the page shows once."""
    from docutils.core import publish_parts

    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{file}: cannot read this caption ({error.strerror}). Write it in reStructuredText."
        ) from error
    plain = jinja2.Environment().from_string(text).render(snakemake={"params": {"label": ""}})
    settings = {"raw_enabled": False, "file_insertion_enabled": False, "report_level": 5, "doctitle_xform": False}
    return Markup(publish_parts(plain, writer="html5", settings_overrides=settings)["body"])


def _figure(name: str, png: Path, captions: Path) -> dict[str, Any]:
    """A figure as data URL without the note at its bottom, which the page shows as text; with its size."""
    from PIL import Image

    try:
        content = png.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            note, below = str(image.info.get("Description", "")), int(image.info.get(style.NOTE_PX, 0))
            shown = image.convert("RGB").crop((0, 0, image.width, image.height - below))
        kind, content = _smaller(shown)
    except (OSError, ValueError) as error:
        raise DataError(f"{png}: cannot read this figure ({error}). Render it with `luab render figure`.") from error
    product, text = find_product("figure", name), caption(captions / f"figure_{name}.rst")
    about = {"name": name, "title": product.title, "caption": text, "scored": product.from_scores}
    about["note"] = note if below else ""  # a figure of an older version has it inside
    return about | {"src": samples.data_url(kind, content), "width": shown.width, "height": shown.height}


def _smaller(image: Any) -> tuple[str, bytes]:
    """An image as PNG, or as WebP if it is large as PNG and smaller as WebP."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")  # optimize=True takes five times as long and saves 3 %
    if len(buffer.getvalue()) > _BIG_PNG:
        lossy = io.BytesIO()
        image.save(lossy, "WEBP", quality=88)
        if len(lossy.getvalue()) < len(buffer.getvalue()):
            return "image/webp", lossy.getvalue()
    return "image/png", buffer.getvalue()


def _protocols(scores: Path) -> list[dict[str, Any]]:
    """Every benchmark with its n and protocol; several n if test sets differ between runs."""
    try:
        table = pd.read_csv(scores, usecols=["dataset", "benchmark", "group", "n", "protocol"], dtype=str)
    except (OSError, ValueError) as error:
        raise DataError(f"{scores}: cannot read the scores of the study ({error}). Run `luab collect`.") from error
    whole = table[table["group"].isna()]
    return [
        {"dataset": keys[0], "benchmark": keys[1], "n": ", ".join(map(str, rows["n"].unique())), "protocol": keys[2]}
        for keys, rows in whole.groupby(["dataset", "benchmark", "protocol"], sort=False)
    ]


def _run(run: Run, title: str, card: dict[str, Any]) -> dict[str, Any]:
    recipe, attempts, final = (card.get(key) or {} for key in ("recipe", "attempts", "final"))
    return {
        **run.identity(),
        "folder": run.folder,
        "shown": title,
        "epochs": recipe.get("epochs"),
        "loss": final.get("loss"),
        "seconds": attempts.get("seconds", card.get("seconds")),
        "starts": attempts.get("starts"),
        "card": json.dumps(card, indent=2, sort_keys=True, ensure_ascii=False),
    }


def _shared(cards: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, int]]:
    """(part, key, value, number of runs) for the code, versions and machines recorded in the cards."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for card in cards:
        entries = [("checkout", "commit", card.get("commit"))]
        for part in ("versions", "hardware", "code"):
            entries += [(part, str(key), value) for key, value in (card.get(part) or {}).items()]
        counts.update((part, key, "none" if value is None else str(value)) for part, key, value in entries)
    order = ["checkout", "versions", "hardware", "code"]
    return sorted(((*entry, n) for entry, n in counts.items()), key=lambda row: (order.index(row[0]), row[1], -row[3]))
