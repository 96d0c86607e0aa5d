"""The DDIM formulas (Song et al., arXiv 2010.02502) as functions on tensors and levels of noise.

No scheduler object and no hidden state.
"""

import torch
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

    x, eps: [..., C, h, w] float32. variance: of the noise that is to be added to the result, which
    the noise predicted from x makes room for. Holds for rectified flows as well.
    """
    x0 = (x - level.noise * eps) / level.signal
    noise = following.noise
    if variance:  # in float32, as the published implementations
        squared = torch.tensor(noise**2, dtype=torch.float32)
        noise = (squared - variance).sqrt().item()
    return following.signal * x0 + noise * eps


def ddpm_variance(level: Level, following: Level) -> float:
    """Of the step between two variance-preserving levels, formula (16) with eta 1."""
    alpha, alpha_next = level.alpha, following.alpha
    return ((1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)).item()
