"""Any pipeline of diffusers that edits a picture by a text, with its own arguments, as an editor.

Knows no pipeline, and no files but those of its model.
"""

import inspect
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from piebench_masks.diffusion.backbone import Backbone, Capability
from piebench_masks.diffusion.pipelines import load_pipeline
from piebench_masks.diffusion.source import resolve_model
from piebench_masks.editing.editor import Edited, Editor, Sources
from piebench_masks.editing.instructed import fitted, instructions
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import NO_OUTPUT, part_identity
from piebench_masks.masks.postprocess import blurred, gaussian
from piebench_masks.values import unknown
from piebench_masks.weights import quiet

SETTING = "editor.pipeline"
"""Where a user sets it, unless under another name."""
NETWORKS = ("transformer", "transformer_2", "unet")
"""Parts of pipelines whose rows are an edit's cost."""
MASK = "mask_image"
GIVEN = ("image", "prompt", MASK, "generator", "return_dict")
"""Arguments of a call that the benchmark gives."""


@dataclass(frozen=True)
class DiffusersPipeline(Editor):
    """A pipeline of diffusers as an editor: one call a picture, or one a mask if it takes masks.

    pipeline: the import path of its class; id: a hub name, or a folder; arguments: of its call;
    prompt: what it is told; a sample without an instruction is edited by its target prompt;
    feather: where the pipeline takes no mask, and pixels outside are laid over from the source: the
    standard deviation, in pixels, of the Gaussian over the mask's edge, 0 for a hard one; offload:
    diffusers' ways to run what does not fit on the device. Every edit has a generator of its own,
    seeded with ``seed``. The empty mask leaves the source as it is, at no call.

    It uses no model but its own. Raises BenchmarkError where there is no such pipeline or model.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = None

    pipeline: str
    id: str = field(metadata=NO_OUTPUT)
    arguments: Mapping[str, Any] | None = None
    prompt: Literal["instruction", "target"] = "instruction"
    feather: float = 0.0
    revision: str | None = field(default=None, metadata=NO_OUTPUT)
    variant: str | None = None
    cache_dir: str | None = field(default=None, metadata=NO_OUTPUT)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    offload: Literal["none", "model", "sequential"] = field(default="none", metadata=NO_OUTPUT)
    device: str = field(default="cpu", metadata=NO_OUTPUT)
    seed: int = 8128

    def __post_init__(self) -> None:
        if self.feather < 0:
            raise BenchmarkError(f"{SETTING}.feather is {self.feather:g}: it must not be negative")

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        told = ("instruction",) if self.prompt == "instruction" else ()
        return ("image", "prompts", *told)

    def identity(self) -> Any:
        """The class, and what stands for its weights: their commit, or their files' content."""
        return {"class": part_identity(self._kind), "files": self._source[1]}

    def load(self) -> None:
        """Load the pipeline: BenchmarkError."""
        _ = self._pipeline

    @cached_property
    def counts(self) -> Counter[str]:
        """Rows of the pipeline's network so far."""
        return Counter()

    @property
    def masking(self) -> str:
        """How masks are kept to, as tables have it."""
        if self._takes_masks:
            return f"its own {MASK}"
        return f"laid over, feathered by {self.feather:g} px" if self.feather else "laid over, hard"

    def invert(self, backbone: Backbone | None, sources: Sources) -> Edited:
        """The edits that all masks of a sample share; the sources where each mask has its own."""
        if self._takes_masks:
            nothing = torch.zeros(len(sources), dtype=torch.long)
            return Edited(sources.images, nothing, torch.ones_like(nothing).bool())
        return self._edited(sources, range(len(sources)), None)

    def edit(
        self,
        backbone: Backbone | None,
        sources: Sources,
        inverted: Edited,
        masks: Tensor,
        owner: Tensor,
    ) -> Edited:
        masks, owner = masks.cpu(), owner.cpu()
        if self._takes_masks:
            return self._edited(sources, owner.tolist(), masks)
        pictures = laid_over(sources.images[owner], inverted.images[owner], masks, self.feather)
        return Edited(pictures, torch.zeros_like(owner), inverted.finite[owner])

    def _edited(self, sources: Sources, owner: Sequence[int], masks: Tensor | None) -> Edited:
        """An edit for each owner. masks: bool [N, h, w], of a pipeline that takes them."""
        texts = instructions(sources) if self.prompt == "instruction" else sources.target_prompts
        pictures, nfe = [], []
        for i, row in enumerate(owner):
            mask = None if masks is None else masks[i]
            picture, rows = self._edit(sources.scenes[row].image, texts[row], mask)
            pictures.append(picture)
            nfe.append(rows)
        self.counts["unet_rows"] += sum(nfe)
        images = torch.stack(pictures)
        return Edited(images, torch.tensor(nfe), finite=images.flatten(1).any(dim=1))

    def _edit(self, source: Tensor, text: str, mask: Tensor | None) -> tuple[Tensor, int]:
        """The picture at the size of its source, black where it is not finite, and its rows."""
        if mask is not None and not mask.any():
            return source, 0
        masked = {} if mask is None else {MASK: picture_of(mask, source)}
        with self._counted() as count:
            picture = self._called(image=Image.fromarray(source.numpy()), prompt=text, **masked)
        if not np.isfinite(picture).all():
            return torch.zeros_like(source), count["rows"]
        return brought(picture, source), count["rows"]

    def _called(self, **given: Any) -> Any:
        """What the pipeline makes of them: [H, W, 3], uint8 or in [0, 1]."""
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging as transformers_logging

        generator = torch.Generator().manual_seed(self.seed)
        arguments = {"output_type": "np", **(self.arguments or {}), **given, "generator": generator}
        with quiet(diffusers_logging, transformers_logging):
            picture = np.asarray(self._pipeline(**arguments).images[0])
        if picture.ndim != 3 or picture.shape[-1] != 3:
            raise BenchmarkError(
                f"{self.pipeline} gives an array {picture.shape} and no picture: leave output_type "
                "out of the editor's arguments"
            )
        return picture

    @contextmanager
    def _counted(self) -> Iterator[Counter[str]]:
        """Counts the rows of the pipeline's networks meanwhile."""
        counted: Counter[str] = Counter()

        def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            first = args[0] if args else kwargs.get("hidden_states", next(iter(kwargs.values())))
            counted["rows"] += len(first)

        parts = [getattr(self._pipeline, name, None) for name in NETWORKS]
        hooks = [
            part.register_forward_pre_hook(count, with_kwargs=True)
            for part in parts
            if isinstance(part, nn.Module)
        ]
        try:
            yield counted
        finally:
            for hook in hooks:
                hook.remove()

    @cached_property
    def _takes_masks(self) -> bool:
        return MASK in inspect.signature(self._kind.__call__).parameters

    @cached_property
    def _kind(self) -> Any:
        """The pipeline's class; BenchmarkError unless it can be called as the settings say."""
        module, _, name = self.pipeline.rpartition(".")
        try:
            kind = getattr(import_module(module), name)
            names = [*inspect.signature(kind.__call__).parameters]
            _ = kind.from_pretrained
        except Exception as error:  # importing runs whatever is there
            raise BenchmarkError(
                f"{SETTING}.pipeline={self.pipeline} is no class of diffusers ({error}): set it to "
                "the import path of an editing pipeline, such as diffusers.FluxKontextPipeline"
            ) from error
        if missing := [name for name in ("image", "prompt", "generator") if name not in names]:
            raise BenchmarkError(
                f"{self.pipeline} takes no {' and no '.join(missing)}: choose a pipeline that "
                "edits a picture by a text"
            )
        for name in self.arguments or {}:
            if name in GIVEN:
                raise BenchmarkError(
                    f"{SETTING}.arguments has {name}, which the benchmark gives: leave it out"
                )
            if name not in names:
                known = [f"{SETTING}.arguments.{known}" for known in names]
                raise BenchmarkError(unknown(f"{SETTING}.arguments.{name}", known))
        return kind

    @cached_property
    def _source(self) -> tuple[Path, str]:
        return resolve_model(
            self.id,
            revision=self.revision,
            variant=self.variant,
            cache_dir=self.cache_dir,
            setting=SETTING,
            unused=("safety_checker",),
        )

    @cached_property
    def _pipeline(self) -> Any:
        """On its device, of which its networks are counted."""
        takes = inspect.signature(self._kind).parameters
        unchecked = {"safety_checker": None, "requires_safety_checker": False}
        dtype = getattr(torch, self.dtype)
        pipeline = load_pipeline(
            self._kind,
            self._source[0],
            f"in {SETTING}.id a folder of {self.pipeline}",
            variant=self.variant,
            dtype=dtype,
            vae_dtype=dtype,  # these pipelines hand pictures to the VAE in their own precision
            **{name: value for name, value in unchecked.items() if name in takes},
        )
        if not any(isinstance(getattr(pipeline, name, None), nn.Module) for name in NETWORKS):
            raise BenchmarkError(
                f"{self.pipeline} has no {' and no '.join(NETWORKS)}, so that its cost cannot be "
                "counted: choose another pipeline"
            )
        pipeline.set_progress_bar_config(disable=True)
        try:
            match self.offload:
                case "none":
                    pipeline.to(self.device)
                case "model":
                    pipeline.enable_model_cpu_offload(device=self.device)
                case "sequential":
                    pipeline.enable_sequential_cpu_offload(device=self.device)
        except (ImportError, RuntimeError, ValueError) as error:
            raise BenchmarkError(
                f"{self.pipeline} cannot be put on {self.device} with offload={self.offload} "
                f"({error}): model and sequential need a GPU and the package accelerate, none "
                "needs room for the whole pipeline"
            ) from error
        return pipeline


def laid_over(sources: Tensor, edits: Tensor, masks: Tensor, feather: float) -> Tensor:
    """The edits inside the masks, the sources outside; all uint8 [N, H, W, 3].

    masks: bool [N, h, w]; feather: the standard deviation of the Gaussian over their edges, in
    pixels; 0: hard edges.
    """
    shares = fitted(masks, sources.movedim(-1, 1)).float()[:, 0]
    if feather > 0:
        radius = min(math.ceil(3 * feather), min(shares.shape[1:]) - 1)
        kernel = gaussian(feather, radius)
        shares = torch.stack([blurred(share, kernel) for share in shares])
    return sources.float().lerp(edits.float(), shares[..., None]).round().to(torch.uint8)


def picture_of(mask: Tensor, source: Tensor) -> Image.Image:
    """The mask [h, w] in black and white, white where to edit, at the size of the source."""
    pixels = fitted(mask[None], source.movedim(-1, 0))[0, 0]
    return Image.fromarray(pixels.numpy().astype(np.uint8) * 255)


def brought(picture: Any, source: Tensor) -> Tensor:
    """A pipeline's picture as uint8 [H, W, 3] at the size of the source."""
    if picture.dtype != np.uint8:
        picture = (picture * 255).round().clip(0, 255).astype(np.uint8)
    height, width, _ = source.shape
    resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized))
