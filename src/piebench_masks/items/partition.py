"""Items of a picture: masks that cover every pixel once, their names, and the files they lie in.

Knows files, and no model (D-Edit, arXiv 2403.04880).
"""

import io
import json
import re
from collections.abc import Iterator, Sequence
from colorsys import hsv_to_rgb
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from piebench_masks.data.external_masks import load_external_mask
from piebench_masks.data.images import MAX_PIXELS, load_image
from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.errors import BenchmarkError
from piebench_masks.temporary import write_whole

MAX_ITEMS = 255
"""An index file has one byte a pixel."""
INDEX = "masks.png", "masksEdited.png"
"""The index files of a folder: as segmented, and as edited."""
NAMES = "names"
"""Under which an index file's text holds the names of its items, as a JSON list."""
PICTURES = (".png", ".jpg", ".jpeg")
PALETTE = [
    round(255 * c) for i in range(256) for c in hsv_to_rgb(0.618 * i % 1, 0.6, 1 - 0.1 * (i % 4))
]
"""Colours of an index file: hues by the golden ratio, so that neighbours differ."""
MASK_FILE = re.compile(r"mask(?P<edited>Edited)?(?P<number>-?\d+)_(?P<name>.*)\.(?:npy|png)", re.S)


class PartitionError(BenchmarkError):
    """Masks are no partition of a picture; the message says where, why and what to do."""


@dataclass(frozen=True, eq=False)
class Partition:
    """Items 0 to n - 1.

    names: of each, one word or more, several may be equal; masks: bool [n, H, W] on the CPU, every
    pixel in exactly one of them. An item may be empty. Raises PartitionError.
    """

    names: tuple[str, ...]
    masks: Tensor

    def __post_init__(self) -> None:
        n, shape, dtype = len(self.names), list(self.masks.shape), self.masks.dtype
        whole = len(shape) == 3 and 0 not in shape and dtype == torch.bool
        if not (1 <= n <= MAX_ITEMS and whole and shape[0] == n):
            raise PartitionError(
                f"{n} names and {dtype} masks of shape {shape}: give from 1 to {MAX_ITEMS} items, "
                "and of each a name and a bool mask [height, width]"
            )
        for name in self.names:
            if name != name.strip() or not name.isprintable() or {*name} & {*"/\\"}:
                raise PartitionError(
                    f"{name!r} is no name of an item: use printable characters, no slashes, and no "
                    "blanks at its ends"
                )
        covering = self.masks.sum(dim=0)
        if not covering.eq(1).all():
            row, column = covering.ne(1).nonzero()[0].tolist()
            inside = self.masks[:, row, column].nonzero().flatten().tolist()
            raise PartitionError(
                f"{int(covering.ne(1).sum())} pixels are in no item or in several, the first at row"
                f" {row}, column {column}, in {', '.join(self.names[i] for i in inside) or 'none'}:"
                " draw masks that cover every pixel once"
            )

    @classmethod
    def from_labels(cls, labels: Tensor, names: Sequence[str]) -> "Partition":
        """From the item of every pixel, integers [H, W]."""
        return cls(tuple(names), labels == torch.arange(len(names))[:, None, None])

    @cached_property
    def labels(self) -> Tensor:
        """The item of every pixel: uint8 [H, W]."""
        labels = torch.zeros(self.size, dtype=torch.uint8)
        for number, mask in enumerate(self.masks):
            labels.masked_fill_(mask, number)
        return labels

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.masks.shape[1], self.masks.shape[2]


class ItemFile(NamedTuple):
    """What a mask file's name says."""

    number: int
    name: str
    edited: bool


def item_file(name: str, compat: Compat = "exact") -> ItemFile | None:
    """Of ``mask<i>_<name>`` and ``maskEdited<i>_<name>``, .npy or .png; None of other files.

    A negative index is none of a mask. ``reference``: the name ends at its second underscore, whose
    last 4 characters are lost, and an edited mask is not seen where "-1" is anywhere in its name.
    Raises PartitionError of names that begin so and go on otherwise.
    """
    stem, _, suffix = name.rpartition(".")
    if not stem.startswith("mask") or suffix not in ("npy", "png") or name in INDEX:
        return None
    found = MASK_FILE.fullmatch(name)
    if found is None:
        raise PartitionError(f"{name} is no mask<i>_<name>.{suffix}: rename or remove it")
    number, edited = int(found["number"]), found["edited"] is not None
    if compat == "reference":
        seen = not (edited and "-1" in name)
        return ItemFile(number, name.split("_")[1][:-4], edited) if seen else None
    return ItemFile(number, found["name"], edited) if number >= 0 else None


def read_partition(folder: Path, *, edited: bool = False, compat: Compat = "exact") -> Partition:
    """The items of a folder, in the order of their numbers.

    The folder has a file per item (see `item_file`) or an index file, ``masks.png``; edited: its
    ``maskEdited`` files or ``masksEdited.png``. compat: of the names. Raises PartitionError.
    """
    files = _item_files(folder, edited, compat)
    index = folder / INDEX[edited]
    if not files and index.exists():
        return read_index(_inside(index, folder))
    if not files:
        raise PartitionError(
            f"{folder} has no masks: put a file mask{'Edited' * edited}<i>_<name>.npy (or .png) of "
            f"every item there, or one {index.name}"
        )
    if index.exists() or len({found.number for found, _ in files}) < len(files):
        names = ", ".join([*(path.name for _, path in files), index.name])
        raise PartitionError(f"{folder} has two masks of one item among {names}: remove one")
    masks = [_mask(path, folder) for _, path in files]
    for (_, path), mask in zip(files, masks, strict=True):
        if mask.shape != masks[0].shape:
            raise PartitionError(
                f"{path} has {_by(mask)} pixels, {files[0][1].name} has {_by(masks[0])}: give "
                "masks of one size"
            )
    with naming(folder):
        return Partition(tuple(found.name for found, _ in files), torch.stack(masks))


def read_index(path: Path, names: Sequence[str] | None = None) -> Partition:
    """The items of an index file, a PNG of one byte a pixel whose values are items.

    names: None for those that are written in the file, else "item". Raises PartitionError.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode not in ("L", "P") or image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels of mode {image.mode}")
            labels = torch.from_numpy(np.array(image))
            text = image.info.get(NAMES)
        if names is None:
            names = json.loads(text) if text else ["item"] * (int(labels.max()) + 1)
        if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
            raise ValueError("its names are no list of texts")
    except Exception as error:  # Pillow's decoder raises nearly every type on damaged files
        raise PartitionError(
            f"{path} cannot be read as items ({error}): give a PNG of 8 bits, grey or with a "
            "palette, whose values are the numbers of items"
        ) from error
    with naming(path):
        return Partition.from_labels(labels, names)


def write_index(folder: Path, items: Partition, *, edited: bool = False) -> Path:
    """Write the index file of a folder, with the names and a colour for every item.

    An earlier one is replaced. Raises PartitionError where other masks are there, or it cannot be
    written.
    """
    path = folder / INDEX[edited]
    _refuse_others(folder, edited, [path])
    image = Image.fromarray(items.labels.numpy())
    image.putpalette(PALETTE)  # the values stay as they are
    text = PngInfo()
    text.add_text(NAMES, json.dumps(items.names))
    png = io.BytesIO()
    image.save(png, "PNG", pnginfo=text)
    write_whole(path, png.getvalue())
    return path


def write_masks(folder: Path, items: Partition, *, edited: bool = False) -> list[Path]:
    """Write ``mask<i>_<name>.npy`` of every item, bool [H, W], which the public code can read.

    Earlier ones are replaced. Raises PartitionError as `write_index` does.
    """
    start = f"mask{'Edited' * edited}"
    paths = [folder / f"{start}{i}_{name}.npy" for i, name in enumerate(items.names)]
    _refuse_others(folder, edited, paths)
    for path, mask in zip(paths, items.masks.numpy(), strict=True):
        npy = io.BytesIO()
        np.save(npy, mask)
        write_whole(path, npy.getvalue())
    return paths


def picture_file(folder: Path, resolution: int | None = None) -> Path:
    """The picture of a folder: ``img_<resolution>``, else the only picture that is no mask.

    Raises PartitionError where there is none, or more than one to choose from.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURES)
    for suffix in PICTURES:
        if (path := folder / f"img_{resolution}{suffix}") in paths:
            return _inside(path, folder)
    pictures = [path for path in paths if not path.name.startswith("mask")]
    if len(pictures) != 1:
        raise PartitionError(
            f"{folder} has {', '.join(path.name for path in pictures) or 'no picture'}: put one "
            f"picture there, or name the one that is meant img_{resolution}.png"
        )
    return _inside(pictures[0], folder)


def read_picture(folder: Path, resolution: int) -> NDArray[np.uint8]:
    """The picture of a folder, its central square at ``resolution``: uint8 [R, R, 3].

    Raises PartitionError and ImageError.
    """
    return central_square(load_image(picture_file(folder, resolution)), resolution)


def central_square(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The largest square in the middle of [H, W, 3] by Pillow's bicubic filter: [side, side, 3]."""
    height, width = pixels.shape[:2]
    square = min(height, width)
    top, left = (height - square) // 2, (width - square) // 2
    image = Image.fromarray(pixels[top : top + square, left : left + square])
    return np.array(image.resize((side, side), Image.Resampling.BICUBIC))


def _item_files(folder: Path, edited: bool, compat: Compat) -> list[tuple[ItemFile, Path]]:
    """Sorted by their numbers."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    with naming(folder):
        files = [(found, path) for path in paths if (found := item_file(path.name, compat))]
    return sorted((f for f in files if f[0].edited == edited), key=lambda file: file[0].number)


def _mask(path: Path, folder: Path) -> Tensor:
    mask = torch.from_numpy(load_external_mask(_inside(path, folder)))
    if not (mask.eq(0) | mask.eq(1)).all():
        raise PartitionError(f"{path} has values between 0 and 1: give a mask of two values")
    return mask.bool()


def _inside(path: Path, folder: Path) -> Path:
    if not path.resolve().is_relative_to(folder.resolve()):
        raise PartitionError(f"{path} leads out of {folder}: put the file itself there")
    return path


def _by(mask: Tensor) -> str:
    return f"{mask.shape[1]}x{mask.shape[0]}"


def _refuse_others(folder: Path, edited: bool, paths: Sequence[Path]) -> None:
    """What is there beside the files to be written would be of two partitions."""
    there = [path for _, path in _item_files(folder, edited, "exact")]
    there += [path for path in [folder / INDEX[edited]] if path.exists()]
    if others := [path.name for path in there if path not in paths]:
        raise PartitionError(
            f"{folder} already has masks ({', '.join(others)}): remove them, or take another folder"
        )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of what lies there begin with its path."""
    try:
        yield
    except PartitionError as error:
        raise PartitionError(f"{path}: {error}") from error
