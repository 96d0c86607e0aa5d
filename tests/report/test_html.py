import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from piebench_masks.report.gallery import GalleryRow
from piebench_masks.report.html import write_html

VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(HTMLParser):
    """All tags with attributes, all text outside of scripts, and the scripts; must be balanced."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts = "", [""]
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.text += data


def index(path: Path) -> dict:
    """The data that the page is drawn from."""
    return json.loads(Page(path).scripts[1])


def sample_data(path: Path, number: int) -> dict:
    text = (path.parent / "samples" / f"{number:04d}.js").read_text()
    assert text.startswith(f"showSample({number},") and text.endswith(")\n")
    return json.loads(text[text.index(",") + 1 : -2])


def test_page_is_balanced_and_its_ids_are_unique(report):
    page = Page(report)
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 5


def test_hostile_texts_are_data_and_never_markup(report, rows):
    page = Page(report)
    assert not [a for tag, a in page.tags if tag == "img"]
    assert len(page.scripts) == 3
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert "run <b>x</b>" in page.text
    data = index(report)
    assert [s["prompts"] for s in data["samples"]] == [
        [row.source_prompt, row.target_prompt] for row in rows
    ]
    assert not re.search("[<\u2028\u2029]", page.scripts[1])
    for path in (report.parent / "samples").iterdir():
        assert path.read_text("utf-8").isascii() and "<" not in path.read_text()


def test_every_picture_is_a_file_beside_the_page_whatever_the_sample_is_called(
    report, rows, tmp_path
):
    for sample in index(report)["samples"]:
        for name in (sample["source"], *sample["edits"].values()):
            assert re.fullmatch(r"\d{4}_\d+\.webp", name)
            assert (report.parent / "images" / name).is_file()
    hostile = replace(rows[0], sample_id="../../x/<b>\\", target=rows[0].source)
    page, *_ = write_html(tmp_path / "deep", "t", [], [], [], [], {}, [hostile], {})
    assert {p.name for p in tmp_path.iterdir()} == {"deep"}
    (sample,) = index(page)["samples"]
    assert sample["id"] == hostile.sample_id
    assert sample["target"] == sample["source"] == "0000_0.webp"  # equal pictures are one file


def test_page_names_nothing_outside_its_folder(report):
    tags = Page(report).tags
    targets = [a[name] for _, a in tags for name in {"href", "src"} & a.keys()]
    kinds = ("png", "svg", "pdf")
    local = {"data:,", *(f"{stem}.{kind}" for stem in ("pareto", "dice") for kind in kinds)}
    assert not [t for t in targets if not t.startswith("#") and t not in local]
    text = report.read_text()
    assert "@import" not in text and "url(" not in text
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, never loaded
    (policy,) = [a["content"] for _, a in tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';") and "http" not in policy


def test_page_has_the_tables_with_their_best_values_and_the_charts(report, segmentation):
    page = Page(report)
    assert [a for tag, a in page.tags if tag == "td" and "best" in (a["class"] or "")]
    rows = [(a.get("class") or "").split() for tag, a in page.tags if tag == "tr"]
    assert [classes for classes in rows if "muted" in classes] == [["section", "muted"]]
    assert "Change Attribute Content" in page.text and "Trade-off & more" in page.text


def test_the_charts_points_say_what_they_are(report, segmentation):
    tags = [attributes for tag, attributes in Page(report).tags if tag in ("g", "use")]
    series = [a for a in tags if "series" in (a.get("class") or "").split()]
    names = [a["data-series"] for a in series]
    assert sorted(names[:3]) == ["no mask", "oracle", "ours"] and names[3:] == ["ours", "signed"]
    points = [a["aria-label"] or "" for a in tags if a.get("class") == "point"]
    trade_off = [label for label in points if "LPIPS" in label]
    assert sum(label.startswith("ours at ") for label in trade_off) == 21
    front = [label for label in trade_off if label.endswith(", on the Pareto front")]
    assert front and not any(label.startswith("oracle") for label in front)
    for method in ("ours", "signed"):
        dice = segmentation[segmentation["method"] == method].groupby("threshold")["dice"].mean()
        (best,) = [p for p in points if p.startswith(f"{method} at") and p.endswith(", the best")]
        assert best == f"{method} at {dice.idxmax():.4g}, mean Dice {dice.max():.4g}, the best"


def test_a_summary_stands_above_the_tables_and_headings_are_explained(report):
    page = Page(report)
    assert page.text.index("What it is & does not say.") < page.text.index("Dice ↑ by edit type")
    titles = {attributes.get("title") for tag, attributes in page.tags if tag == "th"}
    assert "agreement with the target prompt, 0 to 100; of the annotated part" in titles
    assert page.text.count("What the columns mean") == 3
    assert page.text[page.text.index("computed") :].split()[:2] == ["computed", "nothing"]


def test_what_a_row_is_called_stays_in_sight(report):
    tags = Page(report).tags
    keys = [a for tag, a in tags if tag == "th" and "key" in (a.get("class") or "").split()]
    assert len(keys) == 3  # one column of each table
    assert all("text" in (a["class"] or "") for a in keys)


def test_scores_and_maps_of_a_sample_are_kept_as_they_are(report, rows):
    data = index(report)
    for number, row in enumerate(rows):
        stored = sample_data(report, number)
        assert data["samples"][number]["dice"] == {
            method: [round(value, 3) for value in values] for method, values in row.dice.items()
        }
        assert stored["scores"] == {"ours": [12.3, 20.5, None]}
        assert set(stored["maps"]) == set(row.maps)
        covered = sum(stored["runs"][1::2])
        assert row.annotated is not None and covered == row.annotated.sum()


def test_small_pictures_keep_every_pixel_and_large_ones_are_made_small(rows, tmp_path):
    draw = np.random.default_rng(0)
    large = replace(rows[0], source=draw.integers(0, 255, (600, 300, 3), np.uint8))
    page, *_ = write_html(tmp_path, "t", [], [], [], [], {}, [rows[0], large], {})
    names = [sample["source"] for sample in index(page)["samples"]]
    small, reduced = (Image.open(tmp_path / "images" / name).convert("RGB") for name in names)
    assert (np.asarray(small) == rows[0].source).all()
    assert reduced.size == (128, 256)


def test_an_earlier_reports_pictures_are_removed(rows, tmp_path):
    write_html(tmp_path, "t", [], [], [], [], {}, rows[:3], {})
    write_html(tmp_path, "t", [], [], [], [], {}, rows[:1], {})
    left = [path.name for part in ("images", "samples") for path in (tmp_path / part).iterdir()]
    assert sorted(left) == ["0000.js", "0000_0.webp", "0000_1.webp", "0000_2.webp"]


@pytest.fixture
def large_row(rows) -> GalleryRow:
    """A sample as of PIE-Bench: 512 pixels, three maps, five edits."""
    draw = np.random.default_rng(1)
    smooth = Image.fromarray(draw.integers(0, 255, (16, 16, 3), np.uint8)).resize((512, 512))
    picture = np.asarray(smooth)
    annotated = np.asarray(smooth.convert("L")) > 128
    maps = {"ours": draw.random((16, 16)), "noise": draw.random((64, 64))}
    return replace(
        rows[0],
        source=picture,
        annotated=annotated,
        maps=maps,
        levels=dict.fromkeys(maps, np.linspace(0, 1, 21).tolist()),
        dice=dict.fromkeys(maps, draw.random(21).tolist()),
        edits={f"edit{i}": np.roll(picture, i, 0) for i in range(5)},
    )


def test_700_samples_take_bounded_space(large_row, rows, tmp_path):
    sizes = {}
    for count in (70, 700):
        # Texts, maps and scores as of 700 large samples; small pictures, whose size is known.
        small = replace(large_row, source=rows[0].source, annotated=rows[0].annotated, edits={})
        gallery = (replace(small, sample_id=f"{n:012d}") for n in range(count))
        page, *_ = write_html(tmp_path / str(count), "t", [], [], [], [], {}, gallery, {})
        files = [path for path in (tmp_path / str(count)).rglob("*") if path.is_file()]
        sizes[count] = sum(path.stat().st_size for path in files)
    assert sizes[700] < 10.5 * sizes[70]
    assert page.stat().st_size < 1e6
    page, *_ = write_html(tmp_path / "one", "t", [], [], [], [], {}, [large_row], {})
    pictures = sum(path.stat().st_size for path in (page.parent / "images").iterdir())
    assert pictures < 6 * 15e3
    assert (page.parent / "samples" / "0000.js").stat().st_size < 40e3


def test_boxes_that_were_painted_lie_in_their_samples_file(report):
    tried = sample_data(report, 3)["candidates"]["ours"]
    assert tried["points"] == [[0.25, 0.5], [0.75, 0.5]]
    assert tried["boxes"][1] == [[0.625, 0.25, 0.875, 0.75], [0.5, 0, 1, 1]]
    assert (tried["values"], tried["best"], tried["kept"]) == ([[1.5, 1.25], [0.75, 1]], [1, 0], 2)
    assert (report.parent / "images" / tried["edit"]).is_file()
    assert sample_data(report, 2)["candidates"] == {}
