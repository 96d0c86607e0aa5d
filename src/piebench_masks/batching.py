"""Rows in blocks of one fixed size, for every network of the benchmark.

A block always has the same number of rows (the last one is padded), so a row's result does not
depend on how many other rows were asked for: interrupting, resuming and adding methods change
nothing. Knows tensors only.
"""

from collections.abc import Callable

import torch
from torch import Tensor


class Blocks:
    """Blocks of ``rows`` rows for one network, which out-of-memory errors halve for good."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def map(self, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """Apply ``function`` to blocks of exactly ``rows`` rows, concatenate what it returns.

        tensors: each [N, ...], N >= 1; ``function`` gets [rows, ...] slices of all of them and
        returns [rows, ...]. The last block is padded by repeating its last row; the padding is cut
        off again. On an out-of-memory error ``rows`` is halved and the block tried again, down to
        one row, where the error is raised.
        """
        total = tensors[0].shape[0]
        outputs: list[Tensor] = []
        start = 0
        while start < total:
            stop = min(start + self.rows, total)
            index = torch.arange(start, start + self.rows).clamp_(max=stop - 1)
            try:
                block = function(*(tensor[index.to(tensor.device)] for tensor in tensors))
            except torch.OutOfMemoryError:
                if self.rows == 1:
                    raise
                self.rows //= 2
            else:
                outputs.append(block[: stop - start])
                start = stop
                continue
            # Outside the handler: the error's traceback holds the failed block's tensors.
            torch.cuda.empty_cache()
        return torch.cat(outputs)
