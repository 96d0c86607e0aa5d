"""Batches on this machine: in this process, or in one worker process per device."""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.connection import Connection
from queue import Queue
from threading import Lock, Thread
from typing import Any, Literal

import torch

from piebench_masks.executors.workers import (
    Answer,
    Message,
    StageOf,
    Start,
    WorkerDiedError,
    serve,
    shared_out,
)
from piebench_masks.run import Run
from piebench_masks.runner import Executor, Outcome, run_batches
from piebench_masks.settings import Settings
from piebench_masks.stages.stage import Batch, Stage

FEW = 2
"""Batches that are computed before worker processes have started and loaded the models."""


@contextmanager
def on_this_machine(
    run: Run, stage_of: StageOf, devices: Sequence[str | int] | Literal["auto"] | None
) -> Iterator[Executor]:
    """One process for each of ``devices``; without any, the batches are computed in this one.

    auto: every CUDA device; where there is none, a process for every core, four at most: on few
    cores they are faster than threads. Few batches are computed in this process all the same.
    """
    cores = len(os.sched_getaffinity(0))
    auto = devices == "auto"
    if devices == "auto":
        devices = range(torch.cuda.device_count()) or ["cpu"] * min(cores, 4)
        devices = devices if len(devices) > 1 else None
    if not devices:
        with in_process(run) as executor:
            yield executor
        return
    # More threads than cores make every one of them slow.
    threads = run.cfg.threads or max(1, cores // len(devices))
    names = [f"cuda:{d}" if isinstance(d, int) else str(d) for d in devices]

    def starts() -> list[Start[_Process]]:
        cfg = replace(run.cfg, threads=threads)
        return [partial(_Process, stage_of, cfg, name, run.identities) for name in names]

    with shared_out(starts, _wait) as workers, in_process(run) as local_executor:
        started = False

        def execute(stage: Stage, batches: Sequence[Batch]) -> Iterator[Outcome]:
            nonlocal started
            started = started or not auto or len(batches) > FEW
            if started:
                yield from workers(stage, batches)
            else:
                with _threads(threads):  # as a worker would have: their number changes rounding
                    yield from local_executor(stage, batches)

        yield execute


@contextmanager
def _threads(count: int) -> Iterator[None]:
    previous_count = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(previous_count)


@contextmanager
def in_process(run: Run) -> Iterator[Executor]:
    def execute(stage: Stage, batches: Sequence[Batch]) -> Iterator[Outcome]:
        stage.prepare()
        return run_batches(stage, batches, run.counts)

    yield execute


class _Process:
    """A worker at the other end of a pipe."""

    def __init__(
        self, stage_of: StageOf, cfg: Settings, device: str, identities: Mapping[str, Any]
    ) -> None:
        self.place = device
        context = get_context("spawn")
        self.connection, worker_end = context.Pipe()
        # Daemons are ended with their parent, however that ends in an orderly way.
        arguments = worker_end, stage_of, cfg, device, dict(identities)
        self.process = context.Process(target=_work, args=arguments, daemon=True)
        # Ctrl-C is for the main process, which ends this one: blocked signals are inherited. What
        # multiprocessing starts before its first process would unblock them again.
        resource_tracker.ensure_running()
        signal_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, signal_mask)
        worker_end.close()

    def send(self, message: Message) -> None:
        with suppress(OSError):
            self.connection.send(message)

    def receive(self) -> Answer:
        try:
            answer: Answer = self.connection.recv()
        except (EOFError, OSError) as error:  # also in the middle of an answer
            self.process.join(1)
            raise WorkerDiedError(f"exit code {self.process.exitcode}") from error
        return answer

    def stop(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


def _wait(workers: Sequence[_Process]) -> list[_Process]:
    ready = connection.wait([worker.connection for worker in workers])
    return [worker for worker in workers if worker.connection in ready]


def _work(
    worker_end: Connection,
    stage_of: StageOf,
    cfg: Settings,
    device: str,
    identities: dict[str, Any],
) -> None:
    inbox: Queue[Any] = Queue()
    sending = Lock()

    def receive() -> None:
        """Always, so that the main process never waits for this one to take what it sends."""
        try:
            while True:
                inbox.put(worker_end.recv())
        except (EOFError, OSError):
            os._exit(1)  # the main process has gone

    def answer(message: Answer) -> None:
        with suppress(OSError), sending:
            worker_end.send(message)

    Thread(target=receive, daemon=True).start()
    serve(lambda: Run(cfg, device, identities), stage_of, inbox, answer)
