"""Published numbers (published/*.csv, with their sources) and ours beside them.

Gets frames of per-sample rows and facts about the run; must not know stores, stages or models.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from piebench_masks.metrics.column import Column, Role
from piebench_masks.protocol import OFFICIAL
from piebench_masks.report.edit_tables import finite
from piebench_masks.report.methods import at_thresholds, best_thresholds
from piebench_masks.report.names import header
from piebench_masks.report.statistics import bootstrap, interpolated
from piebench_masks.report.table import Format, Table

STAND_INS: Mapping[str, tuple[Role, str, str]] = {
    "lpips_unedit_part": ("background", "outside", "LPIPS outside ×10³ ↓"),
    "clip_edited": ("edit", "inside", "CLIP edited ↑"),
    "clip_whole": ("edit", "whole", "CLIP whole ↑"),
}
"""By published column role and part of the picture of what a run may have in its place, which makes
the comparison void and gives no value of ours; and the published heading. Others have none.
"""
COMPARED = {"LPIPS": "lpips_unedit_part", "CLIP": "clip_edited"}
"""The metrics without which a comparison is void."""
MISSING = (np.nan,) * 3
"""In the place of a mean and the ends of its interval."""
TURBO = "sdxl_turbo"
MODELS = {TURBO: "SDXL-Turbo", "sd14": "Stable Diffusion 1.4", "sd15": "Stable Diffusion 1.5"}
"""What the numbers were published of, by the names that models have here."""
SCORES_FROM = 4
"""In the columns of the table ``editing``; the source stands behind them."""


@dataclass(frozen=True)
class Setting:
    """What was run: names of data set and diffusion model (None: all edits were made elsewhere),
    samples by edit type's label, the maps' compatibility, and in which switches the protocol of
    scoring is not the official one.
    """

    dataset: str
    model: str | None
    samples: Mapping[str, int]
    compat: str
    unusual: str = ""


def published(name: str) -> pd.DataFrame:
    """The published numbers ``dice``, ``editing`` or ``pareto``, in the units that tables show."""
    with resources.files("piebench_masks.report").joinpath(f"published/{name}.csv").open() as file:
        return pd.read_csv(file)


def published_tables(
    segmentation: pd.DataFrame,
    editing: pd.DataFrame,
    columns: Mapping[str, Column],
    thresholds: Mapping[str, float],
    setting: Setting,
) -> dict[str, Table]:
    """Ours beside the published, by file name: Dice by edit type, editing table, Pareto curves.

    thresholds: each method's in the editing table. A table that has nothing of ours is left out.
    Where data, model or a metric differ from the published ones, a note says that the comparison
    is void, and no difference is given.
    """
    tables = {}
    data, model = _other_data(setting), _other_model(setting, [TURBO])
    if setting.unusual:
        data.append(f"the protocol is not {OFFICIAL}: {setting.unusual}")
    if len(segmentation):
        rows = list(_dice(segmentation))
        note = "Ours at the threshold of the best mean Dice, chosen on these very samples."
        tables["published_dice"] = _table("Dice by edit type", rows, [*data, *model], [note])
    if len(editing):
        metrics = _other_metrics(columns)
        edits = at_thresholds(editing, thresholds)
        lines = list(_published_edits(edits))
        reasons = [*data, *_other_model(setting, [line["model"] for line in lines]), *metrics]
        rows = list(_editing(edits, columns, lines, setting.model))
        notes = _other_models(setting, lines)
        tables["published_editing"] = _table("Editing", rows, reasons, notes)
        reasons = [*data, *model, *metrics]
        note = "Ours: CLIP at the published LPIPS, on the line between our thresholds."
        rows = list(_pareto(editing, columns))
        tables["published_pareto"] = _table("Pareto curves", rows, reasons, [note])
    if setting.compat != "reference":
        protocol = "Protocol: published with compat=reference, ours with compat=exact."
        tables = {name: table.noted(protocol) for name, table in tables.items()}
    return {name: table for name, table in tables.items() if len(table.frame)}


Line = Mapping[Any, Any]
"""A line of a published table, by column."""
Row = dict[str, Any]
"""A number: what, score, published, ours, the ends of our 95 % interval, source."""
DIFFERENCE = ("difference", "difference_low", "difference_high")
"""What a row has not that cannot be compared."""


def _other_data(setting: Setting) -> list[str]:
    if setting.dataset != "pie_bench":
        return [f"the data are {setting.dataset}, not PIE-Bench v1"]
    *full, overall = published("dice")[["edit_type", "n"]].itertuples(index=False)
    if {label: n for label, n in setting.samples.items() if n} != dict(full):
        return [f"the data are {sum(setting.samples.values())} of PIE-Bench's {overall.n} samples"]
    return []


def _other_model(setting: Setting, published: Collection[str]) -> list[str]:
    if setting.model in (None, *published):
        return []
    names = [MODELS[name] for name in dict.fromkeys(published)]
    return [f"the model is {setting.model}, not {' or '.join(names)}"]


def _other_models(setting: Setting, lines: Iterable[Line]) -> list[str]:
    """A sentence about the lines that are of another model than the run, while some are not."""
    models: dict[str, list[str]] = {}
    for line in lines:
        models.setdefault(line["model"], []).append(line["label"])
    if setting.model not in models or len(models) == 1:
        return []
    del models[setting.model]
    parts = [f"{', '.join(labels)} with {MODELS[name]}" for name, labels in models.items()]
    return [f"Published of another model, so that no difference is given: {'; '.join(parts)}."]


def _other_metrics(columns: Mapping[str, Column]) -> list[str]:
    ours = {label: _column(columns, name) for label, name in COMPARED.items()}
    return [
        f"the metric {label} is {ours[label]}, not PIE-Bench's {name}"
        for label, name in COMPARED.items()
        if ours[label] not in (None, name)
    ]


def _column(columns: Mapping[str, Column], name: str) -> str | None:
    """The column of that published metric, else the one that stands in its place."""
    if name in columns or name not in STAND_INS:
        return name if name in columns else None
    alike = (n for n, c in columns.items() if (c.role, c.part) == STAND_INS[name][:2])
    return next(alike, None)


def _score(columns: Mapping[str, Column], name: str) -> str:
    """The heading of a published metric."""
    return header(columns[name]) if name in columns else STAND_INS[name][2]


def _dice(segmentation: pd.DataFrame) -> Iterable[Row]:
    rows = at_thresholds(segmentation, best_thresholds(segmentation))
    *types, overall = published("dice").to_dict("records")
    groups = [(line, rows[rows["edit_type"] == line["edit_type"]]) for line in types]
    for line, group in [*groups, (overall, rows)]:
        for method in ("ours", "attn_based", "noise_based"):
            dice = group.loc[group["method"] == method].sort_values("sample")["dice"]
            if len(dice):
                mean = _mean(dice.to_numpy(float))
                yield _row(f"{line['edit_type']}, {method}", "Dice ↑", line[method], mean, line)


def _published_edits(rows: pd.DataFrame) -> Iterable[Line]:
    """The published lines of which there are rows."""
    ours = {*zip(rows["editor"], rows["method"], strict=True)}
    for line in published("editing").to_dict("records"):
        if (line["editor"], line["method"]) in ours:
            yield line


def _editing(
    rows: pd.DataFrame, columns: Mapping[str, Column], lines: Iterable[Line], model: str | None
) -> Iterable[Row]:
    for line in lines:
        group = rows[(rows["editor"] == line["editor"]) & (rows["method"] == line["method"])]
        for name in [*line][SCORES_FROM:-1]:
            column = _column(columns, name)
            if column is not None and column in group and not pd.isna(line[name]):
                values = group.sort_values("sample")[column].to_numpy(float)
                mean = _mean(values * columns[column].scale) if column == name else MISSING
                row = _row(line["label"], _score(columns, name), line[name], mean, line)
                other = model not in (None, line["model"])
                yield row | dict.fromkeys(DIFFERENCE if other else (), np.nan)


def _pareto(editing: pd.DataFrame, columns: Mapping[str, Column]) -> Iterable[Row]:
    x, y = _column(columns, "lpips_unedit_part"), _column(columns, "clip_edited")
    if x is None or y is None or not {x, y} <= set(editing):
        return
    for method, line in published("pareto").groupby("method", sort=False):
        swept = editing[(editing["method"] == method) & (editing["editor"] == "turbo_edit")]
        wide = (
            finite(swept, (x, y)).pivot(index="sample", columns="threshold", values=[x, y]).dropna()
        )
        if wide.empty or wide[x].shape[1] < 2:
            continue
        at = line["lpips_unedit_part"].to_numpy()
        curves = wide[x].to_numpy(float) * columns[x].scale, wide[y].to_numpy(float)
        is_same = (x, y) == ("lpips_unedit_part", "clip_edited")
        points = interpolated(*curves, at) if is_same else np.full((len(at), 3), np.nan)
        for point, mean in zip(line.to_dict("records"), points, strict=True):
            what = f"{method} at LPIPS {point['lpips_unedit_part']:.2f}"
            yield _row(what, _score(columns, "clip_edited"), point["clip_edited"], mean, point)


def _mean(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of the finite values and the ends of its interval."""
    finite = values[np.isfinite(values)]
    low, high = bootstrap(values[:, None])[:, 0]
    return (finite.mean() if len(finite) else np.nan), low, high


def _row(what: str, score: str, value: float, mean: Sequence[float], line: Line) -> Row:
    ours, low, high = mean
    return {
        "what": what,
        "score": score,
        "published": value,
        "ours": ours,
        "difference": ours - value,
        "difference_low": low - value,
        "difference_high": high - value,
        "source": line["source"],
    }


def _table(title: str, rows: Sequence[Row], reasons: Sequence[str], notes: Sequence[str]) -> Table:
    frame = pd.DataFrame(rows)
    if len(frame) and reasons:
        frame[[*DIFFERENCE]] = np.nan
    void = f"The comparison is VOID, differences are not given: {'; '.join(reasons)}."
    sources = sorted({row["source"] for row in rows})
    return Table(
        title=f"{title}: ours beside the published{' (VOID)' if reasons else ''}",
        frame=frame,
        formats={
            "what": Format("What"),
            "score": Format("Score"),
            "published": Format("Published", digits=2),
            "ours": Format("Ours", digits=2),
            "difference": Format("Ours - published [95 %]", digits=2, interval=DIFFERENCE[1:]),
        },
        notes=(*([void] if reasons else []), *notes, f"Published: {'; '.join(sources)}."),
    )
