"""The DDIM formulas (Song et al., arXiv 2010.02502) as functions on tensors.

No scheduler object and no hidden state: time steps and cumulative alphas are arguments.
"""

from torch import Tensor

from piebench_masks.diffusion.ddpm import TRAIN_TIMESTEPS


def leading_timesteps(steps: int) -> list[int]:
    """The 'leading' schedule of Stable Diffusion, noisiest first: 10 -> [901, 801, ..., 1]."""
    spacing = TRAIN_TIMESTEPS // steps
    return [i * spacing + 1 for i in reversed(range(steps))]


def ddim_step(
    x: Tensor, eps: Tensor, alpha: Tensor, alpha_next: Tensor, variance: Tensor | float = 0.0
) -> Tensor:
    """x at the level of ``alpha_next``, less noisy or (inversion) noisier: formula (12).

    x, eps: [..., 4, h, w] float32; the alphas are cumulative. variance: of the noise that is to be
    added to the result, which the noise predicted from x makes room for.
    """
    x0 = (x - (1 - alpha).sqrt() * eps) / alpha.sqrt()
    return alpha_next.sqrt() * x0 + (1 - alpha_next - variance).sqrt() * eps


def ddpm_variance(alpha: Tensor, alpha_next: Tensor) -> Tensor:
    """Of the step from ``alpha`` to ``alpha_next``, formula (16) with eta 1."""
    return (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
