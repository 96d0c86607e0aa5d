"""Every command of the README is run: as it stands, or with small data in place of the reader's."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from piebench_masks.data.shapes.write import write_shapes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = "model=shapes_turbo metrics=shapes tracker=none threads=1 limit=1"
QUICK = f"{SMALL} mask=[ours] baselines=[full]"

COMMANDS = {
    "piebench-masks experiment=paper dataset.root=/path/to/PIE-Bench device=cuda:0": (
        f"{SMALL} device=cpu dataset.load.mask_size=64"
    ),
    "piebench-masks experiment=paper_sweep dataset.root=/path/to/PIE-Bench 'devices=[0,1]'": (
        f"{QUICK} devices=null mask.ours.sweep=[0,1,3] dataset.load.mask_size=64"
    ),
    "piebench-masks dataset=folder dataset.root=my_pictures model=sdxl_turbo metrics=pie_bench": (
        QUICK
    ),
    "piebench-masks experiment=external dataset.root=/path/to/PIE-Bench "
    "editor.external.root=/path/to/output": f"{SMALL} dataset.load.mask_size=64",
    "piebench-masks regress experiment=demo baseline=update": f"{QUICK} results_dir=for_regress",
    "piebench-masks -m name=strengths strength=0.25,0.5,0.75 num_repeat=1,4 'seed=range(3)'": (
        f"{QUICK} stages=[parse,masks] num_repeat=1 seed=1,2"
    ),
    "piebench-masks hparams_search=optuna hparams_search.objective=dice name=search": (
        f"{QUICK} hparams_search.trials=1"
    ),
    "PYTHONPATH=. piebench-masks experiment=demo name=agreement "
    "+mask.agreement.method=my_masks.AGREEMENT": (
        f"{SMALL} mask=[ours] thresholds=2 baselines=[full]"
    ),
    "piebench-masks 'editor=[turbo_edit,diffedit,prompt_to_prompt]' inversion=direct "
    "dataset=shapes name=editors": f"{QUICK} model.ddim_steps=2",
    "PYTHONPATH=. piebench-masks experiment=demo name=sdedit "
    "+editor.sdedit._target_=my_editor.SDEdit": f"{QUICK} thresholds=one devices=null",
    "piebench-masks experiment=demo tracker=mlflow": (
        "threads=1 limit=1 thresholds=one results_dir=tracked"
    ),
    "piebench-masks experiment=demo quiet=true": f"{SMALL} thresholds=one",
    "piebench-masks show results/shapes-shapes_turbo": "",
    "piebench-masks experiment=demo log=json": f"{SMALL} thresholds=one",
    "piebench-masks dataset=shapes stages=[parse]": SMALL,
    'python pipelines/edit_image.py image=scene.png source_prompt="a red circle on grass" '
    'target_prompt="a blue circle on grass"': "",
}
"""The README's command, and what is added to run it here."""
ELSEWHERE = {
    "make demo": "by CI",
    "make test": "this",
    "piebench-masks regress experiment=demo "
    "baseline=results/baselines/shapes-shapes_turbo.parquet": "by CI",
    "piebench-masks dataset=ti2i dataset.root=/path/to/PIE-Bench model=sdxl_turbo "
    "metrics=pie_bench": "tests/test_pipeline_data.py",
    "make bench": "tests/test_benchmarks.py",
    "make torture": "tests/test_faults.py",
    "piebench-masks dataset=pie_bench_pp dataset.source=/path/to/PIE_Bench_pp model=sdxl_turbo "
    "metrics=pie_bench": "tests/test_pipeline_data.py",
    "piebench-masks experiment=paper dataset.root=/shared/PIE-Bench "
    "artifacts_dir=/shared/artifacts executor=ray executor.address=HOST:6379": (
        "tests/executors/test_ray.py, on a cluster of this machine"
    ),
    "piebench-masks executor=ray executor.num_gpus=0 executor.actors=2 name=ray": (
        "tests/executors/test_ray.py"
    ),
    "piebench-masks -m hydra/launcher=slurm hydra.launcher.partition=gpu "
    "strength=0.25,0.5,0.75 'seed=range(3)'": "tests/executors/test_slurm.py",
}
"""Those that other tests run, and where."""

ALSO_ELSEWHERE = [
    command
    for command in COMMANDS
    if any(word in command for word in (" -m ", "hparams", "update", "external", "mlflow", "sweep"))
]
"""Those whose likes other tests run all the time."""


def readme_commands() -> list[str]:
    """The lines of its shell blocks, without comments and with continued lines joined."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = (" ".join(line.split(" #")[0].split()) for line in lines)
    return [command for command in commands if command]


def python_block(first_line: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    return next(block for block in blocks if block.startswith(first_line))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the README's reader would have there."""
    folder = tmp_path_factory.mktemp("reader")
    write_shapes(folder / "PIE-Bench", per_type=1)
    write_shapes(folder / "data" / "shapes", per_type=1)
    images = folder / "PIE-Bench" / "annotation_images"
    shutil.copytree(images, folder / "output" / "mine" / "annotation_images")
    scene = next(images.rglob("*.png"))
    (folder / "my_pictures").mkdir()
    for copy in ("scene.png", "my_pictures/scene.png"):
        Image.open(scene).save(folder / copy)
    (folder / "my_pictures" / "prompts.csv").write_text(
        "image,source_prompt,target_prompt\nscene.png,a red circle,a blue circle\n"
    )
    (folder / "my_masks.py").write_text(python_block('"""Where attention'))
    (folder / "my_editor.py").write_text(python_block('"""SDEdit'))
    shutil.copytree(ROOT / "pipelines", folder / "pipelines")
    shutil.copytree(ROOT / "results" / "baselines", folder / "results" / "baselines")
    return folder


def run(command: str, place: Path, more: str = "") -> str:
    """What it prints; it must end well."""
    command = re.sub(r"/path/to/(\S+)", rf"{place}/\1", command)
    words = shlex.split(f"{command} {more}")
    variables = {w.split("=")[0]: w.split("=")[1] for w in words if w.startswith("PYTHONPATH=")}
    program, *arguments = (word for word in words if not word.startswith("PYTHONPATH="))
    done = subprocess.run(
        [Path(sys.executable).parent / program, *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_nothing_is_left_to_fill_in() -> None:
    assert "@@" not in README and "TODO" not in README


def test_no_command_is_left_out() -> None:
    known = {**COMMANDS, **ELSEWHERE}
    assert [command for command in readme_commands() if command not in known] == []


@pytest.mark.parametrize(
    "command",
    [pytest.param(c, marks=pytest.mark.slow if c in ALSO_ELSEWHERE else ()) for c in COMMANDS],
)
def test_it_runs_as_written(command: str, place: Path) -> None:
    assert command in readme_commands()
    text = run(command, place, COMMANDS[command])
    for own in ("agreement", "sdedit"):
        assert own in text or own not in command


def test_the_python_example_edits_a_picture(place: Path) -> None:
    example = python_block("from piebench_masks.api")
    (place / "example.py").write_text(example)
    run("python example.py", place)
    assert Image.open(place / "edited.png").size == (64, 64)
