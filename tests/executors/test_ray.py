"""Actors on a Ray cluster of this machine: what they compute, and what happens when they die."""

import signal
import socket
from pathlib import Path

import pytest
from executors.conftest import Compute, Tables
from executors.processes import workers
from executors.stopping import stopped

from piebench_masks.errors import BenchmarkError

pytest.importorskip("ray", reason="Ray is not installed (pip install .[ray])")
TWO = "executor=ray", "executor.num_gpus=0", "executor.actors=2"


@pytest.mark.slow  # a killed actor's run says the same and more
def test_two_actors_leave_the_tables_of_one_process(
    compute: Compute, tables: Tables, capfd: pytest.CaptureFixture[str]
) -> None:
    assert compute(*TWO) == tables
    assert capfd.readouterr() == ("", "")
    assert not workers()


@pytest.mark.slow
def test_an_actor_killed_at_work_changes_no_table(
    compute: Compute, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    assert compute(*TWO, killing=True) == tables
    assert "the worker on the Ray cluster died" in caplog.text


def test_a_cluster_that_cannot_be_used_is_one_error(compute: Compute) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(BenchmarkError, match=f"executor.address={address}: .*refused"):
            compute(*TWO, f"executor.address={address}")
    with pytest.raises(BenchmarkError, match=r"room for \d+ actors with .*executor\.actors"):
        compute(*TWO, "executor.actors=1000")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_actors_end_with_the_main_process(how: signal.Signals, data: Path, tmp_path: Path) -> None:
    stopped(how, data, tmp_path, *TWO)
