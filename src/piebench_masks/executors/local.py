"""Batches on this machine: in this process, or in one worker process per device.

A worker loads the models once, for all stages, and is sent batches as it gets on. Where one dies,
its batches go back to the queue and it is started again. Knows no stage's content.
"""

import logging
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from queue import Queue
from threading import Thread
from typing import Any

from omegaconf import DictConfig, OmegaConf

from piebench_masks.errors import BenchmarkError
from piebench_masks.run import Run
from piebench_masks.runner import Batch, Executor, Outcome, Stage, run_batches
from piebench_masks.stages import stage_of

log = logging.getLogger(__name__)
RESTARTS = 3
"""How many dead workers are replaced before the run gives up."""
SENT_AHEAD = 3
"""Batches at a worker: one is loaded, one computed, one stored."""


@contextmanager
def in_process(run: Run) -> Iterator[Executor]:
    def execute(stage: Stage, batches: Sequence[Batch]) -> Iterator[Outcome]:
        stage.prepare()
        return run_batches(stage, batches, run.counts)

    yield execute


@contextmanager
def on_devices(cfg: DictConfig) -> Iterator[Executor]:
    """One process for each of ``cfg.devices``; BenchmarkError if they keep dying."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    devices = [f"cuda:{d}" if isinstance(d, int) else str(d) for d in cfg.devices]
    # More threads than cores make every one of them slow.
    plain["threads"] = cfg.threads or max(1, len(os.sched_getaffinity(0)) // len(devices))
    workers: list[_Worker] = []
    deaths = 0

    def execute(stage: Stage, batches: Sequence[Batch]) -> Iterator[Outcome]:
        nonlocal deaths
        queue = deque(batches)
        if not workers:  # nothing is started for a run that has nothing to compute
            workers.extend(_Worker(plain, device) for device in devices)
        while queue or any(worker.batches for worker in workers):
            for worker in workers:
                worker.feed(stage.name, queue)
            answered = wait([worker.connection for worker in workers if worker.batches])
            for worker in [worker for worker in workers if worker.connection in answered]:
                try:
                    outcome = worker.outcome()
                except (EOFError, ConnectionError) as error:
                    deaths += 1
                    log.warning("the worker on %s died; its batches are redone", worker.device)
                    if deaths > RESTARTS:
                        raise BenchmarkError(
                            f"Workers died {deaths} times, the last on {worker.device} (killed, "
                            "or out of memory?). Lower batch_size or model.rows, or leave the "
                            "device out of devices. Finished items are kept."
                        ) from error
                    queue.extendleft(reversed(worker.batches))
                    worker.restart()
                else:
                    yield outcome

    try:
        yield execute
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process on one device, and the batches that it has been sent and not answered."""

    def __init__(self, plain: Any, device: str) -> None:
        self.plain, self.device = plain, device
        self.restart()

    def restart(self) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.batches: deque[Batch] = deque()
        self.stage: str | None = None
        # Daemons are ended with their parent, however that ends in an orderly way.
        self.process = context.Process(
            target=_serve, args=(theirs, self.plain, self.device), daemon=True
        )
        self.process.start()
        theirs.close()

    def feed(self, stage: str, queue: deque[Batch]) -> None:
        """Send batches until it has enough of them; if there are no more, that is said."""
        try:
            while queue and len(self.batches) < SENT_AHEAD:
                self.batches.append(queue.popleft())
                if self.stage is None:
                    self.connection.send(stage)
                    self.stage = stage
                self.connection.send(self.batches[-1])
            if not queue and self.stage is not None:
                self.connection.send(None)
                self.stage = None
        except ConnectionError:
            pass  # reading from it says so as well, where it is dealt with

    def outcome(self) -> Outcome:
        """The next answer; EOFError or ConnectionError from the dead, else its own error."""
        answer = self.connection.recv()
        if isinstance(answer, Exception):
            raise answer
        self.batches.popleft()
        return answer

    def stop(self) -> None:
        """At once: what is being written appears under its name when it is complete."""
        self.connection.close()
        self.process.terminate()
        self.process.join()


def _serve(connection: Connection, plain: Any, device: str) -> None:
    """A worker's life: for every stage its name, batches, and None after the last of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process is interrupted, and ends this
    inbox: Queue[Any] = Queue()

    def receive() -> None:
        """Always, so that the main process never waits for this one to take what it sends."""
        try:
            while True:
                inbox.put(connection.recv())
        except (EOFError, OSError):
            os._exit(1)  # the main process has gone

    Thread(target=receive, daemon=True).start()
    try:
        run = Run(OmegaConf.create(plain), device)
        while True:
            stage = stage_of(inbox.get(), run, ())
            stage.prepare()
            for outcome in run_batches(stage, iter(inbox.get, None), run.counts):
                connection.send(outcome)
    except Exception as error:
        connection.send(error)
