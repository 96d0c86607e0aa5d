"""The one training loop: AdamW, warm-up and cosine, gradient clipping, averaged weights, resuming.

Knows no model and no data: a loss is a function of the step number, which alone seeds its batch,
so an interrupted run goes on as if it had not stopped.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """How long and how hard to train. ``average``: the decay of the averaged weights."""

    steps: int
    learning_rate: float
    warm_up: int = 100
    average: float = 0.999
    save_every: int = 500


def train(
    module: nn.Module,
    loss: Callable[[int], dict[str, Tensor]],
    schedule: Schedule,
    checkpoint: Path,
    on_checkpoint: Callable[[], None] = lambda: None,
) -> None:
    """Minimise the sum of ``loss(step)`` and leave the averaged weights in ``module``.

    Goes on from ``checkpoint`` (safetensors: weights, averages, AdamW's moments, step) if that file
    exists. ``on_checkpoint`` is called after each save with the averaged weights in the module.
    """
    weights = {name: w for name, w in module.named_parameters() if w.requires_grad}
    averages = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizer = torch.optim.AdamW(
        weights.values(), schedule.learning_rate, betas=(0.9, 0.99), fused=True
    )
    start = _resume(checkpoint, weights, averages, optimizer) if checkpoint.exists() else 0
    clock = time.monotonic()
    seen: dict[str, float] = {}
    for step in range(start, schedule.steps):
        optimizer.param_groups[0]["lr"] = schedule.learning_rate * _pace(step, schedule)
        terms = loss(step)
        sum(terms.values(), torch.zeros(())).backward()
        nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay = min(schedule.average, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(averages.values()), list(weights.values()), 1 - decay)
        for name, term in terms.items():
            seen[name] = 0.98 * seen.get(name, term.item()) + 0.02 * term.item()
        done = step + 1
        if done % 50 == 0:
            rate = (time.monotonic() - clock) / (done - start)
            said = "  ".join(f"{name} {value:.4f}" for name, value in seen.items())
            left = rate * (schedule.steps - done) / 60
            log.info("step %d  %s  %.3f s/step  %.0f min left", done, said, rate, left)
        if done % schedule.save_every == 0 or done == schedule.steps:
            _save(checkpoint, weights, averages, optimizer, done)
            with _swapped(weights, averages):
                on_checkpoint()
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(averages[name])


def _pace(step: int, schedule: Schedule) -> float:
    """Share of the learning rate: linear warm-up, then half a cosine down to 2 %."""
    progress = step / schedule.steps
    return min(1.0, (step + 1) / schedule.warm_up) * (
        0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * progress))
    )


@contextmanager
def _swapped(weights: dict[str, nn.Parameter], averages: dict[str, Tensor]) -> Iterator[None]:
    def swap() -> None:
        for name, weight in weights.items():
            weight.data, averages[name] = averages[name], weight.data

    swap()
    yield
    swap()


def _save(
    path: Path,
    weights: dict[str, nn.Parameter],
    averages: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    tensors: dict[str, Tensor] = {}
    for name, weight in weights.items():
        moments = optimizer.state[weight]
        tensors |= {
            f"weight/{name}": weight.detach().contiguous(),
            f"average/{name}": averages[name].contiguous(),
            f"exp_avg/{name}": moments["exp_avg"].contiguous(),
            f"exp_avg_sq/{name}": moments["exp_avg_sq"].contiguous(),
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.with_suffix(".part")
    save_file(tensors, torn, metadata={"step": str(step)})
    torn.replace(path)


def _resume(
    path: Path,
    weights: dict[str, nn.Parameter],
    averages: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> int:
    with safe_open(path, "pt") as saved, torch.no_grad():
        step = int(saved.metadata()["step"])
        for name, weight in weights.items():
            weight.copy_(saved.get_tensor(f"weight/{name}"))
            averages[name].copy_(saved.get_tensor(f"average/{name}"))
            optimizer.state[weight] = {
                "step": torch.tensor(float(step)),
                "exp_avg": saved.get_tensor(f"exp_avg/{name}").to(weight),
                "exp_avg_sq": saved.get_tensor(f"exp_avg_sq/{name}").to(weight),
            }
    log.info("going on from %s, step %d", path, step)
    return step
