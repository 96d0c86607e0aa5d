"""What the benchmark's editor fits a model to: the items that a segmentation gives it."""

from pathlib import Path

import pytest
import torch

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.editing.items import ItemFitting
from piebench_masks.items.fitted import FitSettings, Fitted
from piebench_masks.items.segment import Panoptic

SIDE = 64
QUICK = FitSettings(tokens=2, embedding_steps=2, unet_steps=2, accumulation=1)


def scene(annotation: torch.Tensor | None = None) -> Scene:
    pixels = torch.randint(0, 256, (SIDE, SIDE, 3), generator=torch.Generator().manual_seed(0))
    return Scene("0", pixels.byte(), "a red circle", "a blue circle", annotation=annotation)


def test_panoptic_items_are_fitted_and_the_file_gives_them_back(
    model: StableDiffusion, panoptic: dict[str, Path]
) -> None:
    segmenter = Panoptic(str(panoptic["mask2former"]), score=0.0)
    fitting = ItemFitting(QUICK, segmenter)
    fitting.load(model.device)
    assert fitting.reads == ("image",)
    shares: list[float] = []
    fitted = fitting(model, scene(), model="tiny", progress=shares.append)
    expected = segmenter(scene().image.numpy(), model.device)
    assert len(expected.names) > 1 and fitted.items[0].names == expected.names
    assert torch.equal(fitted.items[0].masks, expected.masks)
    assert sum(shares) == pytest.approx(1)
    again = fitting.unpack(fitted.pack("0" * 12))
    assert isinstance(again, Fitted) and torch.equal(again.items[0].masks, expected.masks)


def test_the_annotated_mask_of_any_size_is_an_item(model: StableDiffusion) -> None:
    half = torch.arange(8).expand(8, 8) < 4
    items = ItemFitting(QUICK, "annotated").items(scene(half), model.device)
    assert items.names == ("region", "rest") and items.size == (SIDE, SIDE)
    assert torch.equal(items.masks[0], half.repeat_interleave(8, 0).repeat_interleave(8, 1))
