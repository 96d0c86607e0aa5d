"""The training loop: it learns, averages, and goes on where it was interrupted."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from piebench_masks.training.loop import Schedule, train

SCHEDULE = Schedule(steps=240, learning_rate=0.1, warm_up=5, average=0.9, save_every=80)


class InterruptionError(Exception):
    pass


def line() -> nn.Linear:
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def loss_of(model: nn.Module, stop: int | None = None) -> Callable[[int], dict[str, Tensor]]:
    def loss(step: int) -> dict[str, Tensor]:
        if step == stop:
            raise InterruptionError
        x = torch.randn(16, 1, generator=torch.Generator().manual_seed(step))
        return {"mse": (model(x) - (2 * x + 1)).square().mean()}

    return loss


def test_training_finds_the_line(tmp_path: Path) -> None:
    model = line()
    train(model, loss_of(model), SCHEDULE, tmp_path / "line.safetensors")
    assert model.weight.item() == pytest.approx(2, abs=0.05)
    assert model.bias.item() == pytest.approx(1, abs=0.05)


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, torn, resumed = line(), line(), line()
    train(whole, loss_of(whole), SCHEDULE, tmp_path / "whole.safetensors")
    with pytest.raises(InterruptionError):
        train(torn, loss_of(torn, stop=147), SCHEDULE, tmp_path / "torn.safetensors")
    train(resumed, loss_of(resumed), SCHEDULE, tmp_path / "torn.safetensors")
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)


def test_checkpoints_show_the_averaged_weights(tmp_path: Path) -> None:
    model, shown = line(), []
    train(
        model,
        loss_of(model),
        SCHEDULE,
        tmp_path / "line.safetensors",
        on_checkpoint=lambda: shown.append(model.weight.item()),
    )
    assert len(shown) == 3
    assert shown[-1] == model.weight.item()
