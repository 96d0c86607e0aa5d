"""The two run-length codes against each other, against pycocotools and against a plain loop."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools import mask as coco

from piebench_masks.data.rle import decode_runs, encode_runs, from_coco, to_coco, with_border

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def decode_by_loop(runs: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """The rule of methods.md, section 1, pixel by pixel."""
    mask = np.zeros(height * width, bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        for position in range(start, min(start + length, mask.size)):
            mask[position] = True
    return mask.reshape(height, width)


@given(masks)
def test_a_mask_survives_both_codes(mask: NDArray[np.bool_]) -> None:
    assert np.array_equal(decode_runs(encode_runs(mask), *mask.shape), mask)
    assert np.array_equal(from_coco(to_coco(mask)), mask)


@given(masks)
def test_coco_masks_are_those_of_pycocotools(mask: NDArray[np.bool_]) -> None:
    rle = to_coco(mask)
    assert rle["size"] == list(mask.shape)
    assert isinstance(rle["counts"], str)
    assert np.array_equal(coco.decode({**rle, "counts": rle["counts"].encode()}), mask)
    assert coco.area(rle) == mask.sum()


@given(
    st.lists(st.tuples(st.integers(0, 150), st.integers(0, 200)), max_size=8),
    st.integers(1, 12),
    st.integers(1, 12),
)
def test_runs_decode_as_a_loop_over_their_pixels_does(
    pairs: list[tuple[int, int]], height: int, width: int
) -> None:
    runs = [number for pair in pairs for number in pair]
    assert np.array_equal(decode_runs(runs, height, width), decode_by_loop(runs, height, width))


def test_runs_are_row_major() -> None:
    assert decode_runs([1, 3], 2, 3).tolist() == [[False, True, True], [True, False, False]]


def test_a_run_is_cut_at_the_end_of_the_image_however_long_it_is() -> None:
    assert decode_runs([4, 10**30], 2, 3).ravel().tolist() == [False] * 4 + [True] * 2


@given(masks, st.integers(0, 14))
def test_a_border_sets_exactly_the_frame(mask: NDArray[np.bool_], border: int) -> None:
    rows, columns = np.indices(mask.shape)
    to_edge = np.minimum.reduce(
        [rows, columns, mask.shape[0] - 1 - rows, mask.shape[1] - 1 - columns]
    )
    before = mask.copy()
    assert np.array_equal(with_border(mask, border), mask | (to_edge < border))
    assert np.array_equal(mask, before)


@pytest.mark.parametrize("full", [False, True])
def test_empty_and_full_masks_have_the_shortest_runs(full: bool) -> None:
    assert encode_runs(np.full((4, 5), full)) == ([0, 20] if full else [])
