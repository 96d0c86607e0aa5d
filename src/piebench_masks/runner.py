"""From a stage's missing items to finished artifacts: batches, failures, progress, counts.

Knows no stage's content; the executor decides where a batch is computed.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import starmap
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from piebench_masks.console import JsonConsole, say, wants_progress_bar
from piebench_masks.errors import BenchmarkError
from piebench_masks.stages.stage import Batch, Failure, Slow, Stage, Work
from piebench_masks.store import Overwrite, StoreError

log = logging.getLogger(__name__)
LOG_EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal, at least."""
T = TypeVar("T")


@dataclass
class Outcome:
    """The outcome of one batch, or of all batches of a stage together."""

    items: int = 0
    failures: list[Failure] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Outcome") -> None:
        self.items += other.items
        self.failures += other.failures
        self.counts += other.counts


Executor = Callable[[Stage, Sequence[Batch]], Iterator[Outcome]]
"""Computes batches of a stage, anywhere and in any order."""


def run_batches(
    stage: Stage, batches: Iterable[Batch], counts: Callable[[], Counter[str]]
) -> Iterator[Outcome]:
    """The batches' outcomes, in order. A batch is computed while the next one is loaded and the one
    before is stored.

    The samples of a batch that raises are tried one by one, so that only the guilty one fails. A
    StoreError ends the run.
    """
    with ThreadPoolExecutor(1) as loader, ThreadPoolExecutor(1) as storer:

        def load(batch: Batch) -> tuple[Batch, Future[Any]]:
            return batch, loader.submit(stage.load, batch)

        def compute(batch: Batch, loaded: Future[Any]) -> tuple[Batch, Counter[str], Future[Any]]:
            counts_before = counts()
            try:
                computed = stage.compute(batch, loaded.result())
                storing = storer.submit(stage.store, batch, computed)
            except Exception as error:
                storing = Future()
                storing.set_exception(error)
            return batch, counts() - counts_before, storing

        loading = _one_ahead(map(load, batches))
        for batch, counted, storing in _one_ahead(starmap(compute, loading)):
            counts_before = counts()
            try:
                failures = storing.result()
            except StoreError:
                raise  # a full disk is no sample's fault
            except Exception as error:
                failures = _one_by_one(stage, batch, error)
            yield Outcome(_count(batch), failures, counted + (counts() - counts_before))


def _one_ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items; each is yielded after the next one was made."""
    iterator = iter(items)
    for item in iterator:
        for following in iterator:
            yield item
            item = following
        yield item


def _one_by_one(stage: Stage, batch: Batch, error: Exception) -> list[Failure]:
    if len(batch) == 1:
        log.debug("%s of sample %s failed", stage.name, batch[0].sample.id, exc_info=error)
        is_expected = isinstance(error, BenchmarkError)
        reason = str(error) if is_expected else f"{type(error).__name__}: {error}"
        return [
            Failure(stage.name, batch[0].sample.id, str(item), reason) for item in batch[0].todo
        ]
    failures = []
    for work in batch:
        try:
            failures += stage.store([work], stage.compute([work], stage.load([work])))
        except StoreError:
            raise
        except Exception as work_error:
            failures += _one_by_one(stage, [work], work_error)
    return failures


def run_stage(
    stage: Stage,
    executor: Executor,
    *,
    batch_size: int,
    overwrite: Overwrite,
    fail_on_error: bool | float,
    console: Console,
) -> Outcome:
    """Compute what is missing of a stage, with a progress bar.

    fail_on_error: how many failed items end the stage with a BenchmarkError, as soon as they have
    failed. True: one; False: no number of them; below 1: more than this share of the items that
    were to be computed (0: one); from 1: this count (1: one, 10: ten).
    overwrite: BenchmarkError under ``only-cache`` if an item is missing, and under ``never`` if one
    is there already.
    """
    pending = stage.pending(everything=overwrite is Overwrite.ALWAYS)
    total = _count(pending)
    if overwrite is Overwrite.NEVER and total < _count(stage.pending(everything=True)):
        raise BenchmarkError(
            f"{stage.name}: some {stage.item}s are there already and overwrite=never adds nothing "
            "to them. Run with overwrite=only-missing, or with another artifacts_dir."
        )
    outcome = Outcome()
    if total == 0:
        say(console, "stage", None, stage=stage.name, computed=0, failed=0)
        return outcome
    if overwrite is Overwrite.ONLY_CACHE:
        raise BenchmarkError(
            f"{stage.name}: {total} {stage.item}s are not cached (first: sample "
            f"{pending[0].sample.id}) and overwrite=only-cache forbids computing them. "
            "Run with overwrite=only-missing."
        )
    allowed = _allowed_failures(fail_on_error, total)
    if isinstance(stage, Slow):
        batch_size = stage.batch_size
    batches = [pending[i : i + batch_size] for i in range(0, len(pending), batch_size)]
    last_line = time.monotonic()
    with progress_bar(console) as progress:
        bar = progress.add_task(stage.name, total=total)
        if isinstance(stage, Slow):
            stage.advance = partial(progress.advance, bar)
        for batch_outcome in executor(stage, batches):
            tenths = 10 * outcome.items // total
            outcome.add(batch_outcome)
            progress.update(bar, completed=max(progress.tasks[0].completed, outcome.items))
            now, next_tenth = time.monotonic(), 10 * outcome.items // total > tenths
            is_due = outcome.items == total or (next_tenth and now - last_line >= LOG_EVERY)
            if is_due and not console.is_terminal:  # a log has no bar
                last_line = now
                words = f"[bold]{stage.name}[/]: {outcome.items} of {total} {stage.item}s"
                values = {"stage": stage.name, "done": outcome.items, "total": total}
                say(console, "progress", words, **values, failed=len(outcome.failures))
            if len(outcome.failures) > allowed:
                first = outcome.failures[0]
                raise BenchmarkError(
                    f"{stage.name}: {len(outcome.failures)} of {total} {stage.item}s failed, which "
                    f"fail_on_error={fail_on_error} does not allow. First: sample "
                    f"{first.sample_id}, {first.item}: {first.reason}"
                )
    stage.finish()
    for failure in outcome.failures:
        words = "%s failed: sample %s, %s: %s"
        extra = {"event": "failure", "values": vars(failure)}
        log.error(words, *vars(failure).values(), extra=extra)
    if isinstance(console, JsonConsole):  # people have seen the bar
        counts = {"computed": outcome.items, "failed": len(outcome.failures)}
        console.event("stage", stage=stage.name, **counts)
    return outcome


def _allowed_failures(fail_on_error: bool | float, total: int) -> float:
    if isinstance(fail_on_error, bool):
        return 0 if fail_on_error else total
    return fail_on_error * total if fail_on_error < 1 else fail_on_error - 1


def _count(works: Sequence[Work]) -> int:
    return sum(len(work.todo) for work in works)


class RateColumn(ProgressColumn):
    """Items per second since the start: they come in batches, so the last ones say little."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.completed / task.elapsed if task.elapsed else 0:.1f}/s")


def progress_bar(console: Console) -> Progress:
    """With rate and times; only on a terminal, and not where it is to be quiet."""
    return Progress(
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("elapsed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        disable=not wants_progress_bar(console),
    )
