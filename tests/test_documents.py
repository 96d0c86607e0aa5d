"""Every command and every complete program of the documents is run, every link leads somewhere.

As they stand, or with small data in place of the reader's.
"""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet
from hydra.utils import get_object
from PIL import Image
from tiny_pipelines import save_inpainting, save_kontext
from tiny_texts import save_blip, save_t5

from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.items.partition import Partition, write_index
from piebench_masks.settings_page import CONF

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
README_LINES = 150
PROGRAM_LINES = 40

SMALL = "model=shapes_turbo metrics=shapes tracker=none threads=1 limit=1"
QUICK = f"{SMALL} mask=[ours] baselines=[full]"
OWN = "threads=1 limit=2 tracker=none devices=null thresholds=one baselines=[full]"
"""For the programs of extending.md."""

ITEMS = "threads=1 fit.embedding_steps=5 fit.unet_steps=5 sampling.steps=2 sampling.images=1"
"""For the commands of items.md, whose picture has no moon here."""

SMALL_KONTEXT = "max_area=1024", "_auto_resize=false", "max_sequence_length=16"
"""For the tiny one that stands for FLUX.1 Kontext."""

SHORT_FIT = " ".join(
    f"editor.items_shapes.{each}=2" for each in ("steps", "fit.embedding_steps", "fit.unet_steps")
)

COMMANDS = {
    # README
    "piebench-masks experiment=paper dataset.root=/path/to/PIE-Bench device=cuda:0": (
        f"{SMALL} device=cpu dataset.load.mask_size=64"
    ),
    # paper
    "piebench-masks dataset=pie_bench dataset.root=/path/to/PIE-Bench model=shapes_turbo "
    "metrics=shapes limit=4 name=rehearsal": f"{QUICK} dataset.load.mask_size=64",
    "piebench-masks experiment=paper_sweep dataset.root=/path/to/PIE-Bench 'devices=[0,1]'": (
        f"{QUICK} devices=null mask.ours.sweep=[0,1,3] dataset.load.mask_size=64"
    ),
    "piebench-masks audit dataset=pie_bench dataset.root=/path/to/PIE-Bench model=shapes_turbo": (
        "dataset.load.mask_size=64"
    ),
    # masks
    "piebench-masks 'mask=[ours,diffedit]' mask.ours.threshold=0.5 mask.diffedit.draws=4 "
    "name=four_draws": f"{SMALL} baselines=[full] stages=[parse,masks]",
    "piebench-masks 'mask=[ours,diffedit]' "
    "'+mask.few={_target_:piebench_masks.masks.diffedit.DiffEdit,draws:2}' name=both": (
        f"{SMALL} baselines=[full] stages=[parse,masks]"
    ),
    "piebench-masks mask=[ours] "
    "'mask.ours.post=[{_target_:piebench_masks.masks.postprocess.Propagate}]' name=ours_self": (
        f"{SMALL} baselines=[full] stages=[parse,masks]"
    ),
    "PYTHONPATH=. piebench-masks experiment=demo name=agreement "
    "+mask.agreement._target_=agreement.Agreement": f"{OWN} mask=[ours]",
    "piebench-masks 'mask=[ours,external]' mask.external.root=my_masks "
    "'mask.external.methods={mine:prompts}' name=with_mine": (
        f"{SMALL} baselines=[full] stages=[parse,masks,score]"
    ),
    # editors
    "PYTHONPATH=. piebench-masks experiment=demo name=sdedit "
    "+editor.sdedit._target_=sdedit.SDEdit": f"{OWN} mask=[ours]",
    "piebench-masks 'editor=[turbo_edit,diffedit,prompt_to_prompt]' inversion=direct "
    "dataset=shapes name=three": f"{QUICK} model.ddim_steps=2",
    "piebench-masks experiment=editors": (
        f"{SMALL} mask=[ours] model.ddim_steps=2 dataset.root=data/shapes devices=null"
    ),
    "piebench-masks experiment=table1 dataset.root=/path/to/PIE-Bench": (
        f"{SMALL} dataset.load.mask_size=64 model.ddim_steps=2 "
        "'methods=[ddim+masactrl,null-text-inversion+p2p,directinversion+pix2pix-zero]'"
    ),
    "piebench-masks experiment=pnp_inversion dataset.root=/path/to/PIE-Bench "
    "'methods=[ddim+p2p,ablation_directinversion_interval_2+p2p]'": (
        f"{SMALL} dataset.load.mask_size=64 model.ddim_steps=2"
    ),
    "piebench-masks 'methods=[ddim+p2p,negative-prompt-inversion+p2p,directinversion+p2p]' "
    "editor=[] name=inversions": f"{QUICK} model.ddim_steps=2",
    "piebench-masks 'editor=[turbo_edit,chord,infedit,ledits_pp]' mask=[ours] dataset=shapes "
    "name=few_steps": QUICK,
    "piebench-masks editor=[inpaint] editor.inpaint.id=/path/to/stable-diffusion-inpainting "
    "mask=[ours] name=inpaint": f"{QUICK} editor.inpaint.steps=1",
    "piebench-masks editor=[turbo_edit,inpaint_shapes] mask=[ours] dataset=shapes "
    "name=inpaint_shapes": QUICK,
    "piebench-masks 'mask=[ours,saliency_shapes,regions_shapes]' editor=[inpaint_shapes] "
    "dataset=shapes limit=20 name=regions": (
        f"{SMALL} baselines=[full] mask.regions_shapes.search.boxes.points=1"
    ),
    "piebench-masks 'editor=[turbo_edit,items_shapes]' mask=[ours] baselines=[oracle] "
    "dataset=shapes limit=10 name=items": (
        f"{SMALL} {SHORT_FIT} editor.items_shapes.fit.lora_rank=1"
    ),
    "piebench-masks editor=[items_shapes] mask=[ours] name=by_text "
    "'editor.items_shapes.segmentation={_target_: piebench_masks.masks.clipseg.ClipSeg, "
    'model: "${packaged:clipseg_shapes}"}\'': f"{QUICK} {SHORT_FIT}",
    "piebench-masks editor=[pipeline] editor.pipeline.pipeline=diffusers.FluxKontextPipeline "
    "editor.pipeline.id=/path/to/FLUX.1-Kontext-dev "
    "'editor.pipeline.arguments={num_inference_steps: 28, guidance_scale: 2.5}' name=kontext": (
        f"{QUICK} editor.pipeline.arguments.num_inference_steps=1 "
        f"{' '.join(f'+editor.pipeline.arguments.{each}' for each in SMALL_KONTEXT)}"
    ),
    "piebench-masks editor=[] name=pipelines '+editor.kontext={_target_: "
    "piebench_masks.editing.diffusers_pipeline.DiffusersPipeline, "
    "pipeline: diffusers.FluxKontextPipeline, id: /path/to/FLUX.1-Kontext-dev, feather: 2.0}' "
    "'+editor.inpainting={_target_: piebench_masks.editing.diffusers_pipeline.DiffusersPipeline, "
    "pipeline: diffusers.StableDiffusionInpaintPipeline, "
    "id: /path/to/stable-diffusion-inpainting, prompt: target}'": (
        f"{QUICK} +editor.inpainting.arguments.num_inference_steps=1 "
        "+editor.kontext.arguments.num_inference_steps=1 "
        f"{' '.join(f'+editor.kontext.arguments.{each}' for each in SMALL_KONTEXT)}"
    ),
    "piebench-masks captions=blip concepts=t5 'mask=[diffedit]' 'editor=[diffedit]' name=written": (
        f"{SMALL} baselines=[full] model.ddim_steps=2 captions.model=blip captions.max_tokens=4 "
        "concepts.model=t5 concepts.count=2 concepts.max_tokens=4"
    ),
    "piebench-masks experiment=external dataset.root=/path/to/PIE-Bench "
    "editor.external.root=/path/to/output": f"{SMALL} dataset.load.mask_size=64",
    'piebench-masks edit image=scene.png source_prompt="a red circle on grass" '
    'target_prompt="a blue circle on grass" threshold=0.35': "output=one.png",
    # items
    "piebench-masks items segment folder=my_picture 'texts=[circle]' grow=4": "folder=segmented",
    "piebench-masks items segment folder=my_picture 'texts=[circle]'": "folder=segmented_too",
    "piebench-masks items segment folder=my_other 'texts=[circle]' grow=4": "folder=segmented",
    'piebench-masks items text folder=my_picture item=circle words="a blue star"': ITEMS,
    'piebench-masks items text folder=my_picture item=moon words="a red star" '
    "sampling.images=2": f"{ITEMS} item=circle",
    "piebench-masks items fit folder=my_picture": ITEMS,
    "piebench-masks items reconstruct folder=my_picture sampling.images=2": ITEMS,
    "piebench-masks items image folder=my_picture other=my_other item=moon source=circle": (
        f"{ITEMS} item=circle"
    ),
    "piebench-masks items move folder=my_picture item=circle rows=-8": ITEMS,
    "piebench-masks items move folder=my_picture item=moon ratio=1.3 name=larger": (
        f"{ITEMS} item=circle"
    ),
    "piebench-masks items remove folder=my_picture item=moon sampling.guidance=1 "
    "sampling.images=3": f"{ITEMS} item=circle",
    # data
    "piebench-masks dataset=folder dataset.root=my_pictures model=sdxl_turbo metrics=pie_bench": (
        QUICK
    ),
    "piebench-masks dataset=folder dataset.root=my_pictures dataset.load.prompts=images.json "
    "name=listed": f"{QUICK} stages=[parse,masks]",
    "piebench-masks dataset=folder dataset.root=my_pictures "
    "'dataset.load.edit_types=[Recolour,Insert]' name=types": f"{QUICK} stages=[parse]",
    # protocols
    "piebench-masks protocol=official": QUICK,
    "piebench-masks 'protocols=[official,border_cleared,box]'": f"{QUICK} name=protocols",
    # results
    "piebench-masks show results/shapes-shapes_turbo": "",
    "piebench-masks regress experiment=demo baseline=update": f"{QUICK} results_dir=for_regress",
    "piebench-masks experiment=demo tracker=mlflow": (
        "threads=1 limit=1 thresholds=one results_dir=tracked"
    ),
    "piebench-masks experiment=demo quiet=true": f"{SMALL} thresholds=one",
    "piebench-masks experiment=demo log=json": f"{SMALL} thresholds=one",
    # scaling
    "piebench-masks -m name=strengths strength=0.25,0.5,0.75 num_repeat=1,4 'seed=range(3)'": (
        f"{QUICK} stages=[parse,masks] num_repeat=1 seed=1,2"
    ),
    "piebench-masks dataset=shapes stages=[parse]": SMALL,
    "piebench-masks hparams_search=optuna hparams_search.method=casa mask=[casa] editor=[] "
    "name=search 'hparams_search.space={mask.casa.lam: {low: 0, high: 2}, mask.casa.centre: [0.4, "
    "0.5, 0.6]}'": (f"{QUICK} mask=[casa] limit=2 hparams_search.trials=1"),
    "piebench-masks experiment=demo dry_run=true": SMALL,
    "piebench-masks experiment=zoo": "limit=1 threads=1 tracker=none devices=null",
    # extending
    "PYTHONPATH=. piebench-masks experiment=demo name=edges +mask.edges._target_=my_mask.Edges "
    "+mask.edges.reach=2": f"{OWN} mask=[]",
    "PYTHONPATH=. piebench-masks experiment=demo name=tint +editor.tint._target_=my_editor.Tint": (
        f"{OWN} mask=[ours]"
    ),
    "PYTHONPATH=. piebench-masks experiment=demo name=kept "
    "+metrics.edges._target_=my_metric.EdgesKept": f"{OWN} mask=[ours]",
    "PYTHONPATH=. piebench-masks --config-dir . dataset=places dataset.root=places "
    "name=places": f"{OWN} mask=[ours]",
    'mkdir -p toy && echo \'{"_class_name": "Toy"}\' > toy/model_index.json': "",
    "PYTHONPATH=. piebench-masks --config-dir . model=toy mask=[diffedit] editor=[diffedit] "
    "name=toy": OWN,
}
"""A document's command, and what is added to run it here."""
ELSEWHERE = {
    "make demo": "by CI",
    "make test": "this",
    "make torture": "tests/test_faults.py",
    "make fuzz": "tests/test_fuzz.py",
    "make growth": "tests/test_growth.py",
    "piebench-masks regress experiment=demo "
    "baseline=results/baselines/shapes-shapes_turbo.parquet": "by CI",
    "piebench-masks dataset=ti2i dataset.root=/path/to/PIE-Bench model=sdxl_turbo "
    "metrics=pie_bench": "tests/test_pipeline_data.py",
    "piebench-masks dataset=pie_bench_pp dataset.source=/path/to/PIE_Bench_pp model=sdxl_turbo "
    "metrics=pie_bench": "tests/test_pipeline_data.py",
    "piebench-masks experiment=paper dataset.root=/shared/PIE-Bench "
    "artifacts_dir=/shared/artifacts executor=ray executor.address=HOST:6379": (
        "tests/executors/test_ray.py, on a cluster of this machine"
    ),
    "piebench-masks experiment=learnable_regions dataset.root=/path/to/PIE-Bench": (
        "tests/masks/test_regions.py"
    ),
    "piebench-masks executor=ray executor.num_gpus=0 executor.actors=2 name=ray": (
        "tests/executors/test_ray.py"
    ),
    "piebench-masks -m hydra/launcher=slurm hydra.launcher.partition=gpu "
    "strength=0.25,0.5,0.75 'seed=range(3)'": "tests/executors/test_slurm.py",
}
"""Those that other tests run, and where."""
SLOW = re.compile(
    r" -m |hparams|zoo|protocols?=|update|external|mlflow|sweep|audit|=four|=both|post|rehearsal|"
    r"--config-dir|=editors|=table1|name=pipelines|name=inversions|PYTHONPATH=\.|blip|few_steps|"
    r"=three|name=(inpaint|regions|kontext|by_text|items)|items (image|move|remove|reconstruct)|"
    r"experiment=pnp_inversion|my_pictures model=sdxl_turbo|edit_items|name=(listed|types)|"
    r"red star|segment folder=my_picture '[^']*'$"
)
"""In commands whose likes other tests run all the time."""
SHOWN = {"my_metric": "Edges outside", "dataset=places": "Time of day"}
"""What the tables of those with these words have."""
FIRST = {
    "piebench-masks show results/shapes-shapes_turbo": "piebench-masks experiment=demo quiet=true",
    "PYTHONPATH=. piebench-masks --config-dir . model=toy mask=[diffedit] editor=[diffedit] "
    "name=toy": 'mkdir -p toy && echo \'{"_class_name": "Toy"}\' > toy/model_index.json',
}
"""What must have been run before a command."""
MODELS: dict[str, Callable[[Path], Path]] = {
    "FLUX.1-Kontext-dev": save_kontext,
    "stable-diffusion-inpainting": save_inpainting,
    "blip": save_blip,
    "t5": save_t5,
}
"""What is saved under a name that stands in a command, before it is run."""
PROGRAMS = {
    "edit_scene.py": ("edited.png", "mine.png"),
    "name_items.py": ("my_picture/masks.png",),
    "edit_items.py": ("my_picture/results/star/0.png", "my_picture/results/higher/0.png"),
}
"""Complete programs that a command line does not name, and the pictures that they write."""


def in_checkout(document: Path) -> str:
    return str(document.relative_to(ROOT))


def blocks(document: Path, language: str) -> list[str]:
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def indented_blocks(document: Path, language: str) -> list[str]:
    """Also those inside of lists."""
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands() -> list[str]:
    """The lines of all shell blocks, without comments and with continued lines joined."""
    found = []
    for document in DOCUMENTS:
        lines = "\n".join(indented_blocks(document, "sh")).replace("\\\n", " ").splitlines()
        found += [" ".join(re.split(r"\s#", line)[0].split()) for line in lines]
    return [command for command in found if command]


def complete_files() -> dict[str, str]:
    """Name -> text of every block whose first line is a comment with a file's name."""
    found = {}
    for document in DOCUMENTS:
        for block in [*blocks(document, "python"), *blocks(document, "yaml")]:
            if name := re.match(r"# ([\w/]+\.(?:py|yaml))\n", block):
                assert name[1] not in found, f"{name[1]} stands twice in the documents"
                found[name[1]] = block
    return found


def write_files(folder: Path) -> None:
    """All complete files of the documents, and the data that their readers would have."""
    for name, text in complete_files().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def write_places(folder: Path) -> None:
    """Three pictures of noise with masks, in the form that extending.md's loader reads."""
    folder.mkdir()
    entries = [
        ["beach.png", "t", "a beach at [noon]", "a beach at [night]"],
        ["road.png", "s", "a road", "a road in [deep snow]"],
        ["field.png", "w", "a field in [sun]", "a field in [rain]"],
    ]
    for seed, (picture, *_) in enumerate(entries):
        pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / picture)
        mask = np.zeros((48, 64), np.uint8)
        mask[8 * seed : 24, 16:40] = 255
        Image.fromarray(mask).save(folder / picture.replace(".png", "_mask.png"))
    (folder / "places.json").write_text(json.dumps(entries))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the documents' reader would have there."""
    folder = tmp_path_factory.mktemp("reader")
    write_shapes(folder / "PIE-Bench", per_type=1)
    write_shapes(folder / "data" / "shapes", per_type=1)
    images = folder / "PIE-Bench" / "annotation_images"
    shutil.copytree(images, folder / "output" / "mine" / "annotation_images")
    for picture in (folder / "data/shapes/annotation_images").rglob("*.png"):
        mask = (
            folder
            / "my_masks"
            / "mine"
            / picture.relative_to(folder / "data/shapes/annotation_images")
        )
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.open(picture).convert("L").save(mask)
    scene = next(images.rglob("*.png"))
    (folder / "my_pictures").mkdir()
    for copy in ("scene.png", "my_pictures/scene.png"):
        Image.open(scene).save(folder / copy)
    (folder / "my_pictures" / "prompts.csv").write_text(
        "image,source_prompt,target_prompt,edit_type\n"
        "scene.png,a red circle,a blue circle,Recolour\n"
    )
    (folder / "my_pictures" / "images.json").write_text(
        '{"scene.png": ["a red circle", "a blue circle"]}'
    )
    for name in ("my_picture", "my_other", "segmented", "segmented_too"):
        (folder / name).mkdir()
        Image.open(scene).save(folder / name / "scene.png")
    labels = torch.zeros(64, 64, dtype=torch.long)
    labels[16:48, 8:40] = 1
    for name in ("my_picture", "my_other"):
        write_index(folder / name, Partition.from_labels(labels, ("rest", "circle")))
    write_files(folder)
    write_places(folder / "places")
    shutil.copytree(ROOT / "pipelines", folder / "pipelines")
    shutil.copytree(ROOT / "results" / "baselines", folder / "results" / "baselines")
    return folder


def run(command: str, place: Path, more: str = "") -> str:
    """What it prints; it must end well. A checkout under test stays on the path of imports."""
    command = re.sub(r"/path/to/(\S+)", rf"{place}/\1", command)
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    command = command.replace("PYTHONPATH=.", f"PYTHONPATH=.:{os.environ.get('PYTHONPATH', '')}")
    done = subprocess.run(
        ["bash", "-c", f"{command} {more}"],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PATH": os.pathsep.join(paths)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= README_LINES


@pytest.mark.parametrize("document", DOCUMENTS, ids=in_checkout)
def test_nothing_is_left_to_fill_in(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert "@@" not in text and "TODO" not in text
    for machine in ("/home/", "/root/", "/work/", "/tmp/", "/usr/"):
        assert machine not in text


def anchors(document: Path) -> set[str]:
    """What GitHub makes of the headings: `A "b", c` -> a-b-c."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(document: Path) -> list[tuple[Path, str]]:
    """File and anchor of every relative link."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]
    parts = [target.partition("#") for target in targets]
    here = document.parent
    return [((here / path).resolve() if path else document, anchor) for path, _, anchor in parts]


@pytest.mark.parametrize("document", DOCUMENTS, ids=in_checkout)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target, anchor in links(document):
        assert target.exists(), f"{document.name} links to {target}"
        assert not anchor or anchor in anchors(target), f"{document.name}: no #{anchor}"


def test_every_document_is_linked() -> None:
    linked = {target for document in DOCUMENTS for target, _ in links(document)}
    files = [path for path in (ROOT / "docs").rglob("*.*") if path.suffix != ".pyc"]
    assert [path.name for path in files if path.resolve() not in linked] == []


def test_no_sentence_stands_in_two_documents() -> None:
    places: dict[str, str] = {}
    for document in DOCUMENTS:
        name = in_checkout(document)
        if name == "docs/settings.md" or name.startswith("docs/masks/"):  # generated
            continue
        text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
        prose = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
        for sentence in re.split(r"(?<=[.:?])\s+", prose):
            plain = " ".join(sentence.split())
            if len(plain) >= 40:
                assert places.setdefault(plain, name) == name, plain


def test_no_command_is_left_out() -> None:
    listed = {**COMMANDS, **ELSEWHERE}
    assert [command for command in commands() if command not in listed] == []


def marked(command: str) -> ParameterSet:
    marks = [pytest.mark.slow] if SLOW.search(command) else []
    return pytest.param(command, marks=marks, id=command)


@pytest.mark.parametrize("command", list(map(marked, COMMANDS)))
def test_it_runs_as_written(command: str, place: Path) -> None:
    assert command in commands()
    for name, save in MODELS.items():
        if name in command and not (place / name).exists():
            save(place / name)
    if first := FIRST.get(command):
        run(first, place, COMMANDS[first])
    text = run(command, place, COMMANDS[command])
    for part in re.findall(r"\+(?:mask|editor)\.(\w+)\._target_", command):
        assert part in text or "stages=" in COMMANDS[command]
    for part, shown in SHOWN.items():
        assert shown in text or part not in command


def test_no_program_is_left_out() -> None:
    named = " ".join([*commands(), *complete_files().values()])
    for name in complete_files():
        assert name in PROGRAMS or Path(name).stem in named, name


@pytest.mark.parametrize("program", list(map(marked, PROGRAMS)))
def test_a_program_runs_as_written(program: str, place: Path) -> None:
    run(f"python {program}", place)
    for picture in PROGRAMS[program]:
        assert Image.open(place / picture).size == (64, 64)


@pytest.mark.parametrize("option", sorted(Path(CONF, "mask").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_mask_method_has_its_page(option: Path) -> None:
    """docs/method_pages.py writes them."""
    if option.stem == "external":
        return
    page = (ROOT / "docs" / "masks" / f"{option.stem}.md").read_text()
    [target] = re.findall(r"^  _target_: (\S+)", option.read_text(), re.MULTILINE)
    described = inspect.cleandoc(get_object(target).__doc__).replace("``", "`")
    assert option.read_text().rstrip() in page and described in page
    assert f"(masks/{option.stem}.md)" in (ROOT / "docs" / "masks.md").read_text()
