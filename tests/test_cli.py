"""The command as a user meets it: a real process, its words and its exit status."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image
from process import command


def test_help_names_the_groups_and_what_people_run(tmp_path: Path) -> None:
    done = command(tmp_path, "--help")
    assert done.returncode == 0
    for word in ("dataset", "experiment", "paper", "thresholds", "dry_run"):
        assert word in done.stdout


def test_help_says_what_each_setting_is_for(tmp_path: Path) -> None:
    text = command(tmp_path, "--help").stdout
    assert "batch_size: 8          # samples per batch" in text
    assert "name: ${dataset.name}-${model.name}" in text
    assert "strength: 0.5          # from 0.25 to 1: the noise level" in text
    assert "compat: exact          # exact | reference: reproduce" in text
    assert "_target_" not in text


def test_help_does_not_wait_for_torch() -> None:
    asked = "import sys, piebench_masks.cli; print({'torch', 'pandas'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("more", [("seed=1",), ("-m", "seed=1,2")])
def test_a_dry_run_writes_nothing(more: tuple[str, ...], tmp_path: Path) -> None:
    places = f"results_dir={tmp_path / 'results'}", f"data_dir={tmp_path / 'data'}"
    places += (f"artifacts_dir={tmp_path / 'artifacts'}",)
    done = command(tmp_path, *more, "dry_run=true", "limit=2", *places)
    assert done.returncode == 0, done.stderr
    assert f"would first write the shapes data set to {tmp_path / 'data/shapes'}" in done.stdout
    assert "edit turbo_edit" in done.stdout and "not known yet" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_downloads_nothing(tmp_path: Path) -> None:
    done = command(tmp_path, "dry_run=true", "model.id=nobody/has-it")
    assert done.returncode == 0, done.stderr
    assert "edit turbo_edit" in done.stdout
    assert "A dry run downloads nothing." in " ".join(done.stdout.split())
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    done = command(tmp_path, "--version")
    assert done.stdout == f"piebench-masks {metadata.version('piebench-masks')}\n"
    asked = [sys.executable, "-m", "piebench_masks", "--version"]
    assert subprocess.run(asked, capture_output=True, text=True).stdout == done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dataset=pie_bench"], ["dataset.root must be set"]),
        (["dataset=pie_bench", "dataset.root=nowhere"], ["nowhere", "mapping_file.json"]),
        (["model.id=nowhere/at/all", "limit=1"], ["nowhere/at/all", "model.id"]),
        (["comat=exact"], ["comat is no setting: did you mean compat?"]),
        (["mask=[our]"], ["mask has no option our: did you mean ours"]),
        (
            ["edit", "image=a.png", "source_prompt=a", "target_prompt=b", "output=."],
            [". is there already: remove it, or choose another output=..."],
        ),
        (["--dry-run"], ["--dry-run is no option", "as in dry_run=true"]),
        (["--limit=3"], ["--limit=3 is no option", "as in limit=3"]),
        (["editor.diffedit.steps=3"], ["setting of editor=[diffedit], which is not chosen: add"]),
        (["inversion.inner_steps=3"], ["setting of inversion=null_text, which is not chosen"]),
        (["inversion=ddim"], ["inversion=ddim changes nothing", "editor=[prompt_to_prompt]"]),
        (["methods=[null-text+p2p]"], ["no option null-text+p2p", "null-text-inversion+p2p"]),
        (["methods=[nothing]"], ["methods has no option nothing", "--help lists them all"]),
        (["thresholds=["], ["thresholds=[", "quote"]),
        (["name=${nope}"], ["nope"]),
        (["frobnicate"], ["neither a setting", "audit, regress, show"]),
        (["hydra.sweeper.n_trials=3"], ["--cfg hydra"]),
        (["-m", "hydra/launcher=slurm", "seed=1,2"], ["srun", "submitit_local"]),
        (["+batchsize=4"], ["batchsize is no setting: did you mean batch_size?"]),
        (["results_dir=/proc/nowhere"], ["/proc/nowhere"]),
    ],
)
def test_what_is_missing_is_one_clear_error(
    arguments: list[str], words: list[str], tmp_path: Path
) -> None:
    done = command(tmp_path, *arguments)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.startswith("Error: ") and done.stderr.count("Error") == 1
    for word in words:
        assert word in done.stderr


def test_a_picture_is_edited_with_the_settings_of_the_model(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    files = ["image=a.png", "output=b.png"]
    prompts = ["source_prompt=a red circle", "target_prompt=a blue circle"]
    done = command(tmp_path, "edit", *files, *prompts, "model.few_steps=false")
    assert done.returncode == 1 and "TurboEdit needs few_steps" in done.stderr


def test_debug_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    done = command(tmp_path, "comat=exact", "debug=true")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "did you mean compat?" in done.stderr


def test_a_model_that_cannot_be_had_is_told_in_four_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = command(tmp_path, "model.id=nobody/nothing", "limit=1")
    first, where, remedy, cause = done.stderr.splitlines()
    assert first.startswith("Error: Model nobody/nothing (variant")
    assert (
        "looked for: nobody/nothing, revision" in where
        and "model.cache_dir" in remedy
        and "the cause: " in cause
    )


METHOD = """
import warnings
from dataclasses import dataclass

from torch import Tensor

from piebench_masks.masks import Record
from piebench_masks.masks.ours import Ours


@dataclass(frozen=True)
class Dark(Ours):
    def __call__(self, record: Record) -> Tensor:
        warnings.warn("this picture is dark", stacklevel=1)
        return super().__call__(record)
"""


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["null", "[cpu]"])
def test_warnings_are_in_the_log_and_only_those_of_libraries_are_not_on_the_terminal(
    devices: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dark.py").write_text(METHOD)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    settings = "limit=1", "tracker=none", "baselines=[]", "name=run", f"devices={devices}"
    clean = command(tmp_path, *settings, "mask=[ours]")
    assert clean.returncode == 0 and clean.stderr == ""
    assert "arning" not in clean.stdout
    only = "stages=[parse,masks]", "mask=[ours]", "mask.ours._target_=dark.Dark"
    done = command(tmp_path, *settings, *only)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "results" / "run" / "run.log").read_text()
    assert "WARNING py.warnings:" in log and "UserWarning: this picture is dark" in log
    assert "this picture is dark" in done.stdout + done.stderr
