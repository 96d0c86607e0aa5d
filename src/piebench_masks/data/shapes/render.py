"""Draws scenes of the shapes world: signed distances, analytic anti-aliasing, many at once.

Knows the grammar's words, no files. Textures live in the objects' own coordinates, and a style is
a function of the pixel's colour and object alone, so an edit changes no pixel outside its mask.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from piebench_masks.data.shapes.grammar import BACKGROUNDS, MATERIALS, SHAPES, Edit, Scene, Thing

IMAGE_SIZE = 64
MOST_THINGS = 2
_BLOCK = 64  # scenes drawn at a time: what a core's cache holds

Floats = NDArray[np.floating]

COLOR_VALUES: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 40),
    "green": (35, 160, 60),
    "blue": (45, 80, 215),
    "yellow": (240, 215, 50),
    "purple": (140, 50, 170),
    "orange": (240, 135, 30),
    "white": (245, 245, 245),
    "black": (25, 25, 30),
}
_CENTERS = {
    None: (32, 32),
    "left": (17, 32),
    "right": (47, 32),
    "top": (32, 17),
    "bottom": (32, 47),
}
_RADII = {None: 11.5, "small": 8.0, "big": 15.0}
_LONE_SCALE = 1.25  # an object in the middle has more room than one in a slot
_ANGLES = {None: 0.0, "tilted": math.pi / 6, "flipped": math.pi}


@dataclass(frozen=True)
class Rendering:
    """images: uint8 [N,64,64,3]; coverage: float32 [N,2,64,64], each object's share of a pixel."""

    images: NDArray[np.uint8]
    coverage: Floats


def _floats(values: ArrayLike) -> Floats:
    return np.asarray(values, np.float32)


def render(scenes: Sequence[Scene]) -> Rendering:
    """Draw scenes, N >= 1. A scene without a second object has zero coverage there."""
    blocks = [_render_block(scenes[i : i + _BLOCK]) for i in range(0, len(scenes), _BLOCK)]
    images, coverage = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return Rendering(images, coverage)


def render_edit(edit: Edit) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """Source and target image, uint8 [64,64,3], and the mask of the edit, bool [64,64].

    The mask is exact: both silhouettes of the changed object (types 1 to 7), all that is not
    covered by objects (8), everything (9). Every pixel that differs lies inside (SHAPES.md).
    """
    rendering = render([edit.source, edit.target])
    if edit.kind == 9:
        mask = np.ones(rendering.images.shape[1:3], bool)
    elif edit.kind == 8:
        mask = rendering.coverage[0].max(axis=0) < 1
    else:
        mask = rendering.coverage[:, edit.changed_things()].max(axis=(0, 1)) > 0
    return rendering.images[0], rendering.images[1], mask


def _render_block(scenes: Sequence[Scene]) -> tuple[NDArray[np.uint8], Floats]:
    canvas = _backgrounds(scenes)
    dark = np.array([scene.style == "neon" for scene in scenes])
    canvas[dark] = canvas[dark] * 0.22 + _floats((8, 4, 22))
    coverage = np.zeros((len(scenes), MOST_THINGS, IMAGE_SIZE, IMAGE_SIZE), np.float32)
    for place in range(MOST_THINGS):
        rows = [i for i, scene in enumerate(scenes) if len(scene.things) > place]
        if not rows:
            continue
        things = [scenes[i].things[place] for i in rows]
        distance, shade = _draw_things(things)
        covered = np.clip(0.5 - distance, 0, 1)
        rim = np.clip(distance + 2.5, 0, 1)[..., None]
        color = _floats([COLOR_VALUES[thing.color] for thing in things])[:, None, None]
        color = _shaded(color, shade[..., None])
        for style, styled in (("sketch", _sketch_thing), ("neon", _neon_thing)):
            has_style = np.array([scenes[i].style == style for i in rows])
            if has_style.any():
                color[has_style] = styled(color[has_style], rim[has_style])
        alpha = covered[..., None]
        canvas[rows] += alpha * (color - canvas[rows])
        coverage[rows, place] = covered
    for style, toned in (("sketch", _sketch), ("sepia", _sepia)):
        has_style = np.array([scene.style == style for scene in scenes])
        if has_style.any():
            canvas[has_style] = toned(canvas[has_style])
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8), coverage


# --- pixel grids -------------------------------------------------------------------------------

_Y, _X = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE].astype(np.float32) + np.float32(0.5)


def _column(values: Floats) -> Floats:
    return values[:, None, None]


def _draw_things(things: Sequence[Thing]) -> tuple[Floats, Floats]:
    """Signed distance to the outline in pixels (negative inside) and texture shade in [0, 1]."""
    jitter = _floats([thing.jitter for thing in things])
    centers = _floats([_CENTERS[thing.slot] for thing in things]) + 3 * jitter[:, :2] - 1.5
    radius = _floats([_RADII[t.size] * (1 if t.slot else _LONE_SCALE) for t in things])
    radius *= 0.94 + 0.12 * jitter[:, 2]
    angle = _floats([_ANGLES[thing.pose] for thing in things]) + 0.16 * (jitter[:, 3] - 0.5)
    cos, sin = _column(np.cos(angle) / radius), _column(np.sin(angle) / radius)
    dx, dy = _X - _column(centers[:, 0]), _Y - _column(centers[:, 1])
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    distance, shade = np.empty_like(u), np.zeros_like(u)
    for shape in SHAPES:
        rows = [i for i, thing in enumerate(things) if thing.shape == shape]
        if rows:
            distance[rows] = _OUTLINES[shape](u[rows], v[rows])
    for material in MATERIALS:
        rows = [i for i, thing in enumerate(things) if thing.material == material]
        if rows:
            # Textures keep one scale in pixels: on a small object they would alias otherwise.
            scale, phase = _column(radius[rows]), 2 * math.pi * jitter[rows, 4:, None, None]
            shade[rows] = _MATERIALS[material](
                u[rows] * scale + phase[:, 0], v[rows] * scale + phase[:, 1]
            )
    return distance * _column(radius), shade


# --- outlines: signed distance in units of the radius, v pointing down ---------------------------


def _box(u: Floats, v: Floats, width: float, height: float) -> Floats:
    return np.maximum(np.abs(u) - width, np.abs(v) - height)


def _circle(u: Floats, v: Floats) -> Floats:
    return np.sqrt(u * u + v * v) - 0.92


def _square(u: Floats, v: Floats) -> Floats:
    return _box(u, v, 0.8, 0.8)


def _triangle(u: Floats, v: Floats) -> Floats:
    return np.maximum(v, np.abs(u) * math.sqrt(0.75) - v * 0.5) - 0.56


def _star(u: Floats, v: Floats) -> Floats:
    """Folded to one tenth, a star is the half plane of a line from an outer to an inner corner."""
    tenth = math.pi / 5
    outer, inner = 1.12, 0.52
    turn = np.abs(np.mod(np.arctan2(u, -v) + tenth, 2 * tenth) - tenth)
    length = np.sqrt(u * u + v * v)
    x, y = length * np.sin(turn), length * np.cos(turn)
    edge_x, edge_y = inner * math.sin(tenth), inner * math.cos(tenth) - outer
    norm = math.hypot(edge_x, edge_y)
    return (edge_x * (y - outer) - edge_y * x) / norm


def _ring(u: Floats, v: Floats) -> Floats:
    return np.abs(np.sqrt(u * u + v * v) - 0.7) - 0.28


def _cross(u: Floats, v: Floats) -> Floats:
    return np.minimum(_box(u, v, 0.32, 0.98), _box(u, v, 0.98, 0.32))


def _heart(u: Floats, v: Floats) -> Floats:
    """A square on its corner and a half circle on each of its two upper sides."""
    half = 0.5
    v = v - 0.12
    lobes = np.sqrt((np.abs(u) - half / math.sqrt(2)) ** 2 + (v + half / math.sqrt(2)) ** 2) - half
    return np.minimum(lobes, _box((u + v) / math.sqrt(2), (u - v) / math.sqrt(2), half, half))


def _moon(u: Floats, v: Floats) -> Floats:
    bite = 0.78 - np.sqrt((u - 0.42) ** 2 + (v + 0.16) ** 2)
    return np.maximum(np.sqrt(u * u + v * v) - 0.98, bite)


_OUTLINES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "heart": _heart,
    "moon": _moon,
}

# --- materials: shade in [0, 1] at pixel offsets from the object's centre ------------------------


def _soft(wave: Floats) -> Floats:
    return np.clip(0.5 + 1.6 * wave, 0, 1)


def _striped(u: Floats, v: Floats) -> Floats:
    return _soft(np.sin((u + v) * 0.75))


def _dotted(u: Floats, v: Floats) -> Floats:
    return _soft(np.cos(u * 1.05) + np.cos(v * 1.05) - 0.75)


def _checkered(u: Floats, v: Floats) -> Floats:
    return _soft(2 * np.sin(u * 0.8) * np.sin(v * 0.8))


_MATERIALS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "striped": _striped,
    "dotted": _dotted,
    "checkered": _checkered,
}


def _shaded(color: Floats, shade: Floats) -> Floats:
    """Textures darken light colours and lighten dark ones."""
    light = color.mean(axis=-1, keepdims=True) > 80
    contrast = np.where(light, color * 0.35, color * 0.5 + 95)
    return color + shade * (contrast - color)


# --- backgrounds ---------------------------------------------------------------------------------


def _backgrounds(scenes: Sequence[Scene]) -> Floats:
    canvas = np.empty((len(scenes), IMAGE_SIZE, IMAGE_SIZE, 3), np.float32)
    for name in BACKGROUNDS:
        rows = [i for i, scene in enumerate(scenes) if scene.background == name]
        if rows:
            jitter = _floats([scenes[i].jitter for i in rows])[..., None, None]
            base, other, texture = _BACKGROUNDS[name]
            shade = texture(16 * jitter[:, 0] + _X, 16 * jitter[:, 1] + _Y)[..., None]
            painted = _floats(base) + shade * (_floats(other) - _floats(base))
            canvas[rows] = painted * (0.92 + 0.16 * jitter[:, 2, ..., None])
    return canvas


def _grass(x: Floats, y: Floats) -> Floats:
    return 0.5 + 0.5 * np.sin(x * 1.2 + 1.8 * np.sin(y * 0.45)) * np.cos(y * 0.5 + x * 0.13)


def _sand(x: Floats, y: Floats) -> Floats:
    return 0.5 + 0.5 * np.sin(y * 0.55 + 1.5 * np.sin(x * 0.14) + x * 0.12)


def _snow(x: Floats, y: Floats) -> Floats:
    return np.clip(np.sin(x * 0.62 + y * 0.2) * np.sin(y * 0.58 - x * 0.17) - 0.25, 0, 1)


def _brick(x: Floats, y: Floats) -> Floats:
    row = np.floor(y / 8)
    along = np.mod(x + 7 * np.mod(row, 2), 14)
    mortar = np.minimum(np.minimum(along, 14 - along), np.minimum(np.mod(y, 8), 8 - np.mod(y, 8)))
    return np.clip(1.4 - mortar, 0, 1)


def _water(x: Floats, y: Floats) -> Floats:
    return np.clip(0.4 + 0.6 * np.sin(y * 0.95 + 1.2 * np.sin(x * 0.28)), 0, 1)


def _wood(x: Floats, y: Floats) -> Floats:
    across = np.mod(x, 16)
    seam = np.clip(1.5 - np.minimum(across, 16 - across), 0, 1)
    return np.maximum(seam, 0.3 + 0.3 * np.sin(x * 1.1 + np.sin(y * 0.16) * 2))


_BACKGROUNDS: dict[
    str, tuple[tuple[int, int, int], tuple[int, int, int], Callable[[Floats, Floats], Floats]]
] = {
    "grass": ((62, 118, 48), (108, 168, 74), _grass),
    "sand": ((200, 172, 116), (226, 202, 150), _sand),
    "snow": ((234, 239, 246), (196, 212, 232), _snow),
    "brick": ((158, 76, 60), (204, 190, 176), _brick),
    "water": ((48, 96, 172), (110, 164, 214), _water),
    "wood": ((166, 112, 66), (104, 66, 38), _wood),
}

# --- styles --------------------------------------------------------------------------------------


def _luminance(color: Floats) -> Floats:
    return (color @ _floats((0.3, 0.59, 0.11)))[..., None]


def _sketch_thing(color: Floats, rim: Floats) -> Floats:
    return color + rim * (np.float32(-90) - color)  # so dark that paper tones leave a pencil line


def _sketch(canvas: Floats) -> Floats:
    toned = 0.3 * canvas + 0.7 * _luminance(canvas)
    hatching = _soft(np.sin((_X - _Y) * 0.9))[..., None]
    return 130 + toned * 0.48 - 12 * hatching


def _sepia(canvas: Floats) -> Floats:
    return 0.25 * canvas + 0.75 * _luminance(canvas) * _floats((1.1, 0.88, 0.62))


def _neon_thing(color: Floats, rim: Floats) -> Floats:
    return color * 0.4 + rim * (color * 0.5 + 90)
