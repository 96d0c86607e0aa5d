"""The regress command on the embedded default: quiet by itself, loud about a worsened method."""

from pathlib import Path
from subprocess import CompletedProcess

import pytest
from process import command

from piebench_masks.data.shapes.write import write_shapes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shapes(tmp_path / "data" / "shapes", per_type=2)
    return tmp_path


def regress(folder: Path, *overrides: str) -> CompletedProcess[str]:
    arguments = ["mask=[ours]", "stages=[parse,masks,score]", "baselines=[]", *overrides]
    return command(folder, "regress", *arguments)


def test_a_worsened_method_fails_the_command_and_a_refactoring_does_not(folder: Path) -> None:
    written = regress(folder, "baseline=update")
    assert written.returncode == 0, written.stderr
    baseline = "baseline=results/baselines/shapes-shapes_turbo.parquet"
    harmless = regress(folder, baseline, "batch_size=3", "overwrite=always")
    assert harmless.returncode == 0, harmless.stdout + harmless.stderr
    assert "Worse: 0, better: 0" in harmless.stdout
    method = "mask.ours._target_=piebench_masks.masks.noise_based.NoiseBased"
    worsened = regress(folder, baseline, method)
    assert worsened.returncode == 1
    assert "worse" in worsened.stdout
    assert (folder / "results/shapes-shapes_turbo/tables/regression.csv").is_file()
    assert worsened.stdout.count("│ ours: ") < 10  # what is the same is in the file alone
    few = regress(folder, "baseline=update", "limit=2")
    assert few.returncode == 1 and "first 2 samples" in few.stderr
    missing = regress(folder)
    assert missing.returncode == 1 and "baseline must be set" in missing.stderr
