"""The DDIM formulas (Song et al., arXiv 2010.02502) as functions on tensors.

No scheduler object and no hidden state: time steps and cumulative alphas are arguments.
"""

from torch import Tensor

from piebench_masks.diffusion.ddpm import TRAIN_TIMESTEPS


def leading_timesteps(steps: int) -> list[int]:
    """The 'leading' schedule of Stable Diffusion, noisiest first: 10 -> [901, 801, ..., 1]."""
    spacing = TRAIN_TIMESTEPS // steps
    return [i * spacing + 1 for i in reversed(range(steps))]


def leading_alphas(alphas_cumprod: Tensor, steps: int) -> Tensor:
    """ᾱ at each of `leading_timesteps` and, at the end, of the picture itself: [steps + 1].

    As everywhere with Stable Diffusion, the picture counts as having the noise of time step 0.
    """
    return alphas_cumprod[[*leading_timesteps(steps), 0]]


def ddim_step(x: Tensor, eps: Tensor, alpha: Tensor, alpha_next: Tensor) -> Tensor:
    """x at the level of ``alpha_next``, less noisy or (inversion) noisier: formula (12), eta 0.

    x, eps: [..., 4, h, w] float32; both alphas broadcast against them.
    """
    x0 = (x - (1 - alpha).sqrt() * eps) / alpha.sqrt()
    return alpha_next.sqrt() * x0 + (1 - alpha_next).sqrt() * eps
