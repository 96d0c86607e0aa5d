"""What an editor is: two functions over tensors, one before the masks and one for each mask.

Knows pictures, prompts and masks; must not know files or where a mask came from.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Backbone, Capability, Posterior, Prompt
from piebench_masks.errors import BenchmarkError

READABLE = ("image", "target_image", "prompts", "instruction", "blended_word", "mask")
"""What an editor may look at of a sample."""


@dataclass(frozen=True)
class Sources:
    """B pictures to edit, with what is said about them.

    posterior: the VAE's, of B latents; None for an editor that uses no model.
    """

    scenes: Sequence[Scene]
    posterior: Posterior | None

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def encoded(self) -> Posterior:
        """The posterior, where there must be one."""
        if self.posterior is None:
            raise BenchmarkError("this editor needs a model: its `needs` must not be None")
        return self.posterior

    @property
    def images(self) -> Tensor:
        """uint8 [B, H, W, 3] on the CPU, at the model's size."""
        return torch.stack([scene.image for scene in self.scenes])

    @property
    def source_prompts(self) -> list[str]:
        return [scene.source_prompt for scene in self.scenes]

    @property
    def target_prompts(self) -> list[str]:
        return [scene.target_prompt for scene in self.scenes]

    @property
    def target_concepts(self) -> list[Prompt]:
        """What captions say of each target, or its prompt."""
        return [scene.target_concept for scene in self.scenes]

    @property
    def instructions(self) -> list[str]:
        return [scene.instruction for scene in self.scenes]

    @property
    def blended_words(self) -> list[str]:
        """Each "cat dog" (Prompt-to-Prompt's local blend), or empty."""
        return [scene.blended_words for scene in self.scenes]


@dataclass(frozen=True)
class Edited:
    """N edits: uint8 [N, H, W, 3] on the CPU, at the model's size.

    nfe: network evaluations for each, long [N]; finite: bool [N], whether an edit's latents are
    finite: if not, its picture is black.
    """

    images: Tensor
    nfe: Tensor
    finite: Tensor


class Sampled(NamedTuple):
    """N edits' latents [N, C, h, w], and the network evaluations for each: long [N]."""

    latents: Tensor
    nfe: Tensor


class Editor(Protocol):
    """One way to edit. Its settings are its fields, so that they can be set and hashed.

    version: raised by hand when its edits change; needs: what it asks of the model, None for an
    editor without a model, whose backbone is None; reads: which of `READABLE` it looks at.
    In both functions the result of a sample and a mask depends on no other sample or mask.

    An editor with a model of its own is given the run's device if its signature has a ``device``.
    It may also have ``load() -> None``, which loads its networks, so that what is wrong with them
    ends a run at its start; ``counts: Counter[str]``, their rows, as `Backbone` has them; and
    ``masking: str``, how it keeps to masks, for tables.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = ()
    reads: ClassVar[tuple[str, ...]] = READABLE

    def invert(self, backbone: Backbone, sources: Sources) -> Any:
        """All that does not depend on masks; ``.nfe``: evaluations of each sample, long [B]."""

    def edit(
        self, backbone: Backbone, sources: Sources, inverted: Any, masks: Tensor, owner: Tensor
    ) -> Edited:
        """Edit B samples under N masks.

        masks: bool [N, h, w] at the latents' size, the part to edit, all ones for no mask; owner:
        long [N], the sample of each mask; both on the model's device, or on the CPU without one.
        """


class Cost(NamedTuple):
    """Network evaluations and seconds of one edit: its inversion, and its sampling under a mask."""

    nfe_inverse: int
    nfe_forward: int
    seconds_inverse: float
    seconds_forward: float


def paint(
    backbone: Backbone | None, editor: Editor, sources: Sources, masks: Tensor, owner: Tensor
) -> tuple[Edited, list[Cost]]:
    """Edit B samples under N masks, and say what each edit cost.

    masks: bool [N, h, w], owner: long [N], as in `Editor.edit`, on any device. Seconds are shared
    evenly, those of the inversion by the samples and those of the edits by the masks.
    """
    model: Any = backbone  # None for editors that use none: they ignore it
    device = torch.device("cpu") if backbone is None else backbone.device
    owner = owner.cpu()
    started = _now(device)
    inverted = editor.invert(model, sources)
    between = _now(device)
    edited = editor.edit(model, sources, inverted, masks.to(device), owner.to(device))
    ended = _now(device)
    seconds = (between - started) / len(sources), (ended - between) / len(masks)
    nfe = zip(inverted.nfe.cpu()[owner].tolist(), edited.nfe.tolist(), strict=True)
    return edited, [Cost(*counts, *seconds) for counts in nfe]


def decoded(backbone: Backbone, sampled: Sampled) -> Edited:
    """The pictures of the latents; a black one where they are not finite."""
    latents, nfe = sampled
    finite = latents.isfinite().flatten(1).all(dim=1).cpu()
    side = backbone.image_size
    images = torch.zeros(len(latents), side, side, 3, dtype=torch.uint8)
    if finite.any():
        images[finite] = backbone.decode(latents[finite.to(latents.device)])
    return Edited(images, nfe.cpu(), finite)


def check_needs(
    editor: Editor,
    provides: Collection[Capability],
    *,
    name: str | None = None,
    model: str = "this model",
) -> None:
    """Raise BenchmarkError unless the model can do what the editor asks of it.

    name, model: the user's names of both.
    """
    name = name or type(editor).__name__
    missing = [need for need in editor.needs or () if need not in provides]
    if missing:
        raise BenchmarkError(
            f"editor {name} needs {' and '.join(missing)}, which {model} does not provide: choose "
            f"another model, or leave {name} out{FEW_STEPS if 'few_steps' in missing else ''}"
        )


FEW_STEPS = "; for a model that was distilled to few steps set model.few_steps=true"


def _now(device: torch.device) -> float:
    """Seconds on a clock that waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
