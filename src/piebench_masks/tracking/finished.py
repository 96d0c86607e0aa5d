"""From a run's finished tables and rows to what trackers show: metrics by name, and charts.

Works on tables and charts; must not know stages, models or trackers' libraries.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from piebench_masks.metrics.column import Column
from piebench_masks.report.chart import Chart, Figure
from piebench_masks.report.names import edit_names
from piebench_masks.tracking.tracker import Plot

OWN_FOLDERS = ("wandb", "mlflow", "hydra", "run.log")
"""Of a results folder, what is no result: trackers' local files, Hydra's, the log."""


def summary_metrics(
    tables: Mapping[str, pd.DataFrame], columns: Mapping[str, Column]
) -> dict[str, float]:
    """Numbers under names that are the same in all runs, so that runs compare.

    ``dice/<method>``, ``dice/<method>/<edit_type>``, ``threshold/<method>`` and
    ``edit/<method>/<column>``, of several editors ``edit/<editor>/<method>/<column>``. Unscaled;
    undefined left out.
    """
    values: dict[str, float] = {}
    if "mask_methods" in tables:
        for _, row in tables["mask_methods"].iterrows():
            values[f"dice/{row['method']}"] = row["dice"]
            values[f"threshold/{row['method']}"] = row["threshold"]
    if "dice_by_edit_type" in tables:
        by_type = tables["dice_by_edit_type"].iloc[:-1]  # the last row is of all of them
        methods = [name.removeprefix("dice/") for name in values if name.startswith("dice/")]
        for method in methods:
            for edit_type, dice in zip(by_type["edit_type"], by_type[method], strict=True):
                values[f"dice/{method}/{edit_type.lower().replace(' ', '_')}"] = dice
    if "editing" in tables:
        editing = tables["editing"]
        names = edit_names(editing).str.replace(", ", "/")
        for who, (_, row) in zip(names, editing.iterrows(), strict=True):
            values |= {f"edit/{who}/{name}": row[name] for name in columns if name in row}
    return {name: float(value) for name, value in values.items() if pd.notna(value)}


def native_plots(figures: Mapping[str, Figure]) -> dict[str, Plot]:
    """The figures' series as frames that trackers draw themselves.

    Dice over the threshold as curves; the trade-off of all edits as points (every editor and
    method) and as curves (those with several thresholds).
    """
    plots = {}
    if "dice" in figures:
        frame = pd.concat([_frame(chart, "threshold", "dice") for chart in figures["dice"].charts])
        plots["dice_over_threshold"] = Plot(
            "Mean Dice over the threshold", frame, "threshold", "dice"
        )
    if "pareto" in figures:
        charts = figures["pareto"].charts
        chart, title = charts[0], f"{charts[0].y} against {charts[0].x}"
        points = pd.concat([_frame(one, chart.x, chart.y) for one in charts]).drop_duplicates()
        plots["pareto"] = Plot(title, points, chart.x, chart.y, lines=False)
        curves = points[points.groupby("method")["method"].transform("size") > 1]
        if len(curves):
            plots["pareto_curves"] = Plot(title, curves, chart.x, chart.y)
    return plots


def _frame(chart: Chart, x: str, y: str) -> pd.DataFrame:
    """A row a point: ``method`` (the name of its series), ``at``, and the coordinates.

    Of several charts the name begins with the chart's title; bounds are the same in all.
    """
    return pd.DataFrame(
        [
            (f"{chart.title}, {one.name}" if chart.title and one.in_legend else one.name, *values)
            for one in chart.series
            for values in ((p.at, p.x, p.y) for p in one.points)
        ],
        columns=["method", "at", x, y],
    )


def result_files(folder: Path) -> list[Path]:
    """Files and folders of a results folder that are results of this run (not of a sweep's)."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name not in OWN_FOLDERS and not (path / "config.yaml").exists()
    ]
