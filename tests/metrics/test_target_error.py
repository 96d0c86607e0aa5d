"""The error to the true target: 1 for doing nothing, 0 for the target, nothing where unknown."""

from dataclasses import replace

import numpy as np
import pytest

from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.target_error import TargetError


@pytest.fixture
def case(noisy: tuple[EditCase, np.ndarray]) -> EditCase:
    return replace(noisy[0], target=noisy[1][0])


def error(case: EditCase, *edited: np.ndarray) -> list[float]:
    return TargetError()(case, np.stack(edited))["target_error"].tolist()


def test_doing_nothing_is_one_and_the_true_target_is_zero(case: EditCase) -> None:
    assert case.target is not None
    assert error(case, case.source, case.target) == [1, 0]


def test_it_is_the_ratio_of_squared_errors_inside_the_mask(
    case: EditCase, noisy: tuple[EditCase, np.ndarray]
) -> None:
    assert case.target is not None and case.mask is not None
    away = nothing = 0
    for y, x in np.argwhere(case.mask):
        wanted = case.target[y, x].astype(int)
        away += ((noisy[1][1, y, x] - wanted) ** 2).sum()
        nothing += ((case.source[y, x] - wanted) ** 2).sum()
    assert error(case, noisy[1][1]) == pytest.approx([away / nothing])


def test_outside_the_mask_nothing_counts(case: EditCase) -> None:
    assert case.target is not None and case.mask is not None
    ruined = np.where(case.mask[..., None], case.target, 0).astype(np.uint8)
    assert error(case, ruined) == [0]


def test_it_is_not_defined_without_a_target_a_mask_or_a_change(case: EditCase) -> None:
    for missing in (
        replace(case, target=None),
        replace(case, mask=None),
        replace(case, mask=np.zeros((64, 64), bool)),
        replace(case, target=case.source),
    ):
        assert np.isnan(error(missing, case.source))
