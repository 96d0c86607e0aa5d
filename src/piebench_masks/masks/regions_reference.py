"""`regions_reference`: the box that Learnable Regions chooses, with all quirks of its public code
(Lin et al., arXiv 2311.16432).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file
from torch import Generator, Tensor
from torch.nn import functional as F

from piebench_masks.data.scene import Knows
from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.editor import Sources, decoded
from piebench_masks.editing.inpaint import Inpaint
from piebench_masks.masks.method import CandidateBoxes, MapMethod, Painted
from piebench_masks.masks.record import MapError, Record
from piebench_masks.masks.region_search import published_clip
from piebench_masks.metrics.clip import Clip
from piebench_masks.regions.boxes import anchor_points, masks, pixel_boxes
from piebench_masks.regions.choice import final_choice, final_scores
from piebench_masks.regions.losses import TEMPLATE
from piebench_masks.regions.network import Choice, RegionNetwork, gumbel_noise
from piebench_masks.regions.saliency import IMAGE_SIZE, Dino, Features, saliency, square
from piebench_masks.weights import loading


def enlarged(image: Tensor, size: int) -> Tensor:
    """A picture uint8 [256, 256, 3] as it is painted on: [size, size, 3] of floats to 255."""
    planes = F.interpolate(image.movedim(-1, 0)[None] / 255, size, mode="bilinear")
    return planes[0].movedim(0, -1) * 255


def enlarged_masks(boxes: Tensor, size: int) -> Tensor:
    """Boxes long [P, 4] in pixels of 256 as masks bool [P, size, size]."""
    small = masks(boxes, IMAGE_SIZE)[:, None].float()
    return F.interpolate(small, size, mode="bilinear")[:, 0] >= 0.5


@dataclass(frozen=True)
class PublishedSearch:
    """One box around each of P anchors, of a drawn size, painted and compared by CLIP.

    points: P; largest: half size in cells, and the anchors' distance from the border; network: a
    safetensors file of the region network's weights under their published names, None for
    torch's initialisation with ``seed``. The passes that the published code calls training change
    nothing, and are left out. Measurements: points (x, y), float32 [P, 2], and boxes, long [P, 4],
    in pixels of 256, and the cosines ``text`` and ``image``, float32 [P].
    """

    dino: Dino = field(default_factory=Dino)
    points: int = 9
    largest: int = 15
    network: str | None = None
    seed: int = 42
    painter: Inpaint = field(
        default_factory=partial(Inpaint, template=TEMPLATE, compat="reference")
    )
    clip: Clip = field(default_factory=published_clip)

    def load(self, device: torch.device) -> None:
        self.dino.network(device, "reference")
        self._clip(device).load()

    def choice(self, features: Features, generator: Generator) -> tuple[Tensor, Choice]:
        """The anchors, (row, column) [P, 2], and the box around each."""
        network = self.region_network(features.tokens.shape[-1])
        salient = saliency(features.attention)
        points = anchor_points(salient, self.points, self.largest, "reference")
        found = network.region_features(network.feature_map(features.tokens), points)
        gumbel = gumbel_noise((len(points), len(network.half_sizes)), generator)
        return points, network.choose(points, network(found), gumbel, salient.shape[-1])

    def region_network(self, width: int) -> RegionNetwork:
        """Raises WeightsError where its file is none."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = RegionNetwork(width, self.largest)
        if self.network is not None:
            with loading(
                "The region network of regions_reference",
                where=self.network,
                remedy=f"give `network` a safetensors file of conv.weight, 0.weight, ... for "
                f"largest={self.largest} and features of {width} channels, or null",
            ):
                network.load_published(load_file(Path(self.network)))
        return network.requires_grad_(False)

    def __call__(self, backbone: Backbone, sources: Sources, seed: int) -> Painted:
        (scene,) = sources.scenes
        features = self.dino.features(scene.image.numpy(), backbone.device, "reference")
        points, choice = self.choice(features, Generator().manual_seed(seed))
        side = round(features.attention.shape[-1] ** 0.5)
        centres = (points.flip(-1) + 0.5) * IMAGE_SIZE / side
        boxes = pixel_boxes(choice.boxes, IMAGE_SIZE, side)
        painter = self.painter
        _, model = painter.model.loaded(backbone)
        count, size = len(boxes), model.image_size
        picture = enlarged(square(scene.image.numpy()), size)
        text = painter.invert(backbone, sources).text[[0] * count]
        shape = 2, count, 4, model.latent_size, model.latent_size
        sampled = painter.inpainted(
            backbone,
            picture.expand(count, -1, -1, -1),
            text,
            enlarged_masks(boxes, size),
            [Generator().manual_seed(painter.seed) for _ in boxes],
            torch.randn(shape, generator=Generator().manual_seed(painter.seed)),
        )
        edited = decoded(model, sampled)
        if not edited.finite.all():
            raise MapError(
                f"an edit of sample {scene.id} under a box is not finite: the painter's precision "
                "overflowed (use a dtype with more range)"
            )
        clip = self._clip(backbone.device)
        source = (picture + 0.5).byte().numpy()
        before, *after = clip.embed_images([source, *edited.images.numpy()]).cpu()
        (target,) = clip.embed_prompts([TEMPLATE.format(scene.target_prompt)]).cpu()
        cosines = torch.stack(after) @ torch.stack([target, before], dim=-1)
        text_cosines, image_cosines = (part.clone() for part in cosines.unbind(dim=-1))
        measured = {"points": centres, "boxes": boxes, "text": text_cosines, "image": image_cosines}
        return Painted(measured, edited.images)

    def _clip(self, device: torch.device) -> Clip:
        if device not in self._clips:
            self._clips[device] = replace(self.clip, device=device)
        return self._clips[device]

    @cached_property
    def _clips(self) -> dict[torch.device, Clip]:
        return {}


@dataclass(frozen=True)
class RegionsReference(MapMethod):
    """1 in the box of the winner, 0 elsewhere: the picture with the highest
    2 softmax(cosine with the text) + softmax(cosine with the source) among the three that agree
    most with the text. Rows are taken for columns, so that the box lies at the mirror image of the
    salient place, and its size is a draw that hardly depends on the picture.
    """

    knows: ClassVar[Knows] = "scores"

    binarizer: str = "above"
    sweep: tuple[float, float, int] = (0.5, 0.5, 1)
    weights: tuple[float, float] = (2.0, 1.0)
    search: PublishedSearch = field(default_factory=PublishedSearch)

    @property
    def forwards(self) -> int:  # type: ignore[override]
        return 2 + self.search.points  # DINO, and CLIP of the source and of every edit

    @property
    def candidates(self) -> PublishedSearch:
        return self.search

    def __call__(self, record: Record) -> Tensor:
        """[256, 256]."""
        if "boxes" not in record.candidates:
            raise MapError("no candidates were painted: call the method through `soft_maps`")
        found = record.candidates
        winner = final_choice(found["text"], found["image"], self.weights)
        return masks(found["boxes"][winner], IMAGE_SIZE).float()

    def candidate_boxes(self, measured: Mapping[str, Tensor]) -> CandidateBoxes:
        cosines = measured["text"], measured["image"]
        return CandidateBoxes(
            points=measured["points"] / IMAGE_SIZE,
            boxes=measured["boxes"][:, None] / IMAGE_SIZE,
            values=final_scores(*cosines, self.weights)[:, None],
            best=torch.zeros(len(measured["points"]), dtype=torch.long),
            kept=final_choice(*cosines, self.weights),
            by="score",
        )
