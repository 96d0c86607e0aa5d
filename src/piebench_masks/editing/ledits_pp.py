"""LEDITS++ (Brack et al., arXiv 2311.16711): edit-friendly noise, and guidance where attention and
the difference of predictions agree.

The map method `ledits` is the same agreement on the source. Knows latents, masks and the attention
to words; must not know files or where a mask came from.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from piebench_masks.diffusion.attention import AttentionRecorder
from piebench_masks.diffusion.backbone import Backbone, Capability, Conditioning
from piebench_masks.diffusion.ddim import clean_prediction
from piebench_masks.diffusion.dpm_solver import sde_mean, solver_levels
from piebench_masks.diffusion.level import Level
from piebench_masks.diffusion.prompt_diff import Compat, prompt_diff
from piebench_masks.editing.editor import Edited, Editor, Sampled, Sources, decoded
from piebench_masks.editing.inversion import independently_noised
from piebench_masks.masks.attention import OUTSIDE_MID
from piebench_masks.masks.ledits import agreement


@dataclass(frozen=True)
class Inversion:
    """B sources at K + 1 levels, noisiest first, and the noise that leads from each to the next.

    x: [K + 1, B, C, h, w], x[K] = x0; noise: [K, B, C, h, w]; first: [B, C, h, w], the guided
    noise of the edits' first step; nfe: long [B], U-Net evaluations.
    """

    levels: list[Level]
    x: Tensor
    noise: Tensor
    first: Tensor
    nfe: Tensor

    @property
    def timesteps(self) -> list[float]:
        return [level.timestep for level in self.levels[:-1]]


@dataclass(frozen=True)
class Texts:
    """Of N edits: where guidance comes from, where it leads to, and the words that it is about.

    words: [N, 2, L], 1 at the positions in both texts whose attention says where guidance applies.
    """

    base: Conditioning
    concept: Conditioning
    words: Tensor

    def __getitem__(self, index: Tensor) -> "Texts":
        return Texts(self.base[index], self.concept[index], self.words[index])


@dataclass(frozen=True)
class LeditsPP(Editor):
    """LEDITS++ as an editor, with the target prompt as its one concept.

    Every step is guided from the source prompt to the target's with ``scale``, in the places that
    reach the quantile ``threshold`` of both the difference of predictions and the attention to the
    changed words (0: everywhere). order: of the solver, 1 DDPM's, 2 DPM-Solver++'s SDE. skip: see
    `solver_levels`.
    compat: reference does as diffusers' pipeline for SDXL does. Inverted with the empty prompt,
    from which guidance leads to the target, it looks at all words of the target. The last step has
    no noise, so that the source does not come back whole.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = ("self_attention",)
    reads: ClassVar[tuple[str, ...]] = ("image", "prompts")

    steps: int = 4
    skip: float = 0.2
    scale: float = 1.5
    threshold: float = 0.3
    order: Literal[1, 2] = 2
    compat: Compat = "exact"
    seed: int = 8128

    @torch.inference_mode()
    def invert(self, backbone: Backbone, sources: Sources) -> Inversion:
        x0, texts = sources.encoded.mean, self.texts(backbone, sources)
        levels = solver_levels(backbone, self.steps, self.skip)
        x = independently_noised(x0, levels, self.seed)
        timesteps = [level.timestep for level in levels[:-1]]
        later = torch.zeros_like(texts.words[:, 0]).repeat(self.steps - 1, 1)
        recorder = _recorder(backbone, torch.cat([texts.words[:, 0], later, texts.words[:, 1]]))
        eps = backbone.predict_noise(
            torch.cat([x[:-1].flatten(0, 1), x[0]]),
            torch.tensor([*timesteps, timesteps[0]]).repeat_interleave(len(x0)),
            Conditioning.cat([texts.base] * self.steps + [texts.concept]),
            recorder,
        ).unflatten(0, (self.steps + 1, len(x0)))
        attention = recorder.maps.unflatten(0, (self.steps + 1, len(x0)))
        first = self.guided(eps[0], eps[-1], attention[0] + attention[-1])

        noise, x0_before = [], None
        for i in range(self.steps):
            noise.append(x[i + 1] - sde_mean(x[i], eps[i], levels, i, x0_before))
            x0_before = clean_prediction(x[i], eps[i], levels[i]) if self.order == 2 else None
        if self.compat == "reference":
            noise[-1] = torch.zeros_like(x0)
        nfe = torch.full((len(x0),), self.steps + 1)
        return Inversion(levels, x, torch.stack(noise), first, nfe)

    def edit(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: Inversion,
        masks: Tensor,
        owner: Tensor,
    ) -> Edited:
        return decoded(backbone, self.sample(backbone, sources, inverted, masks, owner))

    @torch.inference_mode()
    def sample(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: Inversion,
        masks: Tensor,
        owner: Tensor,
    ) -> Sampled:
        """After every step but the last, the latents outside the mask are the source's."""
        texts, levels = self.texts(backbone, sources)[owner], inverted.levels
        y, last = inverted.x[0][owner], len(levels) - 2
        x0_before = None
        for i, timestep in enumerate(inverted.timesteps):
            eps = inverted.first[owner] if i == 0 else self.noise(backbone, y, timestep, texts)
            following = sde_mean(y, eps, levels, i, x0_before) + inverted.noise[i][owner]
            x0_before = clean_prediction(y, eps, levels[i]) if self.order == 2 else None
            y = following
            if i < last:
                y = torch.where(masks[:, None], y, inverted.x[i + 1][owner])
        return Sampled(y, torch.full((len(owner),), 2 * last))

    def texts(self, backbone: Backbone, sources: Sources) -> Texts:
        """Of the B samples."""
        concept = backbone.encode_prompts(sources.target_prompts)
        words = torch.zeros(len(sources), 2, backbone.max_tokens)
        if self.compat == "reference":
            for b, prompt in enumerate(sources.target_prompts):
                words[b, 1, 1 : min(len(backbone.tokenize(prompt)), backbone.max_tokens) - 1] = 1
            base = backbone.encode_prompts([""] * len(sources))
            if base.pooled.shape[-1]:  # SDXL's pipelines embed no prompt as zeros
                zeros = torch.zeros_like(base.hidden), torch.zeros_like(base.pooled)
                base = Conditioning(*zeros)
        else:
            base = backbone.encode_prompts(sources.source_prompts)
            for b, scene in enumerate(sources.scenes):
                difference = prompt_diff(
                    backbone.tokenize(scene.source_prompt),
                    backbone.tokenize(scene.target_prompt),
                    max_tokens=backbone.max_tokens,
                    compat="exact",
                )
                words[b, ("source", "target").index(difference.probe), list(difference.columns)] = 1
        return Texts(base, concept, words.to(concept.hidden.device))

    def noise(self, backbone: Backbone, y: Tensor, timestep: float, texts: Texts) -> Tensor:
        """The guided noise in y [N, C, h, w]."""
        recorder = _recorder(backbone, texts.words.transpose(0, 1).flatten(0, 1))
        eps_base, eps_concept = backbone.predict_noise(
            torch.cat([y, y]),
            torch.full((2 * len(y),), timestep),
            Conditioning.cat([texts.base, texts.concept]),
            recorder,
        ).chunk(2)
        in_base, in_concept = recorder.maps.chunk(2)
        return self.guided(eps_base, eps_concept, in_base + in_concept)

    def guided(self, base: Tensor, concept: Tensor, attention: Tensor) -> Tensor:
        """base, concept: predicted noise [N, C, h, w]; attention: [N, g, g], to the words."""
        guidance = self.scale * (concept - base)
        reached = []
        for words, noise in zip(attention, guidance.abs().sum(dim=1), strict=True):
            reached.append(agreement(words, noise) >= self.threshold - 1e-6)
        return base + guidance * torch.stack(reached)[:, None]


def _recorder(backbone: Backbone, words: Tensor) -> AttentionRecorder:
    return AttentionRecorder(words, backbone.map_size, places=OUTSIDE_MID)
