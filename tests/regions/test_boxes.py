"""Anchors and boxes, against loops over cells."""

from itertools import product

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from piebench_masks.regions.boxes import (
    anchor_points,
    cell_masks,
    corners,
    half_sizes,
    masks,
    pixel_boxes,
)

SIDE = 32
CELLS = st.tuples(st.integers(0, SIDE - 1), st.integers(0, SIDE - 1))


def peak(row: int, column: int) -> Tensor:
    saliency = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    saliency[row, column] = 2
    return saliency


def test_half_sizes() -> None:
    assert half_sizes(6) == (4, 6)
    assert half_sizes(15) == (4, 6, 8, 10, 12, 14)
    assert half_sizes(3) == ()


@given(CELLS, st.sampled_from([4, 6, 14]))
def test_an_upright_box_holds_the_cells_that_are_near_its_anchor(
    cell: tuple[int, int], half_size: int
) -> None:
    points = anchor_points(peak(*cell), 1, half_size, "exact")
    assert points.tolist() == [list(cell)]
    (found,) = cell_masks(corners(points, half_size, SIDE, "exact"), SIDE)
    for row, column in product(range(SIDE), repeat=2):
        near = max(abs(row - cell[0]), abs(column - cell[1])) <= half_size
        assert found[row, column].item() == near


@given(CELLS, st.sampled_from([4, 6, 14]))
def test_a_published_box_lies_at_the_mirror_image(cell: tuple[int, int], half_size: int) -> None:
    points = torch.tensor([cell])
    boxes = corners(points, half_size, SIDE, "reference")
    mirrored = corners(points.flip(-1), half_size, SIDE, "exact")
    assert boxes.equal(mirrored)
    pixels = pixel_boxes(boxes.float(), 256, SIDE)
    (found,) = masks(pixels, 256)
    assert not found[-1].any() and not found[:, -1].any()
    x1, y1, x2, y2 = pixels[0].tolist()
    assert found.sum() == (x2 - x1) * (y2 - y1) == found[y1:y2, x1:x2].numel()


def test_published_anchors_keep_away_from_the_border_or_are_repeated() -> None:
    saliency = torch.zeros(SIDE, SIDE)
    for value, cell in enumerate([(15, 16), (16, 15), (3, 3), (0, 9), (31, 31)], start=1):
        saliency[cell] = value
    found = anchor_points(saliency, 3, 6, "reference").tolist()
    assert found[:2] == [[16, 15], [15, 16]]  # (3, 3) is too near
    assert anchor_points(saliency, 3, 16, "reference").tolist() == [[31, 31], [0, 9], [3, 3]]
    saliency[15, 15], saliency[15, 16] = 9, 8
    repeated = anchor_points(saliency, 6, 15, "reference").tolist()
    assert repeated[:2] == repeated[4:] == [[15, 15], [15, 16]]
    assert anchor_points(saliency, 2, 6, "exact").tolist() == [[15, 15], [15, 16]]
