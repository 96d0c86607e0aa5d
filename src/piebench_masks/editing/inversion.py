"""Inversions: pictures brought to noise, from which an editor samples its way back.

Functions over tensors, all called alike: ``(backbone, x0, source, *, steps, guidance)`` with x0
[B, 4, h, w] and B source prompts. Know nothing of edits, targets or masks.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Conditioning
from piebench_masks.diffusion.ddim import ddim_step, ddpm_variance
from piebench_masks.diffusion.ddpm import add_noise
from piebench_masks.diffusion.level import Level
from piebench_masks.errors import BenchmarkError


@dataclass(frozen=True)
class Inversion:
    """B sources at K + 1 levels of noise, and what it takes to sample from the noisiest.

    levels: K + 1, noisiest first; x: [K + 1, B, 4, h, w] at these, x[K] = x0; negative: K of B rows
    each, what guidance leads away from.
    trajectory: [K + 1, B, 4, h, w], the path of the source branch, mostly x itself; None: the
    branch is sampled from x[0]. noise: [K, B, 4, h, w], added after every step, of ``variance``
    [K]; None: no noise.
    nfe: long [B], U-Net evaluations.
    """

    levels: list[Level]
    x: Tensor
    negative: list[Conditioning]
    nfe: Tensor
    trajectory: Tensor | None = None
    noise: Tensor | None = None
    variance: list[float] | None = None

    @property
    def timesteps(self) -> list[float]:
        """The time steps of the network's calls, K, noisiest first."""
        return [level.timestep for level in self.levels[:-1]]

    def __getitem__(self, index: Tensor) -> "Inversion":
        return replace(
            self,
            x=self.x[:, index],
            negative=[text[index] for text in self.negative],
            nfe=self.nfe[index.cpu()],
            trajectory=None if self.trajectory is None else self.trajectory[:, index],
            noise=None if self.noise is None else self.noise[:, index],
        )

    def step(self, i: int, y: Tensor, eps: Tensor, owner: Tensor) -> Tensor:
        """y [N, 4, h, w] after step i, with the noise of the samples that ``owner`` [N] names."""
        if self.noise is None or self.variance is None:
            return ddim_step(y, eps, self.levels[i], self.levels[i + 1])
        mean = ddim_step(y, eps, self.levels[i], self.levels[i + 1], self.variance[i])
        return mean + self.noise[i][owner]


Invert = Callable[..., Inversion]
"""One of this module's functions, or one with some of its settings filled in."""


def require(inversion: Invert, editor: str, *supported: Invert) -> None:
    """Raise BenchmarkError unless ``inversion`` is one of the ``supported``."""
    function = getattr(inversion, "func", inversion)  # of a partial
    if function not in supported:
        names = " or ".join(f"inversion={each.__name__}" for each in supported)
        raise BenchmarkError(
            f"inversion={function.__name__} is none for editor {editor}: choose {names}, or leave "
            f"{editor} out"
        )


@torch.inference_mode()
def ddim(
    backbone: Backbone,
    x0: Tensor,
    source: Conditioning,
    *,
    steps: int,
    guidance: float,
    strength: float = 1.0,
) -> Inversion:
    """Deterministic inversion with the source prompt and no guidance (Song et al. 2010.02502).

    strength: the share of the schedule, from the picture on, that is inverted.
    """
    count = int(steps * strength)
    levels = backbone.levels(steps)[steps - count :]
    x = [x0]
    for i in reversed(range(count)):
        eps = backbone.predict_noise(x[0], torch.full((len(x0),), levels[i].timestep), source)
        x.insert(0, ddim_step(x[0], eps, levels[i + 1], levels[i]))
    empty_prompt = backbone.encode_prompts([""] * len(x0))
    nfe = torch.full((len(x0),), count)
    return Inversion(levels, torch.stack(x), [empty_prompt] * count, nfe)


def direct(
    backbone: Backbone, x0: Tensor, source: Conditioning, *, steps: int, guidance: float
) -> Inversion:
    """PnP Inversion (Ju et al. 2310.01506): the source branch returns to x at every step.

    The published offsets have the same effect, at three further U-Net evaluations a step.
    """
    inverted = ddim(backbone, x0, source, steps=steps, guidance=guidance)
    return replace(inverted, trajectory=inverted.x)


def negative_prompt(
    backbone: Backbone, x0: Tensor, source: Conditioning, *, steps: int, guidance: float
) -> Inversion:
    """Negative-prompt inversion (Miyake et al. 2305.16807): guidance leads away from the source."""
    inverted = ddim(backbone, x0, source, steps=steps, guidance=guidance)
    return replace(inverted, negative=[source] * steps)


@torch.inference_mode()
def null_text(
    backbone: Backbone,
    x0: Tensor,
    source: Conditioning,
    *,
    steps: int,
    guidance: float,
    inner_steps: int = 10,
    epsilon: float = 1e-5,
) -> Inversion:
    """Null-text inversion (Mokady et al. 2211.09794) optimises the text that guidance leads from.

    Every step takes at most inner_steps of Adam, until guided sampling reproduces x to a mean
    squared error of epsilon + 2e-5 i. A forward pass with its gradient counts as one evaluation.
    """
    inverted = ddim(backbone, x0, source, steps=steps, guidance=guidance)
    negative, nfe, y = inverted.negative[0], inverted.nfe.clone(), inverted.x[0]
    samples = torch.arange(len(x0), device=x0.device)
    optimised = []
    for i, timestep in enumerate(inverted.timesteps):
        t = torch.full((len(x0),), timestep)
        conditional = backbone.predict_noise(y, t, source)
        hidden, evaluations = _reproducing(
            backbone, inverted, i, y, conditional, negative, guidance, inner_steps, epsilon
        )
        negative = Conditioning(hidden, negative.pooled)
        eps_negative = backbone.predict_noise(y, t, negative)
        y = inverted.step(i, y, eps_negative + guidance * (conditional - eps_negative), samples)
        optimised.append(negative)
        nfe += 2 + evaluations
    return replace(inverted, negative=optimised, nfe=nfe)


def _reproducing(
    backbone: Backbone,
    inverted: Inversion,
    i: int,
    y: Tensor,
    conditional: Tensor,
    negative: Conditioning,
    guidance: float,
    inner_steps: int,
    epsilon: float,
) -> tuple[Tensor, Tensor]:
    """Hidden states [B, L, D] that make step i lead to x, and evaluations [B] that it took."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        y, x_next, conditional = y.clone(), inverted.x[i + 1].clone(), conditional.clone()
        pooled, hidden = negative.pooled.clone(), negative.hidden.float().clone()
        rows = [row.requires_grad_() for row in hidden.unbind()]
        adam = torch.optim.Adam(rows, lr=1e-2 * (1 - i / 100))
        evaluations, active = torch.zeros(len(y), dtype=torch.long), list(range(len(y)))
        for _ in range(inner_steps):
            if not active:
                break
            adam.zero_grad()
            text = torch.stack([rows[b] for b in active]).to(negative.hidden.dtype)
            t = torch.full((len(active),), inverted.timesteps[i])
            eps_negative = backbone.predict_noise(y[active], t, Conditioning(text, pooled[active]))
            eps = eps_negative + guidance * (conditional[active] - eps_negative)
            y_next = ddim_step(y[active], eps, inverted.levels[i], inverted.levels[i + 1])
            losses = (y_next - x_next[active]).square().flatten(1).mean(dim=1)
            losses.sum().backward()
            adam.step()
            evaluations[active] += 1
            tolerance = epsilon + 2e-5 * i
            active = [
                b for b, loss in zip(active, losses.tolist(), strict=True) if loss >= tolerance
            ]
        return torch.stack(rows).detach().to(negative.hidden.dtype), evaluations


@torch.inference_mode()
def edit_friendly(
    backbone: Backbone,
    x0: Tensor,
    source: Conditioning,
    *,
    steps: int,
    guidance: float,
    skip: float = 0.24,
    seed: int = 1234,
) -> Inversion:
    """Edit-friendly DDPM inversion (Huberman-Spiegelglas et al. 2304.06140).

    Every level of x has noise of its own. The noise of a step is the difference between x and the
    mean that the source prompt predicts. skip: the share of the steps, the noisiest, to leave out.
    """
    levels = backbone.levels(steps)
    generator = torch.Generator().manual_seed(seed)
    # The least noisy level is drawn first; every sample gets the draws that it would get alone.
    draws = torch.randn(steps, *x0.shape[1:], generator=generator).flip(0).to(x0.device)
    noised = [add_noise(x0, n, level) for n, level in zip(draws, levels, strict=False)]
    x = torch.stack([*noised, x0])

    start = round(skip * steps)
    levels, x = levels[start:], x[start:]
    count = len(levels) - 1
    eps = backbone.predict_noise(
        x[:-1].flatten(0, 1),
        torch.tensor([level.timestep for level in levels[:-1]]).repeat_interleave(len(x0)),
        Conditioning.cat([source] * count),
    ).unflatten(0, (count, len(x0)))
    variance = [ddpm_variance(*pair) for pair in pairwise(levels)]
    noise = torch.stack(
        [
            x[i + 1] - ddim_step(x[i], eps[i], levels[i], levels[i + 1], variance[i])
            for i in range(count)
        ]
    )
    noise[-1] = 0  # the last step adds none
    empty_prompt = backbone.encode_prompts([""] * len(x0))
    nfe = torch.full((len(x0),), count)
    return Inversion(levels, x, [empty_prompt] * count, nfe, x, noise, variance)
