"""Schedules and the DDPM posterior."""

import pytest
import torch

from piebench_masks.diffusion.ddpm import add_noise, posterior_mean, start_timestep
from piebench_masks.diffusion.level import CLEAN, Level
from piebench_masks.errors import BenchmarkError


@pytest.mark.parametrize("strength", [0.0, 0.2, 1.1])
def test_a_strength_outside_the_schedule_is_refused(strength: float) -> None:
    with pytest.raises(BenchmarkError, match=r"0\.25"):
        start_timestep(strength)


def test_strengths_in_between_start_at_the_next_cleaner_step() -> None:
    assert [start_timestep(strength) for strength in (0.25, 0.6, 1.0)] == [249, 499, 999]


def test_the_last_posterior_mean_is_the_predicted_x0() -> None:
    x0, noise = torch.randn(2, 1, 4, 8, 8)
    level = Level.of_alpha(499, torch.tensor(0.3))
    x = add_noise(x0, noise, level)
    torch.testing.assert_close(posterior_mean(x, noise, level, CLEAN), x0)
