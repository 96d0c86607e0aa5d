"""Laws of Plug-and-Play, on a tiny random model."""

from dataclasses import replace
from pathlib import Path

import laws
import pytest
import torch

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.diffusion.ddim import ddim_step
from piebench_masks.editing.inversion import ddim, direct, negative_prompt
from piebench_masks.editing.plug_and_play import PlugAndPlay
from piebench_masks.errors import BenchmarkError

EDITORS = [PlugAndPlay(inversion, steps=4, guidance=3.0) for inversion in (ddim, direct)]


@pytest.mark.parametrize(
    "editor",
    [pytest.param(EDITORS[0], marks=pytest.mark.slow), EDITORS[1]],
    ids=["ddim", "direct"],
)
def test_the_laws_of_editors(editor: PlugAndPlay, tiny: Backbone, tiny_folder: Path) -> None:
    laws.company_changes_nothing(editor, tiny_folder)
    laws.evaluations_are_counted(editor, tiny)
    laws.outside_is_the_sources_own(editor, tiny)
    laws.everything_is_no_mask(editor, tiny)


def test_the_source_follows_its_reconstruction_or_its_inversion(tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    sampled, inverted = (editor.invert(tiny, sources) for editor in EDITORS)
    assert sampled.trajectory is not None and inverted.trajectory is not None
    assert torch.equal(inverted.trajectory, inverted.x)
    assert torch.equal(sampled.x, inverted.x)
    assert torch.equal(sampled.trajectory[0], sampled.x[0])
    source = tiny.encode_prompts(sources.source_prompts)
    for i, timestep in enumerate(sampled.timesteps):
        y, following = sampled.trajectory[i : i + 2]
        eps = tiny.predict_noise(y, torch.full((2,), timestep), source)
        assert torch.equal(following, ddim_step(y, eps, *sampled.levels[i : i + 2]))
    assert (sampled.nfe == 8).all() and (inverted.nfe == 4).all()


def test_features_of_the_source_alone_give_its_own_noise(tiny: Backbone) -> None:
    """Where the edit is the source, putting in the source's features changes nothing."""
    sources = laws.changed(laws.two_samples(tiny), target_prompt=["", ""])
    everywhere, owner = laws.EVERYTHING.expand(2, -1, -1), torch.tensor([0, 1])
    editor = PlugAndPlay(ddim, steps=1, guidance=1.0, attention_share=1.0, feature_share=1.0)
    found, expected = (
        laws.sample(each, tiny, sources, everywhere, owner).latents
        for each in (editor, replace(editor, attention_share=0.0, feature_share=0.0))
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("share", ["attention_share", "feature_share"])
def test_each_share_of_the_steps_counts(tiny: Backbone, share: str) -> None:
    def edited(value: float) -> torch.Tensor:
        editor = replace(EDITORS[1], attention_share=0.0, feature_share=0.0)
        each = replace(editor, **{share: value})
        return laws.sample(each, tiny, sources, laws.MASKS[:1], laws.OWNER[:1]).latents

    sources = laws.two_samples(tiny)
    assert torch.equal(edited(0.5), edited(0.74))  # two of four steps
    assert not torch.equal(edited(0.5), edited(0.75))
    assert not torch.equal(edited(0.5), edited(0.0))


def test_the_negative_prompt_leads_away(tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    first, second = (
        laws.sample(
            replace(EDITORS[1], negative_prompt=text), tiny, sources, laws.MASKS, laws.OWNER
        ).latents
        for text in ("sketch", "sand")
    )
    assert not torch.equal(first, second)


def test_only_with_the_inversions_it_is_known_with() -> None:
    with pytest.raises(BenchmarkError, match=r"plug_and_play.*inversion=ddim or inversion=direct"):
        PlugAndPlay(negative_prompt)
