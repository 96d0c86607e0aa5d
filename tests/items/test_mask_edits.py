"""Edits of masks against definitions that go pixel by pixel."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.items.mask_edits import (
    SHIFTS,
    Move,
    assign,
    difference,
    move,
    nearest_sites,
    on_grid,
    placed,
    remove,
    resized,
    ring,
    shifted,
)
from piebench_masks.items.partition import Partition, PartitionError

COMPATS: tuple[Compat, ...] = ("exact", "reference")
both = pytest.mark.parametrize("compat", COMPATS)


def mask(*rows: str) -> Tensor:
    return torch.tensor([[pixel == "#" for pixel in row] for row in rows])


def items(*rows: str) -> Partition:
    labels = torch.tensor([[int(pixel) for pixel in row] for row in rows])
    return Partition.from_labels(labels, [f"item {i}" for i in range(int(labels.max()) + 1)])


def blobs(generator: torch.Generator, count: int = 4, size: tuple[int, int] = (9, 13)) -> Partition:
    """Items of pixels that are nearest to random places."""
    places = torch.rand(count, 2, generator=generator) * torch.tensor(size)
    grid = torch.cartesian_prod(*(torch.arange(float(side)) for side in size))
    labels = torch.cdist(grid, places).argmin(dim=1).view(size)
    return Partition.from_labels(labels, ["a", "b", "c", "d"][:count])


def random_partitions(number: int = 25) -> Iterator[tuple[Partition, torch.Generator]]:
    for seed in range(number):
        generator = torch.Generator().manual_seed(seed)
        yield blobs(generator), generator


def nearest_pixel(sites: Tensor, row: int, column: int) -> tuple[int, int]:
    """By definition: all sites, the first of the nearest ones in the order of rows."""
    found = [(int(y), int(x)) for y, x in sites.nonzero()]
    return min(found, key=lambda at: ((at[0] - row) ** 2 + (at[1] - column) ** 2, at))


def test_the_nearest_site_is_found_and_of_equals_the_first() -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sites = rng.random((rng.integers(1, 12), rng.integers(1, 12))) < rng.choice(
            [0.05, 0.3, 0.7]
        )
        places = rng.random(sites.shape) < 0.5
        if not sites.any() or not places.any():
            continue
        nearest = [nearest_pixel(torch.from_numpy(sites), *at) for at in np.argwhere(places)]
        expected = [row * sites.shape[1] + column for row, column in nearest]
        assert nearest_sites(sites, places).tolist() == expected


def test_a_large_frame_is_no_matter_of_memory() -> None:
    """A matrix of all places and sites would have 2.7e11 entries."""
    sites = np.zeros((1024, 1024), dtype=bool)
    sites[:512] = True
    found = nearest_sites(sites, ~sites).reshape(512, 1024)
    assert (found == 511 * 1024 + np.arange(1024)).all()


@both
def test_what_is_left_goes_to_the_nearest_item(compat: Compat) -> None:
    for partition, _ in random_partitions():
        for target in range(4):
            after, remain = remove(partition, target, compat=compat)
            takers = ~partition.masks[target]
            if compat == "reference":
                inner = [shifted(takers, 2 * rows, 2 * columns) for rows, columns in SHIFTS]
                takers = takers & ~torch.stack(inner).all(dim=0)
            assert torch.equal(remain, partition.masks[target])
            expected = partition.labels.clone()
            for row, column in remain.nonzero().tolist():
                expected[row, column] = partition.labels[nearest_pixel(takers, row, column)]
            assert torch.equal(after.labels, expected) and after.names == partition.names
            assert not after.masks[target].any()


def test_an_heir_takes_all() -> None:
    after, remain = remove(items("0012"), 0, heir=2)
    assert after.labels.tolist() == [[2, 2, 1, 2]] and remain.tolist() == [
        [True, True, False, False]
    ]
    after, _ = move(items("0012"), [Move(0, columns=1)], heir=0)
    assert after.labels.tolist() == [[0, 0, 0, 2]]


@both
def test_nobody_to_take_what_is_left_is_told(compat: Compat) -> None:
    for partition in (items("00"), Partition.from_labels(torch.zeros(1, 2), ("a", "empty"))):
        with pytest.raises(PartitionError, match=r"no item with pixels is left .* or name an heir"):
            remove(partition, 0, compat=compat)
    with pytest.raises(PartitionError, match="no item with pixels is left"):
        move(items("01"), [Move(0, columns=1), Move(1, columns=1)], compat=compat)
    after, _ = remove(Partition.from_labels(torch.zeros(1, 2), ("a", "empty")), 1, compat=compat)
    assert after.masks[0].all()


@pytest.mark.parametrize("target", [-1, 3])
def test_what_is_no_item_is_told(target: int) -> None:
    message = f"there is no item {target}: choose one of 0 item 0, 1 item 1, 2 item 2"
    for heir in (None, 0):
        with pytest.raises(PartitionError, match=message):
            remove(items("012"), target, heir=heir)
        with pytest.raises(PartitionError, match=message):
            move(items("012"), [Move(target)], heir=heir)
    with pytest.raises(PartitionError, match=message):
        remove(items("012"), 1, heir=target)


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), float("inf")])
def test_a_ratio_is_positive(ratio: float) -> None:
    with pytest.raises(PartitionError, match="item 0 cannot be resized by"):
        Move(0, ratio=ratio)


def test_an_item_moves_once() -> None:
    with pytest.raises(PartitionError, match="move each of them once"):
        move(items("012"), [Move(0), Move(0, columns=1)])


@both
def test_of_overlapping_items_the_highest_priority_wins(compat: Compat) -> None:
    for partition, generator in random_partitions():
        drawn = torch.randint(0, 3, (3, 3), generator=generator).tolist()
        moves = [Move(i, y - 1, 2 * x, priority=p) for i, (y, x, p) in enumerate(drawn)]
        after, remain = move(partition, moves, compat=compat)
        masks = [placed(partition.masks[one.item], one, compat) for one in moves]
        for row, column in product(*map(range, partition.size)):
            covering = [one for one in moves if masks[one.item][row, column]]
            stays = bool(partition.masks[3, row, column])
            assert remain[row, column] == (not covering and not stays)
            winner = max(covering, key=lambda one: (one.priority, one.item), default=Move(3))
            assert after.labels[row, column] == winner.item


def test_items_of_negative_priority_go_behind_those_that_stay() -> None:
    partition = items("00122", "00122", "33333")
    after, remain = move(partition, [Move(0, columns=1, priority=-1)])
    assert torch.equal(after.masks[1:, :2, 2:], partition.masks[1:, :2, 2:])
    assert after.labels.tolist() == [[1, 0, 1, 2, 2], [3, 0, 1, 2, 2], [3] * 5]
    assert remain.nonzero().tolist() == [[0, 0], [1, 0]]
    # The public code heeds the first one's priority alone.
    moves = [Move(0), Move(2, columns=-1, priority=-1)]
    assert move(partition, moves)[0].labels[0].tolist() == [0, 0, 1, 2, 1]
    assert move(partition, moves, compat="reference")[0].labels[0].tolist() == [0, 0, 2, 2, 3]


@both
def test_to_move_by_nothing_changes_nothing(compat: Compat) -> None:
    for partition, _ in random_partitions(5):
        after, remain = move(partition, [Move(0), Move(2, priority=0)], compat=compat)
        assert torch.equal(after.masks, partition.masks) and not remain.any()
        assert torch.equal(move(partition, [], compat=compat)[0].masks, partition.masks)


@both
@pytest.mark.parametrize("rows, columns", [(9, 0), (0, -13), (100, 100)])
def test_an_item_may_leave_the_frame(compat: Compat, rows: int, columns: int) -> None:
    for partition, _ in random_partitions(3):
        after, remain = move(partition, [Move(1, rows, columns)], compat=compat)
        removed, _ = remove(partition, 1, compat=compat)
        assert torch.equal(remain, partition.masks[1])
        assert torch.equal(after.masks, removed.masks)


def test_a_shift_by_definition() -> None:
    values = torch.arange(1, 13).view(3, 4)
    for rows, columns in product(range(-4, 5), range(-5, 6)):
        found = shifted(values, rows, columns)
        for row, column in product(range(3), range(4)):
            y, x = row - rows, column - columns
            inside = 0 <= y < 3 and 0 <= x < 4
            assert found[row, column] == (values[y, x] if inside else 0)


def test_a_size_changes_about_the_items_own_middle() -> None:
    small = mask("......", ".##...", ".##...", "......", "......", "......")
    large = mask("####..", "####..", "####..", "####..", "......", "......")
    assert torch.equal(placed(small, Move(0, ratio=2)), large)
    assert torch.equal(placed(large, Move(0, ratio=0.5)), small)
    assert torch.equal(placed(small, Move(0)), small)
    # What grows beyond the frame and moves back is not lost.
    corner = mask("##....", "##....", "......", "......", "......", "......")
    assert torch.equal(placed(corner, Move(0, rows=1, columns=1, ratio=2)), large)
    assert placed(small, Move(0, rows=-2, columns=3, ratio=2)).sum() == 2 * 3
    assert not placed(torch.zeros(3, 5, dtype=torch.bool), Move(0, 1, 1, 2.0)).any()


def test_the_public_codes_sizes() -> None:
    square = mask("....", ".##.", ".##.", "....")
    assert resized(square, 0.5).nonzero().tolist() == [[1, 1]]  # of pixels 0 and 2, at the top left
    assert resized(square, 2).all()
    assert torch.equal(resized(square, 1), square)


@pytest.mark.parametrize("thickness", [0, 1, 3, 50])
def test_a_ring_is_every_pixel_that_near(thickness: int) -> None:
    for partition, _ in random_partitions(6):
        for item in partition.masks:
            found = ring(item, thickness)
            inside = item.nonzero()
            for row, column in product(*map(range, partition.size)):
                away = (inside - torch.tensor([row, column])).abs().amax(dim=1)
                near = len(inside) > 0 and away.min() <= thickness
                assert found[row, column] == (near and not item[row, column])


@both
def test_no_ring_around_nothing_or_everything(compat: Compat) -> None:
    for full in (False, True):
        for thickness in (1, 5, 9):
            assert not ring(torch.full((4, 5), full), thickness, compat).any()


def test_only_the_public_codes_ring_is_hollow_and_has_seven_corners() -> None:
    dot = torch.zeros(7, 7, dtype=torch.bool)
    dot[3, 3] = True
    assert ring(dot, 2).sum() == 24 and ring(dot, 2)[1, 1]
    hollow = ring(dot, 2, "reference")
    assert hollow.sum() == 7 and not hollow[1, 1] and not hollow[2, 2]


def test_a_grid_takes_the_first_pixel_of_each_cell() -> None:
    for partition, _ in random_partitions(5):
        for size in ((4, 5), (3, 13), (9, 2), (20, 30)):
            found = on_grid(partition.masks, size)
            assert found.sum(dim=0).eq(1).all()
            for row, column in product(*map(range, size)):
                y, x = row * 9 // size[0], column * 13 // size[1]
                assert torch.equal(found[:, row, column], partition.masks[:, y, x])


def test_drawn_pixels_change_hands() -> None:
    pixels = mask(".##.")
    assert assign(items("0012"), pixels, 2).labels.tolist() == [[0, 2, 2, 2]]
    added = assign(items("0012"), pixels, "hat")
    assert added.labels.tolist() == [[0, 3, 3, 2]] and added.names[3] == "hat"
    assert torch.equal(difference(items("0012"), added), pixels)
    for wrong, item in ((pixels, 3), (pixels, -1), (pixels[:, :2], 0)):
        with pytest.raises(PartitionError, match="name one of 3 items or a new one"):
            assign(items("0012"), wrong, item)
    with pytest.raises(PartitionError, match="give one size"):
        difference(items("0012"), items("012"))
