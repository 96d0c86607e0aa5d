"""Laws of InfEdit, on a tiny random model."""

from dataclasses import replace
from pathlib import Path

import laws
import pytest
import torch

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.infedit import InfEdit

EDITOR = InfEdit(steps=3, blend_threshold=0.9)
PLAIN = replace(EDITOR, blend_threshold=None)


@pytest.mark.parametrize("editor", [EDITOR, PLAIN], ids=["blended", "plain"])
def test_the_laws_of_editors(editor: InfEdit, tiny: Backbone, tiny_folder: Path) -> None:
    laws.company_changes_nothing(editor, tiny_folder)
    laws.evaluations_are_counted(editor, tiny)
    laws.outside_is_the_sources_own(editor, tiny, shared=1)


def test_the_source_has_noise_of_its_own_at_every_level(tiny: Backbone) -> None:
    inverted = EDITOR.invert(tiny, laws.two_samples(tiny))
    assert inverted.timesteps == [751, 501, 251]
    assert (inverted.nfe == 3 + 1).all()
    draws = [
        (x - level.signal * inverted.x[-1]) / level.noise
        for x, level in zip(inverted.x, inverted.levels[:-1], strict=False)
    ]
    expected = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(EDITOR.seed))
    for found, draw in zip(reversed(draws), expected, strict=True):
        torch.testing.assert_close(found, draw.expand_as(found), atol=1e-3, rtol=1e-3)


def test_between_equal_prompts_the_source_comes_back(tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    same = laws.changed(sources, target_prompt=sources.source_prompts)
    found = laws.sample(PLAIN, tiny, same, laws.MASKS, laws.OWNER).latents
    torch.testing.assert_close(found, sources.encoded.mean[laws.OWNER], atol=1e-4, rtol=0)


def test_only_places_that_look_at_blended_words_are_edited(tiny: Backbone) -> None:
    """Of the first sample, which has such words; its masked edit has the source outside, too."""
    sources = laws.two_samples(tiny)
    x0 = sources.encoded.mean[laws.OWNER]
    blended, plain = (
        laws.sample(editor, tiny, sources, laws.MASKS, laws.OWNER).latents
        for editor in (EDITOR, PLAIN)
    )
    kept = (blended == x0).all(dim=1)
    assert 0 < kept[0].float().mean() < 1 and not (plain == x0).all(dim=1).any()
    assert torch.equal(blended[laws.OWNER == 1], plain[laws.OWNER == 1])
    unknown = laws.changed(sources, blended_words=["sand sketch", ""])
    found = laws.sample(EDITOR, tiny, unknown, laws.MASKS, laws.OWNER).latents
    assert torch.equal(found, plain)


def test_nothing_is_editable_where_the_noise_is_strong(tiny: Backbone) -> None:
    """0.15 / signal is above 1 there: the first of these steps leaves the source as it is."""
    sources, watched = laws.two_samples(tiny), laws.Watched(tiny)
    editor = InfEdit(steps=12, skip=0, blend_threshold=0.0)
    inverted = editor.invert(tiny, sources)
    assert inverted.levels[0].signal < 0.15 < inverted.levels[1].signal
    editor.edit(watched, sources, inverted, laws.MASKS, laws.OWNER)  # type: ignore[arg-type]
    _, y = watched.calls[0]
    assert torch.equal(y[[0, 3]], inverted.x[1][[0, 0]])
    assert not torch.isclose(watched.calls[1][1][0], inverted.x[2][0]).all()
