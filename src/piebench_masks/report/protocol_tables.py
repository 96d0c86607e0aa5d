"""The same edits under several protocols: what each switch does to each number.

Gets frames of per-sample rows, returns a finished table; must not know stores, stages or models.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from piebench_masks.metrics.column import Column
from piebench_masks.report.edit_tables import valued_columns
from piebench_masks.report.methods import BOUNDS, at_thresholds
from piebench_masks.report.names import edit_names, header
from piebench_masks.report.statistics import difference_interval
from piebench_masks.report.table import Format, Table

KEYS = ["metric", "edit", "protocol"]


@dataclass(frozen=True)
class ProtocolScores:
    """The edits' scores under one protocol, and what their columns mean."""

    digest: str
    edits: pd.DataFrame
    columns: Mapping[str, Column]


def protocol_table(
    protocols: Mapping[str, ProtocolScores], thresholds: Mapping[str, float]
) -> Table:
    """A row for each metric, edit and protocol: its value, and the difference to that of the first.

    Left out are the rows of a protocol that changes none of the samples' values. The interval is
    the 95 % bootstrap over samples of the difference of two means.
    """
    first, official = next(iter(protocols.items()))
    rows: list[dict[str, Any]] = []
    before = _by_edit(official, thresholds)
    for name, protocol in protocols.items():
        for key, values in _by_edit(protocol, thresholds).items():
            column = protocol.columns[key[0]]
            known = before.get(key)
            same = known is not None and known.equals(values)
            if name != first and same:
                continue
            rows.append(
                {
                    "metric": key[0],
                    "edit": key[1],
                    "protocol": name,
                    "digest": protocol.digest,
                    "n": int(np.isfinite(values).sum()),
                    "score": header(column),
                    "value": column.summarise(values) * column.scale,
                    **(
                        {} if name == first or known is None else _difference(known, values, column)
                    ),
                }
            )
    frame = pd.DataFrame(rows, columns=[*KEYS, "digest", "n", "score", "value", *DIFFERENCE])
    changed = frame.loc[frame["protocol"] != first, ["metric", "edit"]].drop_duplicates()
    frame = frame.merge(changed, on=["metric", "edit"])  # what no protocol changes is left out
    columns = dict.fromkeys(name for scores in protocols.values() for name in scores.columns)
    frame = _ordered(frame, list(columns), list(protocols))
    start = frame[["metric", "edit"]].ne(frame[["metric", "edit"]].shift()).any(axis=1)
    return Table(
        title="The same edits under several protocols",
        frame=frame,
        formats=FORMATS,
        notes=(
            f"Difference: less the value under {first}, with its 95 % interval (bootstrap over "
            "samples; of means alone). Values that are missing under one of the two are left out "
            "there, as in all tables.",
            f"Left out: what a protocol gives as {first} does, sample by sample.",
        ),
        sections=frozenset(int(row) for row in frame.index[start][1:]),
        muted=frozenset(int(row) for row in frame.index[frame["protocol"] == first]),
    )


DIFFERENCE = ["difference", "difference_low", "difference_high"]
FORMATS = {
    "score": Format("Score", once=True),
    "edit": Format("Edit", once=True),
    "protocol": Format("Protocol"),
    "digest": Format("digest", meaning="of all its switches and metrics", secondary=True),
    "n": Format("n", digits=0, meaning="number of samples with a value"),
    "value": Format("Value", digits=2),
    "difference": Format(
        "Difference [95 %]", digits=2, interval=("difference_low", "difference_high")
    ),
}


def _by_edit(
    protocol: ProtocolScores, thresholds: Mapping[str, float]
) -> dict[tuple[str, str], pd.Series]:
    """Values by sample of each metric and edit that has any."""
    rows = at_thresholds(protocol.edits, thresholds)
    rows = rows[~rows["method"].isin(BOUNDS)]
    names = edit_names(rows)
    names = names.where(names != "none", rows["editor"])
    shown = [
        name
        for name in valued_columns(rows, protocol.columns)
        if protocol.columns[name].headline or protocol.columns[name].part == "whole"
    ]
    return {
        (name, str(edit)): group.set_index("sample")[name].sort_index()
        for edit, group in rows.groupby(names, sort=False)
        for name in shown
        if group[name].notna().any()
    }


def _difference(before: pd.Series, values: pd.Series, column: Column) -> dict[str, float]:
    pair = pd.concat([before, values], axis=1).to_numpy(float)
    pair = np.where(np.isfinite(pair), pair, np.nan)
    change = column.summarise(pair[:, 1]) - column.summarise(pair[:, 0])
    ends = difference_interval(*pair.T) if column.statistic == "mean" else (np.nan, np.nan)
    return dict(zip(DIFFERENCE, np.array([change, *ends]) * column.scale, strict=True))


def _ordered(frame: pd.DataFrame, columns: list[str], protocols: list[str]) -> pd.DataFrame:
    """By metric and edit, each under the protocols in their order."""
    places = pd.DataFrame(
        {
            "metric": frame["metric"].map({name: i for i, name in enumerate(columns)}),
            "edit": frame["edit"].map({edit: i for i, edit in enumerate(frame["edit"].unique())}),
            "protocol": frame["protocol"].map(protocols.index),
        }
    )
    return frame.loc[places.sort_values(KEYS, kind="stable").index].reset_index(drop=True)
