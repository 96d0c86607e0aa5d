"""Pix2Pix-Zero (Parmar et al., arXiv 2302.03027): the edit attends to the text as its source does.

Its latents are led there by gradients, step by step. Knows no files, nor where a mask came from.
"""

import random
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from piebench_masks.diffusion.attention import Layer
from piebench_masks.diffusion.backbone import Backbone, Capability, Conditioning
from piebench_masks.diffusion.ddpm import TRAIN_TIMESTEPS
from piebench_masks.diffusion.level import Level
from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.editing.branches import AttentionLoss, SourceFeatures, StoredAttention
from piebench_masks.editing.editor import Edited, Editor, Sampled, Sources, decoded
from piebench_masks.editing.inversion import Inversion, Invert, ddim, direct, require
from piebench_masks.editing.whitening import regularised
from piebench_masks.identity import NO_OUTPUT


@dataclass(frozen=True)
class Pix2PixZero(Editor):
    """Pix2Pix-Zero as an editor, with the inversions ``ddim`` and ``direct``.

    Inverted with the source prompt, and noise that is led to be white. The source branch is sampled
    without guidance. Before every step of the edit, a gradient step of attention_guidance on its
    latents lessens the difference of its cross-attention from the source's; guidance leads from the
    source prompt to the target's. With ``direct`` the edit, too, gets what the source branch needs
    to follow its inversion. rows: of the U-Net whose gradient is taken at once; an edit has two.
    compat: reference does as PnP Inversion's code does. It starts from a draw of the VAE's
    posterior, of ``seed`` as the regularisation, and inverts to levels one interval too noisy.
    Raises BenchmarkError for other inversions.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = ("self_attention",)
    reads: ClassVar[tuple[str, ...]] = ("image", "prompts")

    inversion: Invert
    steps: int = 50
    guidance: float = 7.5
    attention_guidance: float = 0.1
    rows: int = field(default=8, metadata=NO_OUTPUT)
    compat: Compat = "exact"
    seed: int = 1234

    def __post_init__(self) -> None:
        require(self.inversion, "pix2pix_zero", ddim, direct)

    def invert(self, backbone: Backbone, sources: Sources) -> Inversion:
        source = backbone.encode_prompts(sources.source_prompts)
        return self.inverted(backbone, sources, source)

    def inverted(self, backbone: Backbone, sources: Sources, source: Conditioning) -> Inversion:
        published = self.compat == "reference"
        shifts = random.Random(self.seed)  # every sample gets those that it would get alone
        inverted = self.inversion(
            backbone,
            sources.encoded.draw(self.seed) if published else sources.encoded.mean,
            source,
            steps=self.steps,
            guidance=self.guidance,
            levels=too_noisy(backbone, self.steps) if published else None,
            refine=lambda eps: regularised(eps, shifts),
        )
        return replace(inverted, levels=backbone.levels(self.steps))

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
        source = backbone.encode_prompts(sources.source_prompts)
        target = backbone.encode_prompts(sources.target_prompts)
        return self.sampled(backbone, inverted, source, target, masks, owner)

    @torch.inference_mode()
    def sampled(
        self,
        backbone: Backbone,
        inverted: Inversion,
        source: Conditioning,
        target: Conditioning,
        masks: Tensor,
        owner: Tensor,
    ) -> Sampled:
        """N edits of B sources, and of as many prompts. After every step but the last, the latents
        outside the mask are the source's.
        """
        samples, last = torch.arange(len(source), device=owner.device), len(inverted.timesteps) - 1
        y_source = inverted.x[0]
        y = y_source[owner]
        for i, timestep in enumerate(inverted.timesteps):
            attention = SourceFeatures(len(source))
            t = torch.full((len(source),), timestep)
            stored = StoredAttention(attention, text_layers(backbone))
            eps = backbone.predict_noise(y_source, t, source, stored)
            following = inverted.step(i, y_source, eps, samples)
            y_source = following if inverted.trajectory is None else inverted.trajectory[i + 1]
            steps = []
            # Some at a time: gradients hold all that the U-Net computed.
            for rows in torch.arange(len(owner), device=owner.device).split(max(1, self.rows // 2)):
                texts = Conditioning.cat([source[owner[rows]], target[owner[rows]]])
                z, t = y[rows].repeat(2, 1, 1, 1), torch.full((2 * len(rows),), timestep)
                gradient = attention_gradient(
                    backbone, z, t, texts, attention, owner[rows].repeat(2)
                )
                z = z - self.attention_guidance * gradient
                eps_source, eps = backbone.predict_noise(z, t, texts).chunk(2)
                eps = eps_source + self.guidance * (eps - eps_source)
                steps.append(inverted.step(i, z[: len(rows)], eps, owner[rows]))
            y = torch.cat(steps) + (y_source - following)[owner]
            if i < last:
                y = torch.where(masks[:, None], y, inverted.x[i + 1][owner])
        return Sampled(y, torch.full((len(owner),), (1 + 4) * (last + 1)))


def attention_gradient(
    backbone: Backbone,
    z: Tensor,
    t: Tensor,
    texts: Conditioning,
    attention: SourceFeatures,
    owner: Tensor,
) -> Tensor:
    """Of half the `AttentionLoss` of rows z [N, C, h, w]: the mean over an edit's two."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        z = z.clone().requires_grad_()
        control = AttentionLoss(attention, owner, text_layers(backbone))
        backbone.predict_noise(z, t, texts, control)
        (gradient,) = torch.autograd.grad(control.losses.sum() / 2, z)
        return gradient


def text_layers(backbone: Backbone) -> set[Layer]:
    """All layers that attend to the text."""
    return {layer for layer in backbone.layers.values() if layer.is_cross}


def too_noisy(backbone: Backbone, steps: int) -> list[Level]:
    """The published inversion's levels: one interval noisier than its calls' time steps say."""
    *timesteps, _ = (level.timestep for level in backbone.levels(steps))
    interval = TRAIN_TIMESTEPS // steps
    levels = [backbone.level(min(t - 1 + interval, TRAIN_TIMESTEPS - 1)) for t in timesteps]
    named = [replace(level, timestep=t) for level, t in zip(levels, timesteps, strict=True)]
    return [*named, backbone.level(0)]
