"""Every box around every salient place, painted by an editor and scored by CLIP (2311.16432).

The search that Learnable Regions was meant to learn, done in full. Knows no store.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Generator, Tensor

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.editor import Editor, Sources, check_needs
from piebench_masks.editing.inpaint import Inpaint
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import NO_OUTPUT
from piebench_masks.masks.binarize import nearest_exact
from piebench_masks.masks.method import Painted
from piebench_masks.masks.record import MapError
from piebench_masks.metrics.clip import Clip
from piebench_masks.regions.boxes import anchor_points, cell_masks, corners, half_sizes
from piebench_masks.regions.losses import TEMPLATE, Encoders, Losses, encode_texts, losses
from piebench_masks.regions.saliency import Dino
from piebench_masks.regions.views import COUNT


@dataclass(frozen=True)
class Boxes:
    """P anchors at the most salient cells, with boxes of S half sizes around each.

    points: P; largest: half size in cells, of 4, 6, ... Raises BenchmarkError for settings without
    a box.
    """

    dino: Dino = field(default_factory=Dino)
    points: int = 9
    largest: int = 14

    def __post_init__(self) -> None:
        if self.points < 1 or not half_sizes(self.largest):
            raise BenchmarkError(
                f"{type(self).__name__} has points={self.points} and largest={self.largest}: give "
                "at least one point, and a half size of at least 4 cells"
            )

    def masks(self, image: Tensor, device: torch.device) -> Tensor:
        """The boxes in a picture uint8 [H, H, 3]: bool [P, S, g, g]."""
        saliency = self.dino.saliency(image.numpy(), device, "exact")
        side = saliency.shape[-1]
        points = anchor_points(saliency, self.points, self.largest, "exact")[:, None]
        half_size = torch.tensor(half_sizes(self.largest))
        return cell_masks(corners(points, half_size, side, "exact"), side)


def published_painter() -> Editor:
    """An inpainting model that is told of a picture of high quality."""
    return Inpaint(template=TEMPLATE)


def published_clip() -> Clip:
    return Clip(model="ViT-B-16-quickgelu", pretrained="openai")


@dataclass(frozen=True)
class Search:
    """The boxes, what paints under each of them, and the CLIP that scores the edits.

    painter: any editor; clip: of open_clip, a vision transformer. Every edit of a sample is seen in
    the same views. Measurements: masks, bool [P, S, g, g], and losses, float32 [P, S, 3] (text,
    direction, structure).
    """

    boxes: Boxes = field(default_factory=Boxes)
    painter: Editor = field(default_factory=published_painter)
    clip: Clip = field(default_factory=published_clip)
    rows: int = field(default=8, metadata=NO_OUTPUT)

    @property
    def clip_rows(self) -> int:
        """Pictures that CLIP sees: views for two losses, and two pictures whole, of every edit."""
        return self.boxes.points * len(half_sizes(self.boxes.largest)) * (3 * COUNT + 2)

    def load(self, device: torch.device) -> None:
        """Raises WeightsError, and BenchmarkError for a CLIP without a vision transformer."""
        self.boxes.dino.network(device, "exact")
        getattr(self.painter, "load", lambda: None)()
        self.encoders(device)

    def encoders(self, device: torch.device) -> Encoders:
        if device not in self._encoders:
            clip = replace(self.clip, device=device)
            if not hasattr(clip.network.visual, "transformer"):
                raise BenchmarkError(
                    f"{clip.model} is no vision transformer, whose tokens the structure is "
                    "compared by: give search.clip.model another, such as ViT-B-16-quickgelu"
                )
            self._encoders[device] = Encoders(clip.network, clip.tokenizer, self.rows)
        return self._encoders[device]

    def __call__(self, backbone: Backbone, sources: Sources, seed: int) -> Painted:
        (scene,) = sources.scenes
        check_needs(self.painter, backbone.provides)
        masks = self.boxes.masks(scene.image, backbone.device)
        cut = nearest_exact(masks.flatten(0, 1), backbone.latent_size).to(backbone.device)
        inverted = self.painter.invert(backbone, sources)
        owner = torch.zeros(len(cut), dtype=torch.long, device=backbone.device)
        edited = self.painter.edit(backbone, sources, inverted, cut, owner)
        if not edited.finite.all():
            raise MapError(
                f"an edit of sample {scene.id} under a box is not finite: the painter's precision "
                "overflowed (use a dtype with more range)"
            )
        encoders = self.encoders(backbone.device)
        text = encode_texts(encoders, scene.source_prompt, scene.target_prompt)
        before = scene.image.movedim(-1, 0)[None] / 255

        def scored(edit: Tensor) -> Losses:
            generator = Generator().manual_seed(seed)
            return losses(encoders, before, edit[None] / 255, text, generator, antialias=True)

        scores = [scored(edit) for edit in edited.images.movedim(-1, 1)]
        measured = Losses(*map(torch.cat, zip(*scores, strict=True)))
        table = torch.stack(measured, dim=-1).unflatten(0, masks.shape[:2])
        return Painted({"masks": masks, "losses": table}, edited.images)

    @cached_property
    def _encoders(self) -> dict[torch.device, Encoders]:
        return {}
