"""One level of noise of any model: x = signal * x0 + noise * n.

Knows numbers only. Variance-preserving diffusion has signal**2 + noise**2 = 1, a rectified flow
signal = 1 - t and noise = t.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Spacing = Literal["leading", "trailing"]
"""Where a schedule of few steps lies: `ddim.leading_timesteps`, `ddpm.trailing_timesteps`."""


@dataclass(frozen=True)
class Level:
    """A level of noise.

    timestep: what the model is asked with there, 0 to 1000; signal, noise: from 0 to 1;
    cumulative_alpha: of a variance-preserving level the float32 value that these two are roots of.
    Float32 roots are off by one in the last place, so that their squares would not give it back.
    """

    timestep: float
    signal: float
    noise: float
    cumulative_alpha: float | None = None

    @staticmethod
    def of_alpha(timestep: float, alpha: Tensor) -> "Level":
        """The variance-preserving level of a cumulative alpha, 0-dim float32."""
        return Level(timestep, alpha.sqrt().item(), (1 - alpha).sqrt().item(), alpha.item())

    @property
    def alpha(self) -> Tensor:
        """signal**2, 0-dim float32."""
        alpha = self.cumulative_alpha
        return torch.tensor(self.signal**2 if alpha is None else alpha, dtype=torch.float32)

    @property
    def variance(self) -> Tensor:
        """noise**2, 0-dim float32."""
        if self.cumulative_alpha is None:
            return torch.tensor(self.noise**2, dtype=torch.float32)
        return 1 - self.alpha


CLEAN = Level(0.0, 1.0, 0.0)
"""No noise at all."""
