"""What a stage is: its missing work, and how one batch of it is loaded, computed and stored.

Knows no stage's content and not where a batch is computed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from piebench_masks.data.sample import Sample


@dataclass(frozen=True)
class Work:
    """What a stage has to do for one sample; ``todo`` is the stage's own (methods, masks, ...)."""

    sample: Sample
    todo: tuple[Any, ...]


@dataclass(frozen=True)
class Failure:
    """One item that could not be computed, and why. ``item`` is the stage's word for it."""

    stage: str
    sample_id: str
    item: str
    reason: str


Batch = Sequence[Work]


class Stage(Protocol):
    """A step whose results are one artifact per sample and item.

    ``pending`` lists what is missing (``everything``: all there is). Before the first batch a
    process calls ``prepare``, which loads the networks: what fails there fails for every item and
    ends the run. A batch is then read from files (``load``), computed (``compute``, of what was
    loaded) and written (``store``, of what was computed), which returns the items that failed;
    ``load`` and ``store`` run on other threads, beside the computing of other batches. ``finish``
    follows the last batch of all processes.
    """

    name: str
    item: str

    def prepare(self) -> None: ...
    def pending(self, *, everything: bool = False) -> list[Work]: ...
    def load(self, batch: Batch) -> Any: ...
    def compute(self, batch: Batch, loaded: Any) -> Any: ...
    def store(self, batch: Batch, computed: Any) -> list[Failure]: ...
    def finish(self) -> None: ...


@runtime_checkable
class Slow(Protocol):
    """A stage whose items take long: a batch has ``batch_size`` samples, whatever the run's, and
    ``advance`` is told of shares of an item while this process computes it.
    """

    batch_size: int
    advance: Callable[[float], None]
