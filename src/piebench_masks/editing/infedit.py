"""InfEdit (Xu et al., arXiv 2312.04965): the denoising diffusion consistent model (DDCM), by which
a source needs no inversion.

From the formula. Knows latents, masks and the attention to words; must not know files or where a
mask came from.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from piebench_masks.diffusion.attention import AttentionRecorder
from piebench_masks.diffusion.backbone import Backbone, Capability, Conditioning
from piebench_masks.diffusion.ddim import clean_difference
from piebench_masks.diffusion.dpm_solver import solver_levels
from piebench_masks.diffusion.level import Level
from piebench_masks.editing.alignment import Prompt, blended_positions
from piebench_masks.editing.editor import Edited, Editor, Sampled, Sources, decoded
from piebench_masks.editing.inversion import independently_noised
from piebench_masks.editing.prompt_to_prompt import blend_masks

BLEND_TEMPERATURE = 0.15
"""Of the local blend: no threshold is below it divided by a level's signal."""


@dataclass(frozen=True)
class VirtualInversion:
    """The source branch: B sources under noise of their own at K levels, which no step made.

    levels: K + 1, noisiest first, the last clean; x: [K + 1, B, C, h, w] at these; eps:
    [K, B, C, h, w], the noise that the source prompt predicts in them; first: [B, C, h, w], what
    the target prompt predicts in x[0].
    words: [B, 2, L], 1 at the positions of the blended words in source and target; maps:
    [K, B, g, g], attention of x to the former; first_maps: [B, g, g], of x[0] under the target to
    the latter. nfe: long [B], U-Net evaluations.
    """

    levels: list[Level]
    x: Tensor
    eps: Tensor
    first: Tensor
    words: Tensor
    maps: Tensor
    first_maps: Tensor
    nfe: Tensor

    @property
    def timesteps(self) -> list[float]:
        return [level.timestep for level in self.levels[:-1]]


@dataclass(frozen=True)
class InfEdit(Editor):
    """DDCM as an editor (eta = 1: every level has fresh noise), with InfEdit's local blend.

    The edit's clean latents are x0 + d. At every level d changes by the difference of the clean
    latents that the target prompt predicts, in the edit, and the source prompt, in the source,
    which have the same noise. skip: see `solver_levels`. blend_threshold: where a sample has
    blended words, d is 0 where the attention to them, up to this step, is at most this share of the
    largest, or 0.15 / signal of the level if that is more; None: everywhere may differ.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = ("few_steps", "self_attention")
    reads: ClassVar[tuple[str, ...]] = ("image", "prompts", "blended_word")

    steps: int = 4
    skip: float = 0.2
    blend_threshold: float | None = 0.3
    seed: int = 8128

    @torch.inference_mode()
    def invert(self, backbone: Backbone, sources: Sources) -> VirtualInversion:
        x0 = sources.encoded.mean
        levels = solver_levels(backbone, self.steps, self.skip)
        x = independently_noised(x0, levels, self.seed)
        words = self._words(backbone, sources).to(x0.device)
        source = backbone.encode_prompts(sources.source_prompts)
        target = backbone.encode_prompts(sources.target_prompts)
        weights = torch.cat([words[:, 0].repeat(self.steps, 1), words[:, 1]])
        recorder = AttentionRecorder(weights, backbone.map_size)
        timesteps = [level.timestep for level in levels[:-1]]
        eps = backbone.predict_noise(
            torch.cat([x[:-1].flatten(0, 1), x[0]]),
            torch.tensor([*timesteps, timesteps[0]]).repeat_interleave(len(x0)),
            Conditioning.cat([source] * self.steps + [target]),
            None if self.blend_threshold is None else recorder,
        ).unflatten(0, (self.steps + 1, len(x0)))
        maps = recorder.maps.unflatten(0, (self.steps + 1, len(x0)))
        nfe = torch.full((len(x0),), self.steps + 1)
        return VirtualInversion(levels, x, eps[:-1], eps[-1], words, maps[:-1], maps[-1], nfe)

    def edit(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: VirtualInversion,
        masks: Tensor,
        owner: Tensor,
    ) -> Edited:
        return decoded(backbone, self.sample(backbone, sources, inverted, masks, owner))

    @torch.inference_mode()
    def sample(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: VirtualInversion,
        masks: Tensor,
        owner: Tensor,
    ) -> Sampled:
        """After every step but the last, the latents outside the mask are the source's."""
        target = backbone.encode_prompts(sources.target_prompts)[owner]
        words, last = inverted.words[owner], len(inverted.eps) - 1
        eps, d = inverted.first[owner], torch.zeros_like(inverted.first)[owner]
        source_maps, edit_maps = torch.zeros_like(inverted.first_maps), inverted.first_maps[owner]
        for i, timestep in enumerate(inverted.timesteps):
            level = inverted.levels[i]
            if i > 0:
                recorder = AttentionRecorder(words[:, 1], backbone.map_size)
                y = inverted.x[i][owner] + level.signal * d
                t = torch.full((len(y),), timestep)
                control = None if self.blend_threshold is None else recorder
                eps = backbone.predict_noise(y, t, target, control)
                edit_maps = edit_maps + recorder.maps
            source_maps = source_maps + inverted.maps[i]
            d = d + clean_difference(inverted.eps[i][owner], eps, level)
            if self.blend_threshold is not None:
                share = max(self.blend_threshold, BLEND_TEMPERATURE / level.signal)
                size = (d.shape[-2], d.shape[-1])
                editable = blend_masks(source_maps, size, share)[owner]
                editable |= blend_masks(edit_maps, size, share)
                editable |= ~words.flatten(1).any(dim=1)[:, None, None]
                d = d * editable[:, None]
            if i < last:
                d = d * masks[:, None]
        return Sampled(inverted.x[-1][owner] + d, torch.full((len(owner),), last))

    def _words(self, backbone: Backbone, sources: Sources) -> Tensor:
        """[B, 2, L]; zeros of a sample without blended words, and of words that are not found."""
        length, words = backbone.max_tokens, []
        for scene in sources.scenes:
            source, target = (
                Prompt.parse(
                    text,
                    backbone.tokenize,
                    backbone.token_text,
                    max_tokens=length,
                    compat="exact",
                )
                for text in (scene.source_prompt, scene.target_prompt)
            )
            words.append(blended_positions(source, target, scene.blended_words, length))
        return torch.stack(words)
