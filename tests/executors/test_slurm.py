"""Sweeps whose runs are jobs in processes of their own: Slurm's settings, and a real sweep."""

from pathlib import Path

import pandas as pd
import pytest
from executors.conftest import SMALL
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from process import command

from piebench_masks.cli import CONF

pytest.importorskip("submitit", reason="submitit is not installed (pip install .[slurm])")
pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
SETTINGS = {"timeout_min": 720, "cpus_per_task": 8, "gpus_per_node": 1, "mem_gb": 32}


def test_slurms_settings_are_those_of_the_launcher() -> None:
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("config", ["hydra/launcher=slurm"], return_hydra_config=True)
    launcher = dict(cfg.hydra.launcher)
    assert get_object(launcher.pop("_target_")).__name__ == "SlurmLauncher"
    assert SETTINGS.items() <= launcher.items()
    assert launcher["partition"] is None and launcher["array_parallelism"] == 16


@pytest.mark.slow
def test_jobs_are_collected_and_one_that_fails_stops_no_other(data: Path, tmp_path: Path) -> None:
    arguments = [*SMALL, f"dataset.root={data}", "limit=2", "name=swept"]
    arguments += ["stages=[parse,masks,score,report]", "strength=0.25,0.5,2"]
    arguments += ["hydra/launcher=submitit_local"]
    arguments += [f"hydra.launcher.{key}={value}" for key, value in SETTINGS.items()]
    done = command(tmp_path, "-m", *arguments)
    results = tmp_path / "results" / "swept"
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "Error in run 2: strength" in done.stderr and "Error in run 1" not in done.stderr
    assert list(pd.read_csv(results / "sweep.csv")["strength"]) == [0.25, 0.5]
    assert len(list((results / ".submitit").glob("*/*_log.out"))) == 3
