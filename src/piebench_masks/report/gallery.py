"""Pictures of single samples: source, soft maps, masks and edits, as tiles and as one sheet.

Gets arrays and returns or writes images; must not know stores, stages or models.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion

from piebench_masks.masks.method import CandidateBoxes
from piebench_masks.report.methods import at_thresholds

_OUTLINE = (255, 225, 70)
_HIT, _EXTRA, _MISSED = (235, 238, 242), (213, 94, 0), (0, 114, 178)
_GREY = (95, 102, 110)
LEGEND = "Masks: white right, orange too much, blue missed. Yellow line: annotated mask."


@dataclass(frozen=True)
class GalleryRow:
    """One sample to show. All images uint8 [H,W,3], all masks bool [H,W]; maps [h,w] in 0..1.

    ``edit_type`` is a label of the data set; ``pick`` says why the sample was chosen. ``maps`` to
    ``dice`` are by mask method, ``edits`` and ``scores`` by mask method with "none" for editing
    without a mask, where there are several editors by "editor, mask method". ``levels`` has for
    each scored threshold what the upsampled map must exceed to be in the mask, ``dice`` (with an
    annotated mask) the Dice of each; ``masks`` are those at the ``cut``-th threshold.
    ``candidates``: the boxes that a mask method has painted, with the edit that it keeps.
    """

    sample_id: str
    edit_type: str
    pick: str
    source_prompt: str
    target_prompt: str
    source: np.ndarray
    annotated: np.ndarray | None
    target: np.ndarray | None
    maps: Mapping[str, np.ndarray]
    levels: Mapping[str, Sequence[float]]
    masks: Mapping[str, np.ndarray]
    cut: Mapping[str, int]
    dice: Mapping[str, Sequence[float]]
    edits: Mapping[str, np.ndarray]
    scores: Mapping[str, Mapping[str, float]]
    candidates: Mapping[str, tuple[CandidateBoxes, np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True)
class Tile:
    """One picture of a row: ``group`` is its heading, ``label`` its caption, longer side fixed."""

    group: str
    label: str
    image: Image.Image


def select_samples(
    segmentation: pd.DataFrame, thresholds: Mapping[str, float], method: str = "ours"
) -> pd.DataFrame:
    """The best, median and worst sample of every edit type by the Dice of ``method``.

    Columns sample, edit_type, pick, dice, by edit type. Equal Dice is ordered by sample id; a type
    with fewer than three samples gives what it has.
    """
    rows = at_thresholds(segmentation[segmentation["method"] == method], thresholds)
    rows = rows.sort_values(["dice", "sample"], ascending=[False, True])
    picked = []
    for _, group in rows.groupby("edit_type", observed=True):
        last = len(group) - 1
        places = {last // 2: "median", last: "worst", 0: "best"}
        places = dict(sorted(places.items()))
        picked.append(group.iloc[list(places)].assign(pick=list(places.values())))
    return pd.concat(picked, ignore_index=True)[["sample", "edit_type", "pick", "dice"]]


def tiles(row: GalleryRow, size: int = 128) -> list[Tile]:
    """Everything there is to see of a sample, in reading order; the longer side is ``size``."""
    source = _fit(row.source, size)
    shape = source.shape[:2]
    annotated = None if row.annotated is None else _fit_mask(row.annotated, shape)
    result = [("Sample", "source", source)]
    if annotated is not None:
        result.append(("Sample", "annotated mask", _outlined(source, annotated)))
    if row.target is not None:
        result.append(("Sample", "true edit", _fit(row.target, size)))
    for method, soft_map in row.maps.items():
        result.append(("Soft maps", method, _heat(source, soft_map)))
    for method, mask in row.masks.items():
        scored = method in row.dice
        label = f"{method} {row.dice[method][row.cut[method]]:.2f}" if scored else method
        result.append(("Masks (Dice)", label, _compared(source, _fit_mask(mask, shape), annotated)))
    for name, edit in row.edits.items():
        editor, _, method = name.rpartition(", ")
        label = "no mask" if method == "none" else method
        result.append((f"Edits by {editor}" if editor else "Edits", label, _fit(edit, size)))
    return [Tile(group, label, Image.fromarray(image)) for group, label, image in result]


def contact_sheet(rows: Sequence[GalleryRow], size: int = 128) -> Image.Image:
    """All rows on one white sheet, their tiles in columns by group, captions in plain text."""
    pictures = [tiles(row, size) for row in rows]
    groups = list(dict.fromkeys(tile.group for row in pictures for tile in row))
    widths = [max(sum(tile.group == group for tile in row) for row in pictures) for group in groups]
    starts = np.cumsum([0, *widths])
    step, gap, caption = size + 6, 18, 16
    left = {group: gap + starts[i] * step + i * gap for i, group in enumerate(groups)}
    height = size + 2 * caption + gap
    sheet = Image.new(
        "RGB",
        (starts[-1] * step + (len(groups) + 1) * gap, 3 * caption + len(rows) * height),
        "white",
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    typed = len({row.edit_type for row in rows}) > 1  # a data set may have no types
    for group in groups:
        draw.text((left[group], 8), group, fill="black", font=ImageFont.load_default(15))
    draw.text((left[groups[0]], 28), LEGEND, fill=_GREY, font=font)
    for number, (row, picture) in enumerate(zip(rows, pictures, strict=True)):
        top = 3 * caption + 6 + number * height
        prefix = f"{row.edit_type}, " if typed else ""
        title = f"{prefix}{row.pick} ({row.sample_id}):  "
        draw.text((gap, top), title, fill="black", font=font)
        prompts = " ".join(f"{row.source_prompt}  >  {row.target_prompt}".split())
        draw.text((gap + draw.textlength(title, font), top), prompts, fill=_GREY, font=font)
        for group in groups:
            for place, tile in enumerate(tile for tile in picture if tile.group == group):
                corner = (left[group] + place * step, top + caption)
                sheet.paste(tile.image, corner)
                below = (corner[0], corner[1] + size + 1)
                draw.text(below, tile.label, fill=_GREY, font=ImageFont.load_default(11))
    return sheet


@functools.cache
def heat_colours() -> np.ndarray:
    """The colours of soft maps, uint8 [256,3]."""
    import matplotlib as mpl  # half a second, which a report that is not drawn again does not pay

    return np.round(mpl.colormaps["inferno"](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)


def _fit(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [H,W,3] scaled to a longer side of ``size``; small images keep their hard pixels."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    resample = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(shape, resample))


def _fit_mask(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    picture = Image.fromarray(mask).resize((shape[1], shape[0]), Image.Resampling.NEAREST)
    return np.asarray(picture)


def _outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    edge = mask & ~binary_erosion(mask, iterations=2)
    return np.where(edge[..., None], np.array(_OUTLINE, np.uint8), image)


def _grey(image: np.ndarray) -> np.ndarray:
    return image.mean(axis=2, keepdims=True).repeat(3, axis=2)


def _heat(image: np.ndarray, soft_map: np.ndarray) -> np.ndarray:
    """The map in colours over the grey image; the higher, the less of the image is seen."""
    picture = Image.fromarray(np.nan_to_num(soft_map).astype(np.float32))
    value = np.asarray(picture.resize(image.shape[1::-1], Image.Resampling.BILINEAR)).clip(0, 1)
    weight = 0.45 + 0.45 * value[..., None]
    mixed = (1 - weight) * _grey(image) + weight * heat_colours()[
        np.round(value * 255).astype(np.uint8)
    ]
    return mixed.astype(np.uint8)


def _compared(image: np.ndarray, mask: np.ndarray, annotated: np.ndarray | None) -> np.ndarray:
    """The mask over the darkened grey image, coloured by whether it agrees with the annotation."""
    colour = 0.35 * _grey(image)
    truth = mask if annotated is None else annotated
    for part, paint in ((mask & truth, _HIT), (mask & ~truth, _EXTRA), (~mask & truth, _MISSED)):
        colour[part] = 0.35 * colour[part] + 0.65 * np.array(paint)
    return colour.astype(np.uint8)
