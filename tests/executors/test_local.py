"""Worker processes on this machine: what they compute, and what happens when they die."""

import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from executors.conftest import SMALL, Compute, Tables
from executors.processes import kill, until, workers
from executors.stopping import stopped
from hydra import compose as composed
from hydra import initialize_config_dir

from piebench_masks.cli import CONF
from piebench_masks.data.sample import Sample
from piebench_masks.errors import BenchmarkError
from piebench_masks.executors import local
from piebench_masks.run import Run
from piebench_masks.stages.stage import Failure, Work
from piebench_masks.weights import packaged

TWO = "devices=[cpu,cpu]"


def test_a_worker_killed_at_work_changes_no_table(
    compute: Compute, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    assert compute(TWO, killing=True) == tables
    assert "the worker on cpu died (exit code -9)" in caplog.text
    assert not workers()


def test_workers_that_keep_dying_end_the_run_with_one_error(compute: Compute) -> None:
    over = Event()

    def kill_all() -> None:
        while not over.is_set():
            for pid in workers():
                kill(pid)

    Thread(target=kill_all, daemon=True).start()
    try:
        with pytest.raises(BenchmarkError, match="Workers died 4 times at the start"):
            compute(TWO)
    finally:
        over.set()
    assert until(lambda: not workers())


def test_what_a_worker_cannot_load_is_the_runs_error(compute: Compute, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(packaged("shapes_turbo"), model)
    weights = next((model / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BenchmarkError, match=str(model)):
        compute(TWO, f"model.id={model}")
    assert not workers()


@pytest.mark.slow
def test_few_batches_need_no_workers_where_nobody_asked_for_them(
    compute: Compute, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    starts: list[tuple[object, ...]] = []
    start = local._Process
    monkeypatch.setattr(local, "_Process", lambda *with_: starts.append(with_) or start(*with_))
    threads = torch.get_num_threads()
    compute("devices=auto", "batch_size=2")
    assert not starts and torch.get_num_threads() == threads
    assert compute("devices=auto") == tables
    assert len(starts) == 2


def test_workers_get_the_identities_that_the_main_process_has_computed(data: Path) -> None:
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = composed("config", [*SMALL, f"dataset.root={data}"])
    run = Run(cfg, identities={"model": {"unet": "abc"}})
    batches: Any = [[Work(SimpleNamespace(id="s"), (1,))]]
    with local.on_this_machine(run, identities_of, ["cpu"]) as executor:
        [outcome] = executor(SimpleNamespace(name="identities"), batches)
    assert [failure.reason for failure in outcome.failures] == [str(run.identities)]
    assert run.identities["model"] == {"unet": "abc"} and "mask.ours" in run.identities


def identities_of(name: str, run: Run, samples: Sequence[Sample]) -> Any:
    """A stage that answers with its run's identities, as failures do without files."""
    told = [Failure(name, "s", "1", str(run._identities))]
    stage: Any = SimpleNamespace(name=name, prepare=int, load=len)
    stage.compute, stage.store = (lambda batch, loaded: None), (lambda batch, computed: told)
    return stage


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_main_process(how: signal.Signals, data: Path, tmp_path: Path) -> None:
    stopped(how, data, tmp_path, TWO)
