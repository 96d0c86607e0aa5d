"""Batches on this machine: in this process, or in one worker process per device.

A worker loads the models once and takes batches as it gets free. Where one dies, its batch goes
back to the others and it is started again.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from omegaconf import DictConfig, OmegaConf

from piebench_masks.errors import BenchmarkError
from piebench_masks.run import Run
from piebench_masks.runner import Outcome, Stage, Work, compute_resiliently
from piebench_masks.stages import stage_of

log = logging.getLogger(__name__)
Batch = Sequence[Work]
RESTARTS = 3
"""How many dead workers are replaced before the run gives up."""


def in_process(stage: Stage, run: Run, batches: Sequence[Batch]) -> Iterator[Outcome]:
    stage.prepare()
    for batch in batches:
        yield compute_resiliently(stage, batch, run.counts)


def on_devices(stage: Stage, cfg: DictConfig, batches: Sequence[Batch]) -> Iterator[Outcome]:
    """Yields outcomes as they come; raises BenchmarkError if workers keep dying."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    devices = [f"cuda:{d}" if isinstance(d, int) else str(d) for d in cfg.devices]
    queue = list(reversed(batches))
    workers = [_start_worker(plain, device) for device in devices]
    running: dict[Future[Outcome], tuple[int, Batch]] = {}
    deaths = 0
    try:
        while queue or running:
            busy = {number for number, _ in running.values()}
            for number in range(len(workers)):
                if number not in busy and queue:
                    batch = queue.pop()
                    future = workers[number].submit(_compute_in_worker, stage.name, batch)
                    running[future] = (number, batch)
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                number, batch = running.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool as error:
                    deaths += 1
                    log.warning("the worker on %s died; its batch is taken over", devices[number])
                    if deaths > RESTARTS:
                        raise BenchmarkError(
                            f"Workers died {deaths} times, the last on {devices[number]} (killed, "
                            "or out of memory?). Lower batch_size or model.rows, or leave the "
                            "device out of devices. Finished items are kept."
                        ) from error
                    queue.append(batch)
                    workers[number] = _start_worker(plain, devices[number])
    finally:
        for worker in workers:
            worker.shutdown(wait=False, cancel_futures=True)


def _start_worker(plain: Any, device: str) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        max_workers=1,
        mp_context=get_context("spawn"),
        initializer=_enter_worker,
        initargs=(plain, device),
    )


_worker: dict[str, Any] = {}
"""All that a worker process keeps between batches: its run, and the stage it works on."""


def _enter_worker(plain: Any, device: str) -> None:
    _worker["run"] = Run(OmegaConf.create(plain), device)


def _compute_in_worker(stage_name: str, batch: Batch) -> Outcome:
    run = _worker["run"]
    if "stage" not in _worker or _worker["stage"].name != stage_name:
        _worker["stage"] = stage_of(stage_name, run, ())
        _worker["stage"].prepare()
    stage = _worker["stage"]
    return compute_resiliently(stage, batch, run.counts)
