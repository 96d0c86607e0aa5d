"""Scores of masks and of edited images, per item and never as a running state (methods.md, 4, 5).

Knows arrays and frozen networks; knows no Hydra, no tracker, no store.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from piebench_masks.errors import BenchmarkError
from piebench_masks.metrics.case import READS, EditCase
from piebench_masks.metrics.column import Column


class Metric(Protocol):
    """A family of editing metrics: what it reports, and a function from images to numbers.

    Best a frozen dataclass whose fields are its settings; those that change no number are marked
    ``NO_OUTPUT``. It is cheap to make: networks are loaded at their first use. ``columns`` are
    known before that. It is given the run's device if its signature has a ``device``.

    It may also have
    ``version: ClassVar[int]``, raised by hand whenever its numbers change (of this package only:
    of code from elsewhere the source enters the key);
    ``reads: ClassVar[tuple[str, ...]]``, the members of ``READS`` that it looks at, all by default:
    it is shown no others, and scored anew where one of them changes;
    ``load() -> None``, which loads its networks, so that what is wrong with them ends a run at its
    start; ``identity() -> Any``, content hashes of the files that it loads, or their names on a
    hub with their revision, for its settings that name weights;
    ``texts: tuple[str, ...]``, names of what it gives beside its columns, texts [V] that are stored
    with the scores.
    """

    @property
    def columns(self) -> Mapping[str, Column]: ...

    def __call__(self, case: EditCase, edited: np.ndarray) -> Mapping[str, np.ndarray]:
        """Score ``edited`` [V, H, W, 3] uint8; one float64 [V] a column, NaN where not defined."""
        ...


def reads_of(metric: Metric) -> tuple[str, ...]:
    """The members of ``READS`` that a metric looks at."""
    reads: tuple[str, ...] = getattr(metric, "reads", READS)
    return reads


def texts_of(metric: Metric) -> tuple[str, ...]:
    """What a metric gives beside its columns."""
    texts: tuple[str, ...] = getattr(metric, "texts", ())
    return texts


def load(metric: Metric) -> None:
    """Load the networks of a metric that has any; WeightsError where that fails."""
    getattr(metric, "load", lambda: None)()


def scores_of(metric: Metric, case: EditCase, edited: np.ndarray) -> Mapping[str, np.ndarray]:
    """A metric's scores of a case; BenchmarkError if they are not those of its columns."""
    scores = metric(case.as_read(reads_of(metric)), edited)
    if scores.keys() != {*metric.columns, *texts_of(metric)}:
        raise BenchmarkError(
            f"{type(metric).__name__} gives {', '.join(scores)}, but its columns are "
            f"{', '.join(metric.columns)}"
        )
    return scores


def all_columns(metrics: Mapping[str, Metric]) -> dict[str, Column]:
    """The columns of all metrics, in order; BenchmarkError if two metrics share one."""
    columns: dict[str, Column] = {}
    for name, metric in metrics.items():
        if twice := columns.keys() & metric.columns.keys():
            raise BenchmarkError(
                f"metrics.{name} has a column {min(twice)}, and so has another metric: give one of "
                "them another name, as in metrics.lpips.name=lpips_other"
            )
        columns |= metric.columns
    return columns


def device_argument(
    target: Callable[..., Any], settings: Mapping[str, Any], device: str
) -> dict[str, str]:
    """The run's device for a metric that takes one and whose settings name none."""
    takes = "device" in inspect.signature(target).parameters
    return {"device": device} if takes and settings.get("device") is None else {}
