"""MasaCtrl (Cao et al., arXiv 2304.08465): the edit looks at the source instead of at itself.

Mutual self-attention for the branches of editing/branches.py; knows no masks and no files.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from piebench_masks.diffusion.attention import AttentionControl
from piebench_masks.diffusion.backbone import Backbone, Capability
from piebench_masks.editing.branches import Injection, SourceFeatures, sample_edits
from piebench_masks.editing.editor import Edited, Editor, Sampled, Sources, decoded
from piebench_masks.editing.inversion import Inversion, Invert, ddim, direct, require


@dataclass(frozen=True)
class MasaCtrl(Editor):
    """MasaCtrl as an editor, with the inversions ``ddim`` and ``direct``.

    As published, the source is inverted and sampled without a prompt. From step start_step and
    transformer block start_block on, the edit's self-attention takes the keys and values of its
    source, with and without the target prompt. start_block: a share of the U-Net's blocks, 10 of
    Stable Diffusion's 16. Raises BenchmarkError for other inversions.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = ("self_attention",)
    reads: ClassVar[tuple[str, ...]] = ("image", "prompts")

    inversion: Invert
    steps: int = 50
    guidance: float = 7.5
    start_step: int = 4
    start_block: float = 0.625

    def __post_init__(self) -> None:
        require(self.inversion, "masactrl", ddim, direct)

    def invert(self, backbone: Backbone, sources: Sources) -> Inversion:
        x0 = sources.encoded.mean
        empty_prompt = backbone.encode_prompts([""] * len(x0))
        return self.inversion(backbone, x0, empty_prompt, steps=self.steps, guidance=self.guidance)

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
        blocks = len({layer.block for layer in backbone.layers.values()})
        return sample_edits(
            backbone,
            inverted,
            backbone.encode_prompts([""] * len(sources.source_prompts)),
            backbone.encode_prompts(sources.target_prompts),
            masks,
            owner,
            _Mutual(
                len(sources.source_prompts),
                self.start_step,
                range(math.ceil(self.start_block * blocks), blocks),
            ),
            guidance=self.guidance,
        )


class _Mutual:
    """The steering: the sources' keys and values of one step."""

    def __init__(self, sources: int, start_step: int, blocks: range) -> None:
        self.start_step, self.blocks = start_step, blocks
        self.features = SourceFeatures(sources)

    def source(self, step: int) -> AttentionControl | None:
        return self._injection(step, None)

    def edit(self, step: int, owner: Tensor, *, negative: bool) -> AttentionControl | None:
        return self._injection(step, owner)

    def blend(self, step: int, source: Tensor, y: Tensor) -> Tensor:
        return y

    def _injection(self, step: int, owner: Tensor | None) -> AttentionControl | None:
        if step < self.start_step:
            return None
        return Injection(self.features, ("key", "value"), self.blocks, owner)
