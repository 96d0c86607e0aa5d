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
        """For the U-Net call of the B sources, which comes first: it may keep what it sees."""

    def edit(self, step: int, owner: Tensor, *, negative: bool) -> AttentionControl | None:
        """For the call of the N edits, of the samples that ``owner`` names, under the target or
        (negative) under what guidance leads away from.
        """

    def blend(self, step: int, source: Tensor, y: Tensor) -> Tensor:
        """The edits [N, 4, h, w] after this step, given each one's source after it."""


class Kept:
    """Tensors of B rows under keys, of rows that a control is shown some at a time."""

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
    """Keeps the sources' features (owner is None), or puts the owner's in the place of its own.

    projections: which of query, key and value, of self-attention in these transformer blocks.
    """

    def __init__(
        self,
        kept: Kept,
        projections: Collection[str],
        blocks: Collection[int],
        owner: Tensor | None,
        resnets: tuple[str, ...] = (),
    ) -> None:
        self.kept, self.projections, self.blocks = kept, projections, blocks
        self.owner, self.resnets = owner, resnets

    def attend(self, layer: Layer, projections: Projections) -> Tensor | None:
        if layer.is_cross or layer.block not in self.blocks:
            return None
        if self.owner is None:
            for name in self.projections:
                self.kept.put((layer, name), self.rows, getattr(projections, name))
            return None
        owner = self.owner[self.rows]
        query, key, value = (
            self.kept.get((layer, name), owner)
            if name in self.projections
            else getattr(projections, name)
            for name in ("query", "key", "value")
        )
        return F.scaled_dot_product_attention(query, key, value, scale=projections.scale)

    def residual(self, name: str, hidden: Tensor) -> Tensor:
        if self.owner is None:
            self.kept.put(name, self.rows, hidden)
            return hidden
        return self.kept.get(name, self.owner[self.rows])


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
    the source's own x takes the place of what lies outside the mask. guidance: its scale, 1 for
    none. proximal: quantile of the guidance's difference in edit and source together, by which both
    are cut (Han et al. 2306.05414), so that a source which guidance leads may have one edit only;
    None: none is.
    nfe: of each edit with its source branch, which the edits of a sample share.
    """
    everyone = torch.arange(inversion.x.shape[1], device=owner.device)
    trajectory = inversion.trajectory
    y_source = inversion.x[0] if trajectory is None else trajectory[0]
    y = y_source[owner]
    nfe = torch.zeros(len(everyone), dtype=torch.long)
    for i, timestep in enumerate(inversion.timesteps):
        negative = inversion.negative[i]

        def noise(z: Tensor, text: Conditioning, control: AttentionControl | None) -> Tensor:
            t = torch.full((len(z),), timestep)  # noqa: B023
            return backbone.predict_noise(z, t, text, control)

        eps_source = noise(y_source, source, steering.source(i))
        nfe += 1
        # Guidance between equal prompts changes nothing, and is not asked for.
        differs = (source.hidden != negative.hidden).flatten(1).any(dim=1)
        guided = everyone[differs & (guidance != 1) & (trajectory is None)]
        away_source = eps_source.clone()
        if len(guided):
            away_source[guided] = noise(y_source[guided], negative[guided], None)
            nfe[guided.cpu()] += 1
        toward_source = eps_source - away_source

        eps = noise(y, target[owner], steering.edit(i, owner, negative=False))
        nfe += 1
        if guidance != 1:
            away = noise(y, negative[owner], steering.edit(i, owner, negative=True))
            nfe += 1
            toward = eps - away
            if proximal is not None:
                both = torch.stack([toward_source[owner], toward])
                cut = both.abs().transpose(0, 1).flatten(1).quantile(proximal, dim=1)
                both = both - both.clamp(-cut.view(-1, 1, 1, 1), cut.view(-1, 1, 1, 1))
                toward_source[owner], toward = both
            eps = away + guidance * toward

        if trajectory is None:
            eps_source = away_source + guidance * toward_source
            y_source = inversion.step(i, y_source, eps_source, everyone)
        else:
            y_source = trajectory[i + 1]
        y = steering.blend(i, y_source[owner], inversion.step(i, y, eps, owner))
        if i < len(inversion.timesteps) - 1:
            y = torch.where(masks[:, None], y, inversion.x[i + 1][owner])
    return Sampled(y, nfe[owner.cpu()])
