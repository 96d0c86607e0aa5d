"""Blocks of one size: every row once, nothing depends on the others, memory errors halve."""

import pytest
import torch
from torch import Tensor

from piebench_masks.batching import Blocks


def test_every_block_has_the_same_size_and_every_row_comes_back_once() -> None:
    sizes: list[int] = []

    def double(block: Tensor) -> Tensor:
        sizes.append(len(block))
        return 2 * block

    rows = torch.arange(10.0)[:, None]
    assert torch.equal(Blocks(4).map(double, rows), 2 * rows)
    assert sizes == [4, 4, 4]


def test_out_of_memory_halves_the_block_and_loses_no_row() -> None:
    sizes: list[int] = []

    def small_only(block: Tensor) -> Tensor:
        sizes.append(len(block))
        if len(block) > 2:
            raise torch.OutOfMemoryError
        return block

    rows = torch.arange(7.0)[:, None]
    blocks = Blocks(8)
    assert torch.equal(blocks.map(small_only, rows), rows)
    assert sizes[:3] == [8, 4, 2] and set(sizes[2:]) == {2}
    blocks.map(small_only, rows)
    assert set(sizes[2:]) == {2}, "what was too large once is not tried again"


def test_out_of_memory_at_one_row_is_raised() -> None:
    def never(block: Tensor) -> Tensor:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        Blocks(2).map(never, torch.ones(3, 1))
