"""``piebench-masks regress``: run what is missing, then compare with a baseline or write one."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape

from piebench_masks.console import JsonConsole, print_table, say
from piebench_masks.errors import BenchmarkError
from piebench_masks.pipeline import run_pipeline
from piebench_masks.protocol import OFFICIAL, Protocol, differing
from piebench_masks.provenance import provenance
from piebench_masks.report.regression import (
    STORED,
    VERDICTS,
    changed_rows,
    compare,
    read_baseline,
    series,
    write_baseline,
)
from piebench_masks.run import Run
from piebench_masks.settings import Settings
from piebench_masks.stages.parse import parse
from piebench_masks.stages.score_edits import protocol_columns
from piebench_masks.stages.scores import edit_scores, mask_scores
from piebench_masks.stages.written import completed

FEW = 10
"""The most rows that are printed where some are unchanged."""


def regress(cfg: Settings, console: Console) -> int:
    """How many items failed or series are significantly worse than ``cfg.baseline``.

    baseline: a Parquet file; or ``update``, which writes ``results_dir/baselines/name.parquet``.
    Raises BenchmarkError where ``limit`` would replace a baseline by one of a few samples.
    """
    path = Path(cfg.results_dir) / "baselines" / f"{cfg.name}.parquet"
    if cfg.baseline is None:
        raise BenchmarkError("baseline must be set: to a baseline's Parquet file, or to update")
    if cfg.baseline == "update" and cfg.limit and path.exists():
        raise BenchmarkError(
            f"{path} would be replaced by a baseline of the first {cfg.limit} samples alone: leave "
            "limit out, or give the new one a name=... of its own"
        )
    run = Run(cfg)
    baseline = None if cfg.baseline == "update" else checked_baseline(Path(cfg.baseline))
    if baseline is not None:
        check_protocol(Path(cfg.baseline), baseline[1].get("protocol"), run)
    if failed := run_pipeline(cfg, [name for name in cfg.stages if name != "report"], console):
        return failed
    samples = completed(run, parse(run, Console(quiet=True)).samples)
    thresholds = {name: method.threshold for name, method in run.methods.items()}
    scores = mask_scores(run, samples), edit_scores(run, samples)
    current = series(*scores, protocol_columns(run, run.protocol), thresholds)
    if baseline is None:
        origin = provenance() | {"model": run.identity("model"), "device": str(run.device)}
        origin["protocol"] = described_protocol(run)
        write_baseline(path, current, origin | {"date": datetime.now(UTC).date().isoformat()})
        words = f"baseline: {escape(str(path))}, {current['series'].nunique()} series of "
        words += f"{current['sample'].nunique()} samples"
        say(console, "baseline", words, place=path, series=current["series"].nunique())
        return 0
    table = compare(baseline[0], current, baseline[1])
    table.write(run.results / "tables", "regression")
    excerpt = table if len(table.frame) <= FEW else changed_rows(table)
    if len(excerpt.frame):
        print_table(console, excerpt.to_rich())
    else:
        console.print(f"{table.title}. {' '.join(table.notes)}", soft_wrap=True, highlight=False)
    place = run.results / "tables/regression.md"
    say(console, "written", f"all rows: {escape(str(place))}", what="regression", place=place)
    verdicts = {verdict: int((table.frame["verdict"] == verdict).sum()) for verdict in VERDICTS}
    if isinstance(console, JsonConsole):
        console.event("regression", baseline=cfg.baseline, **verdicts)
    return verdicts["worse"]


def described_protocol(run: Run) -> dict[str, Any]:
    """Name, digest, switches and metrics of the protocol that the tables are of."""
    name, labels = run.protocol, run.scorers_under(run.protocol)
    return {
        "name": name,
        "digest": run.protocol_digest(name),
        "switches": run.protocols[name].plain(),
        "metrics": {metric: run.identity(f"metrics.{label}") for metric, label in labels.items()},
    }


def check_protocol(path: Path, before: Any, run: Run) -> None:
    """Raise BenchmarkError where a baseline was scored under another protocol than this run's, or
    by a metric with other weights or settings. before: as ``described_protocol``; None: official.
    """
    now = described_protocol(run)
    if before is None:
        before = {"name": OFFICIAL, "switches": Protocol().plain(), "metrics": {}}
    metrics = now["metrics"]
    other = [
        f"{name} {before['switches'].get(name)!r} then, {value!r} now"
        for name, value in differing(now["switches"], before["switches"]).items()
    ]
    other += [
        f"another {name}"
        for name in metrics
        if metrics[name] != before["metrics"].get(name, metrics[name])
    ]
    if other:
        raise BenchmarkError(
            f"{path} was scored under the protocol {before['name']}, this run under {now['name']} "
            f"({'; '.join(other)}): their numbers do not compare. Choose "
            f"protocol={before['name']} with its metrics, or another baseline"
        )


def checked_baseline(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """``read_baseline``'s rows and provenance; BenchmarkError where no run can have made them."""
    rows, origin = read_baseline(path)
    if problem := _problem(rows, origin):
        raise BenchmarkError(f"{path} is no baseline ({problem}): write one with baseline=update")
    return rows, origin


def _is_protocol(described: object) -> bool:
    if described is None:  # of a baseline from before there were others
        return True
    return (
        isinstance(described, dict)
        and isinstance(described.get("name"), str)
        and isinstance(described.get("switches"), dict)
        and isinstance(described.get("metrics"), dict)
    )


def _problem(rows: pd.DataFrame, origin: object) -> str | None:
    texts, numbers = STORED[:2], STORED[2:]
    if not isinstance(origin, dict):
        return "its provenance is no object"
    if not _is_protocol(origin.get("protocol")):
        return "its protocol is none"
    if missing := {*STORED} - {*map(str, rows)}:
        return f"the columns {', '.join(sorted(missing))} are missing"
    if not len(rows):
        return "it has no rows"
    if not all(isinstance(text, str) for name in texts for text in rows[name]):
        return "series or sample are no texts"
    if rows.duplicated(texts).any():
        return "a value is given twice"
    try:
        values = rows[numbers].astype(float)
    except (TypeError, ValueError):
        return f"{', '.join(numbers)} are not all numbers"
    if not (
        values["worse"].isin([-1, 1]).all()
        and (np.isfinite(values["shown"]) & (values["shown"] >= 0)).all()
        and not np.isinf(values["value"]).any()
        and values["value"].notna().any()
    ):
        return "a value lies outside what a run writes"
    return None
