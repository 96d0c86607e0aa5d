"""Result tables in the paper's layouts.

Gets frames of per-sample rows, returns frames of means; must not know stores, stages or models.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd

from piebench_masks.data.sample import EDIT_TYPES
from piebench_masks.metrics.column import Column
from piebench_masks.metrics.segmentation import COLUMNS
from piebench_masks.report.table import Format, Table

BASELINES = ("full", "empty", "centre", "random", "oracle")
"""Trivial mask methods: they stand behind the learned ones and never rank."""
TRIVIAL = "Trivial masks (full, empty, centre, random, oracle) do not rank."

NFE = ["nfe_inverse", "nfe_forward"]
NFE_TITLES = {"nfe_inverse": "NFE inverse", "nfe_forward": "NFE forward", "nfe": "NFE total"}

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def header(column: Column) -> str:
    """A metric's label with its scale and the direction that is better: ``LPIPS ×10³ ↓``."""
    power = f" ×10{str(round(np.log10(column.scale))).translate(_SUPERSCRIPTS)}"
    arrow = "↑" if column.direction == "up" else "↓"
    return f"{column.label}{power if column.scale != 1 else ''} {arrow}"


def best_thresholds(segmentation: pd.DataFrame) -> dict[str, float]:
    """Each method's threshold of the highest mean Dice over all samples; of equals the lowest."""
    mean = segmentation.groupby(["method", "threshold"])["dice"].mean()
    return {
        method: float(mean.loc[method].idxmax()) for method in order_methods(segmentation["method"])
    }


def order_methods(methods: Iterable[str]) -> list[str]:
    """Distinct methods as they come, the trivial baselines last and the oracle last of all."""
    distinct = list(dict.fromkeys(methods))
    baselines = [method for method in BASELINES if method in distinct]
    return [method for method in distinct if method not in BASELINES] + baselines


def at_thresholds(rows: pd.DataFrame, thresholds: Mapping[str, float]) -> pd.DataFrame:
    """The rows at each method's threshold, and those that have none at all; a method with a single
    threshold needs no entry.

    Raises ValueError if a method was not computed at the threshold asked for.
    """
    chosen = []
    for method in order_methods(rows["method"]):
        of_method = rows[rows["method"] == method]
        grid = of_method["threshold"].dropna().unique()
        wanted = thresholds.get(method, grid[0] if len(grid) == 1 else None)
        if len(grid) and (wanted is None or not np.isclose(grid, wanted).any()):
            have = ", ".join(f"{value:g}" for value in np.sort(grid))
            raise ValueError(f"{method}: no results at threshold {wanted}; choose one of {have}")
        at = of_method["threshold"]
        chosen.append(of_method[at.isna() | np.isclose(at, np.nan if wanted is None else wanted)])
    return pd.concat(chosen, ignore_index=True)


def headlines(rows: pd.DataFrame, columns: Mapping[str, Column]) -> list[str]:
    """Of the columns with values what tells most, as far as it is there: the background's LPIPS,
    the edited part's CLIP, or the whole image's without annotated masks, and the distance to the
    true edit.
    """
    wanted = {"lpips": ("_unedit_part", ""), "clip": ("_edited", "_whole"), "target_error": ("",)}
    known = [name for name in columns if name in rows and rows[name].notna().any()]
    found = [
        next((n for end in ends for n in known if n.startswith(start) and n.endswith(end)), None)
        for start, ends in wanted.items()
    ]
    return [name for name in found if name is not None]


def dice_table(
    segmentation: pd.DataFrame, thresholds: Mapping[str, float] | Literal["best"] = "best"
) -> Table:
    """Mean Dice by edit type and method, the paper's layout; Overall is the mean over SAMPLES.

    Types without samples have no row; samples of a single type have that of Overall only.
    The csv file also has the ends of each mean's 95 % bootstrap interval.
    """
    rows, note = _chosen(segmentation, thresholds)
    methods = order_methods(rows["method"])
    dice = rows.pivot(index=["edit_type", "sample"], columns="method", values="dice")[methods]
    dice = dice.sort_index(level="sample")  # the order decides who is drawn, here and elsewhere
    # By type as overall: the same samples are drawn for all methods.
    kinds = dice.index.get_level_values("edit_type")
    present = sorted(set(kinds)) if kinds.nunique() > 1 else []  # a data set may have no types
    groups = {EDIT_TYPES[kind]: dice[kinds == kind] for kind in present}
    groups["Overall"] = dice
    frame = pd.DataFrame([group.mean() for group in groups.values()])
    frame.insert(0, "edit_type", list(groups))
    frame.insert(1, "n", [len(group) for group in groups.values()])
    ends = np.stack([bootstrap(group.to_numpy(dtype=float)) for group in groups.values()])
    for column, method in enumerate(methods):
        frame[f"{method}_low"], frame[f"{method}_high"] = ends[:, :, column].T
    shown = {method: Format(method, digits=2) for method in methods}
    ranking = [method for method in methods if method not in BASELINES]
    return Table(
        title="Dice ↑ by edit type",
        frame=frame,
        formats={"edit_type": Format("Edit type"), "n": Format("n", digits=0), **shown},
        notes=(note, f"Overall: mean over samples. {TRIVIAL}"),
        best=frozenset(
            (row, method)
            for row, values in enumerate(frame[ranking].round(2).to_numpy())
            for method in _best(pd.Series(values, ranking), "up")
        ),
        sections=frozenset({len(groups) - 1}),
    )


def method_table(
    segmentation: pd.DataFrame, thresholds: Mapping[str, float] | Literal["best"] = "best"
) -> Table:
    """One row per mask method: scores at its threshold, over its sweep, and its degenerate masks.

    Scores of ``segmentation.COLUMNS`` that the rows lack are left out. The interval of Dice is the
    95 % percentile bootstrap over samples, the same resamples for all methods, from a fixed seed.
    """
    rows, note = _chosen(segmentation, thresholds)
    by_method = rows.groupby("method")
    dice = rows.pivot(index="sample", columns="method", values="dice")
    low, high = bootstrap(dice.to_numpy(dtype=float))
    sweep = segmentation.groupby("method")["threshold"].nunique().gt(1)
    per_sample = segmentation.groupby(["method", "sample"])["dice"]
    further = [name for name in ("dice_inner", "boundary_f", "average_precision") if name in rows]
    frame = by_method[["dice", "precision", "recall", "iou", *further]].mean()
    frame["threshold"] = by_method["threshold"].first()
    frame["dice_low"], frame["dice_high"] = (pd.Series(end, dice.columns) for end in (low, high))
    frame["dice_mean"] = per_sample.mean().groupby(level="method").mean().where(sweep)
    frame["dice_per_image"] = per_sample.max().groupby(level="method").mean().where(sweep)
    frame["full"] = by_method["area"].agg(lambda area: (area >= 1).mean())
    frame["empty"] = by_method["area"].agg(lambda area: (area <= 0).mean())
    frame["undefined"] = 1 - by_method["sample"].nunique() / rows["sample"].nunique()
    frame = frame.loc[order_methods(rows["method"])].reset_index()
    formats = {
        "method": Format("Method"),
        "threshold": Format("Threshold", digits=2),
        "dice": Format("Dice ↑ [95 %]", digits=3, interval=("dice_low", "dice_high")),
        "precision": Format("Precision ↑", digits=3),
        "recall": Format("Recall ↑", digits=3),
        "iou": Format("IoU ↑", digits=3),
        **{name: Format(header(COLUMNS[name]), digits=3) for name in further},
        "dice_mean": Format("Sweep mean ↑", digits=3),
        "dice_per_image": Format("Per image ↑", digits=3),
        "full": Format("Full %", digits=1, scale=100),
        "empty": Format("Empty %", digits=1, scale=100),
        "undefined": Format("No map %", digits=1, scale=100),
    }
    scores = dict.fromkeys(["dice", "iou", *further, "dice_mean", "dice_per_image"], "up")
    return Table(
        title="Mask methods",
        frame=frame,
        formats=formats,
        notes=(
            note,
            f"Dice with its 95 % interval (bootstrap over samples). {TRIVIAL} Nor do precision and "
            "recall: a trivial mask has the best of each.",
            "Sweep mean: Dice over all thresholds. Per image: Dice with every image at its own "
            "best threshold, which no method can know.",
            "Full, empty, no map: share of masks that are all ones or empty, and of samples whose "
            "map is not finite or not defined.",
        ),
        best=_best_in_columns(frame, formats, scores),
        sections=frozenset(frame.index[frame["method"].isin(BASELINES)][:1]),
        muted=frozenset(frame.index[frame["method"].isin(BASELINES)]),
    )


def threshold_table(segmentation: pd.DataFrame, own: Mapping[str, float]) -> Table:
    """Mean Dice of each method that has a sweep under every way to choose its threshold.

    own: the thresholds fixed in advance. Cross-validated: chosen on a random half of the samples,
    scored on the other, both ways round, for 100 splits from a fixed seed; with the mean and the
    range of what was chosen.
    """
    rows = []
    for method in order_methods(segmentation["method"]):
        dice = segmentation[segmentation["method"] == method]
        dice = dice.pivot(index="sample", columns="threshold", values="dice").dropna().sort_index()
        if dice.shape[1] < 2 or len(dice) < 2:
            continue
        mean, cuts = dice.mean(), dice.columns.to_numpy(float)
        chosen, held_out = _cross_validated(dice.to_numpy(float))
        fixed = int(np.abs(cuts - own[method]).argmin())
        rows.append(
            {
                "method": method,
                "fixed_at": cuts[fixed],
                "fixed": mean.iloc[fixed],
                "best_at": cuts[mean.to_numpy().argmax()],
                "best": mean.max(),
                "cross_validated_at": cuts[chosen].mean(),
                "cross_validated_lowest": cuts[chosen].min(),
                "cross_validated_highest": cuts[chosen].max(),
                "cross_validated": held_out.mean(),
                "per_image": dice.max(axis=1).mean(),
            }
        )
    ends = ("cross_validated_lowest", "cross_validated_highest")
    formats = {
        "method": Format("Method"),
        "fixed_at": Format("fixed at", digits=2),
        "fixed": Format("Dice", digits=3),
        "best_at": Format("best at", digits=2),
        "best": Format("Dice", digits=3),
        "cross_validated_at": Format("cross-validated at [range]", digits=2, interval=ends),
        "cross_validated": Format("Dice", digits=3),
        "per_image": Format("per image", digits=3),
    }
    return Table(
        title="Dice ↑ by how the threshold is chosen",
        frame=pd.DataFrame(rows, columns=[*formats, *ends]),  # also where there are none
        formats=formats,
        notes=(
            "Fixed: the method's own threshold, set in advance (by default the reference's).",
            "Best: the highest mean Dice on these very samples, which flatters.",
            "Cross-validated: chosen on one half of the samples, scored on the other; 100 splits.",
            "Per image: every image at its own best threshold, which no method can know.",
        ),
    )


def _cross_validated(dice: np.ndarray, splits: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """For each half of each split of ``dice`` [N,T]: the chosen column, its mean on the other."""
    draw = np.random.default_rng(0)
    chosen, held_out = [], []
    for _ in range(splits):
        order = draw.permutation(len(dice))
        halves = order[: len(dice) // 2], order[len(dice) // 2 :]
        for half, other in (halves, halves[::-1]):
            chosen.append(dice[half].mean(axis=0).argmax())
            held_out.append(dice[other, chosen[-1]].mean())
    return np.array(chosen), np.array(held_out)


def editing_table(
    editing: pd.DataFrame, columns: Mapping[str, Column], thresholds: Mapping[str, float]
) -> Table:
    """One row per editor and mask method at the method's edit threshold, summed up over samples.

    Shown are the headline columns (without annotated masks: all) that have a value; the csv file
    has all, and the ends of each mean's 95 % bootstrap interval over samples. Missing values are
    left out. Rows under the annotated mask (``mask_source`` oracle) stand apart at the end and
    never rank.
    """
    painted = bool(editing[NFE].notna().to_numpy().any())
    valued = set(editing.columns[editing.notna().any()])
    known = {name: column for name, column in columns.items() if name in valued}
    annotated = any(name.endswith("_unedit_part") for name in known)
    shown = {n: column for n, column in known.items() if column.headline or not annotated}
    means = [name for name, column in known.items() if column.statistic == "mean"]
    rows = at_thresholds(editing, thresholds)
    groups = rows.groupby(["editor", "method", "mask_source"], sort=False, dropna=False)
    frame = groups[["mask_area", *NFE, *known]].agg(
        dict.fromkeys(["mask_area", *NFE], "mean")
        | {name: column.statistic for name, column in known.items()}
    )
    frame["nfe"] = frame[NFE].sum(axis=1, skipna=False)
    frame.insert(0, "threshold", groups["threshold"].first())
    frame.insert(1, "n", groups["sample"].nunique())
    ends = np.stack(
        [bootstrap(group.sort_values("sample")[means].to_numpy(dtype=float)) for _, group in groups]
    )
    for column, name in enumerate(means):
        frame[f"{name}_low"], frame[f"{name}_high"] = ends[:, :, column].T
    frame = frame.reset_index()
    frame = frame.sort_values("mask_source", key=lambda source: source == "oracle", kind="stable")
    frame = frame.reset_index(drop=True)
    formats = {
        "editor": Format("Editor"),
        "method": Format("Mask"),
        "threshold": Format("Threshold", digits=2),
        "n": Format("n", digits=0),
        "mask_area": Format("Mask area %", digits=1, scale=100),
        **{name: Format(header(c), digits=c.digits, scale=c.scale) for name, c in shown.items()},
    }
    if painted:
        parts = ("nfe_inverse", "nfe_forward")
        formats["nfe"] = Format("NFE [inverse, forward]", digits=0, interval=parts)
    oracle, trivial = frame["mask_source"] == "oracle", frame["method"].isin(BASELINES)
    cost = "NFE: U-Net evaluations for an edit. Inverse: once for all masks of a sample."
    directions = {name: column.direction for name, column in shown.items()}
    return Table(
        title="Editing",
        frame=frame,
        formats=formats,
        notes=(
            "Means over samples unless a column says median; undefined values left out.",
            *_fewer(groups, shown),
            *([TRIVIAL] if trivial.any() else []),
            *(["Edits under the annotated mask do not rank."] if (oracle & ~trivial).any() else []),
            *([cost] if painted else []),
        ),
        best=_best_in_columns(frame, formats, directions, ~oracle),
        sections=frozenset(frame.index[oracle][:1]),
        muted=frozenset(frame.index[frame["method"].isin(BASELINES) | oracle]),
    )


def cost_table(costs: pd.DataFrame) -> Table:
    """One row per editor: U-Net evaluations and seconds for an edit, mean over all its edits.

    costs: a row an edit, with ``editor``, ``nfe_`` and ``seconds_`` ``inverse`` and ``forward``.
    """
    parts = [f"{unit}_{part}" for unit in ("nfe", "seconds") for part in ("inverse", "forward")]
    groups = costs.groupby("editor", sort=False)
    frame = groups[parts].mean()
    frame.insert(0, "n", groups.size())
    for unit in ("nfe", "seconds"):
        frame[unit] = frame[f"{unit}_inverse"] + frame[f"{unit}_forward"]
    seconds = {
        "seconds_inverse": Format("Seconds inverse", digits=3),
        "seconds_forward": Format("Seconds forward", digits=3),
        "seconds": Format("Seconds total", digits=3),
    }
    return Table(
        title="Cost of an edit",
        frame=frame.reset_index(),
        formats={
            "editor": Format("Editor"),
            "n": Format("Edits", digits=0),
            **{name: Format(title, digits=1) for name, title in NFE_TITLES.items()},
            **seconds,
        },
        notes=(
            "NFE: U-Net evaluations. Inverse: once for all masks of a sample. Forward: each mask.",
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
    rows = at_thresholds(editing, thresholds)
    methods = ["none", *(m for m in order_methods(rows["method"]) if m != "none")]
    methods = [method for method in methods if method in set(rows["method"])]
    frames, best, sections, count = [], set(), set(), 0
    for name in headlines(editing, columns):
        column = columns[name]
        means = rows.groupby(["editor", "method"], sort=False)[name].agg(column.statistic).unstack()
        means = (means * column.scale).reindex(index=rows["editor"].unique(), columns=methods)
        sections.add(count)
        ranking = means.drop(columns=[*BASELINES], errors="ignore").round(2)
        for row, (_, values) in enumerate(ranking.iterrows()):
            best |= {(count + row, name) for name in _best(values, column.direction)}
        count += len(means)
        frame = means.reset_index()
        frame.insert(0, "score", header(column))
        frames.append(frame)
    return Table(
        title="Editors under masks",
        frame=pd.concat(frames, ignore_index=True),
        formats={
            "score": Format("Score"),
            "editor": Format("Editor"),
            **{m: Format("no mask" if m == "none" else m, digits=2) for m in methods},
        },
        notes=(TRIVIAL,),
        best=frozenset(best),
        sections=frozenset(sections - {0}),
    )


def _chosen(
    segmentation: pd.DataFrame, thresholds: Mapping[str, float] | Literal["best"]
) -> tuple[pd.DataFrame, str]:
    """Rows at the thresholds, and the sentence that says which they are and why."""
    best = thresholds == "best"
    rows = at_thresholds(
        segmentation, best_thresholds(segmentation) if isinstance(thresholds, str) else thresholds
    )
    used = rows[~rows["method"].isin(BASELINES)].groupby("method", sort=False)["threshold"].first()
    why = "best mean Dice of each method on these very samples" if best else "fixed in advance"
    return rows, f"Thresholds ({why}): {', '.join(f'{m} {value:g}' for m, value in used.items())}."


def _best(values: pd.Series, direction: str) -> list[str]:
    """Labels of the best values; equals all count, and none does where all are equal."""
    if values.nunique() < 2:
        return []
    return list(values.index[values == (values.max() if direction == "up" else values.min())])


def _best_in_columns(
    frame: pd.DataFrame,
    formats: Mapping[str, Format],
    directions: Mapping[str, str],
    ranking: pd.Series | bool = True,
) -> frozenset[tuple[int, str]]:
    """The best cells of each column, compared as they are shown, among rows that may rank."""
    ranking = ~frame["method"].isin(BASELINES) & ranking
    return frozenset(
        (int(row), name)
        for name, direction in directions.items()
        for shown in [formats[name]]
        for row in _best((frame.loc[ranking, name] * shown.scale).round(shown.digits), direction)
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


def bootstrap(values: np.ndarray, resamples: int = 2000) -> np.ndarray:
    """95 % interval [2,M] of the column means of ``values`` [N,M]; what is not finite is left out.

    NaN where a column has no value. The same resamples for every frame of N rows.
    """
    count, known = len(values), np.isfinite(values)
    if count == 0:
        return np.full((2, values.shape[1]), np.nan)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=resamples)
    with np.errstate(invalid="ignore"):
        means = (draws @ np.where(known, values, 0.0)) / (draws @ known)
    ends = np.full((2, values.shape[1]), np.nan)
    some = known.any(axis=0)
    ends[:, some] = np.nanpercentile(means[:, some], [2.5, 97.5], axis=0)
    return ends
