"""The augmented views of a picture that CLIP's losses are means over (arXiv 2311.16432).

The draws, their order and the arithmetic are those of the published code with torchvision 0.15;
every draw is from the generator that is given.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

COUNT = 16
"""Views of a picture: the whole of it, then crops."""
SMALLEST_CROP = 0.6
"""Share of the picture's side."""
FLIPPED, MOVED, TILTED, COLOURED, GREY = 0.5, 0.8, 0.5, 0.7, 0.15
"""Probabilities of the transforms, in this order."""
ANGLE, SHIFT, DISTORTION, COLOUR, HUE = 15.0, 0.1, 0.4, 0.1, 0.1
"""Degrees; shares of the side, of half of it; relative changes of colours; turn of the hue."""
FILL = [1.0, 1.0, 1.0]
"""The colour of what is beyond the border: black where pixels are from 0 to 255."""


def views(image: Tensor, side: int, generator: Generator, *, antialias: bool) -> Tensor:
    """[16, 3, side, side] of a picture [3, h, h] of floats.

    antialias: of the resizing to ``side``; False as published. Jittered colours end at 1, so that
    pixels from 0 to 255 come out almost white, as published.
    """
    found = []
    for number in range(COUNT):
        part = _crop(image, generator) if number else image
        found.append(_transformed(resized(part, side, antialias=antialias), generator))
    return torch.stack(found)


def resized(image: Tensor, side: int, *, antialias: bool) -> Tensor:
    """Bilinear: [..., 3, side, side]."""
    from torchvision.transforms.functional import resize  # takes seconds

    found: Tensor = resize(image, [side, side], antialias=antialias)
    return found


def _crop(image: Tensor, generator: Generator) -> Tensor:
    """A square of a drawn size at a drawn place."""
    side = image.shape[-1]
    size = int(side * _uniform(SMALLEST_CROP, 1.0, generator))
    if size == side:
        return image
    top = _integer(0, side - size + 1, generator)
    left = _integer(0, side - size + 1, generator)
    return image[:, top : top + size, left : left + size]


def _transformed(image: Tensor, generator: Generator) -> Tensor:
    """Flipped, moved, tilted, coloured and made grey, each with its probability."""
    from torchvision.transforms import functional as transforms
    from torchvision.transforms.v2.functional import perspective

    bilinear = transforms.InterpolationMode.BILINEAR
    side = image.shape[-1]
    if _chance(generator) < FLIPPED:
        image = image.flip(-1)
    if _chance(generator) <= MOVED:
        angle = _uniform(-ANGLE, ANGLE, generator)
        x, y = (round(_uniform(-SHIFT * side, SHIFT * side, generator)) for _ in "xy")
        image = transforms.affine(
            image, angle, [x, y], 1.0, [0.0, 0.0], interpolation=bilinear, fill=FILL
        )
    if _chance(generator) < TILTED:
        image = perspective(
            image,
            None,
            None,
            interpolation=bilinear,
            fill=FILL,
            coefficients=_perspective_coefficients(_tilted(side, generator), side),
        )
    if _chance(generator) <= COLOURED:
        image = _jittered(image, generator)
    if _chance(generator) < GREY:
        image = transforms.rgb_to_grayscale(image, num_output_channels=3)
    return image


def _tilted(side: int, generator: Generator) -> list[list[int]]:
    """Where the corners go, clockwise from the top left: (x, y) of each."""
    reach = int(DISTORTION * (side // 2))
    near, far = (0, reach + 1), (side - reach - 1, side)
    ranges = [(near, near), (far, near), (far, far), (near, far)]
    return [[_integer(*x, generator), _integer(*y, generator)] for x, y in ranges]


def _perspective_coefficients(corners: list[list[int]], side: int) -> list[float]:
    """Of the projection of these corners to those of the picture, eight numbers.

    Solved in float32, as torchvision 0.15 does; newer ones do it in float64.
    """
    straight = [[0, 0], [side - 1, 0], [side - 1, side - 1], [0, side - 1]]
    rows = []
    for (x, y), (u, v) in zip(corners, straight, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    matrix = torch.tensor(rows, dtype=torch.float32)
    target = torch.tensor(straight, dtype=torch.float32).flatten()
    coefficients: list[float] = torch.linalg.lstsq(matrix, target, driver="gels").solution.tolist()
    return coefficients


def _jittered(image: Tensor, generator: Generator) -> Tensor:
    """With brightness, contrast, saturation and hue changed in a drawn order."""
    from torchvision.transforms import functional as transforms

    adjustments: list[Callable[[Tensor, float], Tensor]] = [
        transforms.adjust_brightness,
        transforms.adjust_contrast,
        transforms.adjust_saturation,
        transforms.adjust_hue,
    ]
    order = torch.randperm(len(adjustments), generator=generator).tolist()
    amounts = [_uniform(1 - COLOUR, 1 + COLOUR, generator) for _ in adjustments[:3]]
    amounts.append(_uniform(-HUE, HUE, generator))
    for number in order:
        image = adjustments[number](image, amounts[number])
    return image


def _chance(generator: Generator) -> float:
    return torch.rand(1, generator=generator).item()


def _uniform(low: float, high: float, generator: Generator) -> float:
    return torch.empty(1).uniform_(low, high, generator=generator).item()


def _integer(low: int, high: int, generator: Generator) -> int:
    """From ``low`` to below ``high``."""
    return int(torch.randint(low, high, (1,), generator=generator).item())
