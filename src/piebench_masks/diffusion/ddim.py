"""The DDIM formulas (Song et al., arXiv 2010.02502) as functions on tensors and levels of noise.

No scheduler object and no hidden state.
"""

from torch import Tensor

from piebench_masks.diffusion.ddpm import TRAIN_TIMESTEPS
from piebench_masks.diffusion.level import Level


def leading_timesteps(steps: int) -> list[int]:
    """The 'leading' schedule of Stable Diffusion, noisiest first: 10 -> [901, 801, ..., 1]."""
    spacing = TRAIN_TIMESTEPS // steps
    return [i * spacing + 1 for i in reversed(range(steps))]


def ddim_step(
    x: Tensor, eps: Tensor, level: Level, following: Level, variance: float = 0.0
) -> Tensor:
    """x at the level ``following``, less noisy or (inversion) noisier: formula (12).

    x, eps: [..., C, h, w] float32. variance: of the noise that is added to the result
    afterwards; the predicted noise is reduced by it. Holds for rectified flows as well.
    """
    x0 = (x - level.noise * eps) / level.signal
    noise = (following.variance - variance).sqrt().item() if variance else following.noise
    return following.signal * x0 + noise * eps


def clean_prediction(x: Tensor, eps: Tensor, level: Level) -> Tensor:
    """x0 = (x - noise eps) / signal."""
    return (x - level.noise * eps) / level.signal


def clean_difference(eps: Tensor, other: Tensor, level: Level) -> Tensor:
    """By how much the clean prediction of ``other`` exceeds that of eps, in the same x."""
    return level.noise * (eps - other) / level.signal


def ddpm_variance(level: Level, following: Level) -> float:
    """Of the step between two variance-preserving levels, formula (16) with eta 1."""
    step_alpha = level.alpha / following.alpha
    return (following.variance / level.variance * (1 - step_alpha)).item()
