"""What a stage of any kind may lose, and what it does about items that are there already."""

import io
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress, TaskID

from piebench_masks.errors import BenchmarkError
from piebench_masks.runner import Outcome, run_batches, run_stage
from piebench_masks.stages.stage import Batch, Failure, Work
from piebench_masks.store import Overwrite


@dataclass(frozen=True)
class Item:
    """As an edit's: one that cannot be compared with ``==``."""

    number: int
    mask: NDArray[np.bool_]


class Numbers:
    """A stage whose items are numbers; ``bad`` ones fail."""

    name = "numbers"
    item = "number"

    def __init__(self, count: int, done: int = 0, bad: Sequence[int] = ()) -> None:
        self.count, self.bad = count, set(bad)
        self.done = set(range(done))
        self.batches = 0

    def prepare(self) -> None: ...

    def pending(self, *, everything: bool = False) -> list[Work]:
        return [
            Work(_sample(number), (Item(number, np.ones(4, bool)),))
            for number in range(self.count)
            if everything or number not in self.done
        ]

    def load(self, batch: Batch) -> None: ...

    def compute(self, batch: Batch, loaded: None) -> list[int]:
        self.batches += 1
        return [work.todo[0].number for work in batch]

    def store(self, batch: Batch, computed: list[int]) -> list[Failure]:
        self.done |= {*computed} - self.bad
        return [Failure(self.name, f"s{n}", str(n), "bad") for n in computed if n in self.bad]

    def finish(self) -> None: ...


class SlowNumbers(Numbers):
    """Each of which is told in quarters."""

    batch_size = 1

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.advance: Callable[[float], None] = lambda share: None

    def compute(self, batch: Batch, loaded: None) -> list[int]:
        for _ in range(4):
            self.advance(0.25)
        return super().compute(batch, loaded)


def _sample(number: int) -> Any:
    return SimpleNamespace(id=f"s{number}")


def compute(
    stage: Numbers,
    overwrite: Overwrite = Overwrite.ONLY_MISSING,
    fail_on_error: bool | float = True,
) -> Outcome:
    def execute(stage: Any, batches: Sequence[Batch]) -> Iterator[Outcome]:
        return run_batches(stage, batches, Counter)

    return run_stage(
        stage,
        execute,
        batch_size=1,
        overwrite=overwrite,
        fail_on_error=fail_on_error,
        console=Console(file=io.StringIO()),
    )


def test_never_computes_into_what_is_empty() -> None:
    assert compute(Numbers(3), Overwrite.NEVER).items == 3
    assert compute(Numbers(0), Overwrite.NEVER).items == 0


@pytest.mark.parametrize("done", [1, 3])
def test_never_refuses_what_holds_items_whether_some_or_all(done: int) -> None:
    with pytest.raises(BenchmarkError, match="overwrite=never"):
        compute(Numbers(3, done=done), Overwrite.NEVER)


@pytest.mark.parametrize(
    ("fail_on_error", "allowed"),
    [(True, 0), (0, 0), (1, 0), (1.0, 0), (2, 1), (10, 9), (0.25, 5), (False, 20)],
)
def test_a_run_stops_at_the_failure_that_is_one_too_many(
    fail_on_error: bool | float, allowed: int
) -> None:
    assert len(compute(Numbers(20, bad=range(allowed)), fail_on_error=fail_on_error).failures) == (
        allowed
    )
    if allowed < 20:
        stage = Numbers(20, bad=range(20))
        with pytest.raises(BenchmarkError, match=f"{allowed + 1} of 20 numbers failed"):
            compute(stage, fail_on_error=fail_on_error)
        assert stage.batches <= allowed + 3  # those that were under way


def test_what_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        compute(Numbers(3, bad=[1]), fail_on_error=False)
    assert caplog.messages == ["numbers failed: sample s1, 1: bad"]


def test_slow_items_are_batches_of_their_own_and_move_the_bar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[float] = []
    advance = Progress.advance

    def watched(self: Progress, task: TaskID, share: float = 1) -> None:
        advance(self, task, share)
        shown.append(self.tasks[0].completed)

    monkeypatch.setattr(Progress, "advance", watched)
    stage = SlowNumbers(3)
    run_stage(
        stage,
        lambda stage, batches: run_batches(stage, batches, Counter),
        batch_size=8,
        overwrite=Overwrite.ONLY_MISSING,
        fail_on_error=True,
        console=Console(file=io.StringIO()),
    )
    assert stage.batches == 3
    assert shown == [quarter / 4 for quarter in range(1, 13)]
