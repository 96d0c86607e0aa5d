"""What metrics are shown of a sample, as a protocol has it: pictures, prompts, the edited part."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from piebench_masks.data.images import load_image
from piebench_masks.data.rle import from_coco, with_border
from piebench_masks.data.sample import Sample
from piebench_masks.metrics.case import EditCase
from piebench_masks.protocol import Casing
from piebench_masks.run import Run
from piebench_masks.stages.latents import image_file


def edit_case(run: Run, sample: Sample, casing: Casing, source: NDArray[np.uint8]) -> EditCase:
    """A sample's images at the size that is asked for, that of its source where it has no mask.

    source: its picture [H,W,3].
    """
    target, part = sample.target_image_path, edited_part(sample, casing)
    height, width, _ = source.shape
    if isinstance(casing.size, int):
        scale = casing.size / min(height, width)
        height, width = round(height * scale), round(width * scale)
    elif casing.size == "mask" and part is not None:
        height, width = part.shape
    size = height, width
    source_prompt, target_prompt = (
        sample.texts if casing.brackets == "kept" else (sample.source_prompt, sample.target_prompt)
    )
    return EditCase(
        source=resized(source, size),
        target=None if target is None else resized(load_image(image_file(run, target)), size),
        mask=None if part is None else mask_resized(part, size),
        source_prompt=source_prompt,
        target_prompt=target_prompt,
    )


def edited_part(sample: Sample, casing: Casing) -> NDArray[np.bool_] | None:
    """The annotated part to edit [H,W], or the box around it; None where none is annotated."""
    if sample.mask is None:
        return None
    annotated, border = from_coco(sample.annotated or sample.mask), sample.border
    part = annotated
    if casing.part == "box":
        part = box(with_border(annotated, border, False))
    if casing.border == "annotated":
        return part
    return with_border(part, border, casing.border == "set")


def box(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The smallest upright rectangle [H,W] around a mask; empty around an empty one."""
    around = np.zeros_like(mask)
    if mask.any():
        (top, bottom), (left, right) = ((there.min(), there.max() + 1) for there in mask.nonzero())
        around[top:bottom, left:right] = True
    return around


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image [H,W,3] at the size (height, width), by Pillow's bicubic filter."""
    if image.shape[:2] == size:
        return image
    return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def mask_resized(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask [H,W] at the size (height, width): of each pixel the one under its centre."""
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(size, mask.shape, strict=True)
    )
    return mask[rows][:, columns]
