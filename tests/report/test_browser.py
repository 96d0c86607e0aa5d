"""The page in a real browser: Chromium as the system has it, driven by Playwright."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from typed_frames import EDIT_TYPES

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]"
)
Page = playwright.Page
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="no Chromium here: install chromium (or google-chrome) to test the page"
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ALPHA = """canvas => {
  const {width, height} = canvas;
  const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
  const colour = (_, i) => data.slice(4 * i, 4 * i + 4).join();
  return [height, width, Array.from({length: width * height}, colour)];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, report) -> Iterator:
    """Opens the page; in the end nothing was written to the console nor left the folder."""
    trouble: list[str] = []
    contexts = []

    def request(address: str) -> None:
        parts = urlsplit(address)
        inside = Path(unquote(parts.path)).is_relative_to(report.parent)
        if parts.scheme != "data" and not (parts.scheme == "file" and inside):
            trouble.append(f"request: {address}")

    def open_page(fragment: str = "", **settings: object) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("request", lambda sent: request(sent.url))
        page.on("requestfailed", lambda sent: trouble.append(f"failed: {sent.url}"))
        page.on("console", lambda said: said.type == "error" and trouble.append(said.text))
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        page.goto(f"{report.as_uri()}{fragment}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert trouble == []


def card(page: Page, sample: str):
    return page.locator(".card", has=page.get_by_role("link", name=sample, exact=True))


def drawn(page: Page, sample: str, method: str) -> np.ndarray:
    """The mask [H,W] as it is on the canvas of a sample's card."""
    canvas = f'canvas[data-method="{method}"]'
    card(page, sample).locator(canvas).scroll_into_view_if_needed()  # it is drawn when it is seen
    height, width, colours = card(page, sample).locator(f"{canvas}[width]").evaluate(ALPHA)
    # White and orange; blue and what lies in neither mask have little or no red.
    inside = [int(colour.split(",")[0]) > 150 for colour in colours]
    return np.array(inside).reshape(height, width)


def expected(row, method: str, place: int) -> np.ndarray:
    soft_map = torch.from_numpy(row.maps[method])[None, None].float()
    size = row.source.shape[:2]
    large = F.interpolate(soft_map, size, mode="bilinear", align_corners=False)[0, 0]
    return (large > row.levels[method][place]).numpy()


def move_slider(page: Page, step: int) -> None:
    page.locator("#gallery-threshold").fill(str(step))
    frames = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    page.evaluate(frames)


def shown(page: Page) -> list[str]:
    """Ids of all cards, those further down too."""
    page.evaluate(
        """async () => {
          for (let count = -1; count < document.querySelectorAll(".card").length;) {
            count = document.querySelectorAll(".card").length;
            scrollTo({top: document.body.scrollHeight, behavior: "instant"});
            await new Promise(done => setTimeout(done, 150));
          }
        }"""
    )
    return page.locator(".card .id").all_inner_texts()


def test_masks_under_the_slider_are_those_that_were_scored(opened, rows):
    page = opened()
    masks = {}
    for step in (0, 4, 10, 16, 20):
        move_slider(page, step)
        for method in ("ours", "signed"):
            masks[method, step] = mask = drawn(page, "s00", method)
            assert (mask != expected(rows[0], method, step)).sum() <= 1  # 16 bits a cell
            dice = card(page, "s00").locator(f'figure[data-method="{method}"] .dice')
            assert dice.inner_text() == f"{rows[0].dice[method][step]:.3f}"
    assert masks["ours", 4].sum() > masks["ours", 10].sum() > masks["ours", 16].sum() > 0
    assert not masks["ours", 20].any()


def test_every_method_begins_at_its_best_threshold_and_comes_back_to_it(opened, report, rows):
    page = opened()
    values = page.locator("#gallery .value")
    before = values.all_inner_texts()
    start = drawn(page, "s00", "ours")
    move_slider(page, 20)
    assert values.nth(1).locator("b").inner_text() == "5" != before[1]
    assert (drawn(page, "s00", "ours") != start).any()
    page.get_by_role("button", name="Best thresholds").click()
    assert values.all_inner_texts() == before
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert (drawn(page, "s00", "ours") == start).all()


def test_slider_moves_by_keys_from_anywhere(opened):
    page = opened()
    slider = page.locator("#gallery-threshold")
    move_slider(page, 7)
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.input_value() == "8"
    page.locator("h1").click()
    page.keyboard.press(".")
    page.keyboard.press(".")
    page.keyboard.press(",")
    assert slider.input_value() == "9"
    assert "ours 0.45" in (slider.get_attribute("aria-valuetext") or "")
    page.keyboard.press("0")
    assert (
        page.get_by_role("button", name="Best thresholds").get_attribute("aria-pressed") == "true"
    )


def test_samples_are_sorted_by_dice_of_the_chosen_method(opened, rows, segmentation):
    page = opened()
    assert shown(page) == sorted(shown(page), key=lambda s: ([0, 1, 1, 4][int(s[1:]) % 4], s))
    page.get_by_role("checkbox", name="by edit type").uncheck()
    assert shown(page) == [row.sample_id for row in rows]
    for method in ("ours", "signed"):
        page.get_by_role("combobox", name="Dice of").select_option(label=method)
        own = segmentation[segmentation["method"] == method]
        best = own.groupby("threshold")["dice"].mean().idxmax()
        dice = own[own["threshold"] == best].set_index("sample")["dice"].round(3)
        known = [row.sample_id for row in rows if method in row.dice]
        for name, sign in (("worst Dice first", 1), ("best Dice first", -1)):
            page.get_by_role("combobox", name="Sort").select_option(label=name)
            wanted = sorted(known, key=lambda s, sign=sign, dice=dice: (sign * dice[s], s))
            assert shown(page)[: len(known)] == wanted
        assert len(shown(page)) == 24  # the one without a map comes last


def test_samples_are_filtered_by_text_and_by_edit_type(opened):
    page = opened()
    count = page.locator("#count")
    page.keyboard.press("/")
    page.keyboard.type("BLUE 7")
    assert shown(page) == ["s17", "s07"] and count.inner_text() == "2 of 24 samples"
    page.keyboard.press("Escape")
    assert count.inner_text() == "24 samples"
    page.get_by_role("combobox", name="Edit type").select_option(label=EDIT_TYPES[4])
    assert shown(page) == ["s03", "s07", "s11", "s15", "s19", "s23"]
    page.get_by_role("searchbox", name="Search").fill("no such words")
    assert shown(page) == [] and "No sample fits" in page.locator("#cards").inner_text()


def test_heat_maps_and_edits_are_shown_instead_of_masks(opened):
    page = opened()
    page.get_by_text("Heat maps", exact=True).click()
    canvas = card(page, "s00").locator('canvas[width][data-view="heat"][data-method="ours"]')
    assert canvas.get_attribute("aria-label") == "ours: soft map"
    _, _, colours = canvas.evaluate(ALPHA)
    assert len(set(colours)) > 100
    page.locator("h1").click()
    page.keyboard.press("e")
    edits = card(page, "s00").locator("figure[data-edit]")
    assert edits.all_inner_texts() == ["no mask", "ours\n0.5"]
    picture = edits.nth(0).locator("img")
    picture.scroll_into_view_if_needed()
    page.wait_for_function("image => image.naturalWidth === 48", arg=picture.element_handle())
    page.keyboard.press("m")
    assert drawn(page, "s00", "ours").any()


def test_a_sample_without_a_map_says_so(opened):
    page = opened()
    card(page, "s02").scroll_into_view_if_needed()
    tiles = card(page, "s02").locator(".picture.missing")
    tiles.wait_for()
    assert tiles.count() == 1


def test_a_sample_is_opened_by_click_walked_from_and_closed(opened, rows):
    page = opened()
    page.get_by_role("checkbox", name="by edit type").uncheck()
    dialog = page.locator("#detail")
    card(page, "s04").locator(".picture").first.click()
    dialog.wait_for()
    title = page.locator("#detail-title")
    assert title.inner_text() == "s04" and page.url.endswith("#sample-s04")
    for key, sample in (("ArrowRight", "s05"), ("ArrowRight", "s06"), ("ArrowLeft", "s05")):
        page.keyboard.press(key)
        assert title.inner_text() == sample and page.url.endswith(f"#sample-{sample}")
    dialog.get_by_role("button", name="next sample").click()
    assert title.inner_text() == "s06"
    slider = page.locator("#detail-threshold")
    slider.focus()
    slider.fill("12")
    dice = dialog.locator(".middle .dice").first
    page.wait_for_function(
        "wanted => document.querySelector('#detail .middle .dice').textContent === wanted",
        arg=f"{rows[6].dice['ours'][12]:.3f}",
    )
    assert dice.inner_text() == f"{rows[6].dice['ours'][12]:.3f}"
    curves = dialog.locator(".plot")
    assert (curves.bounding_box() or {})["width"] > 300
    assert curves.locator(".look-0 .point.here").get_attribute("aria-label") == (
        f"ours at 0.6, threshold, % of the sweep 60, Dice {float(dice.inner_text()):.4g}"
    )
    page.keyboard.press("ArrowRight")  # on the slider it moves that
    assert title.inner_text() == "s06" and slider.input_value() == "13"
    assert dialog.get_by_role("row").all_inner_texts()[1].split() == ["ours", "12.30", "20.50", "–"]
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    page.wait_for_function("() => !location.hash.includes('sample')")
    assert page.evaluate("document.activeElement.textContent") == "s06"
    page.go_back()
    dialog.wait_for()
    assert page.url.endswith("#sample-s06")


def test_a_shared_address_opens_its_sample_and_an_unknown_one_is_answered(opened):
    page = opened("#sample-s09")
    assert page.locator("#detail-title").inner_text() == "s09"
    page.evaluate("location.hash = '#sample-%3Cb%3Enone'")
    page.get_by_text("This report has no sample of that name.").wait_for()
    assert page.locator("#detail-title").inner_text() == "No sample <b>none"


def test_arrows_walk_the_gallery_and_enter_opens(opened):
    page = opened()
    page.get_by_role("checkbox", name="by edit type").uncheck()
    page.locator(".card .id").nth(2).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.textContent") == "s03"
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert ring == "solid"  # the focus is seen
    page.keyboard.press("Enter")
    assert page.locator("#detail-title").inner_text() == "s03"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.get_by_role("heading", name="Keys").wait_for()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()


def test_a_hostile_prompt_is_text(opened, rows):
    page = opened("#sample-s01")
    assert rows[1].target_prompt in page.locator("#detail .prompts").text_content()
    page.keyboard.press("Escape")
    assert rows[1].target_prompt in card(page, "s01").locator(".prompts").text_content()
    assert page.locator(".prompts img, .prompts script").count() == 0
    assert page.evaluate("window.hacked") is None


def test_points_of_the_pareto_plot_tell_what_they_are_to_pointer_and_keys(opened, editing):
    page = opened()
    plot = page.locator('[data-figure="0"] .plot')
    tip = plot.locator(".tip")
    point = plot.locator(".look-0 .point").nth(10)
    own = editing[(editing["method"] == "ours") & np.isclose(editing["threshold"], 0.5)]
    own = own.dropna(subset=["lpips_unedit_part", "clip_edited"])
    x, y = own["lpips_unedit_part"].mean() * 1e3, own["clip_edited"].mean()
    name = point.get_attribute("aria-label") or ""
    assert name.startswith("ours at 0.5, LPIPS outside ×10³ ")
    assert [float(v) for v in re.findall(r"(?:10³|edited) ([\d.]+)", name)] == pytest.approx(
        [x, y], rel=1e-3
    )
    point.hover(force=True)
    assert tip.is_visible()
    point.focus()
    assert tip.inner_text().replace("\n", ", ") == name
    page.keyboard.press("ArrowRight")
    assert "ours at 0.55" in tip.inner_text()
    assert plot.locator(".front").count() == 1
    rings = plot.locator(".rings use")
    front = rings.filter(visible=True).count()
    assert front > 0
    for name, curve in (("ours", False), ("Pareto front", True)):
        entry = plot.get_by_role("button", name=name)
        entry.click()
        assert entry.get_attribute("aria-pressed") == "false"
        assert plot.locator(".look-0").is_visible() == curve
        assert rings.filter(visible=True).count() < front
        entry.press("Enter")
        assert plot.locator(".look-0").is_visible()
        assert rings.filter(visible=True).count() == front


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_wider_than_the_window_and_both_themes_are_readable(opened, width):
    def contrast(page: Page) -> float:
        ink, ground = (
            np.array(
                [
                    int(v)
                    for v in re.findall(
                        r"\d+", page.evaluate(f"getComputedStyle(document.body).{what}")
                    )[:3]
                ]
            )
            for what in ("color", "backgroundColor")
        )
        return abs(ink.mean() - ground.mean()) * (1 if ground.mean() > ink.mean() else -1)

    for scheme, sign in (("light", 1), ("dark", -1)):
        settings = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme}
        page = opened(**settings)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert sign * contrast(page) > 150
        page.locator("#theme").click()  # auto, light, dark
        assert contrast(page) > 150
        page.locator("#theme").click()
        assert contrast(page) < -150
        page.reload()
        assert contrast(page) < -150  # it is remembered
        page.evaluate("location.hash = '#sample-s00'")
        page.locator("#detail-title").wait_for()
        assert page.evaluate("document.querySelector('#detail').scrollWidth") <= width


def test_controls_have_names_and_motion_can_be_reduced(opened):
    page = opened(reduced_motion="reduce")
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, input, select, canvas[role=img]")].filter(e =>
          !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length)).length"""
    )
    assert unnamed == 0
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    assert "0s" in page.evaluate(
        "getComputedStyle(document.querySelector('.plot .point')).transitionDuration"
    )


def test_without_scripts_the_tables_are_there(opened):
    page = opened(java_script_enabled=False)
    assert page.get_by_role("cell", name="Overall").first.is_visible()
    assert page.locator("noscript").first.is_visible()


def test_painted_boxes_are_drawn_over_the_source_with_their_losses(opened):
    page = opened("#sample-s03")
    figure = page.locator("#detail .candidates")
    boxes = figure.locator("svg rect")
    assert boxes.count() == 4 and figure.locator("svg .anchor").count() == 2
    titles = figure.locator("svg title").all_text_contents()
    assert titles[-2:] == ["point 1, loss 1.2500", "point 2, loss 0.7500"]  # drawn over all others
    assert figure.locator("svg .best").count() == figure.locator("svg .kept").count() == 1
    kept, source = (figure.locator(part).bounding_box() for part in ("svg .kept", "svg"))
    assert kept["x"] - source["x"] == pytest.approx(0.625 * source["width"], abs=3)
    assert kept["height"] == pytest.approx(0.5 * source["height"], abs=5)
    assert figure.locator("td.best").all_text_contents() == ["1.2500", "0.7500"]
    assert "the edit that is kept, loss 0.7500" in figure.inner_text()
    page.keyboard.press("Escape")
    page.evaluate("location.hash = '#sample-s04'")
    assert page.locator("#detail[open] h2").inner_text() == "s04"
    assert page.locator("#detail .candidates").count() == 0
