"""Inversions: pictures brought to noise, from which an editor samples its way back.

Functions over tensors, all called alike: ``(backbone, x0, source, *, steps, guidance)`` with x0
[B, 4, h, w] and B source prompts. Know nothing of edits, targets or masks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Conditioning
from piebench_masks.diffusion.ddim import ddim_step, ddpm_variance
from piebench_masks.diffusion.ddpm import add_noise
from piebench_masks.diffusion.guidance import evaluations, guided_noise
from piebench_masks.diffusion.level import Level
from piebench_masks.errors import BenchmarkError


@dataclass(frozen=True)
class Inversion:
    """B sources at K + 1 levels of noise, and what it takes to sample from the noisiest.

    levels: K + 1, noisiest first; x: [K + 1, B, 4, h, w] at these, x[K] = x0; negative: K of B rows
    each, what guidance leads away from.
    trajectory: [K + 1, B, 4, h, w], the path of the source branch, mostly x itself; None: the
    branch is sampled from x[0]. noise: [K, B, 4, h, w], added after every step, of ``variance``
    [K], which is 0 for a fixed offset; None: no noise.
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


def unshifted(backbone: Backbone, steps: int) -> list[Level]:
    """The schedule one time step lower: 10 -> [900, 800, ..., 0], and the picture's.

    That of code which sets no steps_offset. Its last step, from 0 to 0, changes nothing.
    """
    *noisy, picture = backbone.levels(steps)
    return [*(backbone.level(level.timestep - 1) for level in noisy), picture]


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
    inverse_guidance: float = 1.0,
    levels: list[Level] | None = None,
    refine: Callable[[Tensor], Tensor] | None = None,
) -> Inversion:
    """Deterministic inversion with the source prompt (Song et al. 2010.02502).

    strength: the share of the schedule, from the picture on, that is inverted; inverse_guidance:
    the scale of guidance while it is, 1 for none. levels: steps + 1, in the place of the model's;
    refine: what is made of every predicted noise.
    """
    count = int(steps * strength)
    levels = (levels or backbone.levels(steps))[steps - count :]
    empty_prompt = backbone.encode_prompts([""] * len(x0))
    x = [x0]
    for i in reversed(range(count)):
        t = levels[i].timestep
        eps = guided_noise(backbone, x[0], t, source, empty_prompt, inverse_guidance)
        eps = refine(eps) if refine else eps
        x.insert(0, ddim_step(x[0], eps, levels[i + 1], levels[i]))
    nfe = torch.full((len(x0),), count * evaluations(inverse_guidance))
    return Inversion(levels, torch.stack(x), [empty_prompt] * count, nfe)


@torch.inference_mode()
def direct(
    backbone: Backbone,
    x0: Tensor,
    source: Conditioning,
    *,
    steps: int,
    guidance: float,
    scale: float = 1.0,
    interval: int = 1,
    inverse_guidance: float = 1.0,
    levels: list[Level] | None = None,
    refine: Callable[[Tensor], Tensor] | None = None,
) -> Inversion:
    """PnP Inversion (Ju et al. 2310.01506): the source branch returns to x at every step.

    The published offsets have the same effect, at three further U-Net evaluations a step. The
    paper's ablations: scale, the share of the way back to x, and interval, the branch returns at
    every such step only, from the first on. What guided sampling misses is then evaluated.
    inverse_guidance, levels, refine: see `ddim`. Raises BenchmarkError for an interval below 1.
    """
    if interval < 1:
        raise BenchmarkError(
            f"inversion.interval is {interval}: set it from 1 on, 1 for every step"
        )
    inverted = ddim(
        backbone,
        x0,
        source,
        steps=steps,
        guidance=guidance,
        inverse_guidance=inverse_guidance,
        levels=levels,
        refine=refine,
    )
    samples = torch.arange(len(x0), device=x0.device)
    y, nfe = [inverted.x[0]], inverted.nfe.clone()
    for i, timestep in enumerate(inverted.timesteps):
        share = 0.0 if i % interval else scale
        if share == 1:
            y.append(inverted.x[i + 1])
            continue
        eps = guided_noise(backbone, y[i], timestep, source, inverted.negative[i], guidance)
        y.append(torch.lerp(inverted.step(i, y[i], eps, samples), inverted.x[i + 1], share))
        nfe += evaluations(guidance)
    return replace(inverted, trajectory=torch.stack(y), nfe=nfe)


@torch.inference_mode()
def with_offsets(
    backbone: Backbone, inverted: Inversion, text: Conditioning, guidance: float
) -> Inversion:
    """The inversion with the offsets by which guided steps with ``text`` miss its trajectory.

    As noise without variance, which `Inversion.step` adds (Ju et al. 2310.01506). text: B prompts;
    all steps are evaluated at once. Raises BenchmarkError without a trajectory.
    """
    if inverted.trajectory is None:
        raise BenchmarkError("offsets lead back to a trajectory: choose inversion=direct")
    y, count = inverted.trajectory, len(inverted.timesteps)
    eps = guided_noise(
        backbone,
        y[:-1].flatten(0, 1),
        torch.tensor(inverted.timesteps).repeat_interleave(len(text)),
        Conditioning.cat([text] * count),
        Conditioning.cat(inverted.negative),
        guidance,
    ).unflatten(0, (count, len(text)))
    samples = torch.arange(len(text), device=y.device)
    offsets = [y[i + 1] - inverted.step(i, y[i], eps[i], samples) for i in range(count)]
    nfe = inverted.nfe + count * evaluations(guidance)
    return replace(inverted, noise=torch.stack(offsets), variance=[0.0] * count, nfe=nfe)


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
    single_branch: bool = False,
) -> Inversion:
    """Null-text inversion (Mokady et al. 2211.09794) optimises the text that guidance leads from.

    Every step takes at most inner_steps of Adam, until guided sampling reproduces x to a mean
    squared error of epsilon + 2e-5 i. A forward pass with its gradient counts as one evaluation.
    single_branch: only the source branch is led away from the optimised text, edits from the empty
    prompt. Null-latent inversion (both: Ju et al. 2310.01506) is the same: its offsets are what the
    optimised text changes, and only the source branch gets them.
    """
    inverted = ddim(backbone, x0, source, steps=steps, guidance=guidance)
    negative, nfe, y = inverted.negative[0], inverted.nfe.clone(), inverted.x[0]
    samples = torch.arange(len(x0), device=x0.device)
    optimised, trajectory = [], [y]
    for i, timestep in enumerate(inverted.timesteps):
        t = torch.full((len(x0),), timestep)
        conditional = backbone.predict_noise(y, t, source)
        hidden, evaluations_taken = _reproducing(
            backbone, inverted, i, y, conditional, negative, guidance, inner_steps, epsilon
        )
        negative = Conditioning(hidden, negative.pooled)
        eps_negative = backbone.predict_noise(y, t, negative)
        y = inverted.step(i, y, eps_negative + guidance * (conditional - eps_negative), samples)
        optimised.append(negative)
        trajectory.append(y)
        nfe += 2 + evaluations_taken
    if single_branch:
        return replace(inverted, trajectory=torch.stack(trajectory), nfe=nfe)
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

        def losses(active: list[int]) -> Tensor:
            text = torch.stack([rows[b] for b in active]).to(negative.hidden.dtype)
            t = torch.full((len(active),), inverted.timesteps[i])
            eps_negative = backbone.predict_noise(y[active], t, Conditioning(text, pooled[active]))
            eps = eps_negative + guidance * (conditional[active] - eps_negative)
            y_next = ddim_step(y[active], eps, inverted.levels[i], inverted.levels[i + 1])
            return (y_next - x_next[active]).square().flatten(1).mean(dim=1)

        evaluations = descend(
            [[row] for row in rows],
            losses,
            rate=1e-2 * (1 - i / 100),
            iterations=inner_steps,
            tolerance=epsilon + 2e-5 * i,
        )
        return torch.stack(rows).detach().to(negative.hidden.dtype), evaluations


def descend(
    weights: Sequence[Sequence[Tensor]],
    losses: Callable[[list[int]], Tensor],
    *,
    rate: float,
    iterations: int,
    tolerance: float,
) -> Tensor:
    """Adjust the weights of B samples by Adam, each until its loss was below the tolerance.

    losses: of the samples that are still adjusted, by index. Returns how often each was, long [B].
    """
    adam = torch.optim.Adam([weight for sample in weights for weight in sample], lr=rate)
    evaluations = torch.zeros(len(weights), dtype=torch.long)
    active = list(range(len(weights)))
    for _ in range(iterations):
        if not active:
            break
        adam.zero_grad()
        found = losses(active)
        found.sum().backward()
        adam.step()
        evaluations[active] += 1
        active = [b for b, loss in zip(active, found.tolist(), strict=True) if loss >= tolerance]
    return evaluations


def independently_noised(x0: Tensor, levels: list[Level], seed: int) -> Tensor:
    """x0 [B, C, h, w] at K levels with noise of their own, and then itself: [K + 1, B, C, h, w].

    levels: K + 1, noisiest first.
    """
    generator = torch.Generator().manual_seed(seed)
    # The least noisy level is drawn first; every sample gets the draws that it would get alone.
    draws = torch.randn(len(levels) - 1, *x0.shape[1:], generator=generator).flip(0).to(x0.device)
    noised = [add_noise(x0, n, level) for n, level in zip(draws, levels, strict=False)]
    return torch.stack([*noised, x0])


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
    levels = backbone.levels(steps)[round(skip * steps) :]
    x = independently_noised(x0, levels, seed)
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
