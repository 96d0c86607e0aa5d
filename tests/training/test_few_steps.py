"""What few-step editing asks of the U-Net: the true edit, and nothing beside it."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from torch import Tensor

from piebench_masks.training.captions import Captions
from piebench_masks.training.few_steps import EditPool, FewSteps

ROWS = 3
ALPHAS = EulerAncestralDiscreteScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
).alphas_cumprod


def captions(token: int) -> Captions:
    ids = torch.full((ROWS, 32), token)
    return Captions((ids, ids), torch.zeros_like(ids), torch.ones_like(ids, dtype=torch.bool))


@pytest.fixture
def pool() -> EditPool:
    """Edits of the upper half of a picture, whose target is one everywhere."""
    changed = torch.zeros(ROWS, 1, 4, 4, dtype=torch.bool)
    changed[:, :, :2] = True
    latents = torch.zeros(ROWS, 4, 4, 4, dtype=torch.float16)
    regions = torch.ones(ROWS, 4, 4, 4, dtype=torch.float16)
    above = torch.cat([changed.half(), regions[:, 1:]], dim=1)
    images = 127 + 128 * changed.expand(-1, 3, -1, -1).byte()
    sides = latents, latents + 1, captions(0), captions(1), regions, above
    return EditPool(*sides, changed, images, apart=torch.full((ROWS,), 0.5))


class Painter:
    """Finds the clean latents ``field`` under the target's prompt, and zeros under the source's."""

    def __init__(self, field: Tensor) -> None:
        self.field = field

    def __call__(
        self, latents: Tensor, timesteps: Tensor, ids: list[Tensor], keep: Tensor
    ) -> Tensor:
        alpha = ALPHAS[timesteps][:, None, None, None]
        clean = ids[0][:, :1, None, None] * self.field
        return (latents - alpha.sqrt() * clean) / (1 - alpha).sqrt()


class Decoder:
    """A picture of a latent's first three channels."""

    config = SimpleNamespace(scaling_factor=1.0)

    def decode(self, latents: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=latents[:, :3])


def few_steps(pool: EditPool, field: Tensor) -> FewSteps:
    painter: Any = Painter(field)
    decoder: Any = Decoder()
    return FewSteps(painter, decoder, ALPHAS, pool, "cpu")


def upper(value: float, lower: float = 0.0) -> Tensor:
    return torch.tensor([value, value, lower, lower])[:, None].expand(4, 4)


def losses(pool: EditPool, field: Tensor) -> list[float]:
    asked = few_steps(pool, field)
    found = []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        found.append(asked.editing(8, generator).item())
        found.append(asked.compare_prompts(8, generator).silence.item())
    return found


def test_both_losses_vanish_for_the_true_edit_alone(pool: EditPool) -> None:
    # Its guided edit overshoots by the strength that is drawn; at one it is the true edit.
    found = losses(pool, upper(1.0))
    assert found[1::2] == pytest.approx([0, 0, 0, 0], abs=1e-6)
    beside = losses(pool, upper(1.0, lower=1.0))
    assert min(beside[1::2]) > 0.05
    assert all(more > less for more, less in zip(beside[::2], found[::2], strict=True))
    nothing = losses(pool, upper(0.0))
    assert nothing[1::2] == pytest.approx([0, 0, 0, 0], abs=1e-6)
    assert all(more > less for more, less in zip(nothing[::2], found[::2], strict=True))


def test_pixels_count_where_the_latents_are_right(pool: EditPool) -> None:
    right = few_steps(pool, upper(1.0))
    blind = dataclasses.replace(right, pool=dataclasses.replace(pool, apart=pool.apart * 100))
    far = dataclasses.replace(pool, images=255 - pool.images)
    wrong = dataclasses.replace(right, pool=far)
    found = [one.editing(8, torch.Generator().manual_seed(0)) for one in (blind, right, wrong)]
    assert found[0] < found[1] < found[2]


def test_words_point_at_where_the_edit_will_be_and_lost_ones_nowhere(pool: EditPool) -> None:
    compared = few_steps(pool, upper(1.0)).compare_prompts(5, torch.Generator())
    assert compared.targets.shape == (15, 32, 16) and compared.words.shape == (15, 32)
    assert torch.equal(compared.targets[:5], torch.full((5, 32, 16), 1 / 16))
    assert torch.equal(compared.targets[5:10, 0, :8], torch.full((5, 8), 1 / 8))
    assert compared.targets[5:10, :, 8:].abs().max() == 0
    lost = compared.words[10:]
    assert lost.any()
    assert (compared.targets[10:][lost] == 1 / 16).all()
