"""A folder with a picture and the masks of its items: fits and edits of it, each a file in the
folder that is made once (D-Edit, arXiv 2403.04880).

Knows files of pictures, fits and results; must not know the commands' settings.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from piebench_masks.diffusion.loading import backbone_class, load_backbone
from piebench_masks.diffusion.source import resolve_model
from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.errors import BenchmarkError
from piebench_masks.items.edits import ItemEdit, ItemEditor
from piebench_masks.items.fit import Picture, fit, fit_identity, partition_identity
from piebench_masks.items.fitted import FitSettings, Fitted, load_fitted, save_fitted
from piebench_masks.items.mask_edits import NOBODY, Move, fill, ring
from piebench_masks.items.overview import Panel, outlined, overview, tinted
from piebench_masks.items.partition import (
    INDEX,
    Partition,
    PartitionError,
    naming,
    read_partition,
    read_picture,
    write_index,
)
from piebench_masks.items.sampling import Sampling
from piebench_masks.items.segment import REST, Panoptic, text_items
from piebench_masks.masks.segmenter import Segmenter
from piebench_masks.packing import pack_image
from piebench_masks.provenance import provenance
from piebench_masks.temporary import sweep_temporaries, write_whole
from piebench_masks.weights import packaged

log = logging.getLogger(__name__)
VERSION = 1
"""Of edits: enters their keys."""
FITS, RESULTS, OVERVIEW = "fits", "results", "overview.png"
EDIT = "edit"
"""Under which a result's PNG text says what it is of, as JSON."""
Task = Literal["reconstruct", "text", "image_item", "remove", "move"]
"""The edits of `ItemEditor`."""
Item = int | str
"""Its number, or its name where no other item has that."""
Told = Callable[[str, int, int], None]
"""Is told what is under way, and how much of how much is done."""


@dataclass(frozen=True, eq=False)
class ItemModel:
    """A model that pictures are fitted to; its weights are loaded at the first use.

    folder: of a diffusers pipeline; identity: of weights and precisions; arguments: of
    `load_backbone`. Results are equal to the bit where rows and vae_rows are.
    """

    folder: Path
    identity: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def find(
        cls,
        model: str = "shapes_turbo",
        *,
        revision: str | None = None,
        variant: str | None = None,
        cache_dir: str | None = None,
        dtype: torch.dtype = torch.float32,
        vae_dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        rows: int = 8,
        vae_rows: int = 16,
        compiled: bool = False,
    ) -> "ItemModel":
        """``shapes_turbo`` (embedded), a diffusers folder of SDXL or Stable Diffusion 1 or 2, or a
        model of the hub; the rest as in `load_backbone`. Raises BenchmarkError.
        """
        name = packaged(model) if model == "shapes_turbo" else model
        folder, identity = resolve_model(
            name, revision=revision, variant=variant, cache_dir=cache_dir
        )
        if backbone_class(folder) is not StableDiffusion:
            raise BenchmarkError(
                f"{folder} is no SDXL or Stable Diffusion 1 or 2, which items need: choose another "
                "model"
            )
        arguments = {
            "variant": variant,
            "dtype": dtype,
            "vae_dtype": vae_dtype,
            "device": device,
            "rows": rows,
            "vae_rows": vae_rows,
            "compiled": compiled,
        }
        return cls(folder, f"{identity}, {dtype}, {vae_dtype}", arguments)

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """Sides of the model's pictures and latents, from its configs."""
        return StableDiffusion.describe(self.folder)[:2]

    @cached_property
    def backbone(self) -> StableDiffusion:
        backbone = load_backbone(self.folder, **self.arguments)
        assert isinstance(backbone, StableDiffusion)
        return backbone


class Result(NamedTuple):
    """The files of an edit: its images, the picture of what was done; and whether they are new."""

    images: list[Path]
    overview: Path
    is_new: bool


@dataclass(frozen=True, eq=False)
class ItemFolder:
    """The folder of one picture, whose items have masks there (see `read_partition`).

    model: what the picture is fitted to, and settings: how; other: the folder of a second picture,
    fitted together with this one; templates: texts of items in which ``*`` stands for their tokens;
    starts: is told of a fit that begins whether it goes on from a saved state; progress: of fits
    and edits. What is in files already is not computed again: a fit of the same picture, masks,
    model and settings, and an edit that a result of the same name is of.
    Raises BenchmarkError for what cannot be used, which names the file.
    """

    path: Path
    model: ItemModel
    settings: FitSettings = field(default_factory=FitSettings)
    other: Path | None = None
    templates: Mapping[Item, str] = field(default_factory=dict)
    starts: Callable[[bool], None] = lambda goes_on: None
    progress: Told = lambda what, done, total: None

    def segment(
        self,
        segmenter: Segmenter | Panoptic,
        texts: Sequence[str] = (),
        *,
        grow: int = 0,
        resolution: int | None = None,
        device: str | torch.device = "cpu",
        overwrite: bool = False,
    ) -> Partition:
        """The items that a segmenter finds on the picture are written as ``masks.png``.

        texts: what to look for, of a segmenter that takes texts; grow: pixels by which the items
        grow into `rest`; resolution: side of the square that is segmented, None for the model's.
        Masks that are there already and differ are replaced only with ``overwrite``: they may have
        been drawn by hand.
        """
        side = self.model.sizes[0] if resolution is None else resolution
        pixels, where = read_picture(self.path, side), torch.device(device)
        if isinstance(segmenter, Panoptic):
            items = segmenter(pixels, where)
        else:
            items = text_items(segmenter, pixels, texts, where)
        items = grown(items, grow)
        if (self.path / INDEX[False]).exists() and not overwrite:
            there = partition_identity(read_partition(self.path))
            if there != partition_identity(items):
                raise PartitionError(
                    f"{self.path / INDEX[False]} is there already, and other items were found: "
                    "remove it, or have it replaced (overwrite=true)"
                )
        write_index(self.path, items)
        panels = [Panel("picture", pixels), outlined("items", pixels, items)]
        _write(self.path / RESULTS / "segment" / OVERVIEW, overview(panels))
        return items

    @cached_property
    def pictures(self) -> list[Picture]:
        """This one, and the second one where there is one."""
        return [self._read(path) for path in (self.path, self.other) if path]

    @cached_property
    def fit_file(self) -> Path:
        identity = fit_identity(self.model.identity, self.pictures, self.settings)
        return self.path / FITS / f"{identity}.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The last saved state of a fit that was stopped."""
        return self.fit_file.with_suffix(".checkpoint")

    @cached_property
    def fitted(self) -> Fitted:
        """From its file. Otherwise it is made; one that was stopped goes on where it was saved."""
        path = self.fit_file
        if path.exists():
            try:
                return load_fitted(path, self.model.identity)
            except BenchmarkError as error:
                if isinstance(error.__cause__, OSError):
                    raise
                log.warning("%s", error)
        sweep_temporaries(path.parent)
        self.starts(self.checkpoint.exists())
        fitted = fit(
            self.model.backbone,
            self.pictures,
            self.settings,
            model=self.model.identity,
            checkpoint=self.checkpoint,
            progress=lambda done: self.progress(f"fit, {done.phase}", done.step, done.steps),
        )
        panels = [
            outlined(f"picture {i}", picture.image.numpy(), picture.items)
            for i, picture in enumerate(self.pictures)
        ]
        _write(path.with_suffix(".png"), overview(panels))
        save_fitted(fitted, path)
        self.checkpoint.unlink(missing_ok=True)
        return fitted

    def edit(self, task: Task, sampling: Sampling, **asked: Any) -> Result:
        """An edit of `ItemEditor`, whose files are in ``results/<name>``.

        asked: see `planned`. Files of another edit of that name are replaced.
        """
        plan = self.planned(task, sampling, **asked)
        if not plan.result.is_new:
            return plan.result
        picture = self.pictures[0]
        editor = ItemEditor(
            self.model.backbone,
            self.fitted,
            picture.image,
            templates=self._templates,
            progress=lambda done, total: self.progress(task, done, total),
        )
        edit: ItemEdit = getattr(editor, task)(sampling, **plan.arguments)
        source, images = picture.image.numpy(), list(edit.images.numpy())
        for path, image in zip(plan.result.images, images, strict=True):
            _write(path, image, plan.description)
        panels = [
            outlined("items", source, picture.items),
            tinted("regions", source, edit.regions),
            *(Panel(f"image {i}", image) for i, image in enumerate(images)),
        ]
        if partition_identity(edit.regions.items) != partition_identity(picture.items):
            panels.insert(1, outlined("items after the edit", source, edit.regions.items))
        _write(plan.result.overview, overview(panels), plan.description)
        return plan.result

    def planned(
        self,
        task: Task,
        sampling: Sampling,
        *,
        name: str | None = None,
        edited: bool = False,
        processed: Path | None = None,
        **arguments: Any,
    ) -> "Plan":
        """What `edit` would do.

        name: None for the task's; edited: whether the folder's edited masks are those of the edit;
        processed: a folder with the masks after a removal or a move, drawn by hand; arguments: of
        the method of `ItemEditor`, with items by number or name.
        """
        own = self.pictures[0].items
        items = self._partition(self.path, edited=True) if edited else own
        masks = {"edited": items} if edited else {}
        masks |= {"processed": self._partition(processed)} if processed else {}
        with naming(self.path):
            for key in ("target", "heir", *(["item"] if task == "reconstruct" else [])):
                if arguments.get(key) is not None:
                    arguments[key] = number(items, arguments[key])
            if "active" in arguments:
                arguments["active"] = [number(items, item) for item in arguments["active"]]
            if "moves" in arguments:
                moves = [replace(one, item=number(items, one.item)) for one in arguments["moves"]]
                arguments["moves"] = moves
        if task == "image_item":
            if self.other is None:
                raise BenchmarkError(f"{self.path} needs the other folder, whose item is to come")
            with naming(self.other):
                arguments["item"] = number(self.pictures[1].items, arguments["item"])
        description = json.dumps(
            {
                "version": VERSION,
                "fit": self.fit_file.stem,
                "task": task,
                "sampling": asdict(sampling),
                "templates": self._templates,
                "arguments": {**arguments, **masks},
            },
            default=_as_json,
            sort_keys=True,
        )
        folder = self.path / RESULTS / (name or task)
        images = [folder / f"{i}.png" for i in range(sampling.images)]
        paths = [*images, folder / OVERVIEW]
        is_new = not all(_description(path) == description for path in paths)
        result = Result(images, folder / OVERVIEW, is_new)
        return Plan(result, arguments | masks, description)

    @property
    def _templates(self) -> dict[int, str]:
        with naming(self.path):
            items = self.pictures[0].items
            return {number(items, item): text for item, text in self.templates.items()}

    def _read(self, path: Path) -> Picture:
        items = self._partition(path)
        height, width = items.size
        image_side, latent_side = self.model.sizes
        unit = image_side // latent_side
        if height != width or height % unit:
            raise PartitionError(
                f"{path} has masks of {width}x{height} pixels: give square ones, whose sides are "
                f"multiples of {unit}"
            )
        return Picture(torch.from_numpy(read_picture(path, height)), items)

    def _partition(self, path: Path, *, edited: bool = False) -> Partition:
        return read_partition(path, edited=edited, compat=self.settings.compat)


class Plan(NamedTuple):
    """An edit before it is made: its files, the arguments of `ItemEditor`'s method, and what its
    files say that they are of.
    """

    result: Result
    arguments: dict[str, Any]
    description: str


def number(items: Partition, item: Item) -> int:
    """Of an item that is named by its number or its name. Raises PartitionError."""
    text = str(item)
    numbers = [i for i, name in enumerate(items.names) if name == text]
    if not numbers and text.isdecimal() and int(text) < len(items.names):
        return int(text)
    if len(numbers) == 1:
        return numbers[0]
    there = ", ".join(f"{i} {name}" for i, name in enumerate(items.names))
    if numbers:
        raise PartitionError(
            f"{len(numbers)} items are called {text}: give the number of one of {there}"
        )
    raise PartitionError(f"there is no item {text}: choose one of {there}")


def grown(items: Partition, pixels: int) -> Partition:
    """The items after all have grown into `rest`, an item of that name, by so many pixels in rows
    and in columns; a pixel that several reach goes to the nearest.
    """
    rest = next((i for i, name in enumerate(items.names) if name == REST), None)
    if rest is None or pixels == 0:
        return items
    labels = items.labels.long()
    labels[ring(~items.masks[rest], pixels)] = NOBODY
    return Partition.from_labels(fill(labels, without=[rest], compat="exact"), items.names)


def _description(path: Path) -> str | None:
    """What the file of a result says that it is of; None where it is missing or damaged."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()
            return image.info.get(EDIT)
    except FileNotFoundError:
        return None
    except Exception as error:  # Pillow's decoder raises nearly every type on damaged files
        log.warning("%s is damaged (%s): it is made anew", path, error)
        return None


def _write(path: Path, image: NDArray[np.uint8], description: str = "") -> None:
    write_whole(path, pack_image(image, json.dumps(provenance()), {EDIT: description}))


def _as_json(value: object) -> object:
    if isinstance(value, Partition):
        return partition_identity(value)
    if isinstance(value, Move):
        return asdict(value)
    raise TypeError(f"{value!r} is no part of an edit's description")
