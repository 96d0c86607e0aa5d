"""D-Edit (Feng et al., arXiv 2403.04880) as an editor: a model is fitted to every picture and its
items once, and each mask is then painted as the item that it covers most of.

Knows pictures and masks; must not know where either came from.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Backbone, Capability
from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.editing.editor import Edited, Editor, Sampled, Sources, decoded
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import part_identity
from piebench_masks.items.fit import Picture, fit
from piebench_masks.items.fitted import FitSettings, Fitted, image_identity
from piebench_masks.items.mask_edits import NOBODY, assign, fill, ring
from piebench_masks.items.partition import Partition
from piebench_masks.items.regions import Regions
from piebench_masks.items.sampling import Sampling, Source, sample
from piebench_masks.items.segment import Panoptic, panoptic_items, text_items
from piebench_masks.items.tokens import ItemPrompt
from piebench_masks.masks.binarize import nearest_exact
from piebench_masks.masks.segmenter import Segmenter

REGION, REST, EDIT = "region", "rest", "edit"
"""Names of items: the annotated mask, what lies outside it, and a mask where none could be it."""
PUBLISHED_SIZE = 1024
"""The side of the pictures that thickness is in pixels of."""
Words = Literal["target", "blended"]


@dataclass(frozen=True)
class ItemFitting:
    """How `Items` fits a model to a picture: its settings, and what finds the picture's items."""

    version: ClassVar[int] = 1

    settings: FitSettings
    segmentation: Literal["annotated"] | Panoptic | Segmenter

    @property
    def reads(self) -> tuple[str, ...]:
        if self.segmentation == "annotated":
            return ("image", "mask")
        if isinstance(self.segmentation, Panoptic):
            return ("image",)
        words = ("blended_word",) if self.segmentation.words == "blended" else ()
        return ("image", "prompts", *words)

    def identity(self) -> Any:
        """What cuts a text segmenter's map, which is no part of the segmenter's own identity."""
        if isinstance(self.segmentation, Segmenter):
            return [self.segmentation.threshold, part_identity(self.segmentation.cutter)]
        return None

    def load(self, device: torch.device) -> None:
        """Load the segmenter's network: WeightsError."""
        if self.segmentation != "annotated":
            self.segmentation.load(device)

    def items(self, scene: Scene, device: torch.device) -> Partition:
        """The items of a picture, at its size; `all` alone where a text names nothing in it."""
        if isinstance(self.segmentation, Panoptic):
            return self.segmentation(scene.image.numpy(), device)
        if self.segmentation != "annotated":
            if words := self.segmentation.sought(scene):
                return text_items(self.segmentation, scene.image.numpy(), [words], device)
            return panoptic_items(torch.zeros(scene.image.shape[:2], dtype=torch.long), {})
        if scene.annotation is None:
            raise BenchmarkError(
                f"sample {scene.id} has no annotated mask to take its items from: set the editor's "
                "segmentation to a panoptic or a text segmenter"
            )
        region = nearest_exact(scene.annotation[None], len(scene.image))[0].bool()
        return Partition((REGION, REST), torch.stack([region, ~region]))

    def __call__(
        self,
        backbone: Backbone,
        scene: Scene,
        *,
        model: str = "",
        checkpoint: Path | None = None,
        progress: Callable[[float], None] = lambda share: None,
    ) -> Fitted:
        settings = self.settings
        passes = settings.embedding_steps + settings.unet_steps
        return fit(
            _adaptable(backbone),
            [Picture(scene.image, self.items(scene, backbone.device))],
            settings,
            model=model,
            checkpoint=checkpoint,
            progress=lambda one: progress(1 / passes),
        )

    def unpack(self, data: bytes) -> Fitted:
        return Fitted.unpack(data)


@dataclass(frozen=True)
class FittedPictures:
    """B pictures that the model is fitted to. nfe, backward: rows of each one's fit, long [B];
    fitted: the fit of one of them.
    """

    nfe: Tensor
    backward: Tensor
    fitted: Callable[[int], Fitted]


@dataclass(frozen=True)
class Items(Editor):
    """D-Edit's text edits under masks.

    fit: its settings; compat: reference there has the public code's quirks in edits, too, but draws
    of each picture's own. segmentation: of the items: annotated, which is the annotated mask and
    the rest; a panoptic segmenter; or a text segmenter, whose words are one item. words: what a
    mask's place is told, the target prompt, or the half of the blended words that names the target,
    and the prompt where a sample has none. steps, guidance, strength: see `items.sampling`; 20 or
    50 steps are published. thickness: of the soft ring around a mask, in pixels of a picture of
    1024 pixels a side; of others in proportion.

    A mask is the place of the item that it covers most of (`under`). Inside, the picture is
    sampled from noise; outside, the source is put back after every step. Under an empty mask the
    picture is as the VAE has it, at no evaluation; under a full one nothing is kept. The masks of
    a sample share its fit and its draws.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = ("adaptation",)

    fit: FitSettings = field(default_factory=FitSettings)
    segmentation: Literal["annotated"] | Panoptic | Segmenter = "annotated"
    words: Words = "target"
    steps: int = 50
    guidance: float = 3.0
    strength: float = 0.8
    thickness: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        self.sampling(PUBLISHED_SIZE)
        if self.segmentation != "annotated" and not isinstance(
            self.segmentation, Panoptic | Segmenter
        ):
            raise BenchmarkError(
                f"the items' segmentation is {self.segmentation!r}: choose annotated, or give a "
                "part that is a Panoptic or a text segmenter"
            )
        if self.words not in get_args(Words):
            raise BenchmarkError(
                f"the items' words are {self.words!r}: choose one of {', '.join(get_args(Words))}"
            )

    @property
    def fitting(self) -> ItemFitting:
        return ItemFitting(self.fit, self.segmentation)

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        words = ("blended_word",) if self.words == "blended" else ()
        return tuple(dict.fromkeys(("image", "prompts", *words, *self.fitting.reads)))

    @property
    def masking(self) -> str:
        return f"blending, items: {_name(self.segmentation)}"

    def sampling(self, side: int) -> Sampling:
        """Of pictures with that side. Raises BenchmarkError for settings out of range."""
        thickness = round(self.thickness * side / PUBLISHED_SIZE)
        return Sampling(self.steps, self.guidance, self.strength, thickness, seed=self.seed)

    def invert(self, backbone: Backbone, sources: Sources) -> FittedPictures:
        """Stored fits are read one by one as edits need them: they may be large."""
        fitted = sources.fits
        if fitted is None:
            made = [self.fitting(backbone, scene) for scene in sources.scenes]
            fitted = made.__getitem__
        rows = self.fit.batch * (self.fit.embedding_steps + self.fit.unet_steps)
        nfe = torch.full((len(sources),), rows)
        return FittedPictures(nfe, nfe, fitted)

    def edit(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: FittedPictures,
        masks: Tensor,
        owner: Tensor,
    ) -> Edited:
        return decoded(backbone, self.sample(backbone, sources, inverted, masks, owner))

    def sample(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: FittedPictures,
        masks: Tensor,
        owner: Tensor,
    ) -> Sampled:
        latents = torch.empty(len(masks), *sources.encoded.mean.shape[1:], device=masks.device)
        nfe = torch.zeros(len(masks), dtype=torch.long)
        for row in owner.unique().tolist():
            fitted, scene = inverted.fitted(row), sources.scenes[row]
            fitted.check_image(scene.image)
            posterior = sources.encoded[row : row + 1]
            # One edit is a block of its own.
            model = _adaptable(backbone).adapted({}, rows=1 if self.guidance == 1 else 2)
            adapted = fitted.adapted(model)
            for n in (owner == row).nonzero().flatten().tolist():
                regions, prompts, settings = self.prepared(scene, fitted, masks[n].cpu())
                texts = fitted.texts(adapted, prompts, regions.items.masks)
                before = backbone.counts["unet_rows"]
                latents[n] = sample(
                    adapted,
                    texts,
                    settings,
                    (latents.shape[1], latents.shape[2], latents.shape[3]),
                    Source(posterior, regions),
                    compat=self.fit.compat,
                )[0]
                nfe[n] = backbone.counts["unet_rows"] - before
        return Sampled(latents, nfe)

    def prepared(
        self, scene: Scene, fitted: Fitted, mask: Tensor
    ) -> tuple[Regions, list[ItemPrompt], Sampling]:
        """What is painted under a mask, bool [h, w] at the latents' size, and told what and how."""
        side = len(scene.image)
        settings = self.sampling(side)
        seed = json.dumps([self.seed, image_identity(scene.image)])
        settings = replace(settings, seed=int(hashlib.sha256(seed.encode()).hexdigest()[:15], 16))
        pixels = nearest_exact(mask[None], side)[0].bool()
        items, target = under(fitted.items[0], pixels)
        soft = ring(pixels, settings.thickness, self.fit.compat)
        regions = Regions(items, pixels, soft, ~pixels & ~soft, torch.zeros_like(pixels))
        prompts = [*fitted.prompts()]
        prompts[target : target + 1] = [ItemPrompt(self.told(scene))]
        return regions, prompts, settings

    def told(self, scene: Scene) -> str:
        """The words for a mask's place."""
        words = scene.blended_words.split() if self.words == "blended" else []
        return " ".join(words[(len(words) + 1) // 2 :]) or scene.target_prompt


def under(items: Partition, mask: Tensor) -> tuple[Partition, int]:
    """The items of a picture under a mask, bool [H, W], and the number of the one that is the mask.

    It is the item with most of the mask, of equals the first. All others lose the mask to it; what
    it has outside goes to the nearest of them, or stays its own where there is none. The mask is a
    new item then.
    """
    target = int((items.masks & mask).sum(dim=(1, 2)).argmax())
    labels = items.labels.long()
    labels[items.masks[target]] = NOBODY
    if not (mask | (labels == NOBODY)).all():
        labels[mask] = target
        labels = fill(labels, without=[target], compat="exact")
        return Partition.from_labels(labels, items.names), target
    if mask.all():
        return Partition.from_labels(torch.full_like(labels, target), items.names), target
    return assign(items, mask, EDIT), len(items.names)


def _adaptable(backbone: Backbone) -> StableDiffusion:
    """The backbone that `needs` makes sure of; a stand-in that shows one is one."""
    adaptable: Any = backbone
    return adaptable


def _name(segmentation: Any) -> str:
    return segmentation if isinstance(segmentation, str) else type(segmentation).__name__
