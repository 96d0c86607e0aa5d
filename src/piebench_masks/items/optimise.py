"""One phase of a fit: AdamW over accumulated gradients, from draws of one generator, resumable.

Knows no picture and no model: what is minimised is a function of draws.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from piebench_masks.errors import BenchmarkError
from piebench_masks.packing import pack_tensors, unpack_facts
from piebench_masks.temporary import write_whole

log = logging.getLogger(__name__)
MOMENTS = "exp_avg", "exp_avg_sq"
HALF_SCALE = 2.0**16
"""What losses are multiplied by in float16, whose gradients would be 0; halved where they
overflow."""


class Draw(NamedTuple):
    """Of one picture in one pass: noise [B, C, h, w] and time steps, long [B]."""

    noise: Tensor
    timesteps: Tensor


class Progress(NamedTuple):
    """A pass that is done: its phase, its number from 1, of how many, and the pictures' losses."""

    phase: str
    step: int
    steps: int
    losses: Sequence[float]


@dataclass
class State:
    """A phase of a fit under way.

    phase: its name; generator: of all draws, on the CPU; trained: float32, by name; fixed: what the
    phase needs and does not change; step: passes that are done; losses: of each pass, by picture;
    scale: of the loss; moments: AdamW's, by kind and name.
    """

    phase: str
    generator: torch.Generator
    trained: dict[str, Tensor]
    fixed: dict[str, Tensor]
    step: int = 0
    losses: list[list[float]] = field(default_factory=list)
    scale: float = 1.0
    moments: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of a fit lies. identity: of the fit; every: updates from save to save."""

    path: Path
    identity: str
    every: int = 10

    def save(self, state: State) -> None:
        facts = {
            "identity": self.identity,
            "phase": state.phase,
            "step": state.step,
            "scale": state.scale,
            "losses": state.losses,
        }
        tensors = {"generator": state.generator.get_state()}
        for group in ("trained", "fixed", "moments"):
            tensors |= {f"{group}/{name}": t for name, t in getattr(state, group).items()}
        write_whole(self.path, pack_tensors(tensors, None, json.dumps(facts)))

    def load(self, device: torch.device) -> State | None:
        """None if there is none, or it is damaged, which is logged.

        Raises BenchmarkError if it is of another fit.
        """
        if not self.path.exists():
            return None
        try:
            text, tensors = unpack_facts(self.path.read_bytes())
            facts: dict[str, Any] = json.loads(text)
            generator = torch.Generator()
            generator.set_state(tensors.pop("generator"))
            groups: dict[str, dict[str, Tensor]] = {"trained": {}, "fixed": {}, "moments": {}}
            for name, tensor in tensors.items():
                group, _, rest = name.partition("/")
                groups[group][rest] = tensor.to(device)
            identity = facts["identity"]
            state = State(
                facts["phase"],
                generator,
                groups["trained"],
                groups["fixed"],
                facts["step"],
                facts["losses"],
                facts["scale"],
                groups["moments"],
            )
        except Exception as error:  # whatever a damaged file makes the reader raise
            log.warning("%s is damaged (%s): the fit starts anew", self.path, error)
            return None
        if identity != self.identity:
            raise BenchmarkError(
                f"{self.path} is the state of a fit of other pictures, items, settings or of "
                "another model: remove it, or give another place"
            )
        return state


def optimise(
    state: State,
    draw: Callable[[], Sequence[Draw]],
    loss: Callable[[int, Draw], Tensor],
    *,
    steps: int,
    accumulation: int,
    learning_rate: float,
    share: float = 1.0,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Minimise the losses of all pictures over ``state.trained``, in place.

    draw: a pass's draws from the state's generator, one for each picture; loss: of one picture,
    differentiable; steps: passes in all, of which ``accumulation`` make one step of AdamW; share:
    of each picture's loss in the sum. The state is saved after steps of AdamW only, so that a fit
    that goes on does the same as one that was not stopped. Raises BenchmarkError where gradients
    are not finite.
    """
    trained = state.trained
    for tensor in trained.values():
        tensor.requires_grad_()
    optimizer = torch.optim.AdamW(trained.values(), learning_rate, weight_decay=0.01)
    _resume(optimizer, state, accumulation)
    sums = {name: torch.zeros_like(tensor) for name, tensor in trained.items()}
    while state.step < steps:
        losses = []
        for picture, drawn in enumerate(draw()):
            value, gradients = _gradients(state, lambda: loss(picture, drawn))  # noqa: B023
            losses.append(value)
            for total, gradient in zip(sums.values(), gradients, strict=True):
                total.add_(gradient, alpha=share / accumulation)
        state.step += 1
        state.losses.append(losses)
        progress(Progress(state.phase, state.step, steps, losses))
        updates, rest = divmod(state.step, accumulation)
        if rest == 0:
            for name, tensor in trained.items():
                tensor.grad = sums[name]
            optimizer.step()
            sums = {name: torch.zeros_like(tensor) for name, tensor in trained.items()}
            if checkpoint and updates % checkpoint.every == 0:
                _keep_moments(optimizer, state)
                checkpoint.save(state)
    for tensor in trained.values():
        tensor.requires_grad_(False).grad = None


def _gradients(state: State, loss: Callable[[], Tensor]) -> tuple[float, list[Tensor]]:
    """A loss and its gradients, zeros where there are none; the scale is halved while it must."""
    tensors = list(state.trained.values())
    while True:
        with torch.enable_grad():
            value = loss()
            scaled = torch.autograd.grad(value * state.scale, tensors, allow_unused=True)
        gradients = [
            torch.zeros_like(tensor) if gradient is None else gradient / state.scale
            for tensor, gradient in zip(tensors, scaled, strict=True)
        ]
        if all(gradient.isfinite().all() for gradient in gradients):
            return value.item(), gradients
        if state.scale <= 1 or not value.isfinite():
            raise BenchmarkError(
                f"the fit broke down in pass {state.step + 1} of its phase {state.phase}: its loss "
                f"is {value.item()} and its gradients are not finite; set model.dtype=float32, or "
                "lower the learning rates"
            )
        state.scale /= 2


def _keep_moments(optimizer: torch.optim.Optimizer, state: State) -> None:
    state.moments = {
        f"{kind}/{name}": optimizer.state[tensor][kind]
        for name, tensor in state.trained.items()
        for kind in MOMENTS
    }


def _resume(optimizer: torch.optim.Optimizer, state: State, accumulation: int) -> None:
    for name, tensor in state.trained.items() if state.moments else ():
        moments = {kind: state.moments[f"{kind}/{name}"].clone() for kind in MOMENTS}
        updates = torch.tensor(float(state.step // accumulation))
        optimizer.state[tensor] = {"step": updates, **moments}
