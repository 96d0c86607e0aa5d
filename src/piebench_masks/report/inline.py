"""A drawn figure as SVG inside the page: its colours the page's, its points with their texts.

Knows charts and SVG, no drawing library.
"""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from piebench_masks.report.chart import Chart, Figure, Point, Series

FRONT = "Pareto front"
"""The legend's entry for the rings and the edge of a front."""
_GID = re.compile(r"(\d+)-(series|rings|label|legend|entry|front)-(\d+)")
_DROPPED = ("metadata", "style", "clipPath")


def inlined(svg: str, figure: Figure, stem: str, colours: dict[str, str]) -> str:
    """``svg`` as drawn of the figure, for an HTML page.

    colours: of the drawing (``#0072b2``) -> of the page (``var(--look-0)``). Whatever belongs to a
    series has its name as ``data-series``; points are ``.point`` with what they are as label.
    Ids begin with ``stem``.
    """
    root = ElementTree.fromstring(svg)
    _clean(root, stem, colours)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.attrib |= {"xmlns": "http://www.w3.org/2000/svg", "role": "group"}
    root.set("aria-label", figure.title)
    for element in list(root.iter("g")):
        if match := _GID.fullmatch(element.attrib.get("id", "").removeprefix(f"{stem}-")):
            place, kind, number = match.groups()
            del element.attrib["id"]
            _describe(element, figure.charts[int(place)], kind, int(number))
    return ElementTree.tostring(root, encoding="unicode")


def point_text(chart: Chart, series: Series, point: Point) -> str:
    """What a point is: its series, threshold, both values and a remark."""
    parts = [series.name if point.at is None else f"{series.name} at {point.at:.4g}"]
    if point.at is None or point.at != point.x:
        parts.append(f"{_plain(chart.x)} {point.x:.4g}")
    parts.append(f"{_plain(chart.y)} {point.y:.4g}")
    return ", ".join([*parts, *([point.note] if point.note else [])])


def _plain(title: str) -> str:
    return title.removesuffix(" ↑").removesuffix(" ↓")


def _clean(element: ElementTree.Element, stem: str, colours: dict[str, str]) -> None:
    """Take away what an HTML page has no use for, and make ids the figure's own."""
    element.tag = element.tag.rpartition("}")[2]
    names = {name: name.rpartition("}")[2] for name in element.attrib}
    element.attrib = {names[n]: v for n, v in element.attrib.items() if n != "clip-path"}
    for name, value in element.attrib.items():
        if name == "id" or (name == "href" and value.startswith("#")):
            element.set(name, f"{value[: name == 'href']}{stem}-{value[name == 'href' :]}")
        if name == "style":
            style = re.sub(r"font-family: [^;]*; ?", "", value)
            element.set(name, re.sub(r"#[0-9a-f]{6}", lambda c: colours.get(c[0], c[0]), style))
    for child in list(element):
        if child.tag.rpartition("}")[2] in _DROPPED:
            element.remove(child)
        else:
            _clean(child, stem, colours)


def _describe(element: ElementTree.Element, chart: Chart, kind: str, number: int) -> None:
    """Say which series a group belongs to, and which of its marks is which point."""
    if kind in ("legend", "entry"):
        name = _entries(chart)[number]
        element.set("class", "entry" if kind == "entry" else "key")
    else:
        name = FRONT if kind == "front" else chart.series[number].name
        element.set("class", kind)
    element.set("data-series", name)
    if kind == "series":
        look = chart.series[number].look
        element.set("class", f"series {f'look-{look}' if isinstance(look, int) else 'mark'}")
        points = chart.series[number].points
        for mark, point in zip(_marks(element), points, strict=True):
            label = point_text(chart, chart.series[number], point)
            mark.attrib |= {"class": "point", "role": "img", "aria-label": label, "tabindex": "-1"}


def _entries(chart: Chart) -> list[str]:
    marks = [series.name for series in chart.series if series.in_legend]
    return [*marks, *([FRONT] if chart.better else [])]


def _marks(element: ElementTree.Element) -> Iterator[ElementTree.Element]:
    return element.iter("use")
