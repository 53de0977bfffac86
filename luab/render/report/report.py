"""results/report.html: the whole study in one page that opens without a network."""

import base64
import dataclasses
import hashlib
import io
import json
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

PAGE = Path(__file__).parent / "page"
QUANTITIES = {"loss": "training loss", "byproduct": "byproduct loss"}
_BIG_PNG = 300_000  # bytes from which a figure, then one with photographs, is embedded as WebP
_COLOURS = list(style.COLOURS.values())  # page.css has a class s-<k> for the k-th, in shades that suit its background


@dataclasses.dataclass(frozen=True)
class Sources:
    """Inputs of the page.

    Attributes:
        label: For example "demo world"; empty for the full study.
        headline: From luab.render.headline.headline_sheets.
        tables: Table name -> its text.
        figures: Figure name -> results/figures/<name>.png.
        captions: Folder of table_<name>.rst and figure_<name>.rst.
        runs: Folder of each run.
        scores: results/scores.csv.
        browser: Index, manifest and images of ImageNet-AB; None leaves out the browser of byproducts.
        class_names: wnid -> name.
        deviations: From luab.render.report.deviations.tagged_choices.
    """

    label: str
    headline: Sequence[Sheet]
    tables: Mapping[str, Sheet]
    figures: Mapping[str, Path]
    captions: Path
    runs: Mapping[Run, Path]
    scores: Path
    browser: Inputs | None
    class_names: Mapping[str, str]
    deviations: Mapping[str, Sequence[tuple[str, str]]]


def render_report(sources: Sources, output: Path) -> None:
    """Writes the page; equal inputs give equal bytes.

    Raises:
        DataError: An input is missing or damaged.
        JobError: The disk is full, or the folder cannot be written to.
    """
    cards = {run: read_json(folder / "run.json") for run, folder in sources.runs.items()}
    logs = {run: folder / "log.csv" for run, folder in sources.runs.items()}
    looks = style.looks(run.supervision for run in cards)
    css, script = ((PAGE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    page = _environment().get_template("page.html").render(
        label=sources.label,
        css=Markup(css),
        script=Markup(script),
        css_hash=csp_hash(css),
        script_hash=csp_hash(script),
        headline=sources.headline,
        tables=[
            {"name": name, "sheet": sheet, "caption": caption(sources.captions / f"table_{name}.rst")}
            for name, sheet in sources.tables.items()
        ],
        figures=[_figure(name, png, sources) for name, png in sources.figures.items()],
        protocols=_protocols(sources.scores),
        browser=_browser(sources),
        samples_seed=samples.SEED,
        curves=curves,
        panels=curves.panels(list(sources.runs), logs, QUANTITIES),
        supervisions={name: (look.title, _COLOURS.index(look.colour)) for name, look in looks.items()},
        runs=[_run(run, looks[run.supervision].title, card) for run, card in cards.items()],
        environment=_shared(list(cards.values())),
        deviations=sources.deviations,
    )  # fmt: skip
    with replacing(output) as aside:
        aside.write_text(page, encoding="utf-8")


def _browser(sources: Sources) -> dict[str, Any] | None:
    inputs = sources.browser
    if inputs is None:
        return None
    index, manifest, root = required("byproduct_browser", inputs, "index", "manifest", "images_root")
    return samples.browser_samples(index, manifest, root, dict(sources.class_names))


def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(PAGE)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["bold"] = BOLD
    return environment


def csp_hash(text: str) -> str:
    """The source by which a content security policy allows an inline style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def caption(file: Path) -> Markup:
    """A caption as HTML, without its label (a Snakemake parameter), which the page shows once.

    Raises:
        DataError: The file is missing.
    """
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


def _figure(name: str, png: Path, sources: Sources) -> dict[str, Any]:
    product = find_product("figure", name)
    text = caption(sources.captions / f"figure_{name}.rst")
    return {"name": name, "title": product.title, "caption": text, "scored": product.from_scores, **_embedded(png)}


def _embedded(png: Path) -> dict[str, Any]:
    """A figure as data URL, with its size and the note that `luab.render.style.save` wrote into it."""
    from PIL import Image

    try:
        content = png.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            size, note = image.size, str(image.info.get("Description", ""))
            kind = "image/png"
            if len(content) > _BIG_PNG:
                buffer = io.BytesIO()
                image.convert("RGB").save(buffer, "WEBP", quality=88)
                if len(buffer.getvalue()) < len(content):
                    content, kind = buffer.getvalue(), "image/webp"
    except OSError as error:
        raise DataError(f"{png}: cannot read this figure ({error}). Render it with `luab render figure`.") from error
    return {"src": samples.data_url(kind, content), "width": size[0], "height": size[1], "note": note}


def _protocols(scores: Path) -> list[dict[str, Any]]:
    """Every benchmark with its n and protocol; several n if test sets differ between runs."""
    try:
        table = pd.read_csv(scores, usecols=["dataset", "benchmark", "group", "n", "protocol"], dtype=str)
    except (OSError, ValueError) as error:
        raise DataError(f"{scores}: cannot read the scores of the study ({error}). Run `luab collect`.") from error
    whole = table[table["group"].isna()]
    return [
        {"dataset": keys[0], "benchmark": keys[1], "n": ", ".join(_distinct(rows["n"])), "protocol": keys[2]}
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
    counts: dict[tuple[str, str, str], int] = {}
    for card in cards:
        entries = [("checkout", "commit", card.get("commit"))]
        for part in ("versions", "hardware", "code"):
            entries += [(part, str(key), value) for key, value in (card.get(part) or {}).items()]
        for part, key, value in entries:
            entry = (part, key, "none" if value is None else str(value))
            counts[entry] = counts.get(entry, 0) + 1
    order = {"checkout": 0, "versions": 1, "hardware": 2, "code": 3}
    return sorted(((*entry, n) for entry, n in counts.items()), key=lambda row: (order[row[0]], row[1], -row[3]))


def _distinct(values: Any) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values))
