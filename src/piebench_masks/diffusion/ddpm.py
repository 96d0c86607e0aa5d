"""The DDPM formulas (Ho et al., arXiv 2006.11239) as functions on tensors and levels of noise.

No scheduler object and no hidden state.
"""

from torch import Tensor

from piebench_masks.diffusion.level import Level
from piebench_masks.errors import BenchmarkError

TRAIN_TIMESTEPS = 1000


def trailing_timesteps(steps: int) -> list[int]:
    """The 'trailing' schedule, noisiest first: 4 -> [999, 749, 499, 249]."""
    spacing = TRAIN_TIMESTEPS / steps
    return [round(TRAIN_TIMESTEPS - i * spacing) - 1 for i in range(steps)]


def timestep_of(share: float) -> int:
    """The time step at a share of the schedule, above 0 to 1: 0.9 -> 899."""
    return round(share * TRAIN_TIMESTEPS) - 1


def start_timestep(strength: float, steps: int = 4) -> int:
    """Where ``strength`` in [1/steps, 1] enters the trailing schedule: 0.5 -> 499 of 4 steps.

    Raises BenchmarkError outside that range.
    """
    if not 1 / steps <= strength <= 1:
        raise BenchmarkError(
            f"strength is {strength}, but the {steps}-step schedule starts at {1 / steps} and ends "
            f"at 1: choose a value in between"
        )
    return trailing_timesteps(steps)[steps - int(steps * strength)]


def add_noise(x0: Tensor, noise: Tensor, level: Level) -> Tensor:
    """z = signal x0 + noise n, at that level."""
    return level.signal * x0 + level.noise * noise


def posterior_mean(x: Tensor, eps: Tensor, level: Level, previous: Level) -> Tensor:
    """mu of q(x_prev | x_t, x0), formula (7), with x0 predicted from the noise and not clipped.

    x, eps: [..., 4, h, w] float32; level: of x; previous: the next less noisy one, CLEAN at the
    end of the schedule; both variance-preserving.
    """
    step_alpha = level.alpha / previous.alpha
    x0 = (x - level.noise * eps) / level.signal
    x0_weight = previous.alpha.sqrt() * (1 - step_alpha) / level.variance
    x_weight = step_alpha.sqrt() * previous.variance / level.variance
    return x0_weight * x0 + x_weight * x
