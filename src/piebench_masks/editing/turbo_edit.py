"""TurboEdit (Deutch et al., arXiv 2408.00735) under masks: methods.md, section 3, in tensors.

Knows latents, conditioning and masks; must not know pictures, files or where a mask came from.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Capability, Conditioning
from piebench_masks.diffusion.ddpm import add_noise, posterior_mean
from piebench_masks.diffusion.level import CLEAN
from piebench_masks.editing.editor import Edited, Editor, Sampled, Sources, decoded
from piebench_masks.errors import BenchmarkError

TIMESTEPS = {4: (799, 599, 399, 199), 3: (799, 499, 199)}
"""T, the time steps of the U-Net's calls, by number of steps."""
NOISE_TIMESTEPS = {4: (599, 399, 199), 3: (599, 299)}
"""The time steps of the source's noise: shifted against T, and shorter by one."""
LAST_NORM_CAP = 15.5
"""Cap on ||z|| at the last step, for latents of 4 * 64 * 64 elements."""


@dataclass(frozen=True)
class Inversion:
    """The source branch, which does not depend on masks; K steps, B samples.

    x: [K + 1, B, 4, h, w], the source at every level; u: [K, B, 4, h, w], the mean that the source
    prompt predicts from it; first_target: [B, 4, h, w], the mean that the target prompt predicts
    from x[0]; coeff: [K, B, 1, 1, 1], how much of z = x[1:] - u the norm cap leaves; nfe: long [B],
    U-Net evaluations.
    """

    x: Tensor
    u: Tensor
    first_target: Tensor
    coeff: Tensor
    nfe: Tensor


@dataclass(frozen=True)
class TurboEdit(Editor):
    """TurboEdit as an editor. w: strength of the guidance from source to target.

    The last of its K steps is never masked, so that the background may change. Asks for K + 1 U-Net
    rows a sample and 2 (K - 1) a mask, 1 for an empty one.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = ("few_steps",)
    reads: ClassVar[tuple[str, ...]] = ("image", "prompts")

    steps: Literal[3, 4] = 4
    w: float = 1.5
    seed: int = 8128

    def invert(self, backbone: Backbone, sources: Sources) -> Inversion:
        x0 = sources.encoded.mean
        return invert(backbone, x0, *_prompts(backbone, sources), steps=self.steps, seed=self.seed)

    def edit(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: Inversion,
        masks: Tensor,
        owner: Tensor,
    ) -> Edited:
        return decoded(backbone, self.sample(backbone, sources, inverted, masks, owner))

    def sample(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: Inversion,
        masks: Tensor,
        owner: Tensor,
    ) -> Sampled:
        prompts = _prompts(backbone, sources)
        *_, latents = edited(backbone, inverted, *prompts, masks, owner, steps=self.steps, w=self.w)
        painted = masks.flatten(1).any(dim=1)
        return Sampled(latents, nfe=torch.where(painted, 2 * (self.steps - 1), 1))


@torch.inference_mode()
def invert(
    backbone: Backbone,
    x0: Tensor,
    source: Conditioning,
    target: Conditioning,
    *,
    steps: Literal[3, 4],
    seed: int,
) -> Inversion:
    """One call for all steps: the source's x are known up front.

    x0: [B, 4, h, w]; source, target: B prompts. Raises BenchmarkError for another number of steps.
    """
    if steps not in TIMESTEPS:
        raise BenchmarkError(f"steps is {steps}: TurboEdit takes 3 or 4 steps")
    noise = torch.randn(
        len(NOISE_TIMESTEPS[steps]), *x0.shape[1:], generator=torch.Generator().manual_seed(seed)
    ).to(x0.device)
    noised = [
        add_noise(x0, n, backbone.level(t))
        for n, t in zip(noise, NOISE_TIMESTEPS[steps], strict=True)
    ]
    x = torch.stack([*noised, x0, x0])

    timesteps = TIMESTEPS[steps]
    eps = backbone.predict_noise(
        torch.cat([x[:-1].flatten(0, 1), x[0]]),
        torch.tensor([*timesteps, timesteps[0]]).repeat_interleave(len(x0)),
        Conditioning.cat([source] * steps + [target]),
    ).unflatten(0, (steps + 1, len(x0)))
    u = torch.stack([_mu(backbone, x[i], eps[i], steps, i) for i in range(steps)])

    cap = LAST_NORM_CAP * (x0[0].numel() / (4 * 64 * 64)) ** 0.5
    coeff = torch.ones(steps, len(x0), 1, 1, 1, device=x0.device)
    z_norm = torch.linalg.vector_norm(x[-1] - u[-1], dim=(1, 2, 3), keepdim=True)
    coeff[-1] = (cap / z_norm).clamp(max=1)
    nfe = torch.full((len(x0),), steps + 1)
    return Inversion(x, u, _mu(backbone, x[0], eps[-1], steps, 0), coeff, nfe)


@torch.inference_mode()
def edited(
    backbone: Backbone,
    inversion: Inversion,
    source: Conditioning,
    target: Conditioning,
    masks: Tensor,
    owner: Tensor,
    *,
    steps: Literal[3, 4],
    w: float,
) -> Iterator[Tensor]:
    """The edit branch: y after every step, [N, 4, h, w]. Arguments as in `Editor.edit`."""
    edits = torch.arange(len(masks), device=owner.device)
    painted, no_edits = edits[masks.flatten(1).any(dim=1)], edits[:0]
    y = inversion.x[0][owner]
    for i in range(steps):
        last = i == steps - 1
        x_next, u = inversion.x[i + 1][owner], inversion.u[i][owner]
        # At the first step and under an empty mask y is still the source's x, and its mean under
        # the source prompt is u. Under an empty mask the target's mean has no effect.
        mu_source, mu_target = u.clone(), inversion.first_target[owner]
        source_rows = painted if i > 0 else no_edits
        target_rows = edits if last else source_rows
        if len(rows := torch.cat([source_rows, target_rows])):
            eps = backbone.predict_noise(
                y[rows],
                torch.full((len(rows),), TIMESTEPS[steps][i]),
                Conditioning.cat([source[owner[source_rows]], target[owner[target_rows]]]),
            )
            mu = _mu(backbone, y[rows], eps, steps, i)
            mu_source[source_rows], mu_target[target_rows] = mu.split(
                [len(source_rows), len(target_rows)]
            )
        coeff = inversion.coeff[i][owner]
        y = coeff * x_next + (mu_source - coeff * u) + w * (mu_target - mu_source)
        if not last:
            y = torch.where(masks[:, None], y, x_next)
        yield y


def _prompts(backbone: Backbone, sources: Sources) -> tuple[Conditioning, Conditioning]:
    conditioning = backbone.encode_prompts([*sources.source_prompts, *sources.target_prompts])
    return conditioning[: len(conditioning) // 2], conditioning[len(conditioning) // 2 :]


def _mu(backbone: Backbone, x: Tensor, eps: Tensor, steps: int, i: int) -> Tensor:
    levels = [*map(backbone.level, TIMESTEPS[steps]), CLEAN]
    return posterior_mean(x, eps, levels[i], levels[i + 1])
