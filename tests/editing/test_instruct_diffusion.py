"""InstructDiffusion with a tiny random model of its structure, loaded as the real one is."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import laws
import pytest
import torch
from instructed_model import save_model

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.editing.editor import paint
from piebench_masks.editing.instruct_diffusion import (
    InstructDiffusion,
    ancestral,
    combined,
    sigma,
)
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import part_identity

STEPS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("instruct"), 8)


@pytest.fixture(scope="module")
def editor(folder: Path) -> InstructDiffusion:
    return InstructDiffusion(id=str(folder), rows=3, steps=STEPS)


def test_neither_other_edits_nor_the_size_of_blocks_change_anything(
    editor: InstructDiffusion, tiny: Backbone, tiny_folder: Path
) -> None:
    sources = laws.two_samples(tiny)
    together = laws.sample(
        replace(editor, rows=8), load_backbone(tiny_folder), sources, laws.MASKS, laws.OWNER
    )
    assert together.latents.shape == (4, 4, 8, 8)
    for mask, owner, latents in zip(laws.MASKS, laws.OWNER, together.latents, strict=True):
        own = laws.one_sample(sources, int(owner))
        alone = laws.sample(editor, tiny, own, mask[None], torch.tensor([0]))
        torch.testing.assert_close(alone.latents[0], latents, atol=1e-3, rtol=1e-3)


def test_a_mask_changes_the_edit_and_an_instruction_does(
    editor: InstructDiffusion, tiny: Backbone
) -> None:
    sources = laws.two_samples(tiny)
    other = laws.changed(sources, instruction=["big", "square"])
    masks = torch.stack([laws.EVERYTHING, laws.LEFT])
    first, second = (
        laws.sample(editor, tiny, each, masks, torch.tensor([0, 0])).latents
        for each in (sources, other)
    )
    assert not torch.isclose(first[0], first[1], atol=1e-3).all()
    assert not torch.isclose(first[0], second[0], atol=1e-3).all()


def test_before_every_step_but_the_first_the_outside_is_the_noised_source(
    editor: InstructDiffusion, tiny: Backbone
) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def look(module: Any, args: tuple[torch.Tensor, ...], output: Any) -> None:
        seen.append((args[0], args[1]))

    sources = laws.one_sample(laws.two_samples(tiny), 0)
    inverted = editor.invert(tiny, sources)
    pipeline, model = editor.model.loaded(tiny)
    handle = pipeline.unet.register_forward_hook(look)
    editor.sample(tiny, sources, inverted, laws.LEFT[None], torch.tensor([0]))
    handle.remove()
    x0 = inverted.posterior.mean
    noise = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(editor.seed))
    assert [timestep[0].item() for _, timestep in seen] == [999, 499.5, 0]
    # The right half, of the masks' 16 columns and of the latents' 8.
    for z, timestep in seen[1:]:
        level = sigma(model, timestep[0].item())
        expected = (x0 + level * noise) / math.hypot(level, 1)
        torch.testing.assert_close(z[:1, :4, :, 4:], expected[..., 4:], atol=1e-5, rtol=1e-5)
        assert not torch.isclose(z[:1, :4, :, :4], expected[..., :4], atol=1e-3).all()
    image = x0 / pipeline.vae.config.scaling_factor
    torch.testing.assert_close(seen[0][0][:, 4:], torch.cat([image, image, 0 * image]))


def test_between_two_time_steps_the_noise_is_their_geometric_mean(tiny: Backbone) -> None:
    low, high = (tiny.level(t).noise / tiny.level(t).signal for t in (499, 500))
    assert sigma(tiny, 499.5) == pytest.approx(math.sqrt(low * high))
    assert sigma(tiny, 500.0) == pytest.approx(high)


def test_an_ancestral_step_reaches_its_level() -> None:
    for level, following in ((14.0, 3.0), (3.0, 2.9), (0.5, 0.01)):
        down, up = ancestral(level, following)
        assert math.hypot(down, up) == pytest.approx(following)
        assert 0 <= down < following
    assert ancestral(0.03, 0.0) == (0.0, 0.0)


def test_guidance_of_equal_predictions_is_none() -> None:
    same = torch.randn(1, 2, 4, 8, 8).expand(3, -1, -1, -1, -1)
    torch.testing.assert_close(combined(same, 5.0, 1.25), same[0])


def test_edits_are_pictures_of_the_models_own_vae_and_counted(
    editor: InstructDiffusion, tiny: Backbone
) -> None:
    sources = laws.two_samples(tiny)
    edited, _ = paint(tiny, editor, sources, laws.MASKS[:1], laws.OWNER[:1])
    _, model = editor.model.loaded(tiny)
    latents = laws.sample(editor, tiny, sources, laws.MASKS[:1], laws.OWNER[:1]).latents
    assert torch.equal(edited.images, model.decode(latents))
    laws.evaluations_are_counted(editor, tiny)
    assert edited.nfe.tolist() == [3 * STEPS]


def test_where_its_files_lie_is_not_part_of_its_key(editor: InstructDiffusion) -> None:
    moved = replace(editor, cache_dir="elsewhere", rows=9)
    assert part_identity(moved) == part_identity(editor)
    assert part_identity(replace(editor, steps=2)) != part_identity(editor)


def test_a_model_that_is_not_there(tiny: Backbone, tmp_path: Path) -> None:
    missing = tmp_path / "no" / "model"
    with pytest.raises(BenchmarkError, match=rf"{missing}.*editor\.instruct_diffusion\.id"):
        InstructDiffusion(id=str(missing)).invert(tiny, laws.two_samples(tiny))
