"""Laws of Blended Latent Diffusion, on a tiny random model."""

from dataclasses import replace
from pathlib import Path

import laws
import pytest
import torch

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.diffusion.ddpm import add_noise
from piebench_masks.editing.blended_latent_diffusion import BlendedLatentDiffusion

EDITOR = BlendedLatentDiffusion(steps=5, skip=0.25, guidance=3.0)
PUBLISHED = replace(EDITOR, compat="reference")


@pytest.mark.parametrize(
    "editor", [EDITOR, pytest.param(PUBLISHED, marks=pytest.mark.slow)], ids=["exact", "reference"]
)
def test_the_laws_of_editors(
    editor: BlendedLatentDiffusion, tiny: Backbone, tiny_folder: Path
) -> None:
    laws.company_changes_nothing(editor, tiny_folder)
    laws.evaluations_are_counted(editor, tiny)
    laws.evaluations_are_counted(replace(editor, guidance=1.0), tiny)
    laws.outside_is_the_sources_own(editor, tiny)
    laws.everything_is_no_mask(editor, tiny)


def test_the_source_is_noised_anew_at_every_level_and_comes_back_whole(tiny: Backbone) -> None:
    x0 = laws.two_samples(tiny).encoded.mean
    inverted = EDITOR.invert(tiny, laws.two_samples(tiny))
    assert inverted.timesteps == [601, 401, 201, 1]
    assert torch.equal(inverted.x[-1], x0)
    draws = [
        (x - level.signal * x0) / level.noise
        for x, level in zip(inverted.x, inverted.levels[:-1], strict=False)
    ]
    expected = torch.randn(5, 4, 16, 16, generator=torch.Generator().manual_seed(1234))
    for found, draw in zip(draws, expected, strict=False):
        torch.testing.assert_close(found, draw.expand_as(found), atol=1e-3, rtol=1e-3)


def test_as_published_it_starts_from_noise_and_the_source_comes_back_late(tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    x0 = sources.encoded.mean
    inverted = PUBLISHED.invert(tiny, sources)
    assert inverted.timesteps == [600, 400, 200, 0]
    first, *draws = torch.randn(5, 4, 16, 16, generator=torch.Generator().manual_seed(1234))
    assert torch.equal(inverted.x[0], first.expand_as(x0))
    latents = PUBLISHED.sample(tiny, sources, inverted, laws.MASKS, laws.OWNER).latents
    outside = ~laws.MASKS[:, None].expand_as(latents)
    late = add_noise(x0, draws[-1], inverted.levels[-2])[laws.OWNER]
    assert torch.equal(latents[outside], late[outside])


def test_only_the_target_prompt_matters(tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    first, source, target = (
        laws.sample(EDITOR, tiny, each, laws.MASKS, laws.OWNER).latents
        for each in (
            sources,
            laws.changed(sources, source_prompt=["sand", "sketch"]),
            laws.changed(sources, target_prompt=["sand", "sketch"]),
        )
    )
    assert torch.equal(first, source)
    assert not torch.isclose(first[0], target[0], atol=1e-2).all()
