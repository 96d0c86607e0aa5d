"""Laws of the inversions, on a tiny random model."""

from functools import partial
from pathlib import Path

import laws
import pytest
import torch

from piebench_masks.diffusion.backbone import Backbone, Conditioning
from piebench_masks.diffusion.ddim import ddim_step
from piebench_masks.diffusion.level import Level
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.editing.inversion import (
    Inversion,
    Invert,
    ddim,
    direct,
    edit_friendly,
    negative_prompt,
    null_text,
    with_offsets,
)
from piebench_masks.editing.renoise import renoise
from piebench_masks.editing.whitening import patch_divergence
from piebench_masks.errors import BenchmarkError

INVERSIONS: dict[str, Invert] = {
    "ddim": ddim,
    "direct": direct,
    "negative_prompt": negative_prompt,
    "null_text": partial(null_text, inner_steps=2),
    "edit_friendly": partial(edit_friendly, skip=0.25),
    "damped": partial(direct, scale=0.4),
    "interval": partial(direct, interval=2),
    "guided": partial(direct, inverse_guidance=2.5),
    "single_branch": partial(null_text, inner_steps=2, single_branch=True),
    "renoise": partial(renoise, first_averaged=(0, 2), averaged=(1, 3)),
    "regularised": partial(renoise, averaged=(0, 2), pair_weight=20.0, patch_weight=0.055),
}
every = pytest.mark.parametrize("inversion", INVERSIONS.values(), ids=INVERSIONS.keys())


def inverted(
    backbone: Backbone, inversion: Invert, rows: list[int], steps: int = 4, guidance: float = 3.0
) -> Inversion:
    sources = laws.two_samples(backbone)
    x0, source = sources.encoded.mean[rows], backbone.encode_prompts(sources.source_prompts)
    return inversion(backbone, x0, source[rows], steps=steps, guidance=guidance)


def sampled(
    backbone: Backbone, found: Inversion, text: Conditioning, guidance: float
) -> torch.Tensor:
    """What guided sampling from the noisiest latents gives."""
    y = found.x[0]
    for i, timestep in enumerate(found.timesteps):
        t = torch.full((len(y),), timestep)
        away = backbone.predict_noise(y, t, found.negative[i])
        eps = away + guidance * (backbone.predict_noise(y, t, text) - away)
        y = found.step(i, y, eps, torch.arange(len(y)))
    return y


@every
def test_other_samples_their_order_and_the_size_of_blocks_change_nothing(
    inversion: Invert, tiny_folder: Path
) -> None:
    one, two = (load_backbone(tiny_folder, dtype=torch.float64, rows=n) for n in (2, 1))
    together = inverted(one, inversion, [0, 1], steps=3)
    for row in (0, 1):
        alone = inverted(two, inversion, [row], steps=3)
        torch.testing.assert_close(alone.x[:, 0], together.x[:, row], atol=1e-4, rtol=1e-4)
        if together.trajectory is not None:
            assert alone.trajectory is not None
            torch.testing.assert_close(
                alone.trajectory[:, 0], together.trajectory[:, row], atol=1e-4, rtol=1e-4
            )
        for mine, theirs in zip(alone.negative, together.negative, strict=True):
            torch.testing.assert_close(mine.hidden[0], theirs.hidden[row], atol=1e-4, rtol=1e-4)
        assert alone.nfe[0] == together.nfe[row]
    turned = inverted(one, inversion, [1, 0], steps=3)
    torch.testing.assert_close(turned.x, together.x[:, [1, 0]], atol=1e-4, rtol=1e-4)


@every
def test_it_ends_at_the_picture_and_counts_what_it_asks_for(
    inversion: Invert, tiny: Backbone
) -> None:
    before = tiny.counts["unet_rows"]
    found = inverted(tiny, inversion, [0, 1])
    assert found.nfe.sum() == tiny.counts["unet_rows"] - before
    assert torch.equal(found.x[-1], laws.two_samples(tiny).encoded.mean)
    assert len(found.x) == len(found.levels) == len(found.timesteps) + 1
    assert len(found.negative) == len(found.timesteps)


def test_a_step_of_ddim_is_undone_by_a_step_back(tiny: Backbone) -> None:
    noisy, clean = (Level.of_alpha(0, torch.tensor(alpha)) for alpha in (0.3, 0.7))
    x, eps = torch.randn(2, 2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    there = ddim_step(x, eps, noisy, clean)
    torch.testing.assert_close(ddim_step(there, eps, clean, noisy), x)


def test_more_steps_of_ddim_lead_closer_back_to_the_picture(tiny: Backbone) -> None:
    x0, text = (part(tiny) for part in (_x0, _source))
    part_of_it = partial(ddim, strength=0.2)
    errors = [
        (sampled(tiny, inverted(tiny, part_of_it, [0, 1], steps), text, 1.0) - x0).square().mean()
        for steps in (10, 60)
    ]
    assert errors[1] < 0.7 * errors[0]


def test_direct_follows_the_inversion_itself(tiny: Backbone) -> None:
    plain, found = (inverted(tiny, inversion, [0, 1]) for inversion in (ddim, direct))
    assert plain.trajectory is None
    assert found.trajectory is not None and torch.equal(found.trajectory, plain.x)


def test_a_share_of_the_way_back_lies_between_guided_sampling_and_the_inversion(
    tiny: Backbone,
) -> None:
    none, some, whole = (
        inverted(tiny, partial(direct, scale=scale), [0, 1]) for scale in (0.0, 0.4, 1.0)
    )
    assert none.trajectory is not None and some.trajectory is not None
    assert whole.trajectory is not None and torch.equal(whole.trajectory, whole.x)
    guided = sampled(tiny, inverted(tiny, ddim, [0, 1]), _source(tiny), 3.0)
    torch.testing.assert_close(none.trajectory[-1], guided, atol=1e-3, rtol=1e-3)
    between = 0.6 * none.trajectory[1] + 0.4 * whole.trajectory[1]
    torch.testing.assert_close(some.trajectory[1], between)
    assert not torch.isclose(some.trajectory[-1], some.x[-1], atol=1e-2).all()


def test_between_two_returns_the_source_branch_is_sampled(tiny: Backbone) -> None:
    found = inverted(tiny, partial(direct, interval=3), [0, 1], steps=5)
    assert found.trajectory is not None
    pairs = zip(found.trajectory[1:], found.x[1:], strict=True)
    assert [torch.equal(*pair) for pair in pairs] == [True, False, False, True, False]
    assert (found.nfe == 5 + 2 * 3).all()
    with pytest.raises(BenchmarkError, match=r"inversion\.interval is 0"):
        inverted(tiny, partial(direct, interval=0), [0])


def test_an_inversion_may_be_guided(tiny: Backbone) -> None:
    found = inverted(tiny, partial(direct, inverse_guidance=2.5), [0, 1])
    assert (found.nfe == 8).all()
    t, empty = torch.full((2,), found.timesteps[-1]), tiny.encode_prompts(["", ""])
    away, toward = (tiny.predict_noise(found.x[-1], t, text) for text in (empty, _source(tiny)))
    expected = ddim_step(found.x[-1], away + 2.5 * (toward - away), *found.levels[:-3:-1])
    torch.testing.assert_close(found.x[-2], expected, atol=1e-4, rtol=1e-4)


def test_offsets_lead_guided_steps_along_the_trajectory(tiny: Backbone) -> None:
    plain, everyone = inverted(tiny, partial(direct, scale=0.4), [0, 1]), torch.arange(2)
    target = tiny.encode_prompts(laws.two_samples(tiny).target_prompts)
    found = with_offsets(tiny, plain, target, 3.0)
    assert (found.nfe == plain.nfe + 2 * 4).all() and found.trajectory is not None
    for i, timestep in enumerate(found.timesteps):
        y, t = found.trajectory[i], torch.full((2,), timestep)
        away = tiny.predict_noise(y, t, found.negative[i])
        eps = away + 3.0 * (tiny.predict_noise(y, t, target) - away)
        following = found.step(i, y, eps, everyone)
        torch.testing.assert_close(following, found.trajectory[i + 1], atol=1e-4, rtol=1e-4)
    with pytest.raises(BenchmarkError, match="choose inversion=direct"):
        with_offsets(tiny, inverted(tiny, ddim, [0, 1]), target, 3.0)


def test_guidance_away_from_the_source_prompt_is_none(tiny: Backbone) -> None:
    text = _source(tiny)
    plain, found = (inverted(tiny, inversion, [0, 1]) for inversion in (ddim, negative_prompt))
    unguided = sampled(tiny, plain, text, 1.0)
    torch.testing.assert_close(sampled(tiny, found, text, 3.0), unguided, atol=1e-3, rtol=1e-3)


def test_null_text_reconstructs_better_than_ddim_under_guidance(tiny: Backbone) -> None:
    x0, text = (part(tiny) for part in (_x0, _source))
    few = partial(null_text, inner_steps=5)
    plain, found = (inverted(tiny, each, [0, 1], 5) for each in (ddim, few))
    errors = [
        (sampled(tiny, each, text, 3.0) - x0).square().flatten(1).mean(dim=1)
        for each in (plain, found)
    ]
    assert (errors[1] < 0.8 * errors[0]).all()


def test_null_text_stops_where_a_sample_is_reproduced(tiny: Backbone) -> None:
    lenient = inverted(tiny, partial(null_text, inner_steps=3, epsilon=1e9), [0, 1])
    assert (lenient.nfe == 4 + 4 * (2 + 1)).all()
    strict = inverted(tiny, partial(null_text, inner_steps=3, epsilon=0.0), [0, 1])
    assert (strict.nfe == 4 + 4 * (2 + 3)).all()


def test_of_a_single_branch_only_the_source_follows_what_was_optimised(tiny: Backbone) -> None:
    both, single = (
        inverted(tiny, partial(null_text, inner_steps=2, single_branch=branch), [0, 1])
        for branch in (False, True)
    )
    assert single.trajectory is not None and both.trajectory is None
    led = sampled(tiny, both, _source(tiny), 3.0)
    torch.testing.assert_close(single.trajectory[-1], led, atol=1e-4, rtol=1e-4)
    empty = tiny.encode_prompts(["", ""]).hidden
    assert all(torch.equal(text.hidden, empty) for text in single.negative)
    assert torch.equal(single.nfe, both.nfe)


def test_edit_friendly_noise_leads_from_level_to_level(tiny: Backbone) -> None:
    found = inverted(tiny, partial(edit_friendly, skip=0.25), [0, 1])
    text, everyone = _source(tiny), torch.arange(2)
    assert found.timesteps == [501, 251, 1]
    assert found.noise is not None and not found.noise[-1].any()
    for i, timestep in enumerate(found.timesteps[:-1]):
        eps = tiny.predict_noise(found.x[i], torch.full((2,), timestep), text)
        following = found.step(i, found.x[i], eps, everyone)
        torch.testing.assert_close(following, found.x[i + 1], atol=1e-4, rtol=1e-4)


def test_levels_of_edit_friendly_have_noise_of_their_own(tiny: Backbone) -> None:
    found = inverted(tiny, partial(edit_friendly, skip=0), [0, 1])
    alphas = torch.stack([level.alpha for level in found.levels[:-1]])[:, None, None, None, None]
    noise = (found.x[:-1] - alphas.sqrt() * found.x[-1]) / (1 - alphas).sqrt()
    correlation = torch.corrcoef(noise[:, 0].flatten(1))
    assert (correlation - torch.eye(4)).abs().max() < 0.2
    assert torch.equal(noise[:, 0].round(decimals=2), noise[:, 1].round(decimals=2))


def test_a_single_prediction_of_renoise_is_that_of_ddim(tiny: Backbone) -> None:
    once = partial(renoise, first_averaged=(0, 1), averaged=(0, 1))
    plain, found = (inverted(tiny, each, [0, 1]) for each in (ddim, once))
    assert torch.equal(found.x, plain.x) and torch.equal(found.nfe, plain.nfe)
    with pytest.raises(BenchmarkError, match=r"inversion\.averaged is \[2, 2\]"):
        inverted(tiny, partial(renoise, averaged=(2, 2)), [0])


def test_regularised_predictions_of_renoise_are_others_and_cost_one_more_a_step(
    tiny: Backbone,
) -> None:
    plain = partial(renoise, first_averaged=(0, 2), averaged=(1, 3))
    whole = inverted(tiny, plain, [0, 1])
    pairs, patches = (
        inverted(tiny, partial(plain, **weight), [0, 1])
        for weight in ({"pair_weight": 20.0}, {"patch_weight": 0.055})
    )
    assert (whole.nfe == 2 + 3 * 3).all() and torch.equal(pairs.nfe, whole.nfe)
    assert torch.equal(patches.nfe, whole.nfe + 4)
    for found in (pairs, patches):
        assert not torch.isclose(found.x[0], whole.x[0], atol=1e-4).all()


def test_the_divergence_of_patches_is_that_of_their_normal_distributions() -> None:
    eps, other = torch.randn(2, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = 0.0
    for i in (0, 4):
        for j in (0, 4):
            one, two = (
                torch.distributions.Normal(patch.mean(), patch.std())
                for patch in (each[0, 0, i : i + 4, j : j + 4] for each in (eps, other))
            )
            expected += torch.distributions.kl_divergence(one, two).item()
    assert patch_divergence(eps, other).item() == pytest.approx(expected, rel=1e-3)
    assert patch_divergence(eps, eps).item() == pytest.approx(0, abs=1e-5)


def _x0(backbone: Backbone) -> torch.Tensor:
    return laws.two_samples(backbone).encoded.mean


def _source(backbone: Backbone) -> Conditioning:
    return backbone.encode_prompts(laws.two_samples(backbone).source_prompts)


def test_null_latent_inversion_is_a_single_branch(tiny: Backbone) -> None:
    """As its formula says: negatives of both rows, led by the first row's loss, and offsets."""
    single = inverted(tiny, partial(null_text, inner_steps=2, single_branch=True), [1])
    sources, everyone = laws.two_samples(tiny), torch.arange(2)
    texts = tiny.encode_prompts([sources.source_prompts[1], sources.target_prompts[1]])
    plain = tiny.encode_prompts(["", ""])
    negative, z = plain.hidden.clone(), single.x[0].repeat(2, 1, 1, 1)

    def step(i: int, z: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        t = torch.full((2,), single.timesteps[i])
        away = tiny.predict_noise(z, t, Conditioning(hidden, plain.pooled.clone()))
        eps = away + 3.0 * (tiny.predict_noise(z, t, texts).clone() - away)
        return single.step(i, z, eps, everyone)

    assert single.trajectory is not None
    for i in range(4):
        with torch.enable_grad():
            negative = negative.detach().clone().requires_grad_()
            adam = torch.optim.Adam([negative], lr=1e-2 * (1 - i / 100))
            for _ in range(2):
                adam.zero_grad()
                missed = step(i, z.clone(), negative)[0] - single.x[i + 1, 0].clone()
                missed.square().mean().backward()
                adam.step()
        z_source = single.trajectory[i].repeat(2, 1, 1, 1)
        offsets = step(i, z, negative.detach()) - step(i, z, plain.hidden)
        # The edit's source row takes a plain step and gets its offset; the other row gets none.
        following = step(i, z_source, plain.hidden) + offsets
        torch.testing.assert_close(following[0], single.trajectory[i + 1, 0], atol=1e-4, rtol=1e-4)
        assert torch.equal(negative[1], plain.hidden[1])
        z = step(i, z, negative.detach())
    assert not torch.allclose(negative[0], plain.hidden[0], atol=1e-3)
