"""From a run's finished tables and rows to what trackers show: metrics by name, and charts.

Works on frames; must not know stages, models or trackers' libraries.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from piebench_masks.data.sample import EDIT_TYPES
from piebench_masks.metrics.column import Column
from piebench_masks.report.names import edit_names
from piebench_masks.report.pareto import pareto_points
from piebench_masks.report.tables import BASELINES, header, headlines
from piebench_masks.tracking.tracker import Plot

OWN_FOLDERS = ("wandb", "mlflow", "hydra", "run.log")
"""Of a results folder, what is no result: trackers' local files, Hydra's, the log."""


def summary_metrics(tables: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """Numbers under names that are the same in all runs, so that runs compare.

    ``dice/<method>``, ``dice/<method>/<edit_type>``, ``threshold/<method>`` and
    ``edit/<method>/<metric>``, where ``_outside`` and ``_inside`` mean the annotated mask; where
    there are several editors, ``edit/<editor>/<method>/<metric>``. Unscaled; undefined left out.
    """
    found: dict[str, float] = {}
    if "mask_methods" in tables:
        for _, row in tables["mask_methods"].iterrows():
            found[f"dice/{row['method']}"] = row["dice"]
            found[f"threshold/{row['method']}"] = row["threshold"]
    if "dice_by_edit_type" in tables:
        by_type = tables["dice_by_edit_type"]
        for method in [name.removeprefix("dice/") for name in found if name.startswith("dice/")]:
            for edit_type, dice in zip(by_type["edit_type"], by_type[method], strict=True):
                if edit_type in EDIT_TYPES:  # the last row is of all of them
                    found[f"dice/{method}/{edit_type.lower().replace(' ', '_')}"] = dice
    if "editing" in tables:
        editing = tables["editing"]
        scores = [n.removesuffix("_low") for n in map(str, editing) if n.endswith("_low")]
        names = edit_names(editing).str.replace(", ", "/")
        for who, (_, row) in zip(names, editing.iterrows(), strict=True):
            for name in scores:
                where = name.replace("_unedit_part", "_outside").replace("_edit_part", "_inside")
                found[f"edit/{who}/{where}"] = row[name]
    return {name: float(value) for name, value in found.items() if pd.notna(value)}


def native_plots(
    masks: pd.DataFrame, edits: pd.DataFrame, columns: Mapping[str, Column]
) -> dict[str, Plot]:
    """Mean Dice over the threshold, and the trade-off of the edits as curves and as points.

    Points carry every editor and method, curves the learned methods with several thresholds.
    """
    made = {}
    if len(masks):
        learned = masks[~masks["method"].isin(BASELINES)]
        mean = learned.groupby(["method", "threshold"], sort=False)["dice"].mean().reset_index()
        made["dice_over_threshold"] = Plot(
            "Mean Dice over the threshold", mean, "threshold", "dice"
        )
    axes = headlines(edits, columns)[:2]
    if [name.partition("_")[0] for name in axes] == ["lpips", "clip"]:
        x, y = axes
        points = pareto_points(edits, columns, x, y).dropna(subset=[x, y])
        title = f"{header(columns[y])} against {header(columns[x])}, unscaled"
        made["pareto"] = Plot(title, points, x, y, lines=False)
        sweeps = points.groupby(["editor", "method"])[x].transform("size") > 1
        curves = points[sweeps].sort_values("threshold", kind="stable")
        if len(curves):
            made["pareto_curves"] = Plot(title, curves.assign(method=edit_names(curves)), x, y)
    return made


def result_files(folder: Path) -> list[Path]:
    """Files and folders of a results folder that are results of this run (not of a sweep's)."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name not in OWN_FOLDERS and not (path / "config.yaml").exists()
    ]
