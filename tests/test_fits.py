"""Fits of editors as artifacts: made once, gone on with, and known by what changes them."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from rich.console import Console
from torch import Tensor

from piebench_masks.cli import CONF
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.items.fitted import Fitted
from piebench_masks.items.optimise import Checkpoint, State
from piebench_masks.packing import unpack_tensors
from piebench_masks.pipeline import run_pipeline
from piebench_masks.run import Run
from piebench_masks.stages.edit import edit_folder
from piebench_masks.stages.fits import fit_folder
from piebench_masks.weights import packaged

Start = Callable[..., tuple[int, str]]
SAMPLES, PASSES, BATCH = 2, 15, 2
STAGES = "stages=[parse,masks,edit]"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, per_type=1)
    return root


def configuration(data: Path, folder: Path, *overrides: str) -> DictConfig:
    fixed = ("threads=1", "tracker=none", "name=run", "mask=[]", "baselines=[oracle,empty]")
    places = f"artifacts_dir={folder}/artifacts", f"results_dir={folder}/results"
    fit = "embedding_steps=10", "unet_steps=5", "accumulation=1", f"batch={BATCH}"
    fits = "editor=[items]", "editor.items.steps=2", *(f"editor.items.fit.{each}" for each in fit)
    small = (f"limit={SAMPLES}", f"dataset.root={data}", *fixed, *places, *fits)
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("config", [*small, *overrides])


@pytest.fixture
def start(data: Path, tmp_path: Path) -> Start:
    """Run with overrides in a folder of that name: failed items, and how many rows had gradients
    beside the text.
    """

    def run(*overrides: str, at: str = "here") -> tuple[int, str]:
        console = Console(file=io.StringIO(), record=True, width=220)
        cfg = configuration(data, tmp_path / at, *overrides)
        failed = run_pipeline(cfg, cfg.stages, console)
        return failed, console.export_text()

    return run


def gradients(text: str) -> int:
    """Rows with gradients in the line of counts."""
    found = re.search(r"(\d+) with gradients", text)
    return int(found[1]) if found else 0


def stored(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors of all fits, by file."""
    files = sorted((folder / "artifacts" / "fits").glob("*/*.safetensors"))
    return {"/".join(file.parts[-2:]): unpack_tensors(file.read_bytes()) for file in files}


def is_equal(found: dict[str, dict[str, Tensor]], expected: dict[str, dict[str, Tensor]]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name][key], tensor)
        for name, tensors in expected.items()
        for key, tensor in tensors.items()
    )


def test_a_picture_is_fitted_once_for_all_masks_and_samplings(start: Start, tmp_path: Path) -> None:
    failed, text = start()
    assert failed == 0 and gradients(text) == SAMPLES * PASSES * BATCH
    costs = pd.read_csv(tmp_path / "here" / "results" / "run" / "tables" / "cost.csv")
    assert costs["nfe_inverse"].tolist() == costs["backward"].tolist() == [PASSES * BATCH]
    assert "Backward rows" in text and (costs["seconds_inverse"] > 0).all()
    fits = stored(tmp_path / "here")
    assert len(fits) == SAMPLES
    _, text = start()
    assert "nothing to compute: all artifacts are there" in text
    _, text = start("editor.items.guidance=2", "baselines=[oracle,full]", STAGES)
    assert "edit items: " in text and gradients(text) == 0
    assert is_equal(stored(tmp_path / "here"), fits)
    _, text = start("editor.items.fit.tokens=2", STAGES)
    assert gradients(text) == SAMPLES * PASSES * BATCH
    assert len(stored(tmp_path / "here")) == 2 * SAMPLES


@pytest.mark.slow  # of a killed one the commands' tests say the same
def test_a_stopped_fit_goes_on_from_its_last_saved_step(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(STAGES, at="whole")
    save = Checkpoint.save

    def stop(self: Checkpoint, state: State) -> None:
        save(self, state)
        raise KeyboardInterrupt  # after 10 of 15 passes

    monkeypatch.setattr(Checkpoint, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        start(STAGES)
    monkeypatch.undo()
    folder = tmp_path / "here" / "artifacts" / "fits"
    assert len([*folder.glob("*/*.checkpoint")]) == 1
    _, text = start(STAGES)
    assert gradients(text) == (PASSES * SAMPLES - 10) * BATCH
    assert not [*folder.glob("*/*.checkpoint")]
    assert is_equal(stored(tmp_path / "here"), stored(tmp_path / "whole"))


def test_a_stored_fit_is_one_that_commands_read_and_a_damaged_one_is_made_again(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start(STAGES, "limit=1")
    fits = stored(tmp_path / "here")
    (file,) = (tmp_path / "here" / "artifacts" / "fits").glob("*/*.safetensors")
    fitted = Fitted.unpack(file.read_bytes())
    assert fitted.items[0].names == ("region", "rest")
    assert fitted.settings.embedding_steps == 10
    assert fitted.model and {*fitted.losses} == {"embeddings", "unet"}
    file.write_bytes(file.read_bytes()[:-4])
    _, text = start(STAGES, "limit=1")
    assert gradients(text) == PASSES * BATCH and "is damaged" in caplog.text
    assert is_equal(stored(tmp_path / "here"), fits)


def test_a_fit_that_breaks_down_fails_its_edits(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    rates = [f"editor.items.fit.{phase}_learning_rate=1e30" for phase in ("embedding", "unet")]
    failed, _ = start(STAGES, "limit=1", "baselines=[]", "fail_on_error=false", *rates)
    assert failed == 2  # the fit, and the edit without a mask
    assert "broke down in pass 2" in caplog.text
    assert "it has no fit that can be read" in caplog.text


@pytest.mark.slow
def test_fits_do_not_depend_on_how_many_processes_make_them(start: Start, tmp_path: Path) -> None:
    start(STAGES, at="one")
    start(STAGES, "devices=[cpu,cpu]", at="two")
    assert is_equal(stored(tmp_path / "two"), stored(tmp_path / "one"))


FITS = {
    "fit.tokens": "2",
    "fit.embedding_steps": "5",
    "fit.unet_steps": "10",
    "fit.embedding_learning_rate": "0.1",
    "fit.unet_learning_rate": "0.1",
    "fit.batch": "1",
    "fit.accumulation": "5",
    "fit.lora_rank": "2",
    "fit.lora_alpha": "2",
    "fit.seed": "1",
    "fit.compat": "reference",
    "segmentation": "{_target_: piebench_masks.masks.clipseg.ClipSeg, model: "
    f"'{packaged('clipseg_shapes')}'}}",
}
EDITS = {
    "words": "blended",
    "steps": "3",
    "guidance": "2",
    "strength": "0.5",
    "thickness": "0",
    "seed": "1",
}


def test_every_setting_changes_the_edits_and_those_of_the_fit_the_fits(
    data: Path, tmp_path: Path
) -> None:
    def keys(*overrides: str) -> tuple[str, str]:
        run = Run(configuration(data, tmp_path, *overrides))
        return fit_folder(run, "items").key, edit_folder(run, "items").key

    fit, edit = keys()
    for settings, is_fit in ((FITS, True), (EDITS, False)):
        for name, value in settings.items():
            other = keys(f"editor.items.{name}={value}")
            assert (other[0] != fit) == is_fit and other[1] != edit, name
    threshold = "threshold: 0.4, model:"
    text = f"editor.items.segmentation={FITS['segmentation']}"
    assert keys(text)[0] != keys(text.replace("model:", threshold))[0]
    assert keys("dataset=shapes", f"dataset.root={data}", "batch_size=1") == (fit, edit)
