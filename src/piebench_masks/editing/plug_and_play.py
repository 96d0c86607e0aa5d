"""Plug-and-Play (Tumanyan et al., arXiv 2211.12572): the source's features in the edit's U-Net.

Self-attention and residuals for the branches of editing/branches.py; knows no masks and no files.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from piebench_masks.diffusion.attention import AttentionControl
from piebench_masks.diffusion.backbone import Backbone, Capability
from piebench_masks.diffusion.ddim import ddim_step
from piebench_masks.editing.branches import Injection, SourceFeatures, sample_edits
from piebench_masks.editing.editor import Edited, Editor, Sampled, Sources, decoded
from piebench_masks.editing.inversion import Inversion, Invert, ddim, direct, require


@dataclass(frozen=True)
class PlugAndPlay(Editor):
    """Plug-and-Play as an editor, with the inversions ``ddim`` and ``direct``.

    The source branch has no prompt and follows a trajectory. With ``direct`` that is the
    inversion's; with ``ddim`` it is sampled from the noisiest latents, with the source prompt and
    without guidance.
    attention_share: the share of the steps, from the first on, in which the edit has the queries
    and keys of its source's self-attention on the U-Net's way up, except in the first layer;
    feature_share: likewise for the residual of the second ResNet block there. Raises
    BenchmarkError for other inversions.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = ("self_attention", "residuals")
    reads: ClassVar[tuple[str, ...]] = ("image", "prompts")

    inversion: Invert
    steps: int = 50
    guidance: float = 7.5
    attention_share: float = 0.5
    feature_share: float = 0.8
    negative_prompt: str = "ugly, blurry, black, low res, unrealistic"

    def __post_init__(self) -> None:
        require(self.inversion, "plug_and_play", ddim, direct)

    @torch.inference_mode()
    def invert(self, backbone: Backbone, sources: Sources) -> Inversion:
        x0 = sources.encoded.mean
        source = backbone.encode_prompts(sources.source_prompts)
        negative = backbone.encode_prompts([self.negative_prompt] * len(x0))
        inverted = self.inversion(backbone, x0, source, steps=self.steps, guidance=self.guidance)
        inverted = replace(inverted, negative=[negative] * len(inverted.timesteps))
        if inverted.trajectory is not None:
            return inverted
        y = [inverted.x[0]]
        for i, timestep in enumerate(inverted.timesteps):
            eps = backbone.predict_noise(y[i], torch.full((len(x0),), timestep), source)
            y.append(ddim_step(y[i], eps, inverted.levels[i], inverted.levels[i + 1]))
        nfe = inverted.nfe + len(inverted.timesteps)
        return replace(inverted, trajectory=torch.stack(y), nfe=nfe)

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
        return sample_edits(
            backbone,
            inverted,
            backbone.encode_prompts([""] * len(sources.source_prompts)),
            backbone.encode_prompts(sources.target_prompts),
            masks,
            owner,
            _PluggedIn(
                backbone,
                len(sources.source_prompts),
                attention_steps=int(self.steps * self.attention_share),
                feature_steps=int(self.steps * self.feature_share),
            ),
            guidance=self.guidance,
        )


class _PluggedIn:
    """The steering: the sources' queries, keys and residual of one step."""

    def __init__(
        self, backbone: Backbone, sources: int, *, attention_steps: int, feature_steps: int
    ) -> None:
        # The first ResNet block on the way up with attention before it, and what follows it.
        first_block = min(layer.block for layer in backbone.layers.values() if layer.place == "up")
        name, residual = next(
            (name, residual)
            for name, residual in backbone.residuals.items()
            if residual.place == "up" and residual.block > first_block
        )
        self.resnets = (name,)
        count = 1 + max(layer.block for layer in backbone.layers.values())
        self.blocks = range(residual.block, count)
        self.attention_steps, self.feature_steps = attention_steps, feature_steps
        self.features = SourceFeatures(sources)

    def source(self, step: int) -> AttentionControl | None:
        return self._features(step, None)

    def edit(self, step: int, owner: Tensor, *, negative: bool) -> AttentionControl | None:
        return self._features(step, owner)

    def blend(self, step: int, source: Tensor, y: Tensor) -> Tensor:
        return y

    def _features(self, step: int, owner: Tensor | None) -> AttentionControl:
        return Injection(
            self.features,
            ("query", "key"),
            self.blocks if step < self.attention_steps else (),
            owner,
            self.resnets if step < self.feature_steps else (),
        )
