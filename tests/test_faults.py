"""Faults during a run: what is computed is kept, what is damaged heals, what fails is said.

`benchmarks/torture.py` does the same at length, with real processes for everything.
"""

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from executors.processes import until
from hydra import compose, initialize_config_dir
from rich.console import Console
from torch import Tensor

from piebench_masks.batching import Blocks
from piebench_masks.cli import CONF
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.diffusion.backbone import Posterior
from piebench_masks.errors import BenchmarkError
from piebench_masks.pipeline import run_pipeline
from piebench_masks.report.finished import MEASURED
from piebench_masks.run import Run
from piebench_masks.stages.edit import Edit
from piebench_masks.stages.latents import Source, posteriors

HELD = """
import time
from piebench_masks.cli import main
from piebench_masks.stages.edit import Edit

compute = Edit.compute

def until_stored(edit, batch, loaded):
    if batch[0].sample.id != edit.samples[0].id:
        time.sleep(600)
    return compute(edit, batch, loaded)

Edit.compute = until_stored
main()
"""
"""The command, whose second sample's edits are not begun before it is stopped."""
Start = Callable[..., int]
Tables = dict[str, bytes]
SMALL = (
    *("tracker=none", "limit=2", "batch_size=2", "threads=1", "name=run", "device=cpu"),
    *("mask=[ours]", "baselines=[full]", "fail_on_error=false"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, per_type=1)
    return root


def overrides(data: Path, folder: Path) -> list[str]:
    places = f"artifacts_dir={folder}/artifacts", f"results_dir={folder}/results"
    return [*SMALL, f"dataset.root={data}", *places]


def run_in(data: Path, folder: Path, *more: str) -> int:
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("config", [*overrides(data, folder), *more])
    return run_pipeline(cfg, cfg.stages, Console(file=io.StringIO()))


@pytest.fixture
def start(data: Path, tmp_path: Path) -> Start:
    return lambda *more: run_in(data, tmp_path, *more)


def tables(folder: Path) -> Tables:
    """All but that of the measured seconds."""
    results = folder / "results" / "run"
    found = [*results.glob("*_scores.parquet"), *sorted(results.glob("tables/*.csv"))]
    return {path.name: path.read_bytes() for path in found if path.stem not in MEASURED}


@pytest.fixture(scope="module")
def expected(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run_in(data, folder) == 0
    assert len(tables(folder)) > 5
    return tables(folder)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def failures(folder: Path) -> list[dict[str, str]]:
    lines = (folder / "results" / "run" / "failures.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    "how", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_a_stopped_process_is_gone_on_from(
    how: signal.Signals, data: Path, tmp_path: Path, start: Start, expected: Tables
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, *overrides(data, tmp_path), "batch_size=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        assert until(lambda: any(tmp_path.glob("artifacts/edit/*/*/*.png")), 300)
        process.send_signal(how)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == (143 if how is signal.SIGTERM else -signal.SIGKILL)
    assert ("Interrupted. What was saved is kept" in output) == (how is signal.SIGTERM)
    assert "Traceback" not in output
    assert start() == 0
    assert tables(tmp_path) == expected


def test_damaged_files_heal_in_the_next_run(start: Start, tmp_path: Path, expected: Tables) -> None:
    start()
    artifacts = tmp_path / "artifacts"
    edit = sorted(artifacts.glob("edit/*/*/*.png"))[0]
    columns = next(artifacts.glob("edit_scores/*/columns.json"))
    rows = next(artifacts.glob("edit_scores/*/rows.parquet"))
    costs = next(artifacts.glob("edit/*/rows.parquet"))
    before = edit.read_bytes(), columns.read_bytes()
    for path in (edit, columns, rows, costs):
        flip(path)
    assert start() == 0
    assert (edit.read_bytes(), columns.read_bytes()) == before
    columns.write_text('{"psnr": 1}')
    assert start() == 0
    assert columns.read_bytes() == before[1]
    assert tables(tmp_path) == expected


def test_a_full_disk_ends_the_run_with_one_error(
    start: Start, tmp_path: Path, expected: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = Path.write_bytes, []

    def until_full(path: Path, data: bytes) -> int:
        written.append(path)
        if len(written) > 12:
            write(path, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", until_full)
    with pytest.raises(BenchmarkError, match=r"No space left .* free space"):
        start()
    monkeypatch.undo()
    assert not list(tmp_path.rglob("~*"))
    assert start() == 0
    assert tables(tmp_path) == expected


def test_out_of_memory_halves_the_blocks_and_loses_nothing(
    start: Start, tmp_path: Path, expected: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    each, refusals = Blocks.map, 0

    def limited(self: Blocks, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        def refusing(*block: Tensor) -> Tensor:
            nonlocal refusals
            if function.__name__ == "predict" and len(block[0]) > 2:
                refusals += 1
                raise torch.OutOfMemoryError("simulated")
            return function(*block)

        return each(self, refusing, *tensors)

    monkeypatch.setattr(Blocks, "map", limited)
    assert start() == 0
    assert refusals > 0, "the fault has not fired"
    for name, column in (("mask_scores", "average_precision"), ("edit_scores", "psnr")):
        ours, good = (
            pd.read_parquet(io.BytesIO(found[f"{name}.parquet"]))
            for found in (tables(tmp_path), expected)
        )
        assert ours[["sample", "method"]].equals(good[["sample", "method"]])
        np.testing.assert_allclose(ours[column], good[column], rtol=1e-3)  # other blocks round


def test_a_sample_that_is_not_a_number_fails_and_no_black_picture_is_scored(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victims: set[str] = set()

    def spoilt(run: Run, sources: Sequence[Source]) -> Posterior:
        found = posteriors(run, sources)
        victim = min([*victims, *(source.name for source in sources)])
        victims.add(victim)
        found.mean[[row for row, s in enumerate(sources) if s.name == victim]] = float("nan")
        return found

    for stage in ("maps", "edit"):
        monkeypatch.setattr(f"piebench_masks.stages.{stage}.posteriors", spoilt)
    failed = start()
    [victim] = victims
    told = failures(tmp_path)
    assert failed == len(told) > 1
    edits = {"edit turbo_edit", "edit reconstruction"}
    assert {entry["stage"] for entry in told} == {"masks"} | edits
    assert all(victim.startswith(entry["sample_id"]) for entry in told)
    assert all("not finite" in entry["reason"] for entry in told)
    assert not list(tmp_path.glob(f"artifacts/edit/*/{Path(victim).stem}/*"))
    edits = pd.read_parquet(tmp_path / "results" / "run" / "edit_scores.parquet")
    assert edits.loc[edits["editor"] == "turbo_edit", "sample"].nunique() == 1


@pytest.mark.slow
def test_a_picture_that_is_not_a_number_is_a_failed_edit(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = Edit.prepare

    def spoilt(self: Edit) -> None:
        prepare(self)
        with torch.no_grad():
            self.run.backbone._vae.decoder.conv_out.weight[0] = float("nan")

    monkeypatch.setattr(Edit, "prepare", spoilt)
    assert start("stages=[parse,masks,edit]") > 0
    assert not list(tmp_path.glob("artifacts/edit/*/*/*.png"))
