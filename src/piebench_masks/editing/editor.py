"""What an editor is: two functions over tensors, what masks share and what they do not.

Knows latents, prompts and masks; must not know files or where a mask came from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Posterior


@dataclass(frozen=True)
class Sources:
    """B pictures to edit, with what is said about them.

    images: uint8 [B, H, W, 3] at the model's size; posterior: the VAE's, of B latents;
    blended_words: "cat dog" (Prompt-to-Prompt's local blend), or empty.
    """

    images: Tensor
    posterior: Posterior
    source_prompts: Sequence[str]
    target_prompts: Sequence[str]
    instructions: Sequence[str]
    blended_words: Sequence[str]


@dataclass(frozen=True)
class Edited:
    """N edits' latents [N, 4, h, w], and how often the U-Net was evaluated for each: long [N].

    decoder: whose VAE the latents are of, if not the backbone's that the editor was given.
    """

    latents: Tensor
    nfe: Tensor
    decoder: Backbone | None = None


class Editor(Protocol):
    """One way to edit. Its settings are its fields, so that they can be set and hashed.

    Neither function may let one sample, or one mask, change what becomes of another.
    """

    def invert(self, backbone: Backbone, sources: Sources) -> Any:
        """All that no mask has a part in. ``.nfe``: U-Net evaluations of each sample, long [B]."""

    def edit(
        self, backbone: Backbone, sources: Sources, inverted: Any, masks: Tensor, owner: Tensor
    ) -> Edited:
        """Edit B samples under N masks.

        masks: bool [N, h, w], the part to edit, all ones for no mask; owner: long [N], the sample
        of each mask; both, like the latents, on the backbone's device.
        """
