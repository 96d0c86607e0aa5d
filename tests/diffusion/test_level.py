"""Levels of noise: the same bits as the formulas on cumulative alphas, and rectified flows."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.diffusion.ddim import ddim_step, ddpm_variance
from piebench_masks.diffusion.ddpm import add_noise, posterior_mean
from piebench_masks.diffusion.level import CLEAN, Level

ONE = torch.ones(())


@pytest.fixture(scope="module")
def alphas() -> Tensor:
    """Stable Diffusion's cumulative alphas, float32 [1000]."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
    return (1 - betas).cumprod(dim=0)


def pairs(alphas: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Level, Level]]:
    """Random x and eps, two alphas and their levels, of every time step and some less noisy one."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(1000, 2, 64, generator=generator)
    others = (torch.rand(1000, generator=generator) * torch.arange(1000)).long()
    for t, other in enumerate(others.tolist()):
        levels = Level.of_alpha(t, alphas[t]), Level.of_alpha(other, alphas[other])
        yield *values[t], alphas[t], alphas[other], *levels


def test_values_are_those_of_float32_arithmetic(alphas: Tensor) -> None:
    for t, alpha in enumerate(alphas):
        level = Level.of_alpha(t, alpha)
        assert torch.equal(level.alpha, alpha)
        assert torch.equal(torch.tensor(level.signal), alpha.sqrt())
        assert torch.equal(torch.tensor(level.noise), (1 - alpha).sqrt())
        assert torch.equal(level.variance, 1 - alpha)


def test_steps_give_the_bits_of_the_formulas_on_alphas(alphas: Tensor) -> None:
    def old_step(x: Tensor, eps: Tensor, a: Tensor, b: Tensor, variance: Tensor | float) -> Tensor:
        x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
        return b.sqrt() * x0 + (1 - b - variance).sqrt() * eps

    for x, eps, alpha, following, *levels in pairs(alphas):
        for a, b, (one, two) in ((alpha, following, levels), (following, alpha, levels[::-1])):
            assert torch.equal(ddim_step(x, eps, one, two), old_step(x, eps, a, b, 0.0))
        old = (1 - following) / (1 - alpha) * (1 - alpha / following)
        variance = ddpm_variance(*levels)
        assert variance == old.item()
        expected = old_step(x, eps, alpha, following, old)
        assert torch.equal(ddim_step(x, eps, *levels, variance), expected)


def test_noise_and_the_posterior_mean_give_the_bits_of_the_formulas_on_alphas(
    alphas: Tensor,
) -> None:
    def old_mean(x: Tensor, eps: Tensor, alpha: Tensor, previous: Tensor) -> Tensor:
        step = alpha / previous
        x0 = (x - (1 - alpha).sqrt() * eps) / alpha.sqrt()
        x0_weight = previous.sqrt() * (1 - step) / (1 - alpha)
        return x0_weight * x0 + step.sqrt() * (1 - previous) / (1 - alpha) * x

    for x, eps, alpha, previous, level, cleaner in pairs(alphas):
        assert torch.equal(add_noise(x, eps, level), alpha.sqrt() * x + (1 - alpha).sqrt() * eps)
        for other, where in ((previous, cleaner), (ONE, CLEAN)):
            expected = old_mean(x, eps, alpha, other)
            assert torch.equal(posterior_mean(x, eps, level, where), expected)


def test_a_step_follows_a_rectified_flow() -> None:
    """x = (1 - t) x0 + t n moves along v = n - x0: for eps of that, a step is Euler's."""
    x0, noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    for t, following in ((0.9, 0.4), (0.5, 0.0), (0.2, 0.8)):
        one, two = (Level(1000 * s, 1 - s, s) for s in (t, following))
        x = add_noise(x0, noise, one)
        expected = x + (following - t) * (noise - x0)
        torch.testing.assert_close(ddim_step(x, noise, one, two), expected)
        torch.testing.assert_close(expected, add_noise(x0, noise, two))


def test_a_models_schedule_ends_at_the_picture(tiny: Backbone, alphas: Tensor) -> None:
    levels = tiny.levels(10)
    assert [level.timestep for level in levels] == [*range(901, 0, -100), 0]
    assert levels == [tiny.level(level.timestep) for level in levels]
    torch.testing.assert_close(torch.stack([level.alpha for level in levels])[-1], alphas[0])
