"""DPM-Solver++ for the diffusion SDE (Lu et al., arXiv 2211.01095), on tensors and levels of noise.

No scheduler object and no hidden state. Its first order is the step of DDPM: `ddim.ddpm_variance`.
"""

import math

from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.diffusion.ddim import clean_prediction, ddim_step, ddpm_variance
from piebench_masks.diffusion.level import CLEAN, Level


def solver_levels(backbone: Backbone, steps: int, skip: float) -> list[Level]:
    """steps + 1 levels, evenly spaced below pure noise, the last of which is clean.

    skip: the share of further steps, the noisiest, that are left out: 4 steps and 0.25 -> time
    steps 665, 499, 333, 167.
    """
    whole = int(steps * (1 + skip))
    return [*backbone.levels(whole + 1)[whole - steps : whole], CLEAN]


def sde_mean(
    x: Tensor, eps: Tensor, levels: list[Level], i: int, x0_before: Tensor | None
) -> Tensor:
    """The mean of x at the level i + 1; noise of `ddpm_variance` is added afterwards.

    x, eps: [..., C, h, w] at the level i. x0_before: the clean prediction of step i - 1, None for
    first order; the step to a clean level has none.
    """
    level, following = levels[i], levels[i + 1]
    mean = ddim_step(x, eps, level, following, ddpm_variance(level, following))
    if x0_before is None or following.noise == 0:
        return mean
    h, h_before = _log_snr(following) - _log_snr(level), _log_snr(level) - _log_snr(levels[i - 1])
    weight = following.signal * -math.expm1(-2 * h) * h / h_before / 2
    return mean + weight * (clean_prediction(x, eps, level) - x0_before)


def _log_snr(level: Level) -> float:
    return math.log(level.signal / level.noise)
