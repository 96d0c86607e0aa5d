"""All runs of a sweep as one table and one plot: what each setting does to Dice and edits.

Reads finished results folders; must not know stores, stages or models.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from piebench_masks.report.charts import sweep_figure
from piebench_masks.report.methods import BASELINES, BOUNDS
from piebench_masks.report.table import Format, Table

ROLES = ("background", "edit", "target")
"""Of the editing tables, what is collected."""
EDITOR = "edited by"
SET = "set: "
"""Before the names of settings, which may be called like scores."""


def collect_sweep(
    folder: Path, places: Sequence[Path], note: str | None = None
) -> tuple[Table, int] | None:
    """Write ``sweep.csv/.md/.tex/.json``, ``sweep_runs.csv`` and the plot into a sweep's folder.

    places: the runs' results; note: a further one of the table. Returns the table and how many
    items failed in all runs; None where no run has scored a mask.
    """
    places = [place for place in places if (place / "tables/mask_methods.json").is_file()]
    if not places:
        return None
    scores = list(dict.fromkeys(name for place in places for name in _scores(place)))
    runs = pd.concat([_read(place) for place in places], ignore_index=True)
    given = [name for name in map(str, runs) if name.startswith(SET)]
    swept = [key.removeprefix(SET) for key in given if runs[key].nunique(dropna=False) > 1]
    runs = runs.rename(columns={f"{SET}{key}": key for key in swept})
    runs = runs.drop(columns=given, errors="ignore")
    origins = [json.loads((place / "provenance.json").read_text()) for place in places]
    computed = sum((Counter(origin["computed"]) for origin in origins), Counter())
    table = sweep_table(runs, swept, scores, computed)
    table = table.noted(note) if note else table
    table.write(folder, "sweep")
    runs.to_csv(folder / "sweep_runs.csv", index=False)
    if swept:
        from piebench_masks.report import draw

        draw.save(draw.draw(sweep_figure(runs, swept)), folder, "sweep")
    return table, sum(origin["failed items"] for origin in origins)


def sweep_table(
    runs: pd.DataFrame, swept: Sequence[str], edit_scores: Sequence[str], computed: Counter[str]
) -> Table:
    """Means by setting and method over the runs that differ in nothing but the seed.

    edit_scores: the columns of the edits' scores.
    """
    settings = [key for key in swept if key != "seed"]
    editor = [EDITOR] if EDITOR in runs else []
    scores = ["dice", *edit_scores]
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
            **{name: Format(name, digits=4) for name in edit_scores},
        },
        notes=(
            "Dice at each run's best threshold of each method, whose mean over the runs is shown; "
            "edits as in its editing table.",
            f"Computed in all runs together: {work or 'nothing'}.",
        ),
    )


def _read(place: Path) -> pd.DataFrame:
    """A run's learned methods: what was set (under ``SET``), Dice and the edits' scores."""
    values: dict[str, Any] = dict(OmegaConf.load(place / "config.yaml").sweep["values"])
    masks = Table.read(place / "tables/mask_methods.json").frame[["method", "threshold", "dice"]]
    masks = masks[~masks["method"].isin(BASELINES)]
    if scores := _scores(place):
        frame = Table.read(place / "tables/editing.json").frame
        frame = frame[~frame["method"].isin(BOUNDS)]
        frame = frame.rename(columns={"editor": EDITOR})  # "editor" may be what was swept
        several = [EDITOR] if frame[EDITOR].nunique() > 1 else []
        masks = masks.merge(frame[["method", *several, *scores]], on="method", how="left")
    masks.insert(0, "run", place.name)
    for key, value in values.items():
        masks[f"{SET}{key}"] = value if isinstance(value, int | float) else str(value)
    return masks


def _scores(place: Path) -> list[str]:
    """The columns of a run's editing table that stand for a role; [] where nothing was edited."""
    if not (path := place / "tables/editing.json").is_file():
        return []
    columns = [Table.read(path).column_of(role) for role in ROLES]
    return [name for name in columns if name is not None]
