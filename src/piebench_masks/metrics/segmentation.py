"""Agreement of predicted masks with the annotated one (methods.md, section 4).

Pure functions on arrays. Knows no model and no method.
"""

from itertools import product

import numpy as np
from scipy.ndimage import minimum_filter

from piebench_masks.metrics.column import Column

EPSILON = np.float32(1e-7)
BOUNDARY_TOLERANCE = 0.0075
"""How far apart two outlines may be and still match, as a share of the image's diagonal."""
BAND = 0.02
"""Width of the bands along the outlines that Boundary IoU compares, as a share of the diagonal."""

RATIOS: dict[str, Column] = {
    f"{name}{suffix}": Column(f"{label}{extra}", "up", digits=3, meaning=f"{meaning}{of}.")
    for suffix, extra, of in (
        ("", "", ""),
        ("_inv", " (inverted)", ", of the inverted mask and the inverted annotation"),
    )
    for name, label, meaning in (
        (
            "dice",
            "Dice",
            "Twice the area that mask and annotation share, divided by the sum of both areas",
        ),
        (
            "precision",
            "Precision",
            "Share of the mask that is annotated; no best is marked, since the smallest mask wins",
        ),
        (
            "recall",
            "Recall",
            "Share of the annotation that the mask covers; no best is marked, since the full mask "
            "wins",
        ),
        ("iou", "IoU", "Area that mask and annotation share, divided by the area of either"),
    )
}
COLUMNS: dict[str, Column] = {
    **RATIOS,
    "dice_inner": Column(
        "Dice without border",
        "up",
        digits=3,
        meaning="Dice without the frame of one pixel that PIE-Bench always annotates.",
    ),
    "boundary_f": Column(
        "Boundary F",
        "up",
        digits=3,
        meaning="Agreement of the two outlines: 1 if they run within 0.75 % of the image's "
        "diagonal of each other.",
    ),
    "boundary_iou": Column(
        "Boundary IoU",
        "up",
        digits=3,
        meaning="IoU of what lies within 2 % of the image's diagonal of either outline, inwards.",
    ),
    "average_precision": Column(
        "AP",
        "up",
        digits=3,
        meaning="Average precision of the soft map, whatever the threshold.",
    ),
}


def sweep_scores(soft: np.ndarray, levels: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    """Score all masks ``soft >= level`` of a map [H, W] against ``target`` bool [H, W].

    levels: [T], of the map's type, in any order. Returns float32 [T] for every key of ``RATIOS``
    (``_inv``: the inverted prediction against the inverted target) and ``area``, the share of the
    image that is predicted; and without the frame of one pixel, which PIE-Bench sets in every
    annotation, ``dice_inner``, :func:`boundary_f` and :func:`boundary_iou`. Every value lies in
    [0, 1]; the smoothing term of 1e-7 decides empty cases, so an empty prediction has precision 1.
    """
    n, order = len(levels), np.argsort(levels)
    reached = nested(soft, levels[order])
    inner, inner_target = reached[1:-1, 1:-1], target[1:-1, 1:-1]
    diagonal = float(np.hypot(*target.shape))
    scores = {
        **ratios(reached, n, target),
        "dice_inner": ratios(inner, n, inner_target)["dice"],
        "boundary_f": boundary_f(inner, n, inner_target, BOUNDARY_TOLERANCE * diagonal),
        "boundary_iou": boundary_iou(inner, n, inner_target, max(1, round(BAND * diagonal))),
    }
    place = np.argsort(order)
    return {name: values[place] for name, values in scores.items()}


def nested(soft: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """In how many of the masks ``soft >= level`` a pixel lies, [H, W]; levels [n] ascend."""
    reached = np.zeros(soft.shape, np.min_scalar_type(2 * len(levels) + 1))
    for level in levels:  # plain comparisons are faster than searching, up to some forty levels
        reached += soft >= level
    return reached


def ratios(reached: np.ndarray, n: int, target: np.ndarray) -> dict[str, np.ndarray]:
    """``RATIOS`` and ``area``, float32 [n], of ``n`` nested masks, from the widest on."""
    hits, area = _counts(reached, target, n)
    false_alarms, misses = area - hits, np.count_nonzero(target) - hits
    rejections = target.size - hits - false_alarms - misses
    return {
        **_ratios(hits, false_alarms, misses, ""),
        **_ratios(rejections, misses, false_alarms, "_inv"),
        "area": area.astype(np.float32) / np.float32(max(target.size, 1)),
    }


def boundary_f(reached: np.ndarray, n: int, target: np.ndarray, tolerance: float) -> np.ndarray:
    """F-measure of outlines (Martin et al., TPAMI 2004; as in DAVIS, Perazzi et al., CVPR 2016).

    reached: [H, W], in how many of ``n`` nested masks a pixel lies, from the widest on; target:
    bool [H, W]. Precision is the share of a mask's outline within ``tolerance`` pixels (rounded
    up) of the target's, recall the other way round; an outline without a pixel matches another
    such one alone. Returns float32 [n].
    """
    reach = int(np.ceil(tolerance))
    low, high = _extremes(reached)
    # Flat indices into images with a frame, so that no disk around a point leaves them.
    points = np.flatnonzero(np.pad(np.less(*_extremes(target)), reach))
    height, width = (side + 2 * reach for side in target.shape)
    disk = [
        down * width + along
        for down, along in product(range(-reach, reach + 1), repeat=2)
        if down**2 + along**2 <= reach**2
    ]
    within = slice(reach, height - reach), slice(reach, width - reach)

    neighbourhood = np.zeros((height, width), dtype=bool)
    for step in disk:
        neighbourhood.reshape(-1)[points + step] = True
    near_extremes = low[neighbourhood[within]], high[neighbourhood[within]]
    sizes = _spans(low, high, n)
    precision = _spans(*near_extremes, n) / np.maximum(sizes, 1)

    # Every mask is a bit of 64-bit words; row k has the first k of them set.
    first = np.packbits(np.tri(n + 1, 64 * (n // 64 + 1), -1, dtype=bool), axis=1).view(np.uint64)
    outlines = np.zeros((height, width, first.shape[1]), dtype=np.uint64)
    outlines[within][neighbourhood[within]] = first[near_extremes[0]] ^ first[near_extremes[1]]
    hit_words = np.zeros((len(points), first.shape[1]), dtype=np.uint64)
    for step in disk:
        hit_words |= outlines.reshape(-1, first.shape[1]).take(points + step, axis=0)
    hits = np.unpackbits(hit_words.view(np.uint8), axis=1, count=n).sum(axis=0)
    recall = hits / max(len(points), 1)

    f = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return np.where((sizes == 0) & (len(points) == 0), 1, f).astype(np.float32)


def boundary_iou(reached: np.ndarray, n: int, target: np.ndarray, width: int) -> np.ndarray:
    """IoU of the bands along two outlines (Cheng et al., CVPR 2021).

    reached, target: as in :func:`boundary_f`. A mask's band is what of it lies within ``width``
    pixels, along rows, columns and diagonals, of what is outside of it or of the image. Two empty
    bands are equal. Returns float32 [n].
    """

    # The erosions of nested masks are nested: one running minimum is the erosion of all of them.
    def eroded(image: np.ndarray) -> np.ndarray:
        return minimum_filter(image, 2 * width + 1, mode="constant", cval=0)

    core = eroded(reached)
    band = target & ~eroded(target)
    size, shared = _spans(core, reached, n), _spans(core[band], reached[band], n)
    either = size + np.count_nonzero(band) - shared
    return np.where(either == 0, 1, shared / np.maximum(either, 1)).astype(np.float32)


def average_precision(soft: np.ndarray, target: np.ndarray) -> float:
    """Area under the precision-recall steps of a soft map float32 [H, W] over its own thresholds.

    sum of (R_n - R_{n-1}) P_n; equal values are one threshold. NaN where the target is empty or
    the map is not finite.
    """
    if not target.any() or not np.isfinite(soft).all():
        return float("nan")
    # Floats as integers of the same order (0 added: one zero) over a bit that is 0 for a hit: one
    # sort of numbers, from the highest down, in which the last hit of a value is its last pixel.
    bits = (soft + np.float32(0)).view(np.int32).ravel()
    bits ^= bits >> 31 & 0x7FFFFFFF
    ranked = bits.astype(np.int64)
    ranked <<= 1
    ranked |= ~target.ravel()
    ranked.sort()
    ranked = ranked[::-1]
    places = np.flatnonzero(~ranked.astype(np.uint8) & 1)
    ranked = ranked[places]
    last = np.append(ranked[1:] != ranked[:-1], True)
    hits, predicted = np.flatnonzero(last) + 1, places[last] + 1
    return float((np.diff(hits, prepend=0) * hits / predicted).sum() / len(places))


def _counts(reached: np.ndarray, target: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [n] of each mask that are in the target too, and all of each mask."""
    pixels = np.bincount((2 * reached + target).ravel(), minlength=2 * n + 2).reshape(-1, 2)
    counts = pixels[::-1].cumsum(axis=0)[-2::-1]
    return counts[:, 1], counts.sum(axis=1)


def _extremes(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimum and maximum [H, W] of a pixel and its neighbours to the right, below, and both."""
    extremes = []
    for pick in (np.minimum, np.maximum):
        down = pick(image, np.concatenate([image[1:], image[-1:]]))
        extremes.append(pick(down, np.concatenate([down[:, 1:], down[:, -1:]], axis=1)))
    return extremes[0], extremes[1]


def _spans(low: np.ndarray, high: np.ndarray, n: int) -> np.ndarray:
    """Of each of ``n`` masks, on how many pixels' outlines it is: those of low .. high - 1."""
    starts, ends = (np.bincount(image.ravel(), minlength=n + 1) for image in (low, high))
    return (starts - ends).cumsum()[:n]


def _ratios(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, suffix: str) -> dict[str, np.ndarray]:
    """The four ratios in float32: counts are exact there, the order of the sums is immaterial."""
    hit, wrong, missed = (np.asarray(count, dtype=np.float32) for count in (tp, fp, fn))
    return {
        f"dice{suffix}": (2 * hit + EPSILON) / (2 * hit + missed + wrong + EPSILON),
        f"precision{suffix}": (hit + EPSILON) / (hit + wrong + EPSILON),
        f"recall{suffix}": (hit + EPSILON) / (hit + missed + EPSILON),
        f"iou{suffix}": (hit + EPSILON) / (hit + missed + wrong + EPSILON),
    }
