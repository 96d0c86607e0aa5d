import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from piebench_masks.report.figures import save_figure
from piebench_masks.report.html import write_html
from piebench_masks.report.pareto import plot_pareto
from piebench_masks.report.tables import dice_table


class Page(HTMLParser):
    """All tags with attributes and all text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(tmp_path_factory, segmentation, editing, columns, gallery_row) -> Path:
    folder = tmp_path_factory.mktemp("report")
    figure = plot_pareto(editing, columns, "lpips_unedit_part", "clip_edited")
    svg = save_figure(figure, folder, "pareto")["svg"]
    return write_html(
        folder,
        "Masks <1>",
        [dice_table(segmentation)],
        {"Trade-off & more": svg},
        [gallery_row],
        {"command": "run <b>x</b>", "versions": {"torch": "2"}},
    )


def test_hostile_texts_are_shown_as_text(page, gallery_row):
    shown = Page(page)
    assert not [tag for tag, _ in shown.tags if tag in ("script", "b", "i")]
    assert not [attributes for _, attributes in shown.tags if "onload" in attributes]
    for text in (gallery_row.source_prompt, gallery_row.target_prompt, gallery_row.sample_id):
        assert text in shown.text
    assert "run <b>x</b>" in shown.text


def test_every_picture_is_a_file_beside_the_page_whatever_the_sample_is_called(page):
    sources = [attributes["src"] for tag, attributes in Page(page).tags if tag == "img"]
    assert len(sources) == 6
    assert all(re.fullmatch(r"images/\d{4}_\d{2}\.png", source) for source in sources)
    assert all((page.parent / source).is_file() for source in sources)


def test_page_needs_no_network(page):
    links = {"href", "src", "xlink:href"}
    targets = [a[name] for _, a in Page(page).tags for name in links & a.keys()]
    assert targets and not [t for t in targets if not t.startswith(("#", "images/"))]
    assert "@import" not in page.read_text() and "url(http" not in page.read_text()


def test_page_has_the_table_with_its_best_values_and_the_figure(page):
    shown = Page(page)
    assert [a for tag, a in shown.tags if tag == "td" and "best" in (a["class"] or "")]
    assert "svg" in {tag for tag, _ in shown.tags}
    assert "Change Attribute Content" in shown.text and "Trade-off & more" in shown.text
