"""Leak and change against sums over pixels, one at a time."""

from dataclasses import replace

import numpy as np
import pytest

from piebench_masks.metrics import scores_of
from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.change import Change


def test_change_is_divided_by_the_mask(noisy: tuple[EditCase, np.ndarray]) -> None:
    case, edited = noisy
    assert case.mask is not None
    found = scores_of(Change(), case, edited)
    for variant, image in enumerate(edited):
        sums = {True: 0.0, False: 0.0}
        for (y, x), inside in np.ndenumerate(case.mask):
            change = abs(image[y, x].astype(float) - case.source[y, x].astype(float)).sum()
            sums[bool(inside)] += change
        total = sums[True] + sums[False]
        leak = sums[False] / total if total else np.nan
        assert found["leak"][variant] == pytest.approx(leak, nan_ok=True)
        count = case.mask.sum()
        assert found["change_inside"][variant] == pytest.approx(sums[True] / count / 765)
        rest = (~case.mask).sum()
        assert found["change_outside"][variant] == pytest.approx(sums[False] / rest / 765)


def test_doing_nothing_has_no_leak(noisy: tuple[EditCase, np.ndarray]) -> None:
    case, _ = noisy
    found = scores_of(Change(), case, case.source[None])
    assert np.isnan(found["leak"]).all() and found["change_inside"].item() == 0


def test_without_a_mask_or_a_background_nothing_is_divided(
    noisy: tuple[EditCase, np.ndarray],
) -> None:
    case, edited = noisy
    assert all(np.isnan(v).all() for v in Change()(replace(case, mask=None), edited).values())
    found = Change()(replace(case, mask=np.ones_like(case.mask)), edited[1:])
    assert np.isnan(found["change_outside"]).all() and (found["leak"] == 0).all()
