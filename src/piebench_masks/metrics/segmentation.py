"""Agreement of predicted masks with the annotated one (METHODS.md, section 4).

Pure functions on arrays. Knows no model and no method.
"""

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from piebench_masks.metrics.column import Column

EPSILON = np.float32(1e-7)
BOUNDARY_TOLERANCE = 0.0075
"""How far apart two outlines may be and still match, as a share of the image's diagonal."""

RATIOS: dict[str, Column] = {
    f"{name}{suffix}": Column(f"{label}{extra}", "up", digits=3)
    for suffix, extra in {"": "", "_inv": " (inverted)"}.items()
    for name, label in {
        "dice": "Dice",
        "precision": "Precision",
        "recall": "Recall",
        "iou": "IoU",
    }.items()
}
COLUMNS: dict[str, Column] = {
    **RATIOS,
    "dice_inner": Column("Dice without border", "up", digits=3),
    "boundary_f": Column("Boundary F", "up", digits=3),
    "average_precision": Column("AP", "up", digits=3),
}


def scores(prediction: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    """Score masks ``prediction`` bool [T, H, W] against ``target`` bool [H, W].

    Returns float32 [T] for every key of ``RATIOS`` (``_inv``: the inverted prediction against
    the inverted target) and ``area``, the share of the image that is predicted; and without the
    frame of one pixel, which PIE-Bench sets in every annotation, ``dice_inner`` and the
    ``boundary_f`` of :func:`boundary_f`. Every value lies in [0, 1]; the smoothing term of 1e-7
    decides empty cases, so an empty prediction has precision 1.
    """
    inner = prediction[:, 1:-1, 1:-1], target[1:-1, 1:-1]
    return {
        **_from_counts(*_counts(prediction, target), target),
        "dice_inner": _from_counts(*_counts(*inner), inner[1])["dice"],
        "boundary_f": boundary_f(*inner, BOUNDARY_TOLERANCE * float(np.hypot(*target.shape))),
    }


def boundary_f(prediction: np.ndarray, target: np.ndarray, tolerance: float) -> np.ndarray:
    """F-measure of outlines (Martin et al., TPAMI 2004; as in DAVIS, Perazzi et al., CVPR 2016).

    prediction: bool [T, H, W]; target: bool [H, W]. Precision is the share of the predicted
    outline within ``tolerance`` pixels (rounded up) of the target's, recall the other way round;
    an outline without a pixel matches another such one alone. Returns float32 [T].
    """
    reach = np.ceil(tolerance)
    outlines, wanted = _outline(prediction), _outline(target)
    near = distance_transform_edt(~wanted) <= reach
    points = np.argwhere(wanted)
    scored = [_matching(outline, near, points, reach) for outline in outlines]
    return np.array(scored, dtype=np.float32)


def average_precision(soft: np.ndarray, target: np.ndarray) -> float:
    """Area under the precision-recall steps of a soft map [H, W] over all its own thresholds.

    sum of (R_n - R_{n-1}) P_n; equal values are one threshold. NaN where the target is empty or
    the map is not finite.
    """
    if not target.any() or not np.isfinite(soft).all():
        return float("nan")
    order = np.argsort(-soft, axis=None)
    values, hits = soft.ravel()[order], target.ravel()[order].cumsum()
    last = np.append(np.flatnonzero(np.diff(values)), values.size - 1)
    return float((np.diff(hits[last], prepend=0) * hits[last] / (last + 1)).sum() / hits[-1])


def _counts(prediction: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [T] that are predicted and annotated, and that are predicted."""
    hits = np.count_nonzero(prediction & target, axis=(-2, -1))
    return hits, np.count_nonzero(prediction, axis=(-2, -1))


def _outline(masks: np.ndarray) -> np.ndarray:
    """Pixels [..., H, W] that differ from a neighbour to the right, below, or both."""
    padding = [(0, 0)] * (masks.ndim - 2) + [(0, 1), (0, 1)]
    padded = np.pad(masks, padding, mode="edge")
    right, below, both = padded[..., :-1, 1:], padded[..., 1:, :-1], padded[..., 1:, 1:]
    return (masks ^ right) | (masks ^ below) | (masks ^ both)


def _matching(outline: np.ndarray, near: np.ndarray, points: np.ndarray, reach: float) -> float:
    """F of a predicted outline [H, W] and the target's ``points`` [N, 2]; near: within reach."""
    found = np.argwhere(outline)
    if len(found) == 0 or len(points) == 0:
        return float(len(found) == len(points))
    precision = near[outline].mean()
    # The search is for distances that are smaller than its bound.
    distances, _ = cKDTree(found).query(points, distance_upper_bound=reach + 1e-6)
    recall = np.isfinite(distances).mean()
    return float(2 * precision * recall / max(precision + recall, 1e-12))


def _from_counts(hits: np.ndarray, area: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    """All ratios from counted pixels: predicted and annotated, predicted, annotated."""
    false_alarms, misses = area - hits, np.count_nonzero(target) - hits
    rejections = target.size - hits - false_alarms - misses
    return {
        **_ratios(hits, false_alarms, misses, ""),
        **_ratios(rejections, misses, false_alarms, "_inv"),
        "area": np.asarray(area, dtype=np.float32) / np.float32(target.size),
    }


def _ratios(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, suffix: str) -> dict[str, np.ndarray]:
    """The four ratios in float32: counts are exact there, the order of the sums is immaterial."""
    hit, wrong, missed = (np.asarray(count, dtype=np.float32) for count in (tp, fp, fn))
    return {
        f"dice{suffix}": (2 * hit + EPSILON) / (2 * hit + missed + wrong + EPSILON),
        f"precision{suffix}": (hit + EPSILON) / (hit + wrong + EPSILON),
        f"recall{suffix}": (hit + EPSILON) / (hit + missed + EPSILON),
        f"iou{suffix}": (hit + EPSILON) / (hit + missed + wrong + EPSILON),
    }
