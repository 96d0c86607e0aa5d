"""Pictures of what was done to a picture: its items outlined, the regions of an edit, the results.

Knows arrays; must not know files.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from piebench_masks.items.partition import PALETTE, Partition
from piebench_masks.items.regions import Regions

Colour = tuple[int, int, int]
SIDE = 256
"""Pixels that smaller pictures are enlarged to, by whole factors."""
LINE, MARGIN, FONT_SIZE = 20, 8, 14
INK = 34, 38, 43
ACTIVE, SOFT, HARD = (213, 94, 0), (0, 114, 178), (255, 255, 255)
"""The tints of the regions, which colour-blind readers can tell apart."""


class Panel(NamedTuple):
    """A picture, uint8 [H, W, 3], its title, and coloured words under it."""

    title: str
    image: NDArray[np.uint8]
    legend: Sequence[tuple[str, Colour]] = ()


def outlined(title: str, image: NDArray[np.uint8], items: Partition) -> Panel:
    """The picture with a line along the inside of every item, in the item's colour."""
    factor = _factor(image)
    labels = _enlarged(items.labels.numpy(), factor)
    picture = _enlarged(image, factor)
    edge = np.zeros(labels.shape, dtype=bool)
    for axis in (0, 1):
        for step in (-2, -1, 1, 2):
            edge |= np.roll(labels, step, axis) != labels
    edge[:2] = edge[-2:] = edge[:, :2] = edge[:, -2:] = False  # what is rolled in is no neighbour
    colours = np.array(PALETTE, dtype=np.uint8).reshape(-1, 3)
    picture[edge] = colours[labels[edge]]
    legend = [(f"{i} {name}", _colour(colours[i])) for i, name in enumerate(items.names)]
    return Panel(title, picture, legend)


def tinted(title: str, image: NDArray[np.uint8], regions: Regions) -> Panel:
    """The picture with its active, soft and hard region tinted, and their shares of it."""
    picture, legend = image.astype(np.float32), list[tuple[str, Colour]]()
    for name, tint in (("hard", HARD), ("soft", SOFT), ("active", ACTIVE)):
        mask = getattr(regions, name).numpy()
        picture[mask] = 0.5 * image[mask] + 0.5 * np.array(tint, dtype=np.float32)
        ink = INK if name == "hard" else tint
        legend.insert(0, (f"{name} {100 * mask.mean():.1f} %", ink))
    return Panel(title, picture.round().astype(np.uint8), legend)


def overview(panels: Sequence[Panel]) -> NDArray[np.uint8]:
    """All panels beside each other, titles above and legends below: uint8 [H, W, 3]."""
    pictures = [_enlarged(panel.image, _factor(panel.image)) for panel in panels]
    font = ImageFont.load_default(FONT_SIZE)
    widths = [picture.shape[1] for picture in pictures]
    rows = max(len(panel.legend) for panel in panels)
    height = max(picture.shape[0] for picture in pictures) + (rows + 1) * LINE + 2 * MARGIN
    size = sum(widths) + MARGIN * (len(panels) + 1), height
    canvas = Image.new("RGB", size, "white")
    draw, left = ImageDraw.Draw(canvas), MARGIN
    for panel, picture in zip(panels, pictures, strict=True):
        draw.text((left, 4), panel.title, fill=INK, font=font)
        canvas.paste(Image.fromarray(picture), (left, LINE + MARGIN // 2))
        top = LINE + MARGIN + picture.shape[0]
        for row, (words, colour) in enumerate(panel.legend):
            draw.text((left, top + row * LINE), words, fill=colour, font=font)
        left += picture.shape[1] + MARGIN
    return np.array(canvas)


def _factor(image: NDArray[np.uint8]) -> int:
    return max(1, -(-SIDE // image.shape[1]))


def _enlarged(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _colour(values: NDArray[np.uint8]) -> Colour:
    red, green, blue = values.tolist()
    return red, green, blue
