"""How a metric's column is shown in tables and plots. Knows no values."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Column:
    """``label`` is the heading, ``direction`` the better one, ``scale`` multiplies shown values.

    ``headline`` columns stand in the tables that people read, csv files have all of them.
    ``statistic``: how a column is summed up over samples; ratios with long tails by their median.
    """

    label: str
    direction: Literal["up", "down"]
    scale: float = 1.0
    digits: int = 2
    headline: bool = True
    statistic: Literal["mean", "median"] = "mean"
