"""The report: what stands in it, how it works in a real browser, and that nothing in it becomes a command."""

import dataclasses
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from luab.byproducts.imagenet_ab import SCHEMA
from luab.errors import DataError
from luab.render import style, table_text
from luab.render.products import Inputs
from luab.render.report import curves as report_curves
from luab.render.report import report, samples
from luab.render.report.deviations import tagged_choices
from luab.study.paths import Run

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">{{ 7*7 }}&amp;"
RUNS = [Run("imagenet", "test_resnet", *rest) for rest in (("none", 0, 0), ("click", 1, 0), ("click", 10, 1))]
WNIDS = ("n01440764", "n01443537")


def record(image_id: str, clicks: int = 1) -> dict[str, Any]:
    """One annotated image as the index holds it; what the report does not read is empty."""
    empty: dict[str, Any] = {field.name: [None] if pa.types.is_list(field.type) else None for field in SCHEMA}
    return empty | {
        "image_id": image_id,
        "wnid": image_id.partition("_")[0],
        "annotators": 1,
        "click_xy": [[[0.5, 0.25]] * clicks],
        "trace_xy": [[[0.1 * k, 1.0 - 0.1 * k] for k in range(11)]],
    }


def sample_inputs(folder: Path, per_class: int = 8) -> tuple[Path, Path, Path]:
    """Index, manifest and images of two classes; the first image of each was annotated without a click."""
    ids = [f"{wnid}_{k}" for wnid in WNIDS for k in range(per_class)]
    folder.mkdir(parents=True, exist_ok=True)
    for name in ids:
        Image.fromarray(np.full((100, 200, 3), 90, np.uint8)).save(folder / f"{name}.png")
    records = [record(name, clicks=0 if name.endswith("_0") else 1) for name in ids]
    pq.write_table(pa.Table.from_pylist(records, schema=SCHEMA), folder / "index.parquet")
    listed = {"image_id": ids, "path": [f"{name}.png" for name in ids]}
    pq.write_table(pa.table(listed), folder / "manifest.parquet")
    return folder / "index.parquet", folder / "manifest.parquet", folder


def sources(folder: Path, text: str = "plain") -> report.Sources:
    """A small study; `text` stands wherever a text comes from data or from a message."""
    index, manifest, root = sample_inputs(folder / "images")
    cells = pd.DataFrame({"Model": [text, "LUAB"], "top-1": ["1.0 | 2", f"{table_text.BOLD}71.2 ± 0.3"]})
    table = table_text.Table("main", f"Main {text}", cells, cells, [f"n = 9, {text}"])
    figure = style.finish(style.new_figure(3, 2), f"n = 7 images. {text}", "toy world")
    style.save(figure, folder / "hover_time.pdf")
    (folder / "table_main.rst").write_text("Cells are **means**.\n", encoding="utf-8")
    (folder / "figure_hover_time.rst").write_text("A curve over n seeds.\n", encoding="utf-8")
    score = {"dataset": "imagenet", "benchmark": "imagenet_val", "group": "", "n": 50000, "protocol": f"top-1 {text}"}
    pd.DataFrame([score, score | {"group": "detail"}]).to_csv(folder / "scores.csv", index=False)
    for i, run in enumerate(RUNS):
        card = {
            "run": run.identity(),
            "recipe": {"epochs": 2},
            "final": {"loss": 1.5 - i},
            "attempts": {"starts": 1, "seconds": 60.0 * (i + 1)},
            "commit": "abc",
            "versions": {"torch": "2.6"},
            "hardware": {"gpu": None, "processor": text},
        }
        (folder / run.folder).mkdir(parents=True)
        (folder / run.folder / "run.json").write_text(json.dumps(card), encoding="utf-8")
        log = "epoch,loss,classification,byproduct\n0,4,4,\n1,2,2,\n"
        log = log if run.supervision == "none" else "epoch,loss,classification,byproduct\n0,4,3.5,0.5\n1,2,1.75,0.25\n"
        (folder / run.folder / "log.csv").write_text(log, encoding="utf-8")
    return report.Sources(
        label=text,
        findings=[f"LUAB differs by +1.1 points. {text}"],
        headline=[
            table_text.Sheet(
                f"Headline {text}", ["", "Baseline", "LUAB", "LUAB − baseline"], [["top-1 ↑", "70.1", "71.2", "+1.1"]]
            )
        ],
        tables={"main": table.sheet("toy world")},
        figures={"hover_time": folder / "hover_time.png"},
        captions=folder,
        runs={run: folder / run.folder for run in RUNS},
        titles={},
        scores=folder / "scores.csv",
        browser=Inputs(index=index, manifest=manifest, images_root=root),
        class_names={WNIDS[0]: "tench", WNIDS[1]: text},
        deviations={"Assumptions: silent": [(f"Lambda is 1 (see `x`). {text}", "luab/a.py")]},
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the small study."""
    folder = tmp_path_factory.mktemp("report")
    report.render_report(sources(folder), folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a hostile text wherever data gives one."""
    folder = tmp_path_factory.mktemp("hostile")
    report.render_report(sources(folder, HOSTILE), folder / "report.html")
    return folder / "report.html"


def test_every_part_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for said in (
        "LUAB differs by +1.1 points. plain",
        "Headline plain", "71.2 ± 0.3", "<strong>means</strong>", "n = 9, plain", "n = 7 images. plain",
        "top-1 plain", "50000", "Lambda is 1 (see `x`). plain", "luab/a.py", "test_resnet/click-10/seed1", "2.6",
    ):  # fmt: skip
        assert said in text, said
    assert "Shown: 12 of 16 images" in text


def test_equal_inputs_give_equal_bytes(page: Path, tmp_path: Path) -> None:
    again = sources(tmp_path)
    report.render_report(again, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == page.read_bytes()


def test_the_policy_allows_nothing_but_the_page_s_own_style_and_script(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    directives = dict(part.strip().split(" ", 1) for part in policy[1].split(";"))
    style_text, script = (
        re.search(r"<style>(.*?)</style>", text, re.S),
        re.search(r"<script>(.*?)</script>", text, re.S),
    )
    assert style_text is not None and script is not None
    assert directives == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'{report.csp_hash(style_text[1])}'",
        "script-src": f"'{report.csp_hash(script[1])}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    # echo -n | openssl dgst -sha256 -binary | base64
    assert report.csp_hash("") == "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


def test_hostile_texts_stay_texts(hostile: Path, browser: Any) -> None:
    driver = browser.open(hostile)
    assert driver.title == f"Learning using annotation byproducts: {HOSTILE}"
    assert len(driver.find_elements("tag name", "script")) == 2
    count = "return [...document.images].filter(image => image.getAttribute('src') === 'x').length"
    assert driver.execute_script(count) == 0
    assert driver.execute_script("return document.querySelectorAll('[onerror]').length") == 0
    assert HOSTILE in driver.find_element("css selector", "#table-main tbody th").text
    assert driver.find_element("css selector", "header .badge").text == HOSTILE
    driver.find_element("css selector", f"#browser-class option[value='{WNIDS[1]}']").click()
    assert driver.find_element("css selector", "#browser-images b").text == HOSTILE
    assert browser.complaints() == []
    assert browser.requested() == {hostile.as_uri()}


def test_the_browser_of_images_filters_and_hides(page: Path, browser: Any) -> None:
    driver = browser.open(page)
    shown = lambda part="": driver.find_elements("css selector", f"#browser-images li {part}")  # noqa: E731
    count = driver.find_element("id", "browser-count")
    assert len(shown()) == 12 and count.text == "12 of 12 images shown"
    assert len(shown("svg[role=img][aria-label*='mouse trace']")) == 12
    circle = shown(".click")[0]
    assert [circle.get_attribute(key) for key in ("cx", "cy")] == ["80", "20"]  # of 160 x 80 px
    driver.find_element("css selector", f"#browser-class option[value='{WNIDS[0]}']").click()
    assert len(shown()) == 6 and count.text == "6 of 6 images shown"
    assert all(item.text.startswith("tench") for item in shown())
    driver.find_element("id", "browser-trace").click()
    assert not any(line.is_displayed() for line in shown(".trace")) and all(c.is_displayed() for c in shown(".click"))
    driver.find_element("css selector", "#browser-class option[value='']").click()
    assert not any(line.is_displayed() for line in shown(".trace"))
    assert browser.complaints() == []


def test_runs_are_filtered_and_sorted_by_keyboard(page: Path, browser: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    driver = browser.open(page)

    def names() -> list[str]:
        rows = driver.find_elements("css selector", "#runs-table tbody tr")
        return [row.get_attribute("data-run").split("/", 2)[2] for row in rows if row.is_displayed()]

    assert names() == ["none-0/seed0", "click-1/seed0", "click-10/seed1"]
    sort = driver.find_elements("css selector", "#runs-table .sort")[6]
    driver.execute_script("arguments[0].focus()", sort)
    ActionChains(driver).send_keys(Keys.ENTER).perform()
    assert names() == ["click-10/seed1", "click-1/seed0", "none-0/seed0"]  # losses -0.5, 0.5, 1.5
    heads = driver.find_elements("css selector", "#runs-table thead th")
    assert [head.get_attribute("aria-sort") for head in heads].count("ascending") == 1
    ActionChains(driver).send_keys(Keys.SPACE).perform()
    assert heads[6].get_attribute("aria-sort") == "descending" and names()[0] == "none-0/seed0"
    driver.find_element("id", "runs-filter").send_keys("CLICK seed1")
    assert names() == ["click-10/seed1"]
    count = driver.find_element("id", "runs-count")
    assert count.text == "1 of 3 runs" and count.get_attribute("aria-live") == "polite"
    summary = next(s for s in driver.find_elements("css selector", "#runs summary") if s.is_displayed())
    driver.execute_script("arguments[0].focus()", summary)
    ActionChains(driver).send_keys(Keys.ENTER).perform()
    assert '"supervision": "click"' in driver.find_element("css selector", "#runs details[open] pre").text
    assert browser.complaints() == []


def test_the_first_tab_skips_to_the_results_and_focus_is_seen(page: Path, browser: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    driver = browser.open(page)
    ActionChains(driver).send_keys(Keys.TAB).perform()
    focused = driver.switch_to.active_element
    assert focused.text == "Skip to the results" and focused.value_of_css_property("outline-style") == "solid"
    ActionChains(driver).send_keys(Keys.ENTER).perform()
    assert driver.switch_to.active_element.get_attribute("id") == "headline"


def test_a_reader_of_the_screen_finds_names_for_everything(page: Path, browser: Any) -> None:
    driver = browser.open(page)
    for landmark in ("header", "nav[aria-label]", "main"):
        assert len(driver.find_elements("css selector", f"body > {landmark}")) == 1
    assert all(image.get_attribute("alt") for image in driver.find_elements("tag name", "img"))
    controls = driver.find_elements("css selector", "button, select, input, section, [role=region], [role=img]")
    assert len(controls) > 20
    assert [c.get_attribute("outerHTML")[:80] for c in controls if c.is_displayed() and not c.accessible_name] == []
    links = [link.get_attribute("href").partition("#")[2] for link in driver.find_elements("css selector", "nav a")]
    assert len(links) == 9 and all(driver.find_elements("id", link) for link in links)
    levels = [int(h.tag_name[1]) for h in driver.find_elements("css selector", "h1, h2, h3, h4")]
    assert levels[0] == 1 and all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_curves_are_hidden_by_supervision(page: Path, browser: Any) -> None:
    driver = browser.open(page)
    curves = driver.find_elements("css selector", ".curve")
    assert [c.get_attribute("data-supervision") for c in curves] == ["none", "click", "click", "click", "click"]
    button = driver.find_element("css selector", "#curve-legend [data-supervision=click]")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert [c.is_displayed() for c in curves] == [True] + [False] * 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1600])
def test_nothing_is_wider_than_the_window(page: Path, hostile: Path, browser: Any, width: int, scheme: str) -> None:
    for file in (page, hostile):
        driver = browser.open(file, width)
        browser.media(prefers_color_scheme=scheme)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        background = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 28)"}[scheme]
    browser.media()


def test_paper_has_no_controls_and_no_dark_ground(page: Path, browser: Any) -> None:
    driver = browser.open(page)
    browser.media("print", prefers_color_scheme="dark")
    try:
        assert not any(c.is_displayed() for c in driver.find_elements("css selector", "nav, .controls, .skip"))
        body = driver.find_element("tag name", "body")
        assert body.value_of_css_property("background-color") in ("rgba(255, 255, 255, 1)", "rgb(255, 255, 255)")
        assert driver.find_element("css selector", "#headline table").is_displayed()
    finally:
        browser.media()


def test_markdown_escapes_what_the_sheet_holds_as_text() -> None:
    cells = pd.DataFrame({"a_b": ["x|y \\", "<i>"], "λ": [f"{table_text.BOLD}1*2", "–"]})
    table = table_text.Table("t", "Title *1*", cells, cells, ["n = 3 | _all_"])
    assert dataclasses.astuple(table.sheet("demo")) == (
        "Title *1* (demo)",
        ["a_b", "λ"],
        [["x|y \\", f"{table_text.BOLD}1*2"], ["<i>", "–"]],
        ["n = 3 | _all_"],
    )
    assert table_text.markdown(table.sheet("demo")).splitlines()[2:] == [
        "| a\\_b | λ |",
        "|---|---|",
        "| x\\|y \\\\ | **1\\*2** |",
        "| \\<i> | – |",
        "",
        "- n = 3 \\| \\_all\\_",
    ]


def test_samples_have_a_click_and_keep_within_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = sample_inputs(tmp_path)
    made = samples.browser_samples(*inputs, {WNIDS[0]: "tench"})
    assert (made["images"], made["classes"], made["per_class"]) == (16, 2, 6)
    assert [sample["name"] for sample in made["samples"]] == [WNIDS[1]] * 6 + ["tench"] * 6
    assert not any(sample["id"].endswith("_0") for sample in made["samples"])
    first = made["samples"][0]
    assert (first["width"], first["height"], first["click"]) == (160, 80, [[80.0, 20.0]])
    assert first["trace"][0] == [0.0, 80.0] and first["trace"][-1] == [160.0, 0.0] and len(first["trace"]) == 11
    assert made == samples.browser_samples(*inputs, {WNIDS[0]: "tench"})
    size = len(first["src"]) * 3 // 4
    monkeypatch.setattr(samples, "MOST_BYTES", 3 * size)
    few = samples.browser_samples(*inputs, {})["samples"]
    assert 2 <= len(few) <= 3 and {sample["wnid"] for sample in few} == set(WNIDS)
    monkeypatch.setattr(samples, "MOST_IMAGES", 5)
    assert samples.browser_samples(*inputs, {})["per_class"] == 2


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    inputs = sample_inputs(tmp_path)
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"\.png \(listed in its manifest\): expected an image, found no file"):
        samples.browser_samples(*inputs, {})


def test_a_curve_lies_where_its_numbers_say(tmp_path: Path) -> None:
    run = Run("imagenet", "test_resnet", "click", 1, 0)
    (tmp_path / "log.csv").write_text("epoch,loss,byproduct\n0,4,nan\n1,2,0.5\n2,3,0.5\n", encoding="utf-8")
    loss, byproduct = report_curves.panels([run], {run: tmp_path / "log.csv"})
    # x: epochs 0 to 2 over 60 to 350 px; y: 4 to 2 over 10 to 170 px.
    assert loss.lines[0].points == "60.0,10.0 205.0,170.0 350.0,90.0" and loss.lines[0].last == 3
    assert (60.0, "0") in loss.x_ticks and (170.0, "2") in loss.y_ticks
    assert (loss.part, byproduct.part, byproduct.axis) == ("Classification", "Byproducts", "byproduct loss, before λ")
    assert byproduct.lines[0].points == "60.0,90.0 350.0,90.0"  # NaN left out, one value in the middle
    (tmp_path / "log.csv").write_text("epoch,loss\n" + "".join(f"{k},{k}\n" for k in range(300)), encoding="utf-8")
    (long,) = report_curves.panels([run], {run: tmp_path / "log.csv"})
    assert len(long.lines[0].points.split()) == report_curves.MOST_POINTS and long.lines[0].last == 299
    (tmp_path / "log.csv").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="Train the run again"):
        report_curves.panels([run], {run: tmp_path / "log.csv"})


def test_a_baseline_of_an_older_version_has_no_byproduct_curve(tmp_path: Path) -> None:
    """Its log lists the byproduct loss and the points as zeros."""
    runs = [Run("imagenet", "test_resnet", name, weight, 0) for name, weight in (("none", 0.0), ("click", 1.0))]
    header = "epoch,lr,loss,classification,byproduct,points"
    for run, row in zip(runs, ("0,1,3,3,0,0", "0,1,3,2,1,0.5"), strict=True):
        (tmp_path / f"{run.supervision}.csv").write_text(f"{header}\n{row}\n", encoding="utf-8")
    panels = report_curves.panels(runs, {run: tmp_path / f"{run.supervision}.csv" for run in runs})
    assert [(panel.title.rpartition(": ")[2], len(panel.lines)) for panel in panels] == [
        ("classification loss", 2), ("byproduct loss, before λ", 1), ("visible points per image", 1)
    ]  # fmt: skip


def test_all_tagged_choices_are_listed(repository: Path) -> None:
    choices = tagged_choices(repository)
    page = (repository / "docs" / "deviations.md").read_text(encoding="utf-8")
    assert sum(map(len, choices.values())) == sum(line.startswith("- ") for line in page.splitlines()) > 20
    assert len(choices) == 2


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    made = sources(tmp_path)
    for change in ({"captions": tmp_path / "no"}, {"figures": {"hover_time": tmp_path / "no.png"}},
                   {"scores": tmp_path / "no.csv"}):  # fmt: skip
        with pytest.raises(DataError, match=r"cannot read .*\. (Render|Run|Write)"):
            report.render_report(dataclasses.replace(made, **change), tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_figure_tells_its_note_and_is_not_blown_up(tmp_path: Path) -> None:
    figure = style.finish(style.new_figure(3, 2), "n = 3 seeds, λ = 1 ± 0", "demo")
    style.save(figure, tmp_path / "f.pdf")
    with Image.open(tmp_path / "f.png") as image:
        assert image.info["Description"] == "n = 3 seeds, λ = 1 ± 0"


def test_no_secret_of_the_environment_gets_into_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "hf_PlantedToken0123456789")
    monkeypatch.setenv("https_proxy", "http://planted-user:hf_PlantedToken0123456789@127.0.0.1:9")
    report.render_report(sources(tmp_path), tmp_path / "report.html")
    assert not re.search("PlantedToken|planted-user", (tmp_path / "report.html").read_text(encoding="utf-8"))


def test_panels_of_a_quantity_have_equal_axes_and_the_sum_is_left_out(tmp_path: Path) -> None:
    runs = [Run("imagenet", name, "click", 1, 0) for name in ("resnet18", "vit_tiny_patch16_224")]
    logs = {run: tmp_path / f"{run.backbone}.csv" for run in runs}
    for log, high in zip(logs.values(), (4, 8), strict=True):
        text = f"epoch,loss,classification,byproduct\n0,9,{high},1\n1,9,0,0.5\n"
        log.write_text(text, encoding="utf-8")
    first, second, *byproducts = report_curves.panels(runs, logs)
    assert [panel.title for panel in (first, second)] == [
        "imagenet, ResNet-18: classification loss", "imagenet, ViT-Ti/16: classification loss",
    ]  # fmt: skip
    assert first.y_ticks == second.y_ticks and first.lines[0].points == "60.0,90.0 350.0,170.0"
    assert second.lines[0].points == "60.0,10.0 350.0,170.0" and len(byproducts) == 2


def test_the_difference_is_visible_on_a_phone(page: Path, browser: Any) -> None:
    driver = browser.open(page, 375)
    heads = driver.find_elements("css selector", "#headline thead th")
    assert [head.text for head in heads] == ["", "LUAB − baseline", "Baseline", "LUAB"]
    box = heads[1].rect
    assert box["x"] >= 0 and box["x"] + box["width"] <= 375
    assert driver.find_element("css selector", "#headline .finding").text.startswith("LUAB differs by +1.1 points")


def test_a_figure_is_enlarged_by_keyboard_and_closed(page: Path, browser: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    driver = browser.open(page, 375)
    button = driver.find_element("css selector", "#figure-hover_time .enlarge")
    assert button.accessible_name == "Enlarge the figure: Time per image"
    driver.execute_script("arguments[0].focus()", button)
    ActionChains(driver).send_keys(Keys.ENTER).perform()
    large = driver.find_element("css selector", "#enlarged img")
    assert large.is_displayed() and large.rect["width"] > button.rect["width"] * 2
    ActionChains(driver).send_keys(Keys.ESCAPE).perform()
    assert not driver.find_element("id", "enlarged").is_displayed()
    assert driver.switch_to.active_element == button
    assert browser.complaints() == [] and browser.requested() == {page.as_uri()}


def test_a_note_stands_once_and_not_in_the_picture(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("n = 7 images. plain") == 1 and text.count("A curve over n seeds.") == 1
    src = re.search(r'<img src="data:image/png;base64,([^"]+)" width="(\d+)" height="(\d+)"', text)
    assert src is not None
    with Image.open(page.parent / "hover_time.png") as whole:
        assert int(src[2]) == whole.width and 0 < whole.height - int(src[3]) == int(whole.info[style.NOTE_PX])


def test_axes_have_titles_and_paper_keeps_the_label(page: Path, browser: Any) -> None:
    driver = browser.open(page)
    titles = [text.text for text in driver.find_elements("css selector", ".panel .axis")]
    assert titles == ["epoch", "classification loss", "epoch", "byproduct loss, before λ"]
    assert [h.text for h in driver.find_elements("css selector", "#curves h3")] == ["Classification", "Byproducts"]
    browser.media("print")
    try:
        badge = driver.find_element("css selector", "header .badge")
        assert badge.value_of_css_property("color") == "rgba(0, 0, 0, 1)"
        assert driver.find_element("css selector", ".paper-label").value_of_css_property("position") == "fixed"
    finally:
        browser.media()
