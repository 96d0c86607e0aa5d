"""Edits of a fitted picture: its items get other words, another picture's looks, or other masks
(D-Edit, arXiv 2403.04880).

Knows fitted pictures and the regions of edits; must not know files or commands.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor

from piebench_masks.diffusion.backbone import Posterior
from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.errors import BenchmarkError
from piebench_masks.items import regions
from piebench_masks.items.fitted import Fitted, posterior
from piebench_masks.items.mask_edits import Move
from piebench_masks.items.partition import Partition
from piebench_masks.items.regions import Regions
from piebench_masks.items.sampling import Sampling, Source, sample
from piebench_masks.items.tokens import ItemPrompt

REFERENCE_IMAGE_SEED = 1
"""Of the public code's edits with another picture's item, whatever seed it is given."""


@dataclass(frozen=True, eq=False)
class ItemEdit:
    """N pictures uint8 [N, H, W, 3] on the CPU, their latents [N, C, h, w], and the regions."""

    images: Tensor
    latents: Tensor
    regions: Regions


@dataclass(frozen=True, eq=False)
class ItemEditor:
    """One picture of a fit, ready for edits.

    backbone: the model of the fit; image: the picture, uint8 [H, W, 3]; picture: its number in the
    fit; templates: texts of some items in which ``*`` stands for their tokens, such as "a photo of
    *"; progress: of the sampling, as in `sample`. ``edited``: the items after editing by hand;
    ``active``: items that are painted too. What is painted and kept is said in `regions`, and how
    in `sample`. An empty active region gives the picture as the VAE has it; under a full one
    nothing is kept.
    Raises BenchmarkError for another picture or model than the fit's, and for what is no item.
    """

    backbone: StableDiffusion
    fitted: Fitted
    image: Tensor
    picture: int = 0
    templates: Mapping[int, str] = field(default_factory=dict)
    progress: Callable[[int, int], None] = lambda step, steps: None

    def __post_init__(self) -> None:
        self.fitted.check_image(self.image, self.picture)

    @property
    def items(self) -> Partition:
        """The picture's items at its fit."""
        return self.fitted.items[self.picture]

    @cached_property
    def adapted(self) -> StableDiffusion:
        """The model with the weights of the fit."""
        return self.fitted.adapted(self.backbone)

    @cached_property
    def posterior(self) -> Posterior:
        """Of the picture's latents."""
        return posterior(self.backbone, self.image)

    def reconstruct(self, settings: Sampling, *, item: int | None = None) -> ItemEdit:
        """The picture from noise, with nothing put back. item: the only one, all over the frame."""
        found = regions.reconstruct(self.items, item)
        prompts = self._prompts(self.items)
        return self._edit(found, prompts if item is None else [prompts[item]], settings, None)

    def text(
        self,
        settings: Sampling,
        target: int,
        words: str,
        *,
        edited: Partition | None = None,
        active: Sequence[int] = (),
    ) -> ItemEdit:
        """The target becomes what the words say; it may be new in ``edited``."""
        found = regions.text(
            self.items,
            target,
            edited=edited,
            active=active,
            thickness=settings.thickness,
            compat=self.fitted.settings.compat,
        )
        prompts = self._prompts(found.items, {target: ItemPrompt(words)})
        return self._blended(found, prompts, settings)

    def image_item(
        self,
        settings: Sampling,
        target: int,
        picture: int,
        item: int,
        *,
        edited: Partition | None = None,
        active: Sequence[int] = (),
    ) -> ItemEdit:
        """The target becomes an item of another picture of the fit."""
        if not 0 <= picture < len(self.fitted.items):
            raise BenchmarkError(
                f"the fit has {len(self.fitted.items)} pictures, and none is number {picture}: fit "
                "both pictures together"
            )
        compat = self.fitted.settings.compat
        found = regions.image(
            self.items,
            target,
            edited=edited,
            active=active,
            thickness=settings.thickness,
            compat=compat,
        )
        prompts = self.fitted.prompts(picture)
        if not 0 <= item < len(prompts):
            raise BenchmarkError(f"picture {picture} has {len(prompts)} items, and no item {item}")
        if compat == "reference":
            settings = replace(settings, seed=REFERENCE_IMAGE_SEED)
        return self._blended(found, self._prompts(found.items, {target: prompts[item]}), settings)

    def remove(
        self,
        settings: Sampling,
        target: int,
        *,
        edited: Partition | None = None,
        processed: Partition | None = None,
        active: Sequence[int] = (),
        heir: int | None = None,
    ) -> ItemEdit:
        """The target's place goes to its neighbours, or to ``heir``; ``processed``: to those."""
        found = regions.remove(
            self.items,
            target,
            edited=edited,
            processed=processed,
            active=active,
            thickness=settings.thickness,
            heir=heir,
            compat=self.fitted.settings.compat,
        )
        return self._blended(found, self._prompts(found.items), settings)

    def move(
        self,
        settings: Sampling,
        moves: Sequence[Move],
        *,
        edited: Partition | None = None,
        processed: Partition | None = None,
        active: Sequence[int] = (),
        heir: int | None = None,
    ) -> ItemEdit:
        """Items go elsewhere, at other sizes; ``heir`` and ``processed`` as in ``remove``."""
        found = regions.move(
            self.items,
            moves,
            edited=edited,
            processed=processed,
            active=active,
            thickness=settings.thickness,
            heir=heir,
            compat=self.fitted.settings.compat,
        )
        return self._blended(found, self._prompts(found.items), settings)

    def _prompts(
        self, items: Partition, others: Mapping[int, ItemPrompt] | None = None
    ) -> list[ItemPrompt]:
        """Of the items after an edit. others: those that are not their own tokens."""
        prompts = dict(enumerate(self.fitted.prompts(self.picture)))
        for number, template in self.templates.items():
            if number not in prompts:
                raise BenchmarkError(f"a template is for item {number}, and there is none")
            prompts[number] = replace(prompts[number], text=template)
        prompts |= others or {}
        if new := [name for i, name in enumerate(items.names) if i not in prompts]:
            raise BenchmarkError(
                f"{', '.join(new)} was not there when the picture was fitted, and has no tokens: "
                "make it the target of a text edit, or fit the picture with it"
            )
        return [prompts[number] for number in range(len(items.names))]

    def _blended(
        self, found: Regions, prompts: Sequence[ItemPrompt], settings: Sampling
    ) -> ItemEdit:
        return self._edit(found, prompts, settings, Source(self.posterior, found))

    def _edit(
        self,
        found: Regions,
        prompts: Sequence[ItemPrompt],
        settings: Sampling,
        source: Source | None,
    ) -> ItemEdit:
        compat = self.fitted.settings.compat
        texts = self.fitted.texts(self.adapted, prompts, found.items.masks)
        _, channels, height, width = self.posterior.mean.shape
        latents = sample(
            self.adapted,
            texts,
            settings,
            (channels, height, width),
            source,
            compat=compat,
            progress=self.progress,
        )
        decode = self.adapted.decode_truncated if compat == "reference" else self.adapted.decode
        return ItemEdit(decode(latents), latents.cpu(), found)
