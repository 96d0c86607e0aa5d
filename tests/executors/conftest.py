"""Runs of four scenes by worker processes, and what they must leave: one process's tables."""

import io
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
from executors.processes import kill, until, workers
from hydra import compose, initialize_config_dir
from rich.console import Console

from piebench_masks.cli import CONF
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.pipeline import run_pipeline
from piebench_masks.report.finished import MEASURED

RESULTS = "*.parquet", "tables/*.csv", "tables/*.tex"
Tables = dict[str, bytes]
Compute = Callable[..., Tables]
SMALL = ("tracker=none", "limit=4", "batch_size=1", "threads=1", "mask=[ours]", "baselines=[full]")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, per_type=1)
    return root


@pytest.fixture(scope="session")
def compute(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Compute:
    """Run on the four scenes with these overrides; returns the bytes of all tables but that of the
    measured seconds.
    """

    def computed(*overrides: str, killing: bool = False) -> Tables:
        folder = tmp_path_factory.mktemp("run")
        places = f"dataset.root={data}", f"artifacts_dir={folder}/artifacts", "name=results"
        with initialize_config_dir(CONF, version_base="1.3"):
            cfg = compose("config", [*SMALL, *places, f"results_dir={folder}", *overrides])
        if killing:
            Thread(target=_kill_one_at_work, args=(folder,), daemon=True).start()
        assert run_pipeline(cfg, cfg.stages, Console(file=io.StringIO())) == 0
        results = folder / "results"
        found = [path for pattern in RESULTS for path in sorted(results.glob(pattern))]
        assert len(found) > 5
        return {path.name: path.read_bytes() for path in found if path.stem not in MEASURED}

    return computed


def _kill_one_at_work(folder: Path) -> None:
    """One of the workers, as soon as a worker has stored its first map."""
    until(lambda: any(folder.glob("artifacts/maps/*/*.safetensors")))
    kill(workers()[0])


@pytest.fixture(scope="session")
def tables(compute: Compute) -> Tables:
    """Those of one process."""
    return compute()
