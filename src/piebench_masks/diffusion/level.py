"""One level of noise of any model: x = signal * x0 + noise * n.

Knows numbers only. Variance-preserving diffusion has signal**2 + noise**2 = 1, a rectified flow
signal = 1 - t and noise = t.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Spacing = Literal["leading", "trailing"]
"""Where a schedule of few steps lies: `ddim.leading_timesteps`, `ddpm.trailing_timesteps`."""


@dataclass(frozen=True)
class Level:
    """A level of noise.

    timestep: what the model is asked with there, 0 to 1000; signal, noise: from 0 to 1.
    """

    timestep: float
    signal: float
    noise: float

    @property
    def alpha(self) -> Tensor:
        """The cumulative alpha of a variance-preserving level, 0-dim float32."""
        return torch.tensor(self.signal**2, dtype=torch.float32)

    @staticmethod
    def of_alpha(timestep: float, alpha: Tensor) -> "Level":
        """The variance-preserving level of a cumulative alpha, 0-dim float32.

        Signal and noise are the float64 roots of the float32 values, so that float32 arithmetic
        with them gives the same bits as with the float32 roots.
        """
        return Level(timestep, math.sqrt(alpha.item()), math.sqrt((1 - alpha).item()))


CLEAN = Level(0.0, 1.0, 0.0)
"""No noise at all."""
