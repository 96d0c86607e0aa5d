"""What DINO looks at, against transformers' own attention."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms import CenterCrop
from transformers import ViTModel

from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.regions.saliency import (
    Dino,
    features,
    fit_positions,
    interpolated_positions,
    saliency,
    square,
)
from piebench_masks.weights import WeightsError


def test_features_and_attention_are_those_of_transformers(
    dino_folder: Path, picture: Tensor
) -> None:
    network = ViTModel.from_pretrained(
        dino_folder, add_pooling_layer=False, attn_implementation="eager"
    ).eval()
    fit_positions(network, "exact")
    pixels = square(picture.numpy()).movedim(-1, 0)[None] / 255
    with torch.no_grad():
        output = network(pixels, interpolate_pos_encoding=True, output_attentions=True)
        found = features(network, square(picture.numpy()))
    torch.testing.assert_close(found.tokens, output.last_hidden_state[0])
    torch.testing.assert_close(found.attention, output.attentions[-1][0, :, 0, 1:])


def test_exact_positions_are_those_that_transformers_interpolates(
    dino_folder: Path, picture: Tensor
) -> None:
    network = ViTModel.from_pretrained(dino_folder, add_pooling_layer=False).eval()
    pixels = square(picture.numpy()).movedim(-1, 0)[None] / 255
    with torch.no_grad():
        tokens = network(pixels, interpolate_pos_encoding=True).last_hidden_state[0]
    found = Dino(str(dino_folder)).features(picture.numpy(), torch.device("cpu"), "exact")
    torch.testing.assert_close(found.tokens, tokens)


@pytest.mark.parametrize(("compat", "scale"), [("reference", 32.1 / 28), ("exact", 32 / 28)])
def test_positions_are_sampled_at_that_scale(compat: Compat, scale: float) -> None:
    positions = torch.rand(1, 1 + 28 * 28, 5, generator=torch.Generator().manual_seed(1))
    planes = positions[:, 1:].mT.unflatten(-1, (28, 28))
    place = 2 * (torch.arange(32) + 0.5) / scale / 28 - 1
    grid = torch.stack(torch.meshgrid(place, place, indexing="xy"), dim=-1)[None]
    expected = grid_sample(planes, grid, mode="bicubic", padding_mode="border", align_corners=False)
    found = interpolated_positions(positions, 32, compat)
    torch.testing.assert_close(found[:, 1:].mT.unflatten(-1, (32, 32)), expected)
    assert found[:, 0].equal(positions[:, 0])


def test_positions_of_the_same_grid_stay() -> None:
    positions = torch.rand(1, 1 + 32 * 32, 5)
    assert interpolated_positions(positions, 32, "reference") is positions


def test_the_share_of_attention_that_goes_to_no_more_salient_places() -> None:
    attention = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.1, 0.4, 0.2, 0.3]])
    expected = torch.tensor([[0.1, 1.0], [0.3, 0.6]])
    torch.testing.assert_close(saliency(attention), expected)


@pytest.mark.parametrize("size", [(300, 256), (256, 301), (384, 440), (512, 512)])
def test_the_middle_of_a_picture(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    shorter = min(size)
    height, width = (int(256 * side / shorter) for side in size)
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    assert np.array_equal(square(pixels).numpy(), np.array(CenterCrop(256)(resized)))


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="DINO model of the saliency"):
        Dino(str(tmp_path)).network(torch.device("cpu"), "exact")
