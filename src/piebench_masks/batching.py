"""Rows in blocks of one fixed size, for every network of the benchmark.

A block always has the same number of rows (the last one is padded), so a row's result does not
depend on how many other rows were asked for: interrupting, resuming and adding methods change
nothing. Knows tensors only.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def map_rows(function: Callable[..., Tensor], *tensors: Tensor, rows: int) -> Tensor:
    """Apply ``function`` to blocks of exactly ``rows`` rows and concatenate what it returns.

    tensors: each [N, ...], N >= 1; ``function`` gets [rows, ...] slices of all of them and returns
    [rows, ...]. The last block is padded by repeating its last row; the padding is cut off again.
    On an out-of-memory error the block size is halved and the block tried again, down to one row,
    where the error is raised.
    """
    total = tensors[0].shape[0]
    done: list[Tensor] = []
    start = 0
    while start < total:
        stop = min(start + rows, total)
        index = torch.arange(start, start + rows).clamp_(max=stop - 1)
        try:
            block = function(*(tensor[index.to(tensor.device)] for tensor in tensors))
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
            rows //= 2
            torch.cuda.empty_cache()
            continue
        done.append(block[: stop - start])
        start = stop
    return torch.cat(done)
