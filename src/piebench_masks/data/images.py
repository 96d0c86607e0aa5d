"""Image files as RGB arrays, whatever they were saved as. Knows no data set."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from piebench_masks.errors import BenchmarkError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""The file formats that are opened; others of Pillow's run outside programs or hold no picture."""

MAX_PIXELS = 64 * 1024 * 1024
"""Larger images are refused before anything is decompressed."""


class ImageError(BenchmarkError):
    """An image cannot be used; the message names the file, the reason and the remedy."""


def load_image(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """The image of a file as RGB [H,W,3] in 0..255.

    The EXIF orientation is applied, transparency is laid on white; grey, palette, CMYK and 16-bit
    images are converted; of an animation the first frame is taken. ``size`` = (height, width)
    resizes with Pillow's bicubic filter.
    Raises ``ImageError`` for a file that is missing, unreadable or larger than ``MAX_PIXELS``.
    """
    try:
        if not path.is_file():
            instead = " instead of what is there" if path.exists() else ""
            raise ImageError(f"{path} is missing: put the image there{instead}")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    f"{path} has {image.width}x{image.height} pixels, more than the {MAX_PIXELS} "
                    "that are decoded: shrink it"
                )
            rgb = to_rgb(ImageOps.exif_transpose(image))
        if size is not None:
            rgb = rgb.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly every type on damaged files.
        raise ImageError(
            f"{path} cannot be read as an image ({error}): replace it by an intact "
            f"{', '.join(FORMATS)} file"
        ) from error
    return np.array(rgb)


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB of an image in any of Pillow's modes but 32-bit ones (ValueError), alpha on white."""
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has no fixed range of values")
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips at 255
        image = Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")
