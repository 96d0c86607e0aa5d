"""A run against a committed baseline, sample by sample: is anything significantly worse?

Gets frames of per-sample rows; must not know stages or models.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from piebench_masks.errors import BenchmarkError
from piebench_masks.metrics.column import Column
from piebench_masks.metrics.segmentation import COLUMNS
from piebench_masks.report.edit_tables import headlines
from piebench_masks.report.methods import edit_types, edited_thresholds, learned_methods
from piebench_masks.report.names import edit_names, header
from piebench_masks.report.statistics import holm, permutation_test
from piebench_masks.report.table import Format, Table

LEVEL = 0.05
"""The chance of any false verdict, over all tests together."""
VERDICTS = ("worse", "better", "same")
KEYS = ["series", "sample"]
STORED = [*KEYS, "value", "worse", "shown"]
"""The columns of a baseline. Edit types are the data set's and not its."""


def series(
    masks: pd.DataFrame,
    edits: pd.DataFrame,
    columns: Mapping[str, Column],
    thresholds: Mapping[str, float],
) -> pd.DataFrame:
    """What is watched, a row a sample: Dice, and the edits' column of each role, without a mask and
    under the learned methods' and the annotated one.

    thresholds: each method's own; of edits the nearest that was edited under.
    ``worse`` is the sign of a worsening, ``shown`` half a unit of the last digit in tables.
    """
    own = {name: thresholds[name] for name in learned_methods(thresholds)}
    methods = masks.get("method", pd.Series(dtype=str))
    scores = [(masks, methods, "dice", COLUMNS["dice"], own)]
    if len(edits):
        chosen = headlines(edits, columns).values()
        places = {"none": np.nan} | edited_thresholds(masks.iloc[:0], edits, thresholds)
        watched = {name: places[name] for name in places if name in {"none", "oracle", *own}}
        suffix = edits["threshold"].map(lambda value: "" if np.isnan(value) else f" at {value:.3g}")
        names = edit_names(edits) + suffix
        scores += [(edits, names, name, columns[name], watched) for name in chosen]
    parts = [pd.DataFrame(columns=[*STORED, "edit_type"])]
    for rows, names, score, column, places in scores:
        for method, threshold in places.items() if score in rows else ():
            at = np.isclose(rows["threshold"], threshold, equal_nan=True)
            part = rows.loc[at & (rows["method"] == method), ["sample", "edit_type", score]]
            part = part.rename(columns={score: "value"})
            compared = replace(column, statistic="mean")  # as means are, of whatever score
            part["series"] = names[part.index] + f": {header(compared)}"
            part["worse"] = -1.0 if column.direction == "up" else 1.0
            part["shown"] = 0.5 * 10.0**-column.digits / column.scale
            parts.append(part)
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def write_baseline(path: Path, rows: pd.DataFrame, provenance: Mapping[str, Any]) -> None:
    """Write ``series`` rows as Parquet with their provenance, in an order that diffs well."""
    stored = rows.drop(columns="edit_type", errors="ignore").sort_values(KEYS)
    table = pa.Table.from_pandas(stored, preserve_index=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"provenance": json.dumps(provenance)}), path)


def read_baseline(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rows and provenance; BenchmarkError if the file is missing or no baseline."""
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
        return table.to_pandas(), json.loads(table.schema.metadata[b"provenance"])
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise BenchmarkError(
            f"{path} is no baseline that can be read ({error}): write one with baseline=update"
        ) from error


def compare(before: pd.DataFrame, now: pd.DataFrame, provenance: Mapping[str, Any]) -> Table:
    """Every series by edit type and overall with its verdict: ``worse``, ``better`` or ``same``.

    before: a baseline's rows; now: rows of ``series``, whose edit types count; provenance: the
    baseline's. A paired two-sided permutation test (signs of the differences flipped at random,
    fixed seed), its p corrected by Holm for the number of tests. A difference that tables do not
    show has no verdict, so that rounding cannot be significant. Raises BenchmarkError where
    something of the baseline is missing now.
    """
    both = before[STORED].merge(
        now[[*KEYS, "edit_type", "value"]], on=KEYS, how="left", suffixes=("", "_now")
    )
    lost = both[both["value"].notna() & both["value_now"].isna()]
    if len(lost):
        first = lost.iloc[0]
        raise BenchmarkError(
            f"{len(lost)} values of the baseline are missing in this run (first: "
            f"{first['series']} of sample {first['sample']}): run with the baseline's settings and "
            "data, or accept the change with baseline=update"
        )
    both["difference"] = both["value_now"] - both["value"]
    labels = edit_types(now)
    rows = []
    for name, whole in both.groupby("series", sort=False):
        groups = {label: whole[whole["edit_type"] == label] for label in labels}
        for where, part in [("Overall", whole), *groups.items()]:
            change = part["difference"].dropna().to_numpy(float)
            if not len(change):
                continue
            rows.append(
                {
                    "series": name,
                    "edit_type": where,
                    "n": len(change),
                    "before": part["value"].mean(),
                    "now": part["value_now"].mean(),
                    "p": permutation_test(change),
                    "worse": change.mean() * part["worse"].iloc[0],
                    "shown": part["shown"].iloc[0],
                }
            )
    frame = pd.DataFrame(rows)
    frame["p"] = holm(frame["p"].to_numpy())
    verdict = np.where(frame["worse"] > 0, "worse", "better")
    counts = (frame["p"] < LEVEL) & (frame["worse"].abs() >= frame["shown"])
    frame["verdict"] = np.where(counts, verdict, "same")
    return _verdicts(frame.drop(columns=["worse", "shown"]), provenance)


def _verdicts(frame: pd.DataFrame, provenance: Mapping[str, Any]) -> Table:
    most = int(frame["n"].max()) if len(frame) else 0
    few = 2.0 ** (1 - most) > LEVEL  # the smallest p that as many signs can have
    count = {verdict: (frame["verdict"] == verdict).sum() for verdict in VERDICTS}
    return Table(
        title=f"Against the baseline{_origin(provenance)}",
        frame=frame,
        formats={
            "series": Format("Series"),
            "edit_type": Format("Edit type"),
            "n": Format("n", digits=0),
            "before": Format("Baseline", digits=4),
            "now": Format("Now", digits=4),
            "p": Format("p (Holm)", digits=4),
            "verdict": Format("Verdict"),
        },
        notes=(
            f"Paired permutation tests, p corrected for {len(frame)} of them; verdicts at {LEVEL}.",
            f"{', '.join(f'{verdict}: {n}' for verdict, n in count.items())}.".capitalize(),
            *([f"With {most} samples no difference can be significant."] if few else []),
        ),
        best=frozenset((int(row), "verdict") for row in frame.index[frame["verdict"] != "same"]),
        sections=frozenset(int(r) for r in frame.index[frame["edit_type"] == "Overall"][1:]),
    )


def changed_rows(table: Table) -> Table:
    """The rows of a table of ``compare`` that are worse or better now."""
    frame = table.frame[table.frame["verdict"] != "same"].reset_index(drop=True)
    best = frozenset((row, "verdict") for row in range(len(frame)))
    return replace(table, frame=frame, best=best, sections=frozenset())


def _origin(provenance: Mapping[str, Any]) -> str:
    """When and by what a baseline was written, as far as its provenance says."""
    versions = provenance.get("versions")
    version = versions.get("piebench-masks") if isinstance(versions, dict) else None
    facts = {
        " of": provenance.get("date"),
        ", version": version,
        ", commit": provenance.get("commit"),
    }
    return "".join(f"{word} {value}" for word, value in facts.items() if value)
