"""Batches on a Ray cluster: one actor per GPU, placed by Ray, artifacts on a shared folder.

Knows no stage's content.
"""

import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from logging import ERROR, INFO, getLogger
from pathlib import Path
from queue import Queue
from threading import Thread
from types import ModuleType
from typing import Any

from piebench_masks.errors import BenchmarkError
from piebench_masks.executors.workers import (
    Answer,
    Message,
    StageOf,
    Start,
    WorkerDiedError,
    serve,
    shared_out,
)
from piebench_masks.provenance import provenance
from piebench_masks.run import Run
from piebench_masks.runner import Executor
from piebench_masks.settings import Settings

log = getLogger(__name__)
CONNECT_SECONDS = 10.0
PATIENCE_SECONDS = 60.0
"""How long the cluster may have no room for any actor before that is said."""


@contextmanager
def on_cluster(
    run: Run, stage_of: StageOf, address: str, num_gpus: float, actors: int | None
) -> Iterator[Executor]:
    """Actors on a cluster, or (``address=local``) on one of this machine alone and for this run.

    Raises BenchmarkError where Ray is not installed, the cluster cannot be reached or has no room
    for the actors, a node does not see the folders or has other versions, or actors keep dying.
    """
    try:
        import ray
    except ImportError as error:
        raise BenchmarkError(
            "executor=ray needs the optional dependency: pip install 'piebench-masks[ray]'"
        ) from error
    if run.cfg.devices:
        raise BenchmarkError("devices is for executor=local; under executor=ray Ray chooses them")
    threads = run.cfg.threads or 1

    def starts() -> list[Start[_Actor]]:
        _connect(ray, address, run.cfg.debug)
        count = _room(ray, num_gpus, threads, actors)
        life = ray.remote(num_gpus=num_gpus, num_cpus=threads, max_restarts=0)(_Life)
        cfg = replace(run.cfg, threads=threads)
        device = "cuda:0" if num_gpus else "cpu"  # Ray shows an actor the GPUs that it has
        origin = _Origin(_witnesses(run), dict(run.identities))
        make = partial(_run_like, origin, cfg, device)
        return [partial(_Actor, ray, life, make, stage_of)] * count

    try:
        with shared_out(starts, partial(_wait, ray)) as executor:
            yield executor
    finally:
        ray.shutdown()


def _connect(ray: ModuleType, address: str, debug: bool) -> None:
    if address == "local":
        # Of this run alone; Ray would otherwise leave a token in the home folder.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        host, _, port = address.rpartition(":")
        if port.isdigit() and "/" not in host:  # Ray itself takes minutes to give up
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(
            address=address,
            include_dashboard=False if address == "local" else None,
            log_to_driver=debug,
            logging_level=INFO if debug else ERROR,
        )
    except (Exception, SystemExit) as error:
        raise BenchmarkError(
            f"executor.address={address}: the Ray cluster cannot be used ({error}). Give the "
            "host:port that `ray start --head` printed, with RAY_AUTH_MODE=token and its token in "
            "the environment if it wants one; or local for a cluster of this machine alone."
        ) from error


def _room(ray: ModuleType, num_gpus: float, threads: int, actors: int | None) -> int:
    """How many actors to start; BenchmarkError where the cluster is too small for them."""
    resources = ray.cluster_resources()
    gpus, cpus = resources.get("GPU", 0), resources.get("CPU", 0)
    limit = int(min(gpus / num_gpus if num_gpus else cpus, cpus / threads))
    count = actors or (limit if num_gpus else 0)
    if not 0 < count <= limit:
        raise BenchmarkError(
            f"The Ray cluster has {gpus:g} GPUs and {cpus:g} CPUs: room for {limit} actors with "
            f"executor.num_gpus={num_gpus:g} threads={threads}. Set executor.actors to 1..{limit}"
            + (", or compute on CPUs: executor.num_gpus=0 executor.actors=N" if num_gpus else "")
        )
    return count


@dataclass(frozen=True)
class _Origin:
    """What an actor must find on its node as the main process has it."""

    witnesses: dict[str, Path]
    """Settings that name a folder, and a file below each."""
    identities: dict[str, Any] = field(default_factory=dict)
    folder: str = field(default_factory=os.getcwd)
    argv: list[str] = field(default_factory=lambda: list(sys.argv))
    versions: dict[str, str] = field(default_factory=lambda: provenance()["versions"])


def _witnesses(run: Run) -> dict[str, Path]:
    artifacts, data = Path(run.cfg.artifacts_dir), Path(run.cfg.dataset.root)
    return {
        "artifacts_dir": next(artifacts.glob("*/*/stage.json"), artifacts),
        "dataset.root": next((path for path in data.rglob("*") if path.is_file()), data),
    }


class _Life:
    """An actor's side: a thread that computes, and calls that bring batches and fetch outcomes."""

    def __init__(self, make: Callable[[], Run], stage_of: StageOf) -> None:
        self.inbox: Queue[Any] = Queue()
        self.outbox: Queue[Answer] = Queue()
        arguments = make, stage_of, self.inbox, self.outbox.put
        Thread(target=serve, args=arguments, daemon=True).start()

    def exchange(self, messages: Sequence[Message]) -> Answer:
        for message in messages:
            self.inbox.put(message)
        return self.outbox.get()


def _run_like(origin: _Origin, cfg: Settings, device: str) -> Run:
    node = f"Ray node {socket.gethostname()}"
    with suppress(OSError):  # only paths that are relative need it
        os.chdir(origin.folder)
    sys.argv = origin.argv
    for setting, path in origin.witnesses.items():
        if not path.exists():
            raise BenchmarkError(
                f"{node} does not see {setting}: there is no {Path(origin.folder, path)}. Give "
                "the absolute path of a folder that every node has mounted in the same place."
            )
    versions = provenance()["versions"]
    if changes := [f"{k} {v}" for k, v in versions.items() if origin.versions[k] != v]:
        raise BenchmarkError(
            f"{node} has {', '.join(changes)}, this machine "
            f"{', '.join(origin.versions[entry.split()[0]] for entry in changes)}: results would "
            "depend on the node. Install the same constraints.txt everywhere."
        )
    return Run(cfg, device, origin.identities)


class _Actor:
    """A worker that Ray places; one call at a time takes messages there and an answer back."""

    def __init__(
        self, ray: ModuleType, life: Any, make: Callable[[], Run], stage_of: StageOf
    ) -> None:
        self.ray = ray
        self.place = "the Ray cluster"
        self.actor = life.remote(make, stage_of)
        self.messages: list[Message] = []
        self.call: Any = None
        self.is_placed = False

    def send(self, message: Message) -> None:
        self.messages.append(message)

    def answering(self) -> Any:
        if self.call is None:
            self.call = self.actor.exchange.remote(self.messages)
            self.messages = []
        return self.call

    def receive(self) -> Answer:
        call, self.call = self.call, None
        try:
            answer: Answer = self.ray.get(call)
        except self.ray.exceptions.RayError as error:
            raise WorkerDiedError(str(error).strip().splitlines()[-1].strip()) from error
        self.is_placed = True
        return answer

    def stop(self) -> None:
        self.ray.kill(self.actor)


def _wait(ray: ModuleType, workers: Sequence[_Actor]) -> list[_Actor]:
    calls = [worker.answering() for worker in workers]
    answering, _ = ray.wait(calls, num_returns=1, timeout=PATIENCE_SECONDS)
    if not answering and not any(worker.is_placed for worker in workers):
        log.warning("the Ray cluster has no room for an actor yet: %s", ray.available_resources())
    return [worker for worker, call in zip(workers, calls, strict=True) if call in answering]
