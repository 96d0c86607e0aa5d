"""Which mask methods there are in rows, which of them rank, and at which threshold each is shown.

Gets frames of per-sample rows; must not import torch.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from piebench_masks.settings import IDENTITY, RECONSTRUCTION, TARGET

BOUNDS = (IDENTITY, RECONSTRUCTION, TARGET)
"""What edits lie between: the source, what the autoencoder makes of it, the true edit. They never
rank."""
BASELINES = ("full", "empty", "centre", "random", "oracle")
"""Trivial mask methods: they stand behind the learned ones and never rank."""
UNRANKED = (*BASELINES, *BOUNDS)
TRIVIAL = "Trivial masks (full, empty, centre, random, oracle) do not rank."


def order_methods(methods: Iterable[str]) -> list[str]:
    """Distinct methods as they come, then the trivial baselines, the oracle and the bounds."""
    distinct = list(dict.fromkeys(methods))
    unranked = [method for method in UNRANKED if method in distinct]
    return [method for method in distinct if method not in UNRANKED] + unranked


def learned_methods(methods: Iterable[str]) -> list[str]:
    """Distinct methods as they come, without the trivial baselines and the bounds."""
    return [method for method in dict.fromkeys(methods) if method not in UNRANKED]


def leak_levels(knows: Mapping[str, str]) -> list[str]:
    """A sentence on what the learned methods are told; knows: the level of each."""
    told: dict[str, list[str]] = {}
    for method in learned_methods(knows):
        told.setdefault(knows[method], []).append(method)
    if not told:
        return []
    levels = "; ".join(f"{level}: {', '.join(methods)}" for level, methods in told.items())
    unlike = (
        " Methods that are told more have it easier: the best are marked within a level."
        if len(told) > 1
        else ""
    )
    return [f"What the methods know of the answer: {levels}.{unlike}"]


def editors_of(edits: pd.DataFrame) -> list[str]:
    """Distinct editors as they come, without the bounds."""
    return list(edits.loc[~edits["method"].isin(BOUNDS), "editor"].unique())


def best_thresholds(segmentation: pd.DataFrame) -> dict[str, float]:
    """Each method's threshold of the highest mean Dice over all samples; of equals the lowest."""
    mean = segmentation.groupby(["method", "threshold"])["dice"].mean()
    return {
        method: float(mean.loc[method].idxmax()) for method in order_methods(segmentation["method"])
    }


def edited_thresholds(
    masks: pd.DataFrame, edits: pd.DataFrame, defaults: Mapping[str, float]
) -> dict[str, float]:
    """Of the thresholds that were edited under, each method's one of the highest mean Dice.

    Where none of them was scored, the one nearest to the method's default threshold.
    """
    edited = edits[["method", "threshold"]].dropna().drop_duplicates()
    grids = {method: edited.loc[edited["method"] == method, "threshold"] for method in defaults}
    nearest = {
        method: min(grid, key=lambda threshold: abs(threshold - defaults[method]))
        for method, grid in grids.items()
        if len(grid)
    }
    scored = masks.merge(edited, on=["method", "threshold"]) if len(masks) else masks
    return nearest | (best_thresholds(scored) if len(scored) else {})


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


def edit_types(rows: pd.DataFrame) -> list[str]:
    """The types that rows have, in the data set's order, which is that of the categories."""
    present = set(rows["edit_type"])
    return [label for label in rows["edit_type"].cat.categories if label in present]
