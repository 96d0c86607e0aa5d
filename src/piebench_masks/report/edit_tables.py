"""Tables of edits: scores by editor and mask, editors beside each other, what an edit costs.

Gets frames of per-sample rows, returns finished tables; must not know stores, stages or models.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, get_args

import numpy as np
import pandas as pd

from piebench_masks.metrics.column import Column, Role, column_of
from piebench_masks.report.leakage import WITHIN, edit_levels, threshold_choices
from piebench_masks.report.mask_tables import COUNT
from piebench_masks.report.methods import BASELINES, BOUNDS, TRIVIAL, at_thresholds, order_methods
from piebench_masks.report.names import header
from piebench_masks.report.ranking import best_cells, best_labels
from piebench_masks.report.statistics import bootstrap
from piebench_masks.report.table import Format, Table
from piebench_masks.settings import UNMASKED

NFE = ["nfe_inverse", "nfe_forward"]
NFE_TITLES = {"nfe_inverse": "NFE inverse", "nfe_forward": "NFE forward", "nfe": "NFE total"}
NFE_MEANING = "evaluations of the U-Net"
BACKWARD = Format(
    "Backward rows",
    digits=1,
    meaning="of the evaluations of a fit, those with a backward pass",
    secondary=True,
)
BETWEEN = (
    "What edits lie between, and does not rank: identity, the source as it is; reconstruction, the "
    "source through the model's autoencoder, and there and back where it has evaluations; target, "
    "the true edit."
)
AREA = Format(
    "Mask area %",
    digits=1,
    scale=100,
    meaning="share of the image that the edit may change",
    secondary=True,
)


def valued_columns(rows: pd.DataFrame, columns: Mapping[str, Column]) -> list[str]:
    """The columns that rows have a value of."""
    return [name for name in columns if name in rows and rows[name].notna().any()]


def headlines(rows: pd.DataFrame, columns: Mapping[str, Column]) -> dict[Role, str]:
    """By role the column that tells most, as far as the rows have values of one."""
    valued = valued_columns(rows, columns)
    chosen = {role: column_of(role, columns, valued) for role in get_args(Role)}
    return {role: name for role, name in chosen.items() if name is not None}


def finite(rows: pd.DataFrame, names: Collection[str]) -> pd.DataFrame:
    """The rows with infinite values of these columns missing, as ``Column.summarise`` has them."""
    return rows.assign(**{name: rows[name].where(np.isfinite(rows[name])) for name in names})


def editing_table(
    editing: pd.DataFrame,
    columns: Mapping[str, Column],
    thresholds: Mapping[str, float],
    knows: Mapping[str, str] = MappingProxyType({}),
    told: Mapping[str, str] = MappingProxyType({}),
    masking: Mapping[str, str] = MappingProxyType({}),
) -> Table:
    """One row per editor and mask method at the method's edit threshold, summed up over samples.

    Shown are the headline columns (without annotated masks: all) that have a value; the csv file
    has all, and the ends of each mean's 95 % bootstrap interval over samples. Values that are
    missing or infinite are left out. Rows under the annotated mask (``mask_source`` oracle) stand
    apart at the end, the bounds behind them; neither ever ranks, others among those that know the
    same. knows, told: the leak levels of the mask methods and of the editors; masking: how editors
    that say so keep to masks.
    """
    valued = {name: columns[name] for name in valued_columns(editing, columns)}
    annotated = any(column.part == "outside" for column in valued.values())
    shown = {n: column for n, column in valued.items() if column.headline or not annotated}
    scored = at_thresholds(editing, thresholds)
    rows = finite(scored, valued)
    keys = ["editor", "method", "mask_source"]
    groups = rows.groupby(keys, sort=False, dropna=False)
    edits = ~scored["method"].isin(BOUNDS)
    frame = _means(groups, valued)
    frame["knows"] = edit_levels(frame, knows, told)
    bounds = frame["method"].isin(BOUNDS)
    frame.loc[bounds, "knows"] = ""
    ways = frame["editor"].map(masking).astype(object)
    frame["masking"] = ways.where(ways.notna() & (frame["method"] != UNMASKED), "")
    choices = threshold_choices(editing)
    frame["chosen"] = [choices.get(method, "") for method in frame["method"]]
    formats = {
        "editor": Format("Editor"),
        "method": Format("Mask"),
        "knows": Format("Knows", meaning="how much of the answer mask and editor are told"),
        "threshold": Format("Threshold", digits=2),
        "masking": Format("Masked by", meaning="how the editor keeps to its mask"),
        "chosen": Format("chosen on", meaning="what the threshold was chosen on", secondary=True),
        "n": COUNT,
        "mask_area": AREA,
        **_formats(shown, headlines(editing, columns)),
    }
    if not choices:
        del formats["chosen"]
    if not masking:
        del formats["masking"], frame["masking"]
    if painted := bool(editing[NFE].notna().to_numpy().any()):
        formats["nfe"] = Format(
            "NFE [inverse, forward]",
            digits=0,
            interval=("nfe_inverse", "nfe_forward"),
            meaning=NFE_MEANING,
            secondary=True,
        )
    oracle, trivial = frame["mask_source"] == "oracle", frame["method"].isin(BASELINES)
    cost = "NFE: U-Net evaluations for an edit. Inverse: once for all masks of a sample."
    directions = {name: column.direction for name, column in shown.items()}
    return Table(
        title="Editing",
        frame=frame,
        formats=formats,
        notes=(
            "Means over samples unless a column says median; undefined values left out.",
            *_fewer(rows[edits].groupby(keys, sort=False, dropna=False), shown),
            *filter(None, (column.note(scored.loc[edits, name]) for name, column in shown.items())),
            *([TRIVIAL] if trivial.any() else []),
            *(["Edits under the annotated mask do not rank."] if (oracle & ~trivial).any() else []),
            *([BETWEEN] if bounds.any() else []),
            *([cost] if painted else []),
            *([WITHIN] if frame.loc[~oracle & ~bounds, "knows"].nunique() > 1 else []),
        ),
        best=best_cells(frame, formats, directions, ~oracle),
        sections=frozenset((*frame.index[oracle][:1], *frame.index[bounds][:1])),
        muted=frozenset(frame.index[trivial | oracle | bounds]),
    )


def _means(groups: Any, columns: Mapping[str, Column]) -> pd.DataFrame:
    """A row a group: each column summed up, and the ends of the means' intervals."""
    statistics = {name: column.statistic for name, column in columns.items()}
    frame = groups[["mask_area", *NFE, *columns]].agg(
        dict.fromkeys(["mask_area", *NFE], "mean") | statistics
    )
    frame["nfe"] = frame[NFE].sum(axis=1, skipna=False)
    frame.insert(0, "threshold", groups["threshold"].first())
    frame.insert(1, "n", groups["sample"].nunique())
    means = [name for name, statistic in statistics.items() if statistic == "mean"]
    ends = np.stack(
        [bootstrap(group.sort_values("sample")[means].to_numpy(dtype=float)) for _, group in groups]
    )
    for column, name in enumerate(means):
        frame[f"{name}_low"], frame[f"{name}_high"] = ends[:, :, column].T
    frame = frame.reset_index()
    behind = (frame["mask_source"] == "oracle") + 2 * frame["method"].isin(BOUNDS)
    return frame.iloc[behind.argsort(kind="stable")].reset_index(drop=True)


def _formats(shown: Mapping[str, Column], chosen: Mapping[Role, str]) -> dict[str, Format]:
    """How metrics' columns are shown, those chosen for a role under it."""
    roles = {name: role for role, name in chosen.items()}
    return {
        name: Format(
            header(column),
            digits=column.digits,
            scale=column.scale,
            meaning=column.meaning,
            secondary=column.role is None,
            role=roles.get(name),
            direction=column.direction,
        )
        for name, column in shown.items()
    }


def cost_table(costs: pd.DataFrame) -> Table:
    """One row per editor: U-Net evaluations and seconds for an edit, mean over all its edits.

    costs: a row an edit, with ``editor``, ``nfe_`` and ``seconds_`` ``inverse`` and ``forward``,
    and ``backward``, which is shown where an editor fits its model to pictures.
    """
    parts = [f"{unit}_{part}" for unit in ("nfe", "seconds") for part in ("inverse", "forward")]
    has_gradients = "backward" in costs and bool((costs["backward"] > 0).any())
    groups = costs.groupby("editor", sort=False)
    frame = groups[[*parts, *(["backward"] if has_gradients else [])]].mean()
    frame.insert(0, "n", groups.size())
    for unit in ("nfe", "seconds"):
        frame[unit] = frame[f"{unit}_inverse"] + frame[f"{unit}_forward"]
    return Table(
        title="Cost of an edit",
        frame=frame.reset_index(),
        formats={
            "editor": Format("Editor"),
            "n": Format("Edits", digits=0),
            **{
                name: Format(title, digits=1, meaning=NFE_MEANING, secondary=True)
                for name, title in NFE_TITLES.items()
            },
            **({"backward": BACKWARD} if has_gradients else {}),
            "seconds_inverse": Format("Seconds inverse", digits=3),
            "seconds_forward": Format("Seconds forward", digits=3),
            "seconds": Format("Seconds total", digits=3),
        },
        notes=(
            "NFE: U-Net evaluations. Inverse: once for all masks of a sample. Forward: each mask.",
            "What is equal is computed once: a sample's equal masks are one edit here, and editors "
            "with equal settings share their edits.",
            "Seconds as measured when the edits were made, batches divided by their samples or "
            "edits, decoding included: they differ from run to run and from device to device.",
        ),
    )


def editor_table(
    editing: pd.DataFrame, columns: Mapping[str, Column], thresholds: Mapping[str, float]
) -> Table:
    """Editors by mask methods: a row for each headline metric and editor, a column a mask.

    Values are in the units that are shown.
    """
    chosen = headlines(editing, columns)
    rows = finite(at_thresholds(editing, thresholds), chosen.values())
    rows = rows[~rows["method"].isin(BOUNDS)]
    methods = ["none", *(m for m in order_methods(rows["method"]) if m != "none")]
    methods = [method for method in methods if method in set(rows["method"])]
    frames, best, sections, count = [], set(), set(), 0
    for name in chosen.values():
        column = columns[name]
        means = rows.groupby(["editor", "method"], sort=False)[name].agg(column.statistic).unstack()
        means = (means * column.scale).reindex(index=rows["editor"].unique(), columns=methods)
        sections.add(count)
        ranking = means.drop(columns=[*BASELINES], errors="ignore").round(2)
        for row, (_, values) in enumerate(ranking.iterrows()):
            best |= {(count + row, label) for label in best_labels(values, column.direction)}
        count += len(means)
        frame = means.reset_index()
        frame.insert(0, "score", header(column))
        frames.append(frame)
    empty = pd.DataFrame(columns=["score", "editor", *methods])
    return Table(
        title="Editors under masks",
        frame=pd.concat(frames, ignore_index=True) if frames else empty,
        formats={
            "score": Format("Score"),
            "editor": Format("Editor"),
            **{m: Format("no mask" if m == "none" else m, digits=2) for m in methods},
        },
        notes=("The best masks of each row are marked, equal ones as rounded here.", TRIVIAL),
        best=frozenset(best),
        sections=frozenset(sections - {0}),
    )


def _fewer(groups: Any, columns: Mapping[str, Column]) -> list[str]:
    """A sentence about columns that have a value for some of the samples only."""
    counts = groups[[*columns]].count()
    some = {n: c for n, c in counts.items() if (c < groups.size()).any()}
    by_count: dict[str, list[str]] = {}
    for name, count in some.items():
        ends = sorted({count.min(), count.max()})
        by_count.setdefault(" to ".join(map(str, ends)), []).append(columns[name].label)
    parts = [f"{count} for {', '.join(labels)}" for count, labels in by_count.items()]
    return [f"Samples that have a value, where not all: {'; '.join(parts)}."] if parts else []
