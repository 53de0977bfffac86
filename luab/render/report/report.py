"""results/report.html: the whole study in one page that opens without a network."""

import base64
import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from luab.errors import DataError
from luab.files import read_json, replacing
from luab.render import style
from luab.render.products import PRODUCTS, Inputs
from luab.render.report import curves, samples
from luab.render.table_text import Sheet, read_markdown
from luab.render.tables import BOLD, required
from luab.study.paths import Run

PAGE = Path(__file__).parent / "page"
QUANTITIES = {"loss": "training loss", "byproduct": "byproduct loss"}
_BIG_PNG = 300_000  # bytes from which a figure, then one with photographs, is embedded as WebP
_SPELT = {"coco": "COCO", "cam": "CAM", "si": "SI"}
_DEVIATION = re.compile(r"- (?P<text>.*) \(`(?P<file>[^`]*)`\)")


@dataclasses.dataclass(frozen=True)
class Sources:
    """What the page is made from.

    Attributes:
        label: E.g. "demo world"; empty for none.
        headline: From luab.render.headline.headline_sheets.
        tables: Name -> results/tables/<name>.md.
        figures: Name -> results/figures/<name>.png.
        captions: Folder of table_<name>.rst and figure_<name>.rst.
        runs: Folder of each run.
        scores: results/scores.csv.
        browser: Index, manifest and images of ImageNet-AB; None leaves out the browser of byproducts.
        class_names: wnid -> name.
        deviations: docs/deviations.md.
    """

    label: str
    headline: Sequence[Sheet]
    tables: Mapping[str, Path]
    figures: Mapping[str, Path]
    captions: Path
    runs: Mapping[Run, Path]
    scores: Path
    browser: Inputs | None
    class_names: Mapping[str, str]
    deviations: Path


def render_report(sources: Sources, output: Path) -> None:
    """Writes the page; equal inputs give equal bytes.

    Raises:
        DataError: An input is missing or damaged.
        JobError: The disk is full, or the folder cannot be written to.
    """
    cards = {run: read_json(folder / "run.json") for run, folder in sources.runs.items()}
    logs = {run: folder / "log.csv" for run, folder in sources.runs.items()}
    css, script = ((PAGE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    page = _environment().get_template("page.html").render(
        label=sources.label,
        css=Markup(css),
        script=Markup(script),
        css_hash=csp_hash(css),
        script_hash=csp_hash(script),
        headline=sources.headline,
        tables=[_table(name, md, sources) for name, md in sources.tables.items()],
        figures=[_figure(name, png, sources) for name, png in sources.figures.items()],
        protocols=_protocols(sources.scores),
        browser=_browser(sources),
        samples_seed=samples.SEED,
        curves=curves,
        panels=curves.panels(list(sources.runs), logs, QUANTITIES),
        supervisions={name: style.SUPERVISIONS.get(name, name) for name in _distinct(r.supervision for r in cards)},
        runs=[_run(run, card) for run, card in cards.items()],
        environment=_shared(list(cards.values())),
        deviations=read_deviations(sources.deviations),
    )  # fmt: skip
    with replacing(output) as aside:
        aside.write_text(page, encoding="utf-8")


def _browser(sources: Sources) -> dict[str, Any] | None:
    inputs = sources.browser
    if inputs is None:
        return None
    paths = {"index": inputs.index, "manifest": inputs.manifest, "images_root": inputs.images_root}
    index, manifest, root = (required(path, "byproduct_browser", what) for what, path in paths.items())
    return samples.browser_samples(index, manifest, root, dict(sources.class_names))


def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(PAGE)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["bold"] = BOLD
    return environment


def csp_hash(text: str) -> str:
    """What a content security policy calls an inline style or script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def read_deviations(page: Path) -> dict[str, list[tuple[str, str]]]:
    """Heading -> (text, file) of docs/deviations.md, as `luab docs` writes it.

    Raises:
        DataError: The page is missing or another.
    """
    try:
        lines = page.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{page}: expected the list of deviations; {error.strerror}. Run `luab docs`.") from error
    found: dict[str, list[tuple[str, str]]] = {}
    for line in lines:
        if line.startswith("## "):
            found[line[3:]] = []
        elif match := _DEVIATION.fullmatch(line):
            if not found:
                raise DataError(f"{page}: expected a heading before {line!r}, found none. Run `luab docs`.")
            found[next(reversed(found))].append((match["text"], match["file"]))
    return found


def caption(file: Path) -> Markup:
    """A caption as HTML. Its label, a Snakemake parameter, is left out: the page says it once.

    Raises:
        DataError: There is no such caption.
    """
    from docutils.core import publish_parts

    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{file}: expected a caption in reStructuredText; {error.strerror}. Write one.") from error
    plain = jinja2.Environment().from_string(text).render(snakemake={"params": {"label": ""}})
    settings = {"raw_enabled": False, "file_insertion_enabled": False, "report_level": 5, "doctitle_xform": False}
    return Markup(publish_parts(plain, writer="html5", settings_overrides=settings)["body"])


def _table(name: str, md: Path, sources: Sources) -> dict[str, Any]:
    sheet = read_markdown(md)
    return {"name": name, "sheet": sheet, "caption": caption(sources.captions / f"table_{name}.rst")}


def _figure(name: str, png: Path, sources: Sources) -> dict[str, Any]:
    return {
        "name": name,
        "title": " ".join(_SPELT.get(word, word) for word in name.split("_")),
        "caption": caption(sources.captions / f"figure_{name}.rst"),
        "scored": any(p.kind == "figure" and p.name == name and p.from_scores for p in PRODUCTS),
        **_embedded(png),
    }


def _embedded(png: Path) -> dict[str, Any]:
    """A figure as data URL, with its size and the note that `luab.render.style.save` left in it."""
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
        raise DataError(f"{png}: expected a rendered figure; {error}. Render it.") from error
    return {"src": samples.data_url(kind, content), "width": size[0], "height": size[1], "note": note}


def _protocols(scores: Path) -> list[dict[str, Any]]:
    """Every benchmark once: n and protocol; several n where test sets differ between runs."""
    try:
        table = pd.read_csv(scores, usecols=["dataset", "benchmark", "group", "n", "protocol"], dtype=str)
    except (OSError, ValueError) as error:
        raise DataError(f"{scores}: expected the study's scores; {error}. Run `luab collect`.") from error
    whole = table[table["group"].isna()]
    return [
        {"dataset": keys[0], "benchmark": keys[1], "n": ", ".join(_distinct(rows["n"])), "protocol": keys[2]}
        for keys, rows in whole.groupby(["dataset", "benchmark", "protocol"], sort=False)
    ]


def _run(run: Run, card: dict[str, Any]) -> dict[str, Any]:
    recipe, attempts, final = (card.get(key) or {} for key in ("recipe", "attempts", "final"))
    return {
        **run.identity(),
        "folder": run.folder,
        "shown": style.SUPERVISIONS.get(run.supervision, run.supervision),
        "epochs": recipe.get("epochs"),
        "loss": final.get("loss"),
        "seconds": attempts.get("seconds", card.get("seconds")),
        "starts": attempts.get("starts"),
        "card": json.dumps(card, indent=2, sort_keys=True, ensure_ascii=False),
    }


def _shared(cards: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, int]]:
    """(part, key, value, runs that have it) of what the cards say about code, versions and machines."""
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
