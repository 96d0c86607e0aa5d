"""Items that real networks find: random panoptic ones, and the miniature's own by texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from piebench_masks.data.shapes.grammar import sample_scene
from piebench_masks.data.shapes.render import render
from piebench_masks.identity import part_identity
from piebench_masks.items.partition import PartitionError
from piebench_masks.items.segment import Panoptic, panoptic_items, text_items
from piebench_masks.masks.clipseg import ClipSeg
from piebench_masks.masks.segmenter import Segmenter
from piebench_masks.weights import WeightsError, packaged

CPU = torch.device("cpu")
NAMES = {"sky cloud", "teddy bear", "wall-other_merged"}
kinds = pytest.mark.parametrize("kind", ["mask2former", "oneformer"])


def picture(seed: int, size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    squares = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return squares.repeat(size[0] // 4, axis=0).repeat(size[1] // 4, axis=1)


@kinds
def test_a_panoptic_network_finds_items(kind: str, panoptic: dict[str, Path]) -> None:
    segmenter = Panoptic(str(panoptic[kind]), score=0.3)
    found = [segmenter(picture(seed), CPU) for seed in range(4)]
    for items in found:
        assert items.size == (48, 64) and {*items.names} <= {*NAMES, "rest", "all"}
        assert items.masks.flatten(1).any(dim=1).all()
    assert any(len(items.names) > 1 for items in found)
    assert any({*items.names} & NAMES for items in found)
    assert not torch.equal(found[0].labels, found[1].labels)
    again = Panoptic(str(panoptic[kind]), score=0.3)(picture(0), CPU)
    assert again.names == found[0].names and torch.equal(again.masks, found[0].masks)


@kinds
def test_without_segments_everything_is_one_item(kind: str, panoptic: dict[str, Path]) -> None:
    items = Panoptic(str(panoptic[kind]), score=1.0)(picture(0), CPU)
    assert items.names == ("all",) and items.masks.all()


@kinds
def test_its_identity_is_its_weights_and_its_score(kind: str, panoptic: dict[str, Path]) -> None:
    segmenter = Panoptic(str(panoptic[kind]))
    assert part_identity(segmenter) == part_identity(Panoptic(str(panoptic[kind]), cache_dir="a"))
    assert part_identity(segmenter) != part_identity(Panoptic(str(panoptic[kind]), score=0.4))


@kinds
def test_weights_that_are_not_whole_are_named(
    kind: str, panoptic: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in panoptic[kind].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop(max(weights))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for model in (str(tmp_path), "nowhere"):
        with pytest.raises(WeightsError, match=rf"(?s)looked for: {model}.*what to do: .*OneForm"):
            Panoptic(model).load(CPU)


def test_segments_become_items_in_the_order_of_their_numbers() -> None:
    names = {1: "person", 2: "person", 4: " a/b\\c\n"}
    items = panoptic_items(torch.tensor([[4, 1], [2, 1]]), names)
    assert items.names == ("person", "person", "a b c")
    assert items.labels.tolist() == [[2, 0], [1, 0]]
    items = panoptic_items(torch.tensor([[4, 0], [-1, 1]]), names)
    assert items.names == ("rest", "person", "a b c")
    assert items.labels.tolist() == [[2, 0], [0, 1]]
    for nothing in (0, -1):
        assert panoptic_items(torch.full((2, 2), nothing), {}).names == ("all",)


@dataclass(frozen=True)
class Given(Segmenter):
    """Finds the shares that a text names: one digit, in tenths, of each of a row's pixels."""

    threshold: float = 0.5

    def found(
        self, pictures: Sequence[NDArray[np.uint8]], words: Sequence[str], device: torch.device
    ) -> list[Tensor]:
        return [torch.tensor([[int(digit) / 10 for digit in text]]) for text in words]

    def _load(self, device: torch.device) -> Any:
        raise NotImplementedError


def test_where_texts_overlap_the_larger_share_has_the_pixel() -> None:
    row = np.zeros((1, 6, 3), dtype=np.uint8)
    items = text_items(Given(), row, ["986600", "778600", "111111"], CPU)
    assert items.names == ("rest", "986600", "778600")
    assert items.labels.tolist() == [[1, 1, 2, 1, 0, 0]]  # equal shares: the first text
    assert text_items(Given(threshold=0.95), row, ["986600"], CPU).names == ("all",)
    assert text_items(Given(), row, [" ", "999999"], CPU).names == ("999999",)
    for texts in ([], [" "]):
        with pytest.raises(PartitionError, match="no text to look for: name the items"):
            text_items(Given(), row, texts, CPU)


@pytest.mark.parametrize("count", [1, 2])
def test_the_miniatures_segmenter_parts_objects_from_their_background(count: int) -> None:
    """It finds objects, and hardly tells two of them apart, as its card says."""
    segmenter, ratios = ClipSeg(model=packaged("clipseg_shapes")), []
    for seed in range(2**33, 2**33 + 12):  # of no scene that it was trained on
        scene = sample_scene(np.random.default_rng(seed), count=count)
        drawn = render([scene])
        texts = [f"{thing.color} {thing.shape}" for thing in scene.things]
        items = text_items(segmenter, drawn.images[0], texts, CPU)
        assert items.names[0] == "rest" and {*items.names[1:]} <= {*texts}
        found, objects = ~items.masks[0].numpy(), (drawn.coverage[0] > 0.5).any(axis=0)
        ratios.append((found & objects).sum() / (found | objects).sum())
    assert np.median(ratios) > 0.7
