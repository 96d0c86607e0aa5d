"""Laws of every segmenter: what a map is, what it may depend on, and what is told when it fails."""

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Sam2Model

from piebench_masks.data.scene import Scene
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import part_identity
from piebench_masks.masks import METHODS, SEGMENTERS
from piebench_masks.masks.postprocess import Rescale
from piebench_masks.masks.segmenter import Segmenter
from piebench_masks.masks.soft_maps import SoftMaps, soft_maps
from piebench_masks.weights import WeightsError

Make = Callable[..., Segmenter]
FOLDERS = {
    "clipseg": {"model": "clipseg"},
    "sam3": {"model": "sam3"},
    "grounded_sam": {"model": "grounding_dino", "mask_model": "sam2"},
}
"""The settings of each that name weights, and the tiny model that is given for them."""
GRIDS = {"clipseg": 64, "sam3": 32, "grounded_sam": 48}
"""Sides of the maps: the first two networks' own, and the picture's."""
SIDE = 48
MAP_SIZE = 16
CPU = torch.device("cpu")


@pytest.fixture(params=FOLDERS)
def name(request: pytest.FixtureRequest) -> str:
    """Each of the segmenters."""
    return str(request.param)


@pytest.fixture
def make(name: str, segmenters: dict[str, Path]) -> Make:
    """Its class, on its tiny model."""
    given = {setting: str(segmenters[model]) for setting, model in FOLDERS[name].items()}
    return partial(type(SEGMENTERS[name]), **given)


only_boxes = pytest.mark.parametrize("name", ["grounded_sam"])


def scene(number: int, source: str, target: str, **more: Any) -> Scene:
    """A picture of 16 coloured squares with these prompts."""
    generator = torch.Generator().manual_seed(number)
    squares = torch.randint(0, 256, (4, 4, 3), dtype=torch.uint8, generator=generator)
    picture = squares.repeat_interleave(SIDE // 4, dim=0).repeat_interleave(SIDE // 4, dim=1)
    return Scene(f"scene {number}", picture, source, target, **more)


PROMPTS = "a red circle on grass", "a blue circle on grass"
SCENES = (
    scene(0, *PROMPTS),
    scene(1, "a blue square on sand", "a blue circle on sand"),
    scene(2, "a red square and a circle", "a circle"),
    scene(3, "a circle on sand", "a circle on grass"),
    scene(4, "sand", "grass"),
)
INSERTIONS = (
    scene(5, "a circle on grass", "a red circle on grass"),
    scene(6, "a circle", "a circle"),
)


def asked(methods: dict[str, Any], scenes: Sequence[Scene]) -> SoftMaps:
    return soft_maps(None, None, scenes, methods, map_size=MAP_SIZE)


def maps(method: Segmenter, scenes: Sequence[Scene] = SCENES) -> list[Any]:
    return asked({"m": method}, scenes)["m"]


def equal(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_each_has_a_tiny_model_here() -> None:
    assert SEGMENTERS.keys() == FOLDERS.keys() and SEGMENTERS.items() <= METHODS.items()


@pytest.mark.parametrize("words", ["changed", "prompt"])
def test_a_map_is_a_share_on_the_networks_grid(name: str, make: Make, words: str) -> None:
    found, grid = maps(make(words=words)), GRIDS[name]
    for soft_map in found:
        assert (soft_map.shape, soft_map.dtype) == ((grid, grid), torch.float32)
        assert soft_map.isfinite().all() and 0 <= soft_map.min() <= soft_map.max() <= 1
    assert any(soft_map.max() > soft_map.min() for soft_map in found)
    assert equal(found, maps(make(words=words)))


def test_it_depends_on_the_picture_and_on_the_words(make: Make) -> None:
    first, *others = maps(
        make(), [scene(0, *PROMPTS), scene(0, *PROMPTS[::-1]), scene(1, *PROMPTS)]
    )
    assert not any(torch.equal(first, found) for found in others)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_it_depends_on_no_neighbour_order_or_batch(name: str, make: Make, rows: int) -> None:
    """SAM 3's presence, a product with one column, is rounded by its place in the block."""
    method = make(rows=rows)
    near = 1e-6 if name == "sam3" and rows > 1 else 0
    together = maps(method)
    mixed = maps(method, [INSERTIONS[0], *SCENES[:3], INSERTIONS[1], *SCENES[3:]])
    for found in (
        [maps(method, [one])[0] for one in SCENES],
        maps(method, SCENES[::-1])[::-1],
        [*mixed[1:4], *mixed[5:]],
    ):
        torch.testing.assert_close(found, together, atol=near, rtol=0)
    torch.testing.assert_close(maps(make(rows=3)), together, atol=1e-5, rtol=0)


@pytest.mark.parametrize("words", ["changed", "blended"])
def test_an_insertion_shows_nowhere_in_the_source(make: Make, words: str) -> None:
    method = make(words=words)
    for soft_map in maps(method, INSERTIONS):
        assert soft_map.shape == (MAP_SIZE, MAP_SIZE) and soft_map.eq(0).all()
        cut = method.cutter.masks(soft_map, [method.threshold, 0.0], (SIDE, SIDE), "exact")
        assert not cut.any()


def test_the_blended_words_first_half_is_looked_for(make: Make) -> None:
    blended = scene(0, *PROMPTS, blended_words="red circle blue circle")
    said = scene(0, "red circle", "grass")
    assert equal(maps(make(words="blended"), [blended]), maps(make(), [said]))


def test_a_missing_blended_word_is_told_and_spares_the_others(make: Make) -> None:
    there = scene(0, *PROMPTS, blended_words="circle circle")
    missing, found, zero = maps(make(words="blended"), [SCENES[1], there, INSERTIONS[0]])
    assert isinstance(missing, BenchmarkError)
    assert "blended_word" in str(missing) and "scene 1" in str(missing)
    assert isinstance(found, Tensor) and isinstance(zero, Tensor)


def test_too_long_texts_are_cut(make: Make) -> None:
    method = make(words="prompt")
    long, longer = (
        scene(0, "red " * count + tail, "") for count, tail in ((99, ""), (400, "sand"))
    )
    assert equal(maps(method, [long]), maps(method, [longer]))
    assert not equal(maps(method, [long]), maps(method, [scene(0, "red", "")]))


def test_what_fails_on_one_picture_spares_its_neighbours_and_other_methods(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = make(words="prompt", rows=1)
    expected, found = maps(method, SCENES[1:]), type(method).found

    def picky(self: Segmenter, pictures: Any, words: Sequence[str], device: torch.device) -> Any:
        if SCENES[0].source_prompt in words:
            raise RuntimeError("this picture is dark")
        return found(self, pictures, words, device)

    monkeypatch.setattr(type(method), "found", picky)
    together = asked({"m": method, "full": METHODS["full"]}, SCENES)
    assert isinstance(together["m"][0], BenchmarkError) and "dark" in str(together["m"][0])
    assert equal(together["m"][1:], expected)
    assert all(isinstance(soft_map, Tensor) for soft_map in together["full"])


@only_boxes
def test_without_boxes_the_mask_is_empty_and_nothing_asks_for_masks(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sam2Model, "forward", lambda *given, **named: pytest.fail("asked"))
    method = make(box_score=1.0)
    for soft_map in maps(method):
        assert soft_map.shape == (SIDE, SIDE) and soft_map.eq(0).all()
        assert not method.cutter.masks(soft_map, [0.0], (SIDE, SIDE), "exact").any()
    with pytest.raises(pytest.fail.Exception, match="asked"):
        maps(make())


@only_boxes
def test_boxes_lie_in_the_picture_and_their_scores_above_the_setting(make: Make) -> None:
    method = make(box_score=0.5)
    for one in SCENES:
        found, scores = method.boxes(one.image.numpy(), one.source_prompt, CPU)  # type: ignore
        assert found.shape == (len(scores), 4) and scores.gt(0.5).all()
        assert found.min() >= 0 and found.max() <= SIDE


def test_the_blended_word_is_a_leak(make: Make) -> None:
    assert make(words="blended").knows == "word"
    assert make().knows == make(words="prompt").knows == "prompts"


def test_unknown_words_are_refused(make: Make) -> None:
    with pytest.raises(BenchmarkError, match=r"words is 'all': choose one of blended, changed"):
        make(words="all")


@pytest.mark.parametrize("model", ["nowhere", "nobody/nothing", "some/deeper/folder"])
def test_weights_that_cannot_be_had_are_named(
    name: str, make: Make, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    for setting in FOLDERS[name]:
        method = make(**{setting: model}, cache_dir=str(tmp_path))
        for function in (method.identity, partial(method.load, CPU)):
            with pytest.raises(WeightsError, match=rf"(?s)looked for: {model},.*what to do: .+"):
                function()


@pytest.mark.parametrize("harm", ["torn", "no weights", "one missing", "pickled", "of another"])
def test_weights_that_are_not_whole_are_named(
    name: str, make: Make, harm: str, segmenters: dict[str, Path], tmp_path: Path
) -> None:
    """Also where a network would be made of random weights, or of a pickle."""
    for setting, model in FOLDERS[name].items():
        folder = tmp_path / setting
        shutil.copytree(segmenters[model], folder)
        weights = folder / "model.safetensors"
        if harm == "torn":
            weights.write_bytes(weights.read_bytes()[:-7])
        elif harm == "no weights":
            weights.unlink()
        elif harm == "one missing":
            tensors = load_file(weights)
            tensors.pop(max(tensors))
            save_file(tensors, weights, metadata={"format": "pt"})
        elif harm == "pickled":
            torch.save(load_file(weights), folder / "pytorch_model.bin")
            weights.unlink()
        else:
            other = segmenters["clipseg" if model == "sam3" else "sam3"]
            shutil.copy(other / "model.safetensors", weights)
        with pytest.raises(WeightsError, match=f"looked for: {folder}.*\n.*what to do: "):
            make(**{setting: str(folder)}).load(CPU)


def test_its_identity_is_its_weights_and_its_settings(
    name: str, make: Make, segmenters: dict[str, Path], tmp_path: Path
) -> None:
    before = part_identity(make())
    for setting, model in FOLDERS[name].items():
        folder = tmp_path / setting
        shutil.copytree(segmenters[model], folder)
        method = make(**{setting: str(folder)})
        assert part_identity(method) == before
        (folder / "README.md").write_text("moved")
        assert part_identity(method) == before
        with (folder / "model.safetensors").open("ab") as file:
            file.write(b"\0")
        assert part_identity(method) != before
    for same in ({"rows": 1}, {"threshold": 0.1}, {"cache_dir": str(tmp_path)}):
        assert part_identity(make(**same)) == before
    changed: list[dict[str, Any]] = [{"words": "blended"}, {"post": (Rescale(),)}]
    changed += [{"box_score": 0.3}] * (name == "grounded_sam")
    for other in changed:
        assert part_identity(make(**other)) != before


def test_weights_of_half_precision_are_loaded_as_float32(
    name: str, make: Make, segmenters: dict[str, Path], tmp_path: Path
) -> None:
    given = {}
    for setting, model in FOLDERS[name].items():
        shutil.copytree(segmenters[model], tmp_path / model)
        weights = tmp_path / model / "model.safetensors"
        tensors = {name: tensor.half() for name, tensor in load_file(weights).items()}
        save_file(tensors, weights, metadata={"format": "pt"})
        config = tmp_path / model / "config.json"
        config.write_text(config.read_text().replace("float32", "float16"))
        given[setting] = str(tmp_path / model)
    method = make(**given)
    networks = [part for part in method._networks(CPU) if isinstance(part, nn.Module)]
    assert len(networks) == len(given)
    for network in networks:
        assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    assert all(soft_map.dtype == torch.float32 for soft_map in maps(method))
