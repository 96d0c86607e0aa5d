"""Mask scores against counting loops, and their laws."""

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from piebench_masks.metrics.segmentation import (
    COLUMNS,
    RATIOS,
    average_precision,
    boundary_f,
    scores,
)

SHAPE = array_shapes(min_dims=2, max_dims=2, min_side=3, max_side=8)


@st.composite
def mask_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(SHAPE)
    return draw(arrays(bool, shape)), draw(arrays(bool, shape))


@given(mask_pairs())
def test_scores_are_those_of_a_counting_loop(pair: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, target = pair
    found, wanted = scores(prediction[None], target), oracle.segmentation(prediction, target)
    assert found.keys() == wanted.keys() == {*COLUMNS, "area"} - {"average_precision"}
    for name, value in wanted.items():
        assert found[name].item() == pytest.approx(value, rel=1e-6), name


@given(mask_pairs())
def test_every_score_is_a_share(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert all(0 <= value <= 1 for value in scores(pair[0][None], pair[1]).values())


@given(mask_pairs())
def test_inverse_scores_are_those_of_the_inverted_masks(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    plain = scores(pair[0][None], pair[1])
    inverted = scores(~pair[0][None], ~pair[1])
    for name in ("dice", "precision", "recall", "iou"):
        assert plain[f"{name}_inv"] == inverted[name]
        assert inverted[f"{name}_inv"] == plain[name]


@given(mask_pairs())
def test_a_mask_agrees_with_itself(pair: tuple[np.ndarray, np.ndarray]) -> None:
    found = scores(pair[0][None], pair[0])
    assert all(found[name] == 1 for name in found.keys() & COLUMNS.keys())


@given(mask_pairs())
def test_dice_and_iou_do_not_care_which_mask_is_the_prediction(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    one, two = (scores(a[None], b) for a, b in (pair, pair[::-1]))
    assert one["dice"] == two["dice"]
    assert one["iou"] == two["iou"]
    assert one["boundary_f"] == two["boundary_f"]
    assert one["precision"] == two["recall"]


def test_the_empty_prediction_is_precise_and_useless() -> None:
    found = scores(np.zeros((1, 4, 4), bool), np.eye(4, dtype=bool))
    assert found["precision"] == 1
    assert found["recall"] < 1e-6
    assert found["dice"] < 1e-6


def test_the_border_that_every_annotation_has_does_not_count_without_it() -> None:
    target = np.zeros((64, 64), bool)
    target[20:40, 20:40] = True
    prediction = target[None].copy()
    target[[0, -1]] = target[:, [0, -1]] = True
    found = scores(prediction, target)
    assert found["dice"] < found["dice_inner"] == found["boundary_f"] == 1


def test_outlines_match_within_the_tolerance_and_no_further() -> None:
    target = np.zeros((32, 32), bool)
    target[8:24, 8:24] = True
    moved = np.stack([np.roll(target, step, axis=1) for step in (0, 2, 3)])
    near = boundary_f(moved, target, tolerance=2)
    assert near[:2].tolist() == [1, 1]
    assert near[2] < 1


@given(
    arrays(np.float32, (4, 5), elements=st.sampled_from([-1.0, 0.0, 0.25, 0.5, 3.0])),
    arrays(bool, (4, 5)),
)
def test_average_precision_is_that_of_every_threshold_in_turn(
    soft: np.ndarray, target: np.ndarray
) -> None:
    if target.any():
        expected = oracle.average_precision(soft, target)
        assert average_precision(soft, target) == pytest.approx(expected)
    else:
        assert np.isnan(average_precision(soft, target))


def test_average_precision_of_a_ranking() -> None:
    target = np.array([[True, True, False, False]])
    assert average_precision(np.float32([[4, 3, 2, 1]]), target) == 1
    assert average_precision(np.float32([[1, 1, 1, 1]]), target) == 0.5
    assert np.isnan(average_precision(np.float32([[np.nan, 3, 2, 1]]), target))


def test_ratios_are_float32_as_the_references() -> None:
    found = scores(np.eye(4, dtype=bool)[None], np.ones((4, 4), bool))
    assert {found[name].dtype for name in RATIOS} == {np.dtype(np.float32)}
