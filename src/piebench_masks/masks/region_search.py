"""Every box around every salient place, painted by an editor and scored by CLIP (2311.16432).

The search that Learnable Regions was meant to learn, done in full. Knows no store.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.editor import Editor, Sources, check_needs
from piebench_masks.editing.inpaint import Inpaint
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import NO_OUTPUT
from piebench_masks.masks.binarize import nearest_exact
from piebench_masks.masks.method import Painted
from piebench_masks.masks.record import MapError
from piebench_masks.metrics.clip import Clip
from piebench_masks.regions.boxes import anchor_points, cell_masks, corners
from piebench_masks.regions.losses import (
    TEMPLATE,
    Encoders,
    Losses,
    encode_texts,
    losses,
    self_similarity,
)
from piebench_masks.regions.saliency import Dino
from piebench_masks.regions.views import COUNT

Structure = Literal["clip", "dino"]


@dataclass(frozen=True)
class Boxes:
    """P anchors at the most salient cells, with boxes of S half sizes around each.

    points: P; half_sizes: in cells, of 32 with patches of 8 pixels. Raises BenchmarkError for
    settings without a box.
    """

    dino: Dino = field(default_factory=Dino)
    points: int = 9
    half_sizes: tuple[int, ...] = (4, 6, 8, 10, 12, 14)

    def __post_init__(self) -> None:
        if self.points < 1 or not self.half_sizes or min(self.half_sizes) < 0:
            raise BenchmarkError(
                f"{type(self).__name__} has points={self.points} and half_sizes="
                f"{list(self.half_sizes)}: give at least one point, and half sizes of 0 cells or "
                "more"
            )

    @property
    def count(self) -> int:
        return self.points * len(self.half_sizes)

    def placed(self, image: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """In a picture uint8 [H, H, 3] the anchors, (row, column) of [g, g], long [P, 2], and the
        boxes, bool [P, S, g, g].
        """
        saliency = self.dino.saliency(image.numpy(), device, "exact")
        side = saliency.shape[-1]
        points = anchor_points(saliency, self.points, 0, "exact")
        boxes = corners(points[:, None], torch.tensor(self.half_sizes), side, "exact")
        return points, cell_masks(boxes, side)


def published_painter() -> Editor:
    """An inpainting model that is told of a picture of high quality."""
    return Inpaint(template=TEMPLATE)


def published_clip() -> Clip:
    return Clip(model="ViT-B-16-quickgelu", pretrained="openai")


@dataclass(frozen=True)
class Search:
    """The boxes, what paints under each of them, and the CLIP that scores the edits.

    painter: any editor; clip: of open_clip; template: around the target, for CLIP; structure: whose
    tokens the layout is compared by, those of CLIP, then a vision transformer, or of DINO behind
    its last normalisation. Every edit of a sample is seen in the same views. Measurements: points
    (row, column), long [P, 2], masks, bool [P, S, g, g], and losses, float32 [P, S, 3] (text,
    direction, structure).
    """

    boxes: Boxes = field(default_factory=Boxes)
    painter: Editor = field(default_factory=published_painter)
    clip: Clip = field(default_factory=published_clip)
    template: str = TEMPLATE
    structure: Structure = "clip"
    rows: int = field(default=8, metadata=NO_OUTPUT)

    def __post_init__(self) -> None:
        if self.structure not in get_args(Structure):
            raise BenchmarkError(
                f"{type(self).__name__}.structure is {self.structure!r}: choose one of "
                f"{', '.join(get_args(Structure))}"
            )

    @property
    def forwards(self) -> int:
        """Pictures that CLIP or DINO sees: one for the anchors, and of every edit the views for two
        losses, and two pictures whole.
        """
        return 1 + self.boxes.count * (3 * COUNT + 2)

    def load(self, device: torch.device) -> None:
        """Raises WeightsError, and BenchmarkError for a CLIP without a vision transformer."""
        self.boxes.dino.network(device, "exact")
        getattr(self.painter, "load", lambda: None)()
        self.encoders(device)

    def encoders(self, device: torch.device) -> Encoders:
        if device not in self._encoders:
            clip = replace(self.clip, device=device)
            if self.structure == "clip" and not hasattr(clip.network.visual, "transformer"):
                raise BenchmarkError(
                    f"{clip.model} is no vision transformer, whose tokens the structure is "
                    "compared by: give search.clip.model another, such as ViT-B-16-quickgelu, or "
                    "set search.structure=dino"
                )
            self._encoders[device] = Encoders(clip.network, clip.tokenizer, self.rows)
        return self._encoders[device]

    def __call__(self, backbone: Backbone, sources: Sources, seed: int) -> Painted:
        (scene,) = sources.scenes
        points, masks = self.boxes.placed(scene.image, backbone.device)
        edits = self.paint(backbone, sources, masks.flatten(0, 1))
        measured = self.losses(scene, edits, backbone.device, seed)
        table = torch.stack(measured, dim=-1).unflatten(0, masks.shape[:2])
        return Painted({"points": points, "masks": masks, "losses": table}, edits)

    def paint(self, backbone: Backbone, sources: Sources, masks: Tensor) -> Tensor:
        """One sample under N masks bool [N, g, g]: uint8 [N, H, H, 3]. Raises MapError."""
        (scene,) = sources.scenes
        check_needs(self.painter, backbone.provides)
        cut = nearest_exact(masks, backbone.latent_size).to(backbone.device)
        inverted = self.painter.invert(backbone, sources)
        owner = torch.zeros(len(cut), dtype=torch.long, device=backbone.device)
        edited = self.painter.edit(backbone, sources, inverted, cut, owner)
        if not edited.finite.all():
            raise MapError(
                f"an edit of sample {scene.id} under a box is not finite: the painter's precision "
                "overflowed (use a dtype with more range)"
            )
        return edited.images

    def losses(self, scene: Scene, edits: Tensor, device: torch.device, seed: int) -> Losses:
        """Of edits uint8 [N, H, H, 3] of a scene; seed: of the views."""
        encoders = self.encoders(device)
        text = encode_texts(encoders, scene.source_prompt, scene.target_prompt, self.template)
        before = scene.image.movedim(-1, 0)[None] / 255

        def dino_layout(images: Tensor) -> Tensor:
            pixels = (255 * images).round().byte().movedim(1, -1)
            seen = [self.boxes.dino.features(p.numpy(), device, "exact") for p in pixels]
            return self_similarity(torch.stack([features.tokens for features in seen]))

        layout = dino_layout if self.structure == "dino" else None

        def scored(edit: Tensor) -> Losses:
            after, generator = edit[None] / 255, Generator().manual_seed(seed)
            return losses(encoders, before, after, text, generator, antialias=True, layout=layout)

        scores = [scored(edit) for edit in edits.movedim(-1, 1)]
        return Losses(*map(torch.cat, zip(*scores, strict=True)))

    @cached_property
    def _encoders(self) -> dict[torch.device, Encoders]:
        return {}
