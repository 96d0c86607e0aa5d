"""A folder's picture through the commands: files are made once, and bad folders are told."""

import io
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from process import command
from rich.console import Console

from piebench_masks.cli import CONF
from piebench_masks.console import JsonConsole
from piebench_masks.errors import BenchmarkError
from piebench_masks.item_commands import run_item_command
from piebench_masks.item_settings import ITEM_COMMANDS, MoveSettings
from piebench_masks.items.fitted import FitSettings, Fitted, load_fitted
from piebench_masks.items.folder import ItemFolder, ItemModel, grown
from piebench_masks.items.mask_edits import Move
from piebench_masks.items.partition import (
    Partition,
    read_index,
    read_partition,
    write_index,
    write_masks,
)
from piebench_masks.items.sampling import Sampling
from piebench_masks.masks.clipseg import ClipSeg
from piebench_masks.packing import unpack_facts
from piebench_masks.parts import made
from piebench_masks.settings import typed_as
from piebench_masks.settings_page import help_text
from piebench_masks.weights import packaged

SIDE = 64
FEW = Sampling(steps=2, thickness=4)
QUICK = FitSettings(tokens=1, embedding_steps=2, unet_steps=2, batch=1, accumulation=1)
AS_WORDS = [
    "threads=1",
    "fit.tokens=1",
    "fit.embedding_steps=2",
    "fit.unet_steps=2",
    "fit.batch=1",
    "fit.accumulation=1",
    "fit.embedding_learning_rate=1e-4",
    "fit.unet_learning_rate=5e-5",
    "sampling.steps=2",
    "sampling.thickness=4",
]
"""QUICK and FEW on the command line."""


def three(names: tuple[str, str, str] = ("rest", "left", "right")) -> Partition:
    """Two squares, and what is around them."""
    labels = torch.zeros(SIDE, SIDE, dtype=torch.long)
    labels[24:40, 8:24], labels[24:40, 40:56] = 1, 2
    return Partition.from_labels(labels, names)


def save_picture(folder: Path, seed: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "scene.png")
    return folder


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> ItemModel:
    return ItemModel.find(str(tiny_folder))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder with a picture and its masks."""
    folder = save_picture(tmp_path / "first")
    write_index(folder, three())
    return folder


@pytest.fixture
def folder(path: Path, model: ItemModel) -> ItemFolder:
    return ItemFolder(path, model, QUICK)


def assert_same(one: Fitted, other: Fitted) -> None:
    """In all that is in their files, to the bit."""
    (facts, tensors), (other_facts, others) = (unpack_facts(each.pack()) for each in (one, other))
    assert facts == other_facts and tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)


def run_here(name: str, *words: str) -> str:
    """What the command prints, without a process of its own."""
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = typed_as(compose("items", [f"command={name}", *words]), ITEM_COMMANDS[name])
    kind = JsonConsole if cfg.log == "json" else Console
    text = io.StringIO()
    assert run_item_command(name, cfg, kind(file=text, width=500)) == 0
    return text.getvalue()


def stamps(folder: Path) -> dict[str, int]:
    """When each file was written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def test_the_commands_lead_from_a_picture_to_its_edits(tmp_path: Path, tiny_folder: Path) -> None:
    scene = Image.new("RGB", (SIDE, SIDE), (90, 150, 60))
    scene.paste((220, 30, 30), (20, 20, 44, 44))
    (tmp_path / "mine").mkdir()
    scene.save(tmp_path / "mine" / "scene.png")
    model = f"model.id={tiny_folder}"
    done = command(tmp_path, "items", "segment", "folder=mine", "texts=[square]", "grow=2", model)
    assert done.returncode == 0, done.stderr
    items = read_index(tmp_path / "mine" / "masks.png")
    assert items.names == ("rest", "square") and "1 square" in done.stdout
    assert items.masks[1, 20:44, 20:44].float().mean() > 0.9
    edit = [f"folder={tmp_path}/mine", "item=square", "words=circle", model, *AS_WORDS]
    before = stamps(tmp_path)
    planned = run_here("text", *edit, "dry_run=true")
    assert "0.png: would be made" in planned and "4 passes" in planned
    assert stamps(tmp_path) == before
    done = command(tmp_path, "items", "text", *edit)
    assert done.returncode == 0, done.stderr
    assert "fit, unet: 2 of 2" in done.stdout and "text: 2 of 2" in done.stdout
    assert ", anew" in done.stdout
    results = tmp_path / "mine" / "results"
    for name in ("segment/overview.png", "text/overview.png", "text/0.png"):
        Image.open(results / name).load()
    before = stamps(tmp_path)
    again = run_here("text", *edit)
    assert "0.png: was there" in again and "of 2" not in again
    assert stamps(tmp_path) == before
    shutil.rmtree(tmp_path / "mine" / "fits")
    again = run_here("text", *edit)
    assert "0.png: was there" in again and "fitting" not in again


def test_a_killed_fit_goes_on_where_it_was_saved(path: Path, model: ItemModel) -> None:
    settings = replace(QUICK, embedding_steps=60)
    twin = path.parent / "twin"
    shutil.copytree(path, twin)
    whole = ItemFolder(twin, model, settings)
    words = [*AS_WORDS, "fit.embedding_steps=60", f"model.id={model.folder}", f"folder={path}"]
    exe = Path(sys.executable).parent / "piebench-masks"
    process = subprocess.Popen([exe, "items", "fit", *words], stdout=subprocess.DEVNULL)
    stopped = ItemFolder(path, model, settings)
    checkpoint = stopped.checkpoint
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert checkpoint.exists() and not stopped.fit_file.exists()
    copy = path.parent / "copy"
    shutil.copytree(path, copy)
    assert "from its last saved state" in run_here("fit", *words[:-1], f"folder={copy}")
    passes: list[tuple[str, int]] = []
    going_on = replace(stopped, progress=lambda what, done, total: passes.append((what, done)))
    fitted = going_on.fitted
    assert passes[0] >= ("fit, embeddings", 11) and passes[-1] == ("fit, unet", 2)
    assert_same(fitted, whole.fitted)
    assert not checkpoint.exists() and stopped.fit_file.exists()


def test_a_fit_for_machines_is_one_event_a_line(path: Path, model: ItemModel) -> None:
    words = [f"folder={path}", f"model.id={model.folder}", "log=json", *AS_WORDS]
    events = [json.loads(line) for line in run_here("fit", *words).splitlines()]
    assert {event["event"] for event in events} == {"fit", "progress", "result"}
    assert events[0]["goes_on"] is False
    assert (events[1]["done"], events[1]["total"]) == (2, 2)
    assert ".safetensors: new" in events[-2]["message"]


def test_a_fit_is_made_once_for_a_picture_masks_and_settings(folder: ItemFolder) -> None:
    _ = folder.fitted
    before = stamps(folder.path)
    _ = replace(folder).fitted
    assert stamps(folder.path) == before
    files = {folder.fit_file, replace(folder, settings=replace(QUICK, tokens=2)).fit_file}
    write_index(folder.path, three(("rest", "left", "centre")))
    files.add(replace(folder).fit_file)
    save_picture(folder.path, seed=1)
    files.add(replace(folder).fit_file)
    assert len(files) == 4


def test_a_damaged_fit_is_made_anew(folder: ItemFolder, caplog: pytest.LogCaptureFixture) -> None:
    file = folder.fit_file
    fitted = folder.fitted
    file.write_bytes(file.read_bytes()[:-1])
    assert_same(replace(folder).fitted, fitted)
    assert_same(load_fitted(file, folder.model.identity), fitted)
    assert file.name in caplog.text


def test_every_edit_has_its_files(folder: ItemFolder, model: ItemModel) -> None:
    other = save_picture(folder.path.parent / "second", seed=1)
    write_masks(other, three(("rest", "sun", "moon")))
    both = replace(folder, other=other, templates={"rest": "a photo of *"})
    edited = three().masks.clone()
    edited[1, :8], edited[0, :8] = True, False
    write_index(folder.path, Partition(three().names, edited), edited=True)
    moves = [Move(1, columns=4, ratio=0.5), Move(2, rows=-4)]
    asked: list[tuple[Any, dict[str, Any]]] = [
        ("reconstruct", {"item": "left"}),
        ("text", {"target": 1, "words": "a circle", "active": ["right"]}),
        ("image_item", {"target": "left", "picture": 1, "item": "moon", "edited": True}),
        ("remove", {"target": "left", "heir": "right"}),
        ("move", {"moves": moves, "processed": other}),
    ]
    pictures = set()
    for task, arguments in asked:
        result = both.edit(task, replace(FEW, images=2), **arguments)
        assert result.is_new and len(result.images) == 2
        pictures |= {Image.open(path).tobytes() for path in result.images}
        assert Image.open(result.overview).width > 4 * 256
        assert not both.edit(task, replace(FEW, images=2), **arguments).is_new
    assert len(pictures) == 10


def test_names_and_numbers_ask_for_the_same(folder: ItemFolder) -> None:
    by_name = folder.planned("remove", FEW, target="left", heir="right")
    assert by_name == folder.planned("remove", FEW, target=1, heir=2)
    assert by_name != folder.planned("remove", FEW, target=1, heir=0)
    assert by_name != folder.planned("remove", replace(FEW, seed=1), target=1, heir=2)


def test_other_settings_replace_a_result_and_a_name_keeps_it(folder: ItemFolder) -> None:
    first = folder.edit("remove", FEW, target=1)
    pixels = Image.open(first.images[0]).tobytes()
    kept = folder.edit("remove", replace(FEW, seed=1), target=1, name="other")
    assert Image.open(first.images[0]).tobytes() == pixels
    second = folder.edit("remove", replace(FEW, seed=1), target=1)
    assert second.is_new and second.images == first.images
    assert Image.open(first.images[0]).tobytes() == Image.open(kept.images[0]).tobytes() != pixels


def test_a_damaged_result_is_made_anew(folder: ItemFolder) -> None:
    result = folder.edit("remove", FEW, target=1)
    whole = result.images[0].read_bytes()
    result.images[0].write_bytes(whole[:-40])
    assert folder.edit("remove", FEW, target=1).is_new
    assert result.images[0].read_bytes() == whole


def test_masks_drawn_by_hand_are_not_replaced_unasked(folder: ItemFolder) -> None:
    segmenter = ClipSeg(model=packaged("clipseg_shapes"), threshold=0.0)
    drawn = (folder.path / "masks.png").read_bytes()
    with pytest.raises(BenchmarkError, match=r"masks\.png is there already"):
        folder.segment(segmenter, ["circle"])
    assert (folder.path / "masks.png").read_bytes() == drawn
    items = folder.segment(segmenter, ["circle"], overwrite=True)
    assert folder.segment(segmenter, ["circle"]).names == items.names
    assert torch.equal(read_partition(folder.path).labels, items.labels)


def test_items_grow_into_the_rest_alone() -> None:
    items = grown(three(), 3)
    assert items.masks[1].nonzero().aminmax(dim=0).min.tolist() == [21, 5]
    assert items.masks[1].sum() == items.masks[2].sum() == 22 * 22
    touching = grown(three(), 20)
    assert not touching.masks[0, 30].any() and touching.masks[1, 30, :32].all()
    for unchanged in (grown(three(), 0), grown(three(("a", "left", "right")), 3)):
        assert torch.equal(unchanged.labels, three().labels)


def no_picture(path: Path) -> None:
    (path / "scene.png").unlink()


def no_masks(path: Path) -> None:
    (path / "masks.png").unlink()


def equal_names(path: Path) -> None:
    write_index(path, three(("rest", "left", "left")))


def oblong_masks(path: Path) -> None:
    write_index(path, Partition(("all",), torch.ones(1, SIDE, SIDE // 2, dtype=torch.bool)))


def uneven_masks(path: Path) -> None:
    write_index(path, Partition(("all",), torch.ones(1, 62, 62, dtype=torch.bool)))


def other_name(path: Path) -> None:
    write_index(path, three(("rest", "sun", "moon")))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (no_picture, "no picture: put one"),
        (no_masks, "has no masks: put"),
        (equal_names, "2 items are called left: give the number"),
        (oblong_masks, "masks of 32x64 pixels: give square ones"),
        (uneven_masks, "masks of 62x62 pixels"),
        (other_name, "no item left: choose one of 0 rest, 1 sun"),
    ],
)
def test_a_bad_folder_is_told_by_name(folder: ItemFolder, change: Any, words: str) -> None:
    change(folder.path)
    with pytest.raises(BenchmarkError, match=words) as error:
        folder.edit("remove", FEW, target="left")
    assert str(folder.path) in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["text"], "folder and item and words must be set, for example folder=my_picture"),
        (["text", "folder=nowhere", "item=1", "words=a"], "no folder nowhere"),
        (["remove", "folder=PATH", "item=4"], "first: there is no item 4"),
        (["fit", "folder=PATH", "fit.tokens=0"], "tokens.* out of range"),
        (["fit", "folder=PATH", "+fit.tokns=1"], "did you mean fit.tokens"),
        (["segment", "folder=PATH", "texts=[a]", "mask=ours"], "mask.ours looks for no texts"),
        (["move", "folder=PATH", "item=1", "also=[{rows: 1}]"], "also has .* an item"),
        (["move", "folder=PATH", "item=1", "also=[{item: 2, rows: x}]"], "also.rows is 'x'"),
        (["remove", "folder=PATH", "item=1", "name=a/b"], "name is 'a/b'; .* without slashes"),
    ],
)
def test_wrong_settings_are_told(arguments: list[str], words: str, path: Path) -> None:
    name, *settings = [word.replace("PATH", str(path)) for word in arguments]
    with pytest.raises(BenchmarkError, match=words):
        run_here(name, *settings)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["remov"], "no command remov: did you mean remove"),
        (["remove", "folder=first", "item=1", "iten=1"], "iten is no setting: did you mean item"),
    ],
)
def test_what_is_no_command_and_no_setting_is_told(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    done = command(tmp_path, "items", *arguments)
    assert done.returncode == 1 and done.stderr.startswith("Error: ")
    assert words in done.stderr and "Traceback" not in done.stderr + done.stdout


def test_every_command_has_its_help(tmp_path: Path) -> None:
    done = command(tmp_path, "items", "move", "--help")
    assert "items move" in done.stdout and help_text(MoveSettings) in done.stdout
    assert "folder: ???" in done.stdout and "columns: 0" in done.stdout
    names = command(tmp_path, "items").stdout
    assert all(f"  {name}" in names for name in ITEM_COMMANDS)


def test_the_published_recipe_is_the_published_fit() -> None:
    with initialize_config_dir(CONF, version_base="1.3"):
        words = ["command=move", "recipe=published", "folder=a", "item=1"]
        cfg = typed_as(compose("items", words), MoveSettings)
    assert made(cfg.fit) == FitSettings() and made(cfg.sampling) == Sampling()
    assert cfg.arguments["moves"] == [
        {"item": 1, "rows": 0, "columns": 0, "ratio": 1.0, "priority": 1}
    ]
