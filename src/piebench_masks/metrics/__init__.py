"""Scores of masks and of edited images, per item and never as a running state (METHODS.md, 4, 5).

Knows arrays and frozen networks; knows no Hydra, no tracker, no store.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from piebench_masks.errors import BenchmarkError
from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.column import Column


class Metric(Protocol):
    """A family of editing metrics: what it reports, and a function from images to numbers."""

    @property
    def columns(self) -> dict[str, Column]: ...

    def __call__(self, case: EditCase, edited: np.ndarray) -> dict[str, np.ndarray]:
        """Score ``edited`` [V, H, W, 3] uint8; one float64 [V] a column, NaN where not defined."""
        ...


class WeightsError(BenchmarkError):
    """A scorer's weights could not be loaded; the message says what, where and what to do."""


@contextmanager
def loading(what: str, *, where: str, remedy: str) -> Iterator[None]:
    """Turn what hubs, sockets and files raise into one :class:`WeightsError`."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{what} could not be loaded.\n  looked for: {where}\n"
            f"  what to do: {remedy}\n  the cause: {type(error).__name__}: {error}"
        ) from error
