"""All runs of a sweep as one table and one plot: what each setting does to Dice and edits.

Reads finished results folders; must not know stores, stages or models.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from piebench_masks.report.figures import house_style, method_looks, new_figure, save_figure
from piebench_masks.report.table import Format, Table
from piebench_masks.report.tables import BASELINES

SCORES = {"lpips": "_unedit_part", "clip": "_edited", "target_error": ""}
"""Columns of the editing table that are collected, by start and end."""
EDITOR = "edited by"
SET = "set: "
"""Before the names of settings, which may be called like scores."""


def collect_sweep(
    folder: Path, places: Sequence[Path], note: str | None = None
) -> tuple[Table, int] | None:
    """Write ``sweep.csv/.md/.tex``, ``sweep_runs.csv`` and the plot into a sweep's folder.

    places: the runs' results; note: a further one of the table. Returns the table and how many
    items failed in all runs; None where no run has scored a mask.
    """
    places = [place for place in places if (place / "tables/mask_methods.csv").is_file()]
    if not places:
        return None
    runs = pd.concat([_read(place) for place in places], ignore_index=True)
    given = [name for name in map(str, runs) if name.startswith(SET)]
    swept = [key.removeprefix(SET) for key in given if runs[key].nunique(dropna=False) > 1]
    runs = runs.rename(columns={f"{SET}{key}": key for key in swept})
    runs = runs.drop(columns=given, errors="ignore")
    how = [json.loads((place / "provenance.json").read_text()) for place in places]
    table = sweep_table(runs, swept, sum((Counter(h["computed"]) for h in how), Counter()))
    table = table.noted(note) if note else table
    table.write(folder, "sweep")
    runs.to_csv(folder / "sweep_runs.csv", index=False)
    if swept:
        save_figure(plot_sweep(runs, swept), folder, "sweep")
    return table, sum(h["failed items"] for h in how)


def sweep_table(runs: pd.DataFrame, swept: list[str], computed: Counter[str]) -> Table:
    """Means by setting and method over the runs that differ in nothing but the seed."""
    settings = [key for key in swept if key != "seed"]
    editor = [EDITOR] if EDITOR in runs else []
    scores = [name for name in ("dice", *_scores(runs)) if name in runs]
    groups = runs.groupby([*settings, *editor, "method"], sort=False, dropna=False)
    frame = groups[["threshold", *scores]].mean()
    frame["spread"] = groups["dice"].std()
    frame["runs"] = groups.size()
    work = ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in sorted(computed.items()))
    return Table(
        title="Sweep",
        frame=frame.reset_index(),
        formats={
            **{key: Format(key) for key in settings},
            **dict.fromkeys(editor, Format("Editor")),
            "method": Format("Mask"),
            "runs": Format("Runs", digits=0),
            "threshold": Format("Threshold", digits=2),
            "dice": Format("Dice ↑", digits=3),
            "spread": Format("± over seeds", digits=3),
            **{name: Format(name, digits=4) for name in scores[1:]},
        },
        notes=(
            "Dice at each run's best threshold of each method, whose mean over the runs is shown; "
            "edits as in its editing table.",
            f"Computed in all runs together: {work or 'nothing'}.",
        ),
    )


@house_style
def plot_sweep(runs: pd.DataFrame, swept: list[str]) -> Figure:
    """Dice over the first swept setting: a dot a run, a line a method through the means."""
    key = next((key for key in swept if key != "seed"), "seed")
    figure = new_figure(7, 4.4)
    axes = figure.subplots()
    ticks = {value: place for place, value in enumerate(sorted(runs[key].unique()))}
    for method, look in method_looks(runs["method"]).items():
        own = runs[runs["method"] == method]
        mean = own.groupby(key)["dice"].mean()
        axes.plot([ticks[v] for v in mean.index], mean, label=method, **look)
        axes.plot(own[key].map(ticks), own["dice"], ".", color=look["color"], alpha=0.5)
    axes.set(xlabel=key, ylabel="mean Dice ↑", ylim=(0, 1.02))
    axes.set_xticks(list(ticks.values()), [f"{value}" for value in ticks])
    axes.legend(loc="best", fontsize=9)
    return figure


def _read(place: Path) -> pd.DataFrame:
    """A run's learned methods: what was set (under ``SET``), Dice and the edits' scores."""
    values: dict[str, Any] = dict(OmegaConf.load(place / "config.yaml").sweep["values"])
    masks = pd.read_csv(place / "tables/mask_methods.csv")[["method", "threshold", "dice"]]
    masks = masks[~masks["method"].isin(BASELINES)]
    if (edits := place / "tables/editing.csv").is_file():
        frame = pd.read_csv(edits)
        frame = frame.rename(columns={"editor": EDITOR})  # "editor" may be what was swept
        several = [EDITOR] if frame[EDITOR].nunique() > 1 else []
        masks = masks.merge(frame[["method", *several, *_scores(frame)]], on="method", how="left")
    masks.insert(0, "run", place.name)
    for key, value in values.items():
        masks[f"{SET}{key}"] = value if isinstance(value, int | float) else str(value)
    return masks


def _scores(frame: pd.DataFrame) -> list[str]:
    return [
        n for s, e in SCORES.items() for n in map(str, frame) if n.startswith(s) and n.endswith(e)
    ]
