"""Laws of LEDITS++, on a tiny random model."""

from dataclasses import replace
from pathlib import Path

import laws
import pytest
import torch

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.ledits_pp import LeditsPP

EDITOR = LeditsPP(steps=3, threshold=0.7)
FIRST_ORDER = replace(EDITOR, order=1, threshold=0.0)
PUBLISHED = replace(EDITOR, compat="reference")
each = pytest.mark.parametrize(
    "editor", [EDITOR, FIRST_ORDER, PUBLISHED], ids=["exact", "first order", "reference"]
)


@each
def test_the_laws_of_editors(editor: LeditsPP, tiny: Backbone, tiny_folder: Path) -> None:
    laws.company_changes_nothing(editor, tiny_folder)
    laws.evaluations_are_counted(editor, tiny)
    laws.outside_is_the_sources_own(editor, tiny, shared=1)
    laws.everything_is_no_mask(editor, tiny)


@pytest.mark.parametrize("editor", [EDITOR, FIRST_ORDER], ids=["exact", "first order"])
def test_between_equal_prompts_the_source_comes_back(editor: LeditsPP, tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    same = laws.changed(sources, target_prompt=sources.source_prompts)
    found = laws.sample(editor, tiny, same, laws.MASKS, laws.OWNER).latents
    torch.testing.assert_close(found, sources.encoded.mean[laws.OWNER], atol=1e-3, rtol=0)


def test_as_published_the_last_step_has_no_noise_and_the_source_is_inverted_without_a_prompt(
    tiny: Backbone,
) -> None:
    sources = laws.two_samples(tiny)
    inverted = PUBLISHED.invert(tiny, sources)
    assert not inverted.noise[-1].any() and inverted.noise[:-1].any()
    other = laws.changed(sources, source_prompt=["sand", "sketch"])
    assert torch.equal(PUBLISHED.invert(tiny, other).noise, inverted.noise)
    assert torch.equal(PUBLISHED.invert(tiny, other).first, inverted.first)
    assert not torch.isclose(
        EDITOR.invert(tiny, other).noise, EDITOR.invert(tiny, sources).noise
    ).all()


def test_the_words_are_those_that_differ_and_as_published_all(tiny: Backbone) -> None:
    """The source's where it loses any, else the target's."""
    sources = laws.two_samples(tiny)
    words = EDITOR.texts(tiny, sources).words
    assert words[0, 0].nonzero().flatten().tolist() == [2] and not words[0, 1].any()
    inserted = laws.changed(
        sources,
        source_prompt=["a circle", "a circle"],
        target_prompt=["a big circle", "a circle and a square"],
    )
    words = EDITOR.texts(tiny, inserted).words
    assert not words[:, 0].any()
    assert words[0, 1].nonzero().flatten().tolist() == [2]
    words = PUBLISHED.texts(tiny, inserted).words
    assert not words[:, 0].any()
    assert words[0, 1].nonzero().flatten().tolist() == [1, 2, 3]


def test_guidance_applies_where_attention_and_predictions_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    base, concept = torch.randn(2, 2, 4, 16, 16, generator=generator)
    attention = torch.rand(2, 16, 16, generator=generator)
    guided = EDITOR.guided(base, concept, attention)
    for b in range(2):
        inside = (guided[b] != base[b]).any(dim=0)
        expected = base[b] + 1.5 * (concept[b] - base[b])
        torch.testing.assert_close(guided[b][:, inside], expected[:, inside])
        change = (concept[b] - base[b]).abs().sum(dim=0)
        assert change[inside].min() >= change.flatten().quantile(0.7)
        assert 0 < inside.float().mean() < 0.3
    everywhere = replace(EDITOR, threshold=0.0).guided(base, concept, attention)
    torch.testing.assert_close(everywhere, base + 1.5 * (concept - base))
    assert torch.equal(EDITOR.guided(base, concept, torch.zeros_like(attention)), base)
