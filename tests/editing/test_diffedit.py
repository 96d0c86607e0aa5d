"""Laws of DiffEdit, on a tiny random model."""

from dataclasses import replace
from pathlib import Path

import laws
import torch

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.diffedit import DiffEdit

EDITOR = DiffEdit(steps=5, strength=0.8, guidance=3.0)


def test_the_laws_of_editors(tiny: Backbone, tiny_folder: Path) -> None:
    laws.company_changes_nothing(EDITOR, tiny_folder)
    laws.evaluations_are_counted(EDITOR, tiny)
    laws.evaluations_are_counted(replace(EDITOR, guidance=1.0), tiny)
    laws.outside_is_the_sources_own(EDITOR, tiny)
    laws.everything_is_no_mask(EDITOR, tiny)


def test_the_background_is_the_pictures_own_to_the_last_bit(tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    latents = laws.sample(EDITOR, tiny, sources, laws.MASKS, laws.OWNER).latents
    x0 = sources.encoded.mean[laws.OWNER]
    outside = ~laws.MASKS[:, None].expand_as(x0)
    assert torch.equal(latents[outside], x0[outside])
    assert not torch.isclose(latents[~outside], x0[~outside], atol=0.1).all()


def test_the_strength_is_the_share_of_the_schedule_that_is_inverted(tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    inverted = EDITOR.invert(tiny, sources)
    assert inverted.timesteps == [601, 401, 201, 1]
    assert torch.equal(inverted.x[-1], sources.encoded.mean)
    assert (inverted.nfe == 4).all()


def test_as_in_diffusers_the_posterior_is_drawn_from_and_the_source_comes_back_late(
    tiny: Backbone,
) -> None:
    sources = laws.two_samples(tiny)
    editor = replace(EDITOR, compat="reference")
    inverted = editor.invert(tiny, sources)
    draw = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(8128))
    x0 = sources.encoded.mean + sources.encoded.std * draw
    assert torch.equal(inverted.x[-1], x0)
    latents = editor.sample(tiny, sources, inverted, laws.MASKS, laws.OWNER).latents
    outside = ~laws.MASKS[:, None].expand_as(latents)
    assert torch.equal(latents[outside], inverted.x[-2][laws.OWNER][outside])


def test_without_guidance_the_source_prompt_leads_closer_back(tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    same = laws.changed(sources, target_prompt=sources.source_prompts)
    everywhere, owner = laws.EVERYTHING.expand(2, -1, -1), torch.tensor([0, 1])
    unguided, guided = (
        (
            laws.sample(
                DiffEdit(steps=20, strength=0.3, guidance=guidance), tiny, same, everywhere, owner
            ).latents
            - sources.encoded.mean
        )
        .square()
        .mean()
        for guidance in (1.0, 3.0)
    )
    assert unguided < guided / 2
