"""What a metric's column means and how it is shown. Knows no values."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["background", "edit", "target", "cost"]
"""What a column stands for where one number must: how well the background is kept, how well the
edit is done, how near the true edit is, what it cost.
"""


@dataclass(frozen=True)
class Column:
    """``label`` is the heading, ``direction`` the better one, ``scale`` multiplies shown values.

    role: what the column stands for in plots, sweeps, verdicts and searches; the first ``headline``
    column of a role that has values is taken, else the first one. None: for tables alone.
    meaning: the heading explained to readers of the page.
    ``headline`` columns stand in the tables that people read, csv files have all of them.
    part: which part of the picture is scored, as the annotated mask divides it.
    ``statistic``: how a column is summed up over samples; ratios with long tails by their median.
    """

    label: str
    direction: Literal["up", "down"]
    scale: float = 1.0
    digits: int = 2
    headline: bool = True
    statistic: Literal["mean", "median"] = "mean"
    role: Role | None = None
    meaning: str = ""
    part: Literal["whole", "outside", "inside"] = "whole"
