"""Worker processes on this machine: what they compute, and what happens when they die."""

import shutil
import signal
from pathlib import Path
from threading import Event, Thread

import pytest
from executors.conftest import Compute, Tables
from executors.processes import kill, until, workers
from executors.stopping import stopped

from piebench_masks.diffusion.source import packaged
from piebench_masks.errors import BenchmarkError

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


@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_workers_end_with_the_main_process(how: signal.Signals, data: Path, tmp_path: Path) -> None:
    stopped(how, data, tmp_path, TWO)
