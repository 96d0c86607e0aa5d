"""Prompt-to-Prompt (Hertz et al., arXiv 2208.01626): the edit attends as its source does.

With any inversion, and under masks. Knows nothing of files or of where a mask came from.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from piebench_masks.diffusion.attention import (
    AttentionControl,
    AttentionRecorder,
    Layer,
    Projections,
)
from piebench_masks.diffusion.backbone import Backbone, Capability
from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.editing.alignment import (
    Bounds,
    Prompt,
    blended_positions,
    cross_schedule,
    refine,
    replace,
)
from piebench_masks.editing.branches import SourceFeatures, sample_edits
from piebench_masks.editing.editor import Edited, Editor, Sampled, Sources, decoded
from piebench_masks.editing.inversion import Inversion, direct, require, with_offsets
from piebench_masks.errors import BenchmarkError

BLEND_FROM = 0.2
"""The share of the steps before which nothing is blended."""


@dataclass(frozen=True)
class PromptToPrompt(Editor):
    """Prompt-to-Prompt as an editor.

    alignment: replace matches word by word where both prompts have as many words, else refine.
    cross_replace, self_replace: the share of the steps, from the first on, in which cross-attention
    and self-attention are the source's; cross_replace_words: the bounds of single words.
    self_replace_side: the largest side, as a share of the latents', at which self-attention is
    replaced. reweight: factor of the attention to the second blended word. blend_threshold: the
    edit may differ from its source where the attention to the blended words is above this share of
    the largest; None: everywhere. proximal: see `sample_edits`. offsets: what guided steps with the
    source's or the target's prompt miss of the inversion is added to the edits, too (two ablations
    of PnP Inversion, 2310.01506); None: to the source branch alone.
    compat: reference finds words as the published code does (`alignment`), and gives the source
    itself where no blended word is found.
    Raises BenchmarkError for shares that are not from 0 to 1, and for offsets of an inversion other
    than ``direct``.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = ("self_attention",)
    reads: ClassVar[tuple[str, ...]] = ("image", "prompts", "blended_word")

    inversion: Callable[..., Inversion]
    steps: int = 50
    guidance: float = 7.5
    alignment: Literal["refine", "replace"] = "refine"
    cross_replace: float = 0.4
    cross_replace_words: Mapping[str, Bounds] = field(default_factory=dict)
    self_replace: float = 0.6
    self_replace_side: float = 0.5
    reweight: float = 2.0
    blend_threshold: float | None = 0.3
    proximal: float | None = None
    offsets: Literal["source", "target"] | None = None
    compat: Compat = "exact"

    def __post_init__(self) -> None:
        for name in ("cross_replace", "self_replace", "self_replace_side", "proximal"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise BenchmarkError(f"prompt_to_prompt.{name} is {share}: set it from 0 to 1")
        for word, bounds in self.cross_replace_words.items():
            if not (isinstance(bounds, Sequence) and len(bounds) == 2):
                raise BenchmarkError(
                    f"prompt_to_prompt.cross_replace_words.{word} is {bounds}: set two shares "
                    "of the steps, as in [0, 0.3]"
                )
        if self.offsets is not None:
            require(self.inversion, "prompt_to_prompt with offsets", direct)

    def invert(self, backbone: Backbone, sources: Sources) -> Inversion:
        source = backbone.encode_prompts(sources.source_prompts)
        inverted = self.inversion(
            backbone, sources.encoded.mean, source, steps=self.steps, guidance=self.guidance
        )
        if self.offsets is None:
            return inverted
        prompts = sources.source_prompts if self.offsets == "source" else sources.target_prompts
        return with_offsets(backbone, inverted, backbone.encode_prompts(prompts), self.guidance)

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
        source = backbone.encode_prompts(sources.source_prompts)
        target = backbone.encode_prompts(sources.target_prompts)
        plans = self.plans(backbone, sources)
        guided = not all(torch.equal(text.hidden, source.hidden) for text in inverted.negative)
        if self.proximal is not None and guided and inverted.trajectory is None:
            # The threshold on the source's guidance depends on the edit: each gets its own source.
            plans = [plans[b] for b in owner.tolist()]
            inverted, source, target = inverted[owner], source[owner], target[owner]
            owner = torch.arange(len(owner), device=owner.device)
        steering = self.steering(plans, owner, backbone.map_size, inverted.x[0, 0, 0].numel())
        return sample_edits(
            backbone,
            inverted,
            source,
            target,
            masks,
            owner,
            steering,
            guidance=self.guidance,
            proximal=self.proximal,
        )

    def steering(
        self, plans: Sequence["Plan"], owner: Tensor, map_size: int, places: int
    ) -> "AttentionSteering":
        """places: of a latent, h * w."""
        stops = [0.0, *(stop for _, stop in self.cross_replace_words.values())]
        return AttentionSteering(
            plans,
            owner,
            steps=self.steps,
            cross_steps=int(max(self.cross_replace, *stops) * (self.steps + 1)),
            self_steps=int(self.self_replace * self.steps),
            self_queries=int(self.self_replace_side**2 * places),
            map_size=map_size,
            blend_threshold=self.blend_threshold,
        )

    def plans(self, backbone: Backbone, sources: Sources) -> list["Plan"]:
        """The attention of each sample's edits."""
        texts = zip(
            sources.source_prompts, sources.target_prompts, sources.blended_words, strict=True
        )
        return [
            self.plan(
                self.parse(backbone, source),
                self.parse(backbone, target),
                blended,
                backbone.max_tokens,
            )
            for source, target, blended in texts
        ]

    def parse(self, backbone: Backbone, text: str) -> Prompt:
        return Prompt.parse(
            text,
            backbone.tokenize,
            backbone.token_text,
            max_tokens=backbone.max_tokens,
            compat=self.compat,
        )

    def plan(self, source: Prompt, target: Prompt, blended: str, length: int) -> "Plan":
        aligned = replace(source, target, length) if self.alignment == "replace" else None
        aligned = aligned or refine(source, target, length)
        schedule = cross_schedule(
            target, self.steps, length, (0.0, self.cross_replace), self.cross_replace_words
        )
        words = blended_positions(source, target, blended, length)
        weights = torch.where(words[1] > 0, self.reweight, 1.0)
        blends = bool(blended.split()) and (self.compat == "reference" or bool(words.any()))
        return Plan(
            schedule[:, None] * weights * aligned.source_share,
            schedule * weights * aligned.target_share + 1 - schedule,
            words,
            torch.tensor(blends),
        )


@dataclass(frozen=True)
class Plan:
    """How the edits of a sample attend to their L text positions, and where they may differ.

    source_share: [S + 1, L, L], the factor of each source position (rows) in a target position
    (columns) at every step; target_share: [S + 1, L], that of the target's own attention; words:
    [2, L], 1 at the positions of the blended word in source and target; blends: whether there is a
    blended word.
    """

    source_share: Tensor
    target_share: Tensor
    words: Tensor
    blends: Tensor


class AttentionSteering:
    """Prompt-to-Prompt's part in `sample_edits`, for N edits of the B samples that have a plan.

    cross_steps: the step where the last plan stops to replace cross-attention; self_steps,
    self_queries: the step where self-attention stops to be replaced, and the most places it has
    where it is. Holds the source's attention of one step, and the blended words' maps summed over
    all.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        owner: Tensor,
        *,
        steps: int,
        cross_steps: int,
        self_steps: int,
        self_queries: int,
        map_size: int,
        blend_threshold: float | None,
    ) -> None:
        self._owner, self._steps, self._threshold = owner, steps, blend_threshold
        self._cross_steps = cross_steps
        self._self_steps, self._self_queries = self_steps, self_queries
        self._map_size = map_size
        self._plan = Plan(
            torch.stack([plan.source_share for plan in plans]).to(owner.device),
            torch.stack([plan.target_share for plan in plans]).to(owner.device),
            torch.stack([plan.words for plan in plans]).to(owner.device),
            torch.stack([plan.blends for plan in plans]).to(owner.device),
        )
        maps = torch.zeros(map_size, map_size, device=owner.device)
        self.source_maps, self.edit_maps = maps.repeat(len(plans), 1, 1), maps[None]

    def source(self, step: int) -> AttentionControl:
        self._source = SourceAttention(
            AttentionRecorder(self._plan.words[:, 0], self._map_size),
            keeps_cross=step < self._cross_steps,
            self_queries=self._self_queries if step < self._self_steps else 0,
        )
        return self._source

    def edit(self, step: int, owner: Tensor, *, negative: bool) -> AttentionControl | None:
        if negative:
            return None
        self._edit = EditAttention(
            AttentionRecorder(self._plan.words[owner, 1], self._map_size),
            self._source,
            owner,
            self._plan.source_share[:, step],
            self._plan.target_share[:, step],
        )
        return self._edit

    def blend(self, step: int, source: Tensor, y: Tensor) -> Tensor:
        self.source_maps = self.source_maps + self._source.recorder.maps
        self.edit_maps = self.edit_maps + self._edit.recorder.maps
        if self._threshold is None or step < int(BLEND_FROM * self._steps):
            return y
        size = (y.shape[-2], y.shape[-1])
        editable = blend_masks(self.source_maps, size, self._threshold)[self._owner]
        editable = editable | blend_masks(self.edit_maps, size, self._threshold)
        editable = editable | ~self._plan.blends[self._owner, None, None]
        return torch.where(editable[:, None], y, source)


class SourceAttention(AttentionControl):
    """Stores the B sources' attention at one step, for their edits.

    cross_attention: each layer's probabilities [B, heads, Q, L]; query_key: query and key
    [B, 2, heads, Q, d] of the self-attention layers with at most ``self_queries`` places.
    """

    def __init__(
        self, recorder: AttentionRecorder, *, keeps_cross: bool, self_queries: int
    ) -> None:
        self.recorder = recorder
        self.keeps_cross, self.self_queries = keeps_cross, self_queries
        self.cross_attention = SourceFeatures(len(recorder.maps))
        self.query_key = SourceFeatures(len(recorder.maps))

    def select(self, rows: Tensor) -> None:
        super().select(rows)
        self.recorder.select(rows)

    def attend(self, layer: Layer, projections: Projections) -> None:
        if layer.is_cross:
            self.recorder.attend(layer, projections)
            if self.keeps_cross:
                self.cross_attention.put(layer, self.rows, projections.probabilities)
        elif projections.queries <= self.self_queries:
            pair = torch.stack([projections.query, projections.key], dim=1)
            self.query_key.put(layer, self.rows, pair)


class EditAttention(AttentionControl):
    """Gives N edits the attention of their sources at one step.

    owner: [N]; source_share: [B, L, L]; target_share: [B, L]. As in the published code, the
    attention is recorded after its replacement.
    """

    def __init__(
        self,
        recorder: AttentionRecorder,
        source: SourceAttention,
        owner: Tensor,
        source_share: Tensor,
        target_share: Tensor,
    ) -> None:
        self.recorder, self.source = recorder, source
        self.owner, self.source_share, self.target_share = owner, source_share, target_share

    def select(self, rows: Tensor) -> None:
        super().select(rows)
        self.recorder.select(rows)

    def attend(self, layer: Layer, projections: Projections) -> Tensor | None:
        sample = self.owner[self.rows]
        if layer in self.source.query_key:
            query, key = self.source.query_key.get(layer, sample).unbind(dim=1)
            return F.scaled_dot_product_attention(
                query, key, projections.value, scale=projections.scale
            )
        if layer not in self.source.cross_attention:
            self.recorder.attend(layer, projections)
            return None
        probabilities = (
            self.source.cross_attention.get(layer, sample) @ self.source_share[sample, None]
            + projections.probabilities * self.target_share[sample, None, None]
        )
        if projections.queries == self.recorder.maps[0].numel():
            self.recorder.add(probabilities)
        return probabilities.to(projections.value.dtype) @ projections.value


def blend_masks(maps: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Maps [B, g, g] of a word -> bool [B, h, w]: the places that look at it, and their neighbours.

    A map of zeros gives no place.
    """
    widened = F.max_pool2d(maps[:, None], kernel_size=3, stride=1, padding=1)
    widened = F.interpolate(widened, size=size)[:, 0]
    return widened / widened.amax(dim=(1, 2), keepdim=True) > threshold
