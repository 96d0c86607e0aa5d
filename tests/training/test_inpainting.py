"""Training the miniature's inpainting: where it begins, what it cuts out, and what it writes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file

from piebench_masks.data.shapes.grammar import sample_edit
from piebench_masks.data.shapes.render import render_edit
from piebench_masks.training.inpainting import (
    MASKS,
    draw_holes,
    draw_mask,
    in_cells,
    inpainting_denoiser,
    train_inpainting,
)
from piebench_masks.training.vae import encode_images


def test_it_begins_where_the_miniature_ends(tiny_folder: Path) -> None:
    """The mask and what is left have no part in what the first step predicts."""
    denoiser = inpainting_denoiser(tiny_folder)
    plain = UNet2DConditionModel.from_pretrained(tiny_folder / "unet", torch_dtype=torch.float32)
    assert denoiser.unet.config.in_channels == 9
    assert {name.split(".")[0] for name, w in denoiser.named_parameters() if w.requires_grad} == {
        "unet"
    }
    seen = torch.randn(2, 9, 16, 16, generator=torch.Generator().manual_seed(0))
    ids, keep = [torch.zeros(2, 32, dtype=torch.long)] * 2, torch.ones(2, 32)
    timesteps = torch.tensor([10, 900])
    with torch.no_grad():
        found = denoiser(seen, timesteps, ids, keep)
        denoiser.unet = plain
        expected = denoiser(seen[:, :4], timesteps, ids, keep)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_what_is_cut_out() -> None:
    areas, covering = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        changed = in_cells(render_edit(sample_edit(rng, 1 + seed % 7))[2])
        mask = draw_mask(rng, changed)
        assert mask.shape == (16, 16) and mask.dtype == np.bool_ and mask.any()
        areas.append(mask.mean())
        covering.append((mask & changed).sum() / changed.sum())
    assert 0.05 < np.mean(np.array(areas) == 1) < 0.2
    assert 0.5 < np.mean(np.array(covering) == 1) < 0.95
    assert min(areas) < 0.1 and min(covering) < 0.1


def test_a_cell_is_masked_where_any_of_its_pixels_is() -> None:
    mask = np.zeros((64, 64), bool)
    mask[7, 8] = mask[63, 63] = True
    assert np.argwhere(in_cells(mask)).tolist() == [[1, 2], [15, 15]]


def test_masked_cells_are_grey_for_the_vae(trained: Path, tmp_path: Path) -> None:
    vae = AutoencoderKL.from_pretrained(trained / "vae", torch_dtype=torch.float32)
    holes = draw_holes(6, vae, trained, tmp_path, "cpu")
    assert holes.masks.shape == (MASKS, 6, 16, 16) and holes.left.shape == (MASKS, 6, 4, 16, 16)
    images = torch.stack(
        [torch.from_numpy(render_edit(sample_edit(np.random.default_rng(1), 1))[1]).movedim(-1, 0)]
        * 2
    )
    grey = torch.zeros(2, 16, 16, dtype=torch.bool)
    grey[1] = True
    shown, hidden = encode_images(vae, images, "cpu", tmp_path / "a", grey)[0]
    # one cache for both: the painted images are others
    torch.testing.assert_close(shown, encode_images(vae, images, "cpu", tmp_path / "a")[0][0])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        nothing = vae.encode(torch.zeros(2, 3, 64, 64)).latent_dist.mean[0]
    expected = (nothing * vae.config.scaling_factor).half()
    torch.testing.assert_close(hidden, expected)


def test_the_unet_alone_is_written_in_half_precision(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unet"
    size: dict[str, Any] = {"device": "cpu", "steps": 2, "batch": 2, "learning_rate": 1e-3}
    train_inpainting(folder, tmp_path, base=str(trained), edits=4, **size)
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }
    assert str(trained) not in (folder / "config.json").read_text()
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    unet = UNet2DConditionModel.from_pretrained(folder)
    assert unet.config.in_channels == 9
    assert weights["conv_in.weight"][:, 4:].abs().max() > 0
