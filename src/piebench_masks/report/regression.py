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

from piebench_masks.data.sample import EDIT_TYPES
from piebench_masks.errors import BenchmarkError
from piebench_masks.metrics.column import Column
from piebench_masks.metrics.segmentation import COLUMNS
from piebench_masks.report.names import edit_names
from piebench_masks.report.tables import BASELINES, Format, Table, header

LEVEL = 0.05
"""The chance of any false verdict, over all tests together."""
KEYS = ["series", "sample"]


def series(
    masks: pd.DataFrame,
    edits: pd.DataFrame,
    columns: Mapping[str, Column],
    own: Mapping[str, float],
) -> pd.DataFrame:
    """What is watched, a row a sample: Dice, and of edits background, prompt and true target.

    own: each learned method's threshold; trivial masks are left out, unmasked edits are not.
    ``worse`` is the sign of a worsening, ``shown`` half a unit of the last digit in tables.
    """
    endings = {"lpips": "_unedit_part", "clip": "_edited", "target_error": ""}
    watched = [
        (masks, masks["method"] if len(masks) else pd.Series(dtype=str), "dice", COLUMNS["dice"])
    ] + [
        (edits, edit_names(edits), name, column)
        for name, column in columns.items()
        if any(name.startswith(start) and name.endswith(end) for start, end in endings.items())
    ]
    found = [pd.DataFrame(columns=[*KEYS, "edit_type", "value", "worse", "shown"])]
    for rows, names, name, column in watched:
        for method, cut in {"none": np.nan, **own}.items() if name in rows else ():
            at = np.isclose(rows["threshold"], cut, equal_nan=True) & (rows["method"] == method)
            if at.any() and method not in BASELINES:
                part = rows.loc[at, ["sample", "edit_type", name]].rename(columns={name: "value"})
                part["series"] = names[at] + f": {header(column)}"
                part["worse"] = -1.0 if column.direction == "up" else 1.0
                part["shown"] = 0.5 * 10.0**-column.digits / column.scale
                found.append(part)
    return pd.concat([part for part in found if len(part)] or found, ignore_index=True)


def write_baseline(path: Path, rows: pd.DataFrame, how: Mapping[str, Any]) -> None:
    """Write ``series`` rows as Parquet with their provenance, in an order that diffs well."""
    table = pa.Table.from_pandas(rows.sort_values(KEYS), preserve_index=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"provenance": json.dumps(how)}), path)


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


def compare(before: pd.DataFrame, now: pd.DataFrame, how: Mapping[str, Any]) -> Table:
    """Every series by edit type and overall with its verdict: ``worse``, ``better`` or ``same``.

    before, now: rows of ``series``; how: the baseline's provenance. A paired two-sided permutation
    test (signs of the differences flipped at random, fixed seed), its p corrected by Holm for
    the number of tests. A difference that tables do not show has no verdict, so that rounding
    cannot be significant. Raises BenchmarkError where something of the baseline is missing now.
    """
    both = before.merge(now[[*KEYS, "value"]], on=KEYS, how="left", suffixes=("", "_now"))
    lost = both[both["value"].notna() & both["value_now"].isna()]
    if len(lost):
        first = lost.iloc[0]
        raise BenchmarkError(
            f"{len(lost)} values of the baseline are missing in this run (first: "
            f"{first['series']} of sample {first['sample']}): run with the baseline's settings and "
            "data, or accept the change with baseline=update"
        )
    both["difference"] = both["value_now"] - both["value"]
    rows = []
    for name, whole in both.groupby("series", sort=False):
        groups = {label: whole[whole["edit_type"] == t] for t, label in enumerate(EDIT_TYPES)}
        for where, part in {"Overall": whole, **groups}.items():
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
                    "p": _permutation_test(change),
                    "worse": change.mean() * part["worse"].iloc[0],
                    "shown": part["shown"].iloc[0],
                }
            )
    frame = pd.DataFrame(rows)
    frame["p"] = _holm(frame["p"].to_numpy())
    verdict = np.where(frame["worse"] > 0, "worse", "better")
    counts = (frame["p"] < LEVEL) & (frame["worse"].abs() >= frame["shown"])
    frame["verdict"] = np.where(counts, verdict, "same")
    frame = frame.drop(columns=["worse", "shown"])
    most = int(frame["n"].max()) if len(frame) else 0
    few = 2.0 ** (1 - most) > LEVEL  # the smallest p that as many signs can have
    return Table(
        title=f"Against the baseline{_made(how)}",
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
            f"Worse: {(frame['verdict'] == 'worse').sum()}, "
            f"better: {(frame['verdict'] == 'better').sum()}, "
            f"same: {(frame['verdict'] == 'same').sum()}.",
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


def _made(how: Mapping[str, Any]) -> str:
    """When and by what a baseline was written, as far as its provenance says."""
    versions = how.get("versions")
    version = versions.get("piebench-masks") if isinstance(versions, dict) else None
    known = {" of": how.get("date"), ", version": version, ", commit": how.get("commit")}
    return "".join(f"{word} {value}" for word, value in known.items() if value)


def _permutation_test(change: np.ndarray, resamples: int = 20_000) -> float:
    """Two-sided p of paired differences [N] having no direction."""
    signs = np.random.default_rng(0).integers(0, 2, (resamples, len(change)), dtype=np.int8) * 2 - 1
    # Differences that only rounding tells apart from the observed one count as equal to it.
    extreme = np.abs(signs @ change) >= np.abs(change.sum()) * (1 - 1e-9)
    return float((1 + extreme.sum()) / (1 + resamples))


def _holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction (1979) of p [N]."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    corrected = np.empty_like(stepped)
    corrected[order] = stepped
    return corrected
