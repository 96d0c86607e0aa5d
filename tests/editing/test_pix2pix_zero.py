"""Laws of Pix2Pix-Zero, on a tiny random model."""

import random
from dataclasses import replace
from pathlib import Path

import laws
import pytest
import torch

from piebench_masks.diffusion.backbone import Backbone, Conditioning
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.editing.branches import SourceFeatures, StoredAttention
from piebench_masks.editing.inversion import ddim, direct, negative_prompt
from piebench_masks.editing.pix2pix_zero import (
    Pix2PixZero,
    attention_gradient,
    text_layers,
)
from piebench_masks.editing.whitening import autocorrelation, divergence, regularised
from piebench_masks.errors import BenchmarkError

EDITORS = [  # an untrained model's attention has gradients in the hundreds
    Pix2PixZero(inversion, steps=3, guidance=3.0, attention_guidance=1e-5)
    for inversion in (ddim, direct)
]
BOTH = torch.tensor([0, 1])


@pytest.mark.parametrize(
    "editor",
    [pytest.param(EDITORS[0], marks=pytest.mark.slow), EDITORS[1]],
    ids=["ddim", "direct"],
)
def test_the_laws_of_editors(editor: Pix2PixZero, tiny: Backbone, tiny_folder: Path) -> None:
    laws.company_changes_nothing(editor, tiny_folder)
    laws.evaluations_are_counted(editor, tiny)
    laws.everything_is_no_mask(editor, tiny)


@pytest.mark.slow
def test_how_many_gradients_are_taken_at_once_changes_nothing(tiny_folder: Path) -> None:
    """Not even where blocks are padded: of three rows, an edit has two."""
    backbone = load_backbone(tiny_folder, dtype=torch.float64, rows=3)
    sources = laws.two_samples(backbone)
    one, many = (
        laws.sample(
            replace(EDITORS[0], rows=rows), backbone, sources, laws.MASKS, laws.OWNER
        ).latents
        for rows in (1, 8)
    )
    torch.testing.assert_close(one, many, atol=1e-4, rtol=1e-4)


def test_the_gradient_leads_to_the_sources_attention(tiny_folder: Path) -> None:
    """As finite differences say, for each row by itself."""
    backbone = load_backbone(tiny_folder, dtype=torch.float64, rows=3)
    sources = laws.two_samples(backbone)
    source, target = (
        backbone.encode_prompts(texts) for texts in (sources.source_prompts, sources.target_prompts)
    )
    x0, t = sources.encoded.mean, torch.full((2,), 301)
    stored, other, layers = SourceFeatures(2), SourceFeatures(2), text_layers(backbone)
    backbone.predict_noise(x0, t, source, StoredAttention(stored, layers))

    def distance(z: torch.Tensor) -> float:
        backbone.predict_noise(z, t, target, StoredAttention(other, layers))
        differences = [other.get(layer, BOTH) - stored.get(layer, BOTH) for layer in layers]
        return sum(
            each.square().sum(dim=(2, 3)).mean(dim=1).sum().item() / 2 for each in differences
        )

    gradient = attention_gradient(backbone, x0, t, target, stored, BOTH)
    direction = gradient / gradient.norm()
    step = 1e-3
    slope = (distance(x0 + step * direction) - distance(x0 - step * direction)) / (2 * step)
    assert slope == pytest.approx(gradient.norm().item(), rel=1e-2)
    none = attention_gradient(backbone, x0, t, source, stored, BOTH)
    assert none.abs().max() < 1e-4 * gradient.abs().max()


def test_before_a_step_the_outside_is_the_sources(tiny: Backbone) -> None:
    editor = replace(EDITORS[1], attention_guidance=0.0)
    laws.outside_is_the_sources_own(editor, tiny)


@pytest.mark.parametrize("editor", EDITORS, ids=["ddim", "direct"])
def test_an_edit_to_the_source_prompt_is_the_source_branch(
    editor: Pix2PixZero, tiny: Backbone
) -> None:
    sources = laws.two_samples(tiny)
    same = laws.changed(sources, target_prompt=sources.source_prompts)
    inverted = editor.invert(tiny, same)
    everywhere = laws.EVERYTHING.expand(2, -1, -1)
    found = editor.sample(tiny, same, inverted, everywhere, BOTH).latents
    if inverted.trajectory is not None:
        torch.testing.assert_close(found, sources.encoded.mean, atol=1e-2, rtol=1e-2)
        return
    y, source = inverted.x[0], tiny.encode_prompts(same.source_prompts)
    for i, timestep in enumerate(inverted.timesteps):
        eps = tiny.predict_noise(y, torch.full((2,), timestep), source)
        y = inverted.step(i, y, eps, BOTH)
    torch.testing.assert_close(found, y, atol=1e-2, rtol=1e-2)


def test_attention_guidance_matters(tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    without, led = (
        laws.sample(
            replace(EDITORS[0], attention_guidance=rate), tiny, sources, laws.MASKS, laws.OWNER
        ).latents
        for rate in (0.0, 1e-3)
    )
    assert not torch.isclose(without[0], led[0], atol=1e-3).all()


def test_regularised_noise_is_whiter() -> None:
    generator = torch.Generator().manual_seed(0)
    # Smaller noise is led to be flat: its few means are steep, and a shift of 0 is its power.
    noise = torch.randn(2, 4, 32, 32, generator=generator)
    smooth = 0.7 * (noise + noise.roll(1, dims=-1)) + 0.2
    whiter = regularised(smooth, random.Random(0))
    for loss in (divergence, lambda eps: autocorrelation(eps, random.Random(1))):
        assert (loss(whiter) < 0.9 * loss(smooth)).all()
    torch.testing.assert_close(whiter[1:], regularised(smooth[1:], random.Random(0)))


def test_the_divergence_is_that_of_normal_distributions() -> None:
    normal = torch.distributions.Normal
    eps = 1.5 * torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0)) + 0.3
    expected = 2 * torch.distributions.kl_divergence(normal(0.3, 1.5), normal(0.0, 1.0))
    assert divergence(eps).item() == pytest.approx(expected.item(), rel=0.05)


def test_as_published_the_inversion_is_an_interval_too_noisy(tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    exact, published = (
        replace(EDITORS[0], steps=4, compat=compat).invert(tiny, sources)  # type: ignore[arg-type]
        for compat in ("exact", "reference")
    )
    assert exact.timesteps == published.timesteps == [751, 501, 251, 1]
    assert torch.equal(exact.x[-1], sources.encoded.mean)
    assert torch.equal(published.x[-1], sources.encoded.draw(1234))

    def noise(inverted: torch.Tensor, text: Conditioning) -> torch.Tensor:
        eps = tiny.predict_noise(inverted, torch.full((2,), 1), text)
        return regularised(eps, random.Random(1234))

    eps = noise(published.x[-1], tiny.encode_prompts(sources.source_prompts))
    clean, level = tiny.level(0), tiny.level(250)
    x0 = (published.x[-1] - clean.noise * eps) / clean.signal
    expected = level.signal * x0 + level.noise * eps
    torch.testing.assert_close(published.x[-2], expected, atol=1e-4, rtol=1e-4)


def test_only_with_the_inversions_it_is_known_with() -> None:
    with pytest.raises(BenchmarkError, match=r"pix2pix_zero.*inversion=ddim or inversion=direct"):
        Pix2PixZero(negative_prompt)
