"""Batches shared out to workers: processes that load the models once, anywhere, and may die.

A worker is sent batches as it gets on; where it dies, they go back to the queue and it is started
again. Knows neither how a worker is reached nor a stage's content.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from logging import Formatter, LogRecord, getLogger
from logging.handlers import QueueHandler
from queue import Queue
from traceback import format_exception
from typing import Any, Protocol, TypeVar

from piebench_masks.console import set_up_logging
from piebench_masks.data.sample import Sample
from piebench_masks.errors import BenchmarkError
from piebench_masks.run import Run
from piebench_masks.runner import Executor, Outcome, run_batches
from piebench_masks.stages.stage import Batch, Stage

log = getLogger(__name__)
RESTARTS = 3
"""How many workers may die over one batch, or one worker while it starts."""
SENT_AHEAD = 3
"""Batches at a worker: one is loaded, one computed, one stored."""

Message = str | Batch | None
"""To a worker: a stage's name, batches of it, None after the last one for the time being."""
Answer = None | Outcome | LogRecord | Exception
"""Of a worker: None once, when it is ready; the outcomes in order; its log; what ends the run."""
StageOf = Callable[[str, Run, Sequence[Sample]], Stage]
"""Makes the stage of a ``Stage.name``; a function of a module, which other processes import."""


class WorkerDiedError(Exception):
    """There will be no more answers; the message says what is known of the reason."""


class Worker(Protocol):
    """One process that runs ``serve``. ``place`` is its device or node, for messages."""

    place: str

    def send(self, message: Message) -> None:
        """Never waits, and never fails: that the worker is dead is told by ``receive``."""

    def receive(self) -> Answer:
        """The next answer, which is there; WorkerDiedError if it died."""

    def stop(self) -> None:
        """At once, dead or alive: what is being written appears under its name when complete."""


W = TypeVar("W", bound=Worker)
Start = Callable[[], W]
Wait = Callable[[Sequence[W]], Sequence[W]]
"""Waits until some of these can ``receive``, and returns them."""


class _Seat:
    """A worker or its successor, and the batches that it has been sent and not answered."""

    def __init__(self, start: Start[Worker]) -> None:
        self.start = start
        self.fill()

    def fill(self) -> None:
        self.worker = self.start()
        self.ready = False
        self.batches: deque[Batch] = deque()
        self.stage: str | None = None

    def give(self, stage: str, batch: Batch) -> None:
        if self.stage is None:
            self.worker.send(stage)
            self.stage = stage
        self.batches.append(batch)
        self.worker.send(batch)

    def no_more(self) -> None:
        if self.stage is not None:
            self.worker.send(None)
            self.stage = None


@contextmanager
def shared_out(starts: Callable[[], Sequence[Start[W]]], wait: Wait[W]) -> Iterator[Executor]:
    """One worker for each of ``starts``, as far as there are batches for them; BenchmarkError if
    they keep dying.
    """
    seats: list[_Seat] = []
    idle: deque[Start[W]] | None = None
    deaths: Counter[int] = Counter()

    def execute(stage: Stage, batches: Sequence[Batch]) -> Iterator[Outcome]:
        queue = deque(batches)
        deaths.clear()
        nonlocal idle
        if idle is None:  # nothing is started for a run that has nothing to compute
            idle = deque(starts())
        while idle and len(seats) < len(batches):
            seats.append(_Seat(idle.popleft()))
        while queue or any(seat.batches for seat in seats):
            feed(stage.name, queue)
            waiting: Any = {id(s.worker): s for s in seats if s.batches or not s.ready}
            for worker in wait([seat.worker for seat in waiting.values()]):
                seat = waiting[id(worker)]
                try:
                    answer = worker.receive()
                except WorkerDiedError as error:
                    replace(seat, error)
                    queue.extendleft(reversed(seat.batches))
                    seat.fill()
                    continue
                if isinstance(answer, Exception):
                    raise answer
                if isinstance(answer, LogRecord):
                    getLogger(answer.name).handle(answer)
                elif answer is None:
                    seat.ready = True
                else:
                    seat.batches.popleft()
                    yield answer

    def feed(stage: str, queue: deque[Batch]) -> None:
        """Batches in turn until each worker has enough; if there are no more, that is said."""
        for level in range(SENT_AHEAD):
            for seat in seats:
                if queue and seat.ready and len(seat.batches) == level:
                    seat.give(stage, queue.popleft())
        if not queue:
            for seat in seats:
                seat.no_more()

    def replace(seat: _Seat, error: WorkerDiedError) -> None:
        log.warning("the worker on %s died (%s); its batches are redone", seat.worker.place, error)
        seat.worker.stop()
        suspects = [id(batch) for batch in seat.batches] or [id(seat)]
        deaths.update(suspects)
        if max(deaths[cause] for cause in suspects) > RESTARTS:
            occasion = (
                f"over sample {seat.batches[0][0].sample.id}" if seat.batches else "at the start"
            )
            raise BenchmarkError(
                f"Workers died {RESTARTS + 1} times {occasion}, the last on {seat.worker.place} "
                f"({error}; killed, or out of memory?). Lower batch_size or model.rows, or leave "
                "that device or node out. Finished items are kept."
            ) from error

    try:
        yield execute
    finally:
        for seat in seats:
            seat.worker.stop()


class _Forwarding(QueueHandler):
    """Sends what a worker logs to the main process."""

    def __init__(self, answer: Callable[[Answer], None]) -> None:
        super().__init__(Queue())
        self.answer = answer
        self.setFormatter(Formatter("%(message)s"))

    def enqueue(self, record: LogRecord) -> None:
        self.answer(record)


def serve(
    make: Callable[[], Run],
    stage_of: StageOf,
    inbox: "Queue[Any]",
    answer: Callable[[Answer], None],
) -> None:
    """A worker's life: ready, then for every stage its name, batches, and None after the last.

    ``answer`` may be called by several threads at once.
    """
    set_up_logging([_Forwarding(answer)])
    try:
        run = make()
        answer(None)
        while True:
            stage = stage_of(inbox.get(), run, ())
            stage.prepare()
            for outcome in run_batches(stage, iter(inbox.get, None), run.counts):
                answer(outcome)
    except BenchmarkError as error:
        answer(error)
    except Exception as error:  # as text, for not every error survives the way to another process
        answer(RuntimeError("in a worker:\n" + "".join(format_exception(error))))
