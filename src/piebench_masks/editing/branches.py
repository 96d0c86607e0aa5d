"""Two branches from one inversion: the source is sampled beside the edit, and may steer it.

What Prompt-to-Prompt, MasaCtrl and Plug-and-Play have in common; knows none of them.
"""

from collections.abc import Collection, Hashable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from piebench_masks.diffusion.attention import AttentionControl, Layer, Projections
from piebench_masks.diffusion.backbone import Backbone, Conditioning
from piebench_masks.editing.editor import Sampled
from piebench_masks.editing.inversion import Inversion


class Steering(Protocol):
    """How the source branch steers the edits; asked at step 0, 1, ... in turn."""

    def source(self, step: int) -> AttentionControl | None:
        """The control of the B sources' U-Net call, which comes first; it may store features."""

    def edit(self, step: int, owner: Tensor, *, negative: bool) -> AttentionControl | None:
        """The control of the N edits' U-Net call; owner: the sample of each.

        negative: whether the text is the one that guidance leads away from, not the target.
        """

    def blend(self, step: int, source: Tensor, y: Tensor) -> Tensor:
        """y: the edits after this step; source: each one's source after it; both [N, 4, h, w]."""


class SourceFeatures:
    """Tensors of B sources by key. Controls store rows as they see them, some at a time."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._tensors: dict[Hashable, Tensor] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._tensors

    def put(self, key: Hashable, rows: Tensor, values: Tensor) -> None:
        """rows: which of the B the ``values`` [rows, ...] are."""
        if key not in self._tensors:
            self._tensors[key] = values.new_empty(self._count, *values.shape[1:])
        self._tensors[key][rows] = values

    def get(self, key: Hashable, rows: Tensor) -> Tensor:
        return self._tensors[key][rows]


class Injection(AttentionControl):
    """Stores the sources' features (owner is None), or replaces the edits' by their sources'.

    projections: some of query, key and value, of self-attention in these transformer blocks.
    """

    def __init__(
        self,
        features: SourceFeatures,
        projections: Collection[str],
        blocks: Collection[int],
        owner: Tensor | None,
        resnets: tuple[str, ...] = (),
    ) -> None:
        self.features, self.projections, self.blocks = features, projections, blocks
        self.owner, self.resnets = owner, resnets

    def attend(self, layer: Layer, projections: Projections) -> Tensor | None:
        if layer.is_cross or layer.block not in self.blocks:
            return None
        if self.owner is None:
            for name in self.projections:
                self.features.put((layer, name), self.rows, getattr(projections, name))
            return None
        owner = self.owner[self.rows]
        query, key, value = (
            self.features.get((layer, name), owner)
            if name in self.projections
            else getattr(projections, name)
            for name in ("query", "key", "value")
        )
        return F.scaled_dot_product_attention(query, key, value, scale=projections.scale)

    def residual(self, name: str, hidden: Tensor) -> Tensor:
        if self.owner is None:
            self.features.put(name, self.rows, hidden)
            return hidden
        return self.features.get(name, self.owner[self.rows])


class StoredAttention(AttentionControl):
    """Stores the probabilities [rows, heads, Q, L] of some layers."""

    def __init__(self, attention: SourceFeatures, layers: Collection[Layer]) -> None:
        self.attention, self.layers = attention, layers

    def attend(self, layer: Layer, projections: Projections) -> None:
        if layer in self.layers:
            self.attention.put(layer, self.rows, projections.probabilities)


class AttentionLoss(AttentionControl):
    """How far N rows' attention in some layers is from that of their sources.

    owner: [N], the source of each. losses: [N], squared differences, averaged over heads, summed
    over places and text positions (or averaged over them, too: ``mean``), and summed over layers.
    """

    def __init__(
        self,
        attention: SourceFeatures,
        owner: Tensor,
        layers: Collection[Layer],
        *,
        mean: bool = False,
    ) -> None:
        self.attention, self.owner, self.layers, self.mean = attention, owner, layers, mean
        self.losses = torch.zeros(len(owner), device=owner.device)

    def attend(self, layer: Layer, projections: Projections) -> None:
        if layer not in self.layers:
            return
        stored = self.attention.get(layer, self.owner[self.rows])
        squares = (projections.probabilities - stored).square().mean(dim=1)
        losses = squares.mean(dim=(1, 2)) if self.mean else squares.sum(dim=(1, 2))
        repeats = (self.rows[:, None] == self.rows).sum(dim=1)  # the padding of a block
        self.losses = self.losses.index_add(0, self.rows, losses / repeats)


@torch.inference_mode()
def sample_edits(
    backbone: Backbone,
    inversion: Inversion,
    source: Conditioning,
    target: Conditioning,
    masks: Tensor,
    owner: Tensor,
    steering: Steering,
    *,
    guidance: float,
    proximal: float | None = None,
) -> Sampled:
    """Sample N edits of B inverted sources, under masks.

    source, target: B prompts; masks: bool [N, h, w]; owner: long [N]. After every step but the last
    the part outside the mask is replaced by the source's x. guidance: its scale, 1 for none.
    proximal: the quantile of the absolute guidance differences of edit and source together, at
    which both are soft-thresholded (Han et al. 2306.05414); it needs one edit for each source
    under guidance. None: no threshold.
    nfe: of each edit and its source branch, which the edits of a sample share.
    """
    samples = torch.arange(inversion.x.shape[1], device=owner.device)
    trajectory = inversion.trajectory
    y_source = inversion.x[0] if trajectory is None else trajectory[0]
    y = y_source[owner]
    nfe = torch.zeros(len(samples), dtype=torch.long)
    for i, timestep in enumerate(inversion.timesteps):
        negative = inversion.negative[i]

        def noise(z: Tensor, text: Conditioning, control: AttentionControl | None) -> Tensor:
            t = torch.full((len(z),), timestep)  # noqa: B023
            return backbone.predict_noise(z, t, text, control)

        eps_source = noise(y_source, source, steering.source(i))
        nfe += 1
        # Guidance between equal prompts changes nothing, and is not asked for.
        differs = (source.hidden != negative.hidden).flatten(1).any(dim=1)
        guided = samples[differs & (guidance != 1) & (trajectory is None)]
        eps_negative_source = eps_source.clone()
        if len(guided):
            eps_negative_source[guided] = noise(y_source[guided], negative[guided], None)
            nfe[guided.cpu()] += 1
        source_difference = eps_source - eps_negative_source

        eps = noise(y, target[owner], steering.edit(i, owner, negative=False))
        nfe += 1
        if guidance != 1:
            eps_negative = noise(y, negative[owner], steering.edit(i, owner, negative=True))
            nfe += 1
            difference = eps - eps_negative
            if proximal is not None:
                differences = torch.stack([source_difference[owner], difference])
                limit = differences.abs().transpose(0, 1).flatten(1).quantile(proximal, dim=1)
                differences = differences - differences.clamp(
                    -limit.view(-1, 1, 1, 1), limit.view(-1, 1, 1, 1)
                )
                source_difference[owner], difference = differences
            eps = eps_negative + guidance * difference

        if trajectory is None:
            eps_source = eps_negative_source + guidance * source_difference
            y_source = inversion.step(i, y_source, eps_source, samples)
        else:
            y_source = trajectory[i + 1]
        y = steering.blend(i, y_source[owner], inversion.step(i, y, eps, owner))
        if i < len(inversion.timesteps) - 1:
            y = torch.where(masks[:, None], y, inversion.x[i + 1][owner])
    return Sampled(y, nfe[owner.cpu()])
