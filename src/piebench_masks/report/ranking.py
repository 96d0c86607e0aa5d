"""Which cells of a table are marked as the best."""

from collections.abc import Mapping

import pandas as pd

from piebench_masks.report.methods import UNRANKED
from piebench_masks.report.table import Format


def best_labels(values: pd.Series, direction: str) -> list[str]:
    """Labels of the best values; equals all count, and none does where all are equal."""
    if values.nunique() < 2:
        return []
    return list(values.index[values == (values.max() if direction == "up" else values.min())])


def best_cells(
    frame: pd.DataFrame,
    formats: Mapping[str, Format],
    directions: Mapping[str, str],
    ranking: pd.Series | bool = True,
) -> frozenset[tuple[int, str]]:
    """The best cells of each column, compared as they are shown, among rows that may rank.

    Rows that know different things (column ``knows``) do not rank against each other.
    """
    ranking = ~frame["method"].isin(UNRANKED) & ranking
    levels = frame["knows"] if "knows" in frame else pd.Series("", frame.index)
    best = set()
    for _, rows in frame[ranking].groupby(levels[ranking], sort=False):
        for name, direction in directions.items():
            shown = (rows[name] * formats[name].scale).round(formats[name].digits or 0)
            best |= {(int(row), name) for row in best_labels(shown, direction)}
    return frozenset(best)
