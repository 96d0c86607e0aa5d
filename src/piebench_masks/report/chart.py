"""What a chart is, whoever draws it: the figures' files, the page and the trackers.

Knows numbers as they are shown and no method, metric or drawing library.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Direction = Literal["up", "down"]
NAMED_MARKS = ("none", "oracle")
"""Looks of single marks that stand in the legend; others are crosses, named beside the point."""


@dataclass(frozen=True)
class Point:
    """``at`` is its threshold, None where it has none; ``note`` is a remark about it.

    label: text beside it where there is room; ringed: drawn with a ring around it.
    """

    x: float
    y: float
    at: float | None = None
    label: str = ""
    ringed: bool = False
    note: str = ""


@dataclass(frozen=True)
class Series:
    """A curve, or the single mark of a method without a sweep.

    look: the place of a curve's method, which gives colour and marker, or the name of a mark:
    ``none``, ``oracle``, else a cross. line: its dashes, by the editor's place. legend: its text in
    the legend, by default its name; a cross has none and is named beside its point. dots: further
    single values (x, y) of the same colour.
    """

    name: str
    look: int | str
    points: Sequence[Point]
    line: int = 0
    legend: str = ""
    dots: Sequence[tuple[float, float]] = ()

    @property
    def in_legend(self) -> bool:
        """Whether the legend names it, and not a text beside its point."""
        return isinstance(self.look, int) or self.look in NAMED_MARKS


@dataclass(frozen=True)
class Chart:
    """One pair of axes.

    x, y: their titles. limits: their ends, by default as the points need. ticks: names of the
    values of x where these are no numbers. levels: values of y by name, drawn as dashed lines.
    better: of a trade-off, which ends are better. front: the points, by x, whose edge is drawn.
    title: where there are several charts of the same kind.
    """

    x: str
    y: str
    series: Sequence[Series]
    limits: tuple[tuple[float, float] | None, tuple[float, float] | None] = (None, None)
    ticks: Sequence[str] = ()
    levels: Mapping[str, float] | None = None
    better: tuple[Direction, Direction] | None = None
    front: Sequence[tuple[float, float]] = ()
    title: str = ""

    def marked(self, marks: Mapping[str, str]) -> "Chart":
        """With these marks behind the names of series in the legend."""
        series = [
            replace(one, legend=f"{one.legend or one.name}{marks[one.name]}")
            if one.name in marks
            else one
            for one in self.series
        ]
        return replace(self, series=series)


@dataclass(frozen=True)
class Figure:
    """Charts side by side, at most four in a row, under a title.

    legend: where it stands; on the right there is one for all charts. size: of a chart, in inches.
    """

    title: str
    caption: str
    charts: Sequence[Chart]
    legend: Literal["right", "above", "inside"] = "inside"
    size: tuple[float, float] = (7, 4.4)
