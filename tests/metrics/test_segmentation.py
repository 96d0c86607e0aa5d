"""Mask scores against counting loops, and their laws."""

from functools import cache

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
    sweep_scores,
)

SHAPE = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8)
TIED = [-np.inf, -1.0, -0.0, 0.0, 0.25, 0.5, 3.0, np.inf]
HUNDREDTHS = [i / 100 for i in range(100)]


def scores(prediction: np.ndarray, target: np.ndarray) -> dict[str, np.float32]:
    """One mask's."""
    found = sweep_scores(prediction.astype(np.float32), np.float32([1]), target)
    return {name: value for name, (value,) in found.items()}


@st.composite
def mask_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(SHAPE)
    return draw(arrays(bool, shape)), draw(arrays(bool, shape))


@st.composite
def sweeps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Map, levels and target; levels are unsorted, repeated, and met by pixels exactly."""
    shape = draw(SHAPE)
    if draw(st.booleans()):
        levels = draw(st.lists(st.sampled_from(TIED), max_size=12))
        values = st.sampled_from(TIED[1:-1])
    else:
        levels = draw(st.permutations(HUNDREDTHS))[: draw(st.integers(60, 100))]
        values = st.sampled_from(HUNDREDTHS)
    soft = draw(arrays(np.float32, shape, elements=values.map(np.float32)))
    return soft, np.float32(levels), draw(arrays(bool, shape))


@given(sweeps())
def test_a_sweep_has_the_bits_of_a_counting_loop_over_each_mask(
    case: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    soft, levels, target = case

    @cache
    def wanted(mask: bytes) -> dict[str, np.float32]:
        return oracle.segmentation(np.frombuffer(mask, bool).reshape(soft.shape), target)

    found = sweep_scores(soft, levels, target)
    assert found.keys() == {*COLUMNS, "area"} - {"average_precision"}
    for name, values in found.items():
        expected = [wanted((soft >= level).tobytes())[name] for level in levels]
        assert values.dtype == np.float32
        assert values.tolist() == [float(value) for value in expected], name


@given(
    st.integers(0, 70).flatmap(
        lambda n: st.tuples(st.just(n), arrays(np.uint8, (7, 9), elements=st.integers(0, n)))
    ),
    arrays(bool, (7, 9)),
    st.integers(0, 4),
)
def test_outlines_of_nested_masks_are_matched_as_each_mask_alone(
    masks: tuple[int, np.ndarray], target: np.ndarray, reach: int
) -> None:
    n, reached = masks
    found = boundary_f(reached, n, target, reach)
    for i in range(0, n, 7):
        assert found[i] == np.float32(oracle.outline_f(reached > i, target, reach))


@given(mask_pairs())
def test_every_score_is_a_share(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert all(0 <= value <= 1 for value in scores(*pair).values())


@given(mask_pairs())
def test_inverse_scores_are_those_of_the_inverted_masks(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    plain = scores(pair[0], pair[1])
    inverted = scores(~pair[0], ~pair[1])
    for name in ("dice", "precision", "recall", "iou"):
        assert plain[f"{name}_inv"] == inverted[name]
        assert inverted[f"{name}_inv"] == plain[name]


@given(mask_pairs())
def test_a_mask_agrees_with_itself(pair: tuple[np.ndarray, np.ndarray]) -> None:
    found = scores(pair[0], pair[0])
    assert all(found[name] == 1 for name in found.keys() & COLUMNS.keys())


@given(mask_pairs())
def test_dice_and_iou_do_not_care_which_mask_is_the_prediction(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    one, two = scores(*pair), scores(*pair[::-1])
    assert one["dice"] == two["dice"]
    assert one["iou"] == two["iou"]
    assert one["boundary_f"] == two["boundary_f"]
    assert one["precision"] == two["recall"]


def test_the_empty_prediction_is_precise_and_useless() -> None:
    found = scores(np.zeros((4, 4), bool), np.eye(4, dtype=bool))
    assert found["precision"] == 1
    assert found["recall"] < 1e-6
    assert found["dice"] < 1e-6


def test_the_border_that_every_annotation_has_does_not_count_without_it() -> None:
    target = np.zeros((64, 64), bool)
    target[20:40, 20:40] = True
    prediction = target.copy()
    target[[0, -1]] = target[:, [0, -1]] = True
    found = scores(prediction, target)
    assert found["dice"] < found["dice_inner"] == found["boundary_f"] == 1


def test_outlines_match_within_the_tolerance_and_no_further() -> None:
    target = np.zeros((32, 32), bool)
    target[8:24, 8:24] = True
    moved = [np.roll(target, step, axis=1).astype(int) for step in (0, 2, 3)]
    near = [boundary_f(mask, 1, target, tolerance=2).item() for mask in moved]
    assert near[:2] == [1, 1]
    assert near[2] < 1


@given(
    arrays(np.float32, (4, 5), elements=st.sampled_from([-1.0, -0.0, 0.0, 0.25, 0.5, 3.0])),
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
    found = scores(np.eye(4, dtype=bool), np.ones((4, 4), bool))
    assert {found[name].dtype for name in RATIOS} == {np.dtype(np.float32)}
