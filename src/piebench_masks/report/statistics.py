"""Intervals and tests over samples. Works on arrays; knows no column and no method."""

import numpy as np


def bootstrap(values: np.ndarray, resamples: int = 2000) -> np.ndarray:
    """95 % interval [2,M] of the column means of ``values`` [N,M]; what is not finite is left out.

    NaN where a column has no value. The same resamples for every frame of N rows.
    """
    count, finite = len(values), np.isfinite(values)
    if count == 0:
        return np.full((2, values.shape[1]), np.nan)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=resamples)
    with np.errstate(invalid="ignore"):
        means = (draws @ np.where(finite, values, 0.0)) / (draws @ finite)
    ends = np.full((2, values.shape[1]), np.nan)
    some = finite.any(axis=0)
    ends[:, some] = np.nanpercentile(means[:, some], [2.5, 97.5], axis=0)
    return ends


def difference_interval(first: np.ndarray, second: np.ndarray, resamples: int = 2000) -> np.ndarray:
    """95 % interval [2] of mean(second) - mean(first), of values [N] of the same samples; of each
    what is not finite is left out.
    """
    pair = np.stack([first, second], axis=1)
    finite = np.isfinite(pair)
    count = len(pair)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=resamples)
    with np.errstate(invalid="ignore"):
        means = (draws @ np.where(finite, pair, 0.0)) / (draws @ finite)
    change = means[:, 1] - means[:, 0]
    if np.isnan(change).all():
        return np.full(2, np.nan)
    ends: np.ndarray = np.nanpercentile(change, [2.5, 97.5])
    return ends


def rank_correlation(
    x: np.ndarray, y: np.ndarray, samples: np.ndarray, resamples: int = 2000
) -> np.ndarray:
    """Spearman's correlation of x and y [N], and the ends of its 95 % interval: [3].

    samples: [N], whose rows belong together: the bootstrap draws samples, the ranks are those of
    all rows. NaN where x or y has a single value.
    """
    ranks = np.stack([_ranks(x), _ranks(y)])
    _, owner = np.unique(samples, return_inverse=True)
    count = owner.max() + 1
    terms = np.stack([np.ones(len(x)), *ranks, ranks[0] ** 2, ranks[1] ** 2, ranks[0] * ranks[1]])
    sums = np.stack([np.bincount(owner, term, minlength=count) for term in terms])
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=resamples)
    weights = np.vstack([np.ones(count), draws])
    n, sx, sy, sxx, syy, sxy = sums @ weights.T
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (n * sxy - sx * sy) / np.sqrt((n * sxx - sx**2) * (n * syy - sy**2))
    found = np.where(np.isfinite(found), found, np.nan)
    if np.isnan(found[0]) or np.isnan(found[1:]).all():
        return np.array([found[0], np.nan, np.nan])
    return np.array([found[0], *np.nanpercentile(found[1:], [2.5, 97.5])])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks [N], centred; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(count) - (count - 1) / 2)[place] - (len(values) + 1) / 2
    return ranks


def cross_validated(scores: np.ndarray, splits: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """For each half of each split of ``scores`` [N,T]: the best column, its mean on the other."""
    draw = np.random.default_rng(0)
    chosen, held_out = [], []
    for _ in range(splits):
        order = draw.permutation(len(scores))
        halves = order[: len(scores) // 2], order[len(scores) // 2 :]
        for half, other in (halves, halves[::-1]):
            chosen.append(scores[half].mean(axis=0).argmax())
            held_out.append(scores[other, chosen[-1]].mean())
    return np.array(chosen), np.array(held_out)


def set_curves(hits: np.ndarray, area: np.ndarray, annotated: np.ndarray) -> tuple[float, float]:
    """Average precision and area under the ROC curve of all pixels of a set, at common thresholds.

    hits, area: [N,T], the shares of a picture that a mask covers rightly, and at all; annotated:
    [N], the share that is annotated. Every picture weighs the same. To the thresholds' points come
    the empty and the full mask; NaN where nothing or everything is annotated.
    """
    positive = annotated.mean()
    if not 0 < positive < 1:
        return np.nan, np.nan
    order = np.argsort(area.mean(axis=0), kind="stable")
    covered = np.array([0, *area.mean(axis=0)[order], 1])
    right = np.array([0, *hits.mean(axis=0)[order], positive])
    recall, false_alarms = right / positive, (covered - right) / (1 - positive)
    precision = np.divide(right, covered, out=np.zeros_like(right), where=covered > 0)[1:]
    auroc = np.trapezoid(recall, false_alarms)
    return float((np.diff(recall) * precision).sum()), float(auroc)


def interpolated(x: np.ndarray, y: np.ndarray, at: np.ndarray, resamples: int = 500) -> np.ndarray:
    """y of the mean curve at the given x, and the ends of its 95 % interval: [len(at), 3].

    x, y: [samples, thresholds]. NaN where the curve (or most resampled ones) does not reach.
    """
    count = len(x)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=resamples)
    weights = np.vstack([np.ones(count), draws]) / count
    curves = []
    for mean_x, mean_y in zip(weights @ x, weights @ y, strict=True):
        order = np.argsort(mean_x)
        curves.append(np.interp(at, mean_x[order], mean_y[order], left=np.nan, right=np.nan))
    value, resampled = curves[0], np.array(curves[1:])
    often = np.isfinite(resampled).mean(axis=0) > 0.9
    ends = np.full((2, len(at)), np.nan)
    ends[:, often] = np.nanpercentile(resampled[:, often], [2.5, 97.5], axis=0)
    return np.stack([value, *np.where(np.isfinite(value), ends, np.nan)], axis=1)


def permutation_test(change: np.ndarray, resamples: int = 20_000) -> float:
    """Two-sided p of paired differences [N] having no direction."""
    signs = np.random.default_rng(0).integers(0, 2, (resamples, len(change)), dtype=np.int8) * 2 - 1
    # Differences that only rounding tells apart from the observed one count as equal to it.
    extreme = np.abs(signs @ change) >= np.abs(change.sum()) * (1 - 1e-9)
    return float((1 + extreme.sum()) / (1 + resamples))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction (1979) of p [N]."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    corrected = np.empty_like(stepped)
    corrected[order] = stepped
    return corrected
