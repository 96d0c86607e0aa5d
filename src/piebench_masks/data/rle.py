"""Masks as run lengths: PIE-Bench's row-major list and COCO's column-major RLE.

Knows arrays only; whether a list from a file is well formed is checked where it is read.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from piebench_masks.data.sample import CocoRLE


def decode_runs(runs: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """The mask [H,W] that a list ``[start0, length0, start1, length1, ...]`` describes.

    runs: an even number of non-negative ints, positions in the row-major pixels (methods.md,
    section 1). A run that passes the end of the image is cut there.
    """
    size = height * width
    # Cut in Python, where ints have no upper bound, before numpy sees them.
    starts, lengths = np.array([min(run, size) for run in runs], np.int64).reshape(-1, 2).T
    steps = np.zeros(size + 1, np.int64)
    np.add.at(steps, starts, 1)
    np.add.at(steps, np.minimum(starts + lengths, size), -1)
    return (steps.cumsum()[:size] > 0).reshape(height, width)


def encode_runs(mask: NDArray[np.bool_]) -> list[int]:
    """The shortest row-major list ``[start0, length0, ...]`` of a mask [H,W]."""
    flat = np.pad(mask.ravel().astype(np.int8), 1)
    starts, stops = np.flatnonzero(np.diff(flat)).reshape(-1, 2).T
    return np.stack([starts, stops - starts], axis=1).ravel().tolist()


def to_coco(mask: NDArray[np.bool_]) -> CocoRLE:
    """COCO's RLE of a mask [H,W], its compressed counts as ASCII text."""
    rle = coco.encode(np.asfortranarray(mask, np.uint8))
    return CocoRLE(size=list(rle["size"]), counts=rle["counts"].decode("ascii"))


def from_coco(rle: CocoRLE) -> NDArray[np.bool_]:
    """The mask [H,W] of a COCO RLE."""
    return coco.decode(rle).astype(bool)


def with_border(mask: NDArray[np.bool_], border: int, value: bool = True) -> NDArray[np.bool_]:
    """A copy of the mask [H,W] whose outermost ``border`` pixels have that value.

    PIE-Bench's authors do so with one pixel "to avoid annotation errors in boundary"
    (methods.md, section 1).
    """
    height, width = mask.shape
    interior = slice(border, height - border), slice(border, width - border)
    bordered = np.full_like(mask, value)
    bordered[interior] = mask[interior]
    return bordered
