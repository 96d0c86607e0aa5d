"""What the autoencoder alone does to a picture: no edit through it can keep more of the source."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Capability
from piebench_masks.editing.editor import Edited, Editor, Sampled, Sources, decoded


class NothingInverted(NamedTuple):
    """nfe: long [B], all 0."""

    nfe: Tensor


@dataclass(frozen=True)
class Reconstruction(Editor):
    """The picture encoded and decoded, whatever the prompts and the masks."""

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = ()
    reads: ClassVar[tuple[str, ...]] = ("image",)

    def invert(self, backbone: Backbone, sources: Sources) -> NothingInverted:
        return NothingInverted(torch.zeros(len(sources), dtype=torch.long))

    def edit(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: NothingInverted,
        masks: Tensor,
        owner: Tensor,
    ) -> Edited:
        return decoded(backbone, Sampled(sources.encoded.mean[owner], inverted.nfe[owner.cpu()]))
