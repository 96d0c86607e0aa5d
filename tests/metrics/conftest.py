"""A small case for every metric."""

import numpy as np
import pytest

from piebench_masks.metrics.case import EditCase


@pytest.fixture
def noisy() -> tuple[EditCase, np.ndarray]:
    """A small case with a box as its mask, and five edits of it."""
    rng = np.random.default_rng(0)
    source = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mask = np.zeros((64, 64), dtype=bool)
    mask[10:40, 20:50] = True
    case = EditCase(source, None, mask, "a red circle on grass", "a blue circle on grass")
    return case, rng.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
