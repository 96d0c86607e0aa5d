"""Sweeps and searches: every run its results, all runs one set of artifacts, one table."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from process import command
from tracking.wandb_file import read_records

from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.report.pareto import hypervolume


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shapes(tmp_path / "data" / "shapes", per_type=1)
    return tmp_path


def computed(results: Path) -> dict[str, int]:
    counts: dict[str, int] = json.loads((results / "provenance.json").read_text())["computed"]
    return counts


def test_a_sweep_parses_and_encodes_every_sample_once_and_is_collected(folder: Path) -> None:
    arguments = ["-m", "strength=0.25,0.75", "mask=[ours]", "limit=4", "name=swept"]
    done = command(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    results = folder / "results" / "swept"
    jobs = [computed(results / str(job)) for job in range(2)]
    assert [job.get("samples_parsed", 0) for job in jobs] == [10, 0]
    assert [job.get("vae_encodes", 0) for job in jobs] == [4, 0]
    assert all(job["unet_rows"] > 0 for job in jobs)
    assert "swept/1: strength=0.75" in done.stdout and "Editing" not in done.stdout
    said = " ".join(done.stdout.split())
    assert "10 samples parsed" in said and "4 vae encodes" in said
    table = pd.read_csv(results / "sweep.csv")
    assert list(table["strength"]) == [0.25, 0.75]
    assert set(table["method"]) == {"ours"} and set(table["runs"]) == {1}
    for job in range(2):
        own = pd.read_csv(results / str(job) / "tables/mask_methods.csv").set_index("method")
        assert table["dice"][job] == pytest.approx(own.loc["ours", "dice"])
    assert (results / "sweep.svg").stat().st_size > 0
    for job in range(2):
        [file] = (results / str(job)).rglob("run-*.wandb")
        groups = {r.run.run_group for r in read_records(file) if r.HasField("run")}
        assert groups == {"swept"}


@pytest.mark.slow
def test_runs_that_differ_in_the_seed_are_averaged(folder: Path) -> None:
    arguments = ["-m", "seed=range(2)", "num_repeat=1,2", "mask=[ours]", "limit=2", "name=s"]
    done = command(folder, *arguments, "stages=[parse,masks,score,report]", "tracker=none")
    assert done.returncode == 0, done.stdout + done.stderr
    table = pd.read_csv(folder / "results/s/sweep.csv")
    runs = pd.read_csv(folder / "results/s/sweep_runs.csv")
    assert list(table["num_repeat"]) == [1, 2] and list(table["runs"]) == [2, 2]
    mean = runs[runs["num_repeat"] == 2]["dice"].mean()
    assert table["dice"][1] == pytest.approx(mean) and table["spread"].notna().all()
    assert len(runs) == 4


def test_hypervolume_is_the_area_that_points_dominate() -> None:
    x, y = np.array([0.5, 1.0, 0.4, 0.9]), np.array([1.0, 0.5, 0.9, 0.4])
    assert hypervolume(x, y) == pytest.approx(1.0 * 0.5 + 0.5 * 0.5)
    assert hypervolume(x[:0], y[:0]) == 0


@pytest.mark.slow
def test_a_search_goes_on_where_it_was(folder: Path) -> None:
    pytest.importorskip("optuna")
    arguments = ["hparams_search=optuna", "mask=[ours]", "limit=2", "name=search", "tracker=none"]
    arguments += [
        "stages=[parse,masks,score,report]",
        "hparams_search.space={strength: [0.25, 0.5]}",
    ]
    first = command(folder, *arguments, "hparams_search.trials=1")
    assert first.returncode == 0, first.stdout + first.stderr
    second = command(folder, *arguments, "hparams_search.trials=3")
    assert second.returncode == 0, second.stdout + second.stderr
    runs = pd.read_csv(folder / "results/search/sweep_runs.csv")
    assert sorted(runs["run"].astype(str)) == ["0", "1", "2"]
    best = f"dice {runs['dice'].max():.4f}"
    assert best in second.stdout.splitlines()[-1] and "Trial" not in second.stderr
    assert best in (folder / "results/search/sweep.md").read_text()
    third = command(folder, *arguments, "hparams_search.trials=3")
    assert third.returncode == 0 and "items computed" not in third.stdout
