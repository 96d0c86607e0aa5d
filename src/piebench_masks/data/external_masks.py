"""Masks that somebody else made: where they lie, and one file as an array.

Laid out as root/<method>/<image path without suffix, or sample id>, .png or .npy. Knows no method.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from piebench_masks.data.images import MAX_PIXELS
from piebench_masks.data.scene import Knows
from piebench_masks.errors import BenchmarkError

SUFFIXES = (".png", ".npy")
MAX_BYTES = 8 * MAX_PIXELS
"""Of a file; larger ones are not opened."""


def external_masks(root: Path, methods: Mapping[str, Knows]) -> dict[str, Knows]:
    """The methods and what each was given. Raises BenchmarkError where one has no folder of its own
    in ``root``, or does not say what it was given.
    """
    folders = sorted(path.name for path in root.glob("*") if path.is_dir())
    if not methods or not methods.keys() <= set(folders):
        missing = ", ".join(sorted(methods.keys() - set(folders)))
        raise BenchmarkError(
            f"mask.external.root={root} has no folder {missing or 'that was chosen'}: set "
            "mask.external.methods to what each method's masks were made from, as in "
            f"{{mine: prompts}}; there are {', '.join(folders) or 'no folders'}"
        )
    for name, knows in methods.items():
        if knows not in get_args(Knows):
            raise BenchmarkError(
                f"mask.external.methods.{name} is {knows!r}: choose one of "
                f"{', '.join(get_args(Knows))}"
            )
    return dict(methods)


def mask_file(root: Path, method: str, image_path: str, sample_id: str) -> Path:
    """The file of one sample's mask; BenchmarkError where there is none, or it is outside ``root``.

    image_path: of the sample's picture, in the data set's image folder.
    """
    folder = root / method
    stems = [str(Path(image_path).with_suffix("")), sample_id]
    candidates = [folder / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES]
    for path in candidates:
        if path.is_file():
            if not path.resolve().is_relative_to(root.resolve()):
                raise BenchmarkError(f"{path} leads out of {root}: put the file itself there")
            return path
    raise BenchmarkError(
        f"no mask of sample {sample_id}: put {candidates[0]} (or .npy, or named by the id) there"
    )


def load_external_mask(path: Path) -> NDArray[np.float32]:
    """A mask as float32 [h, w] in [0, 1].

    PNG: grey, of 1, 8 or 16 bits; npy: [h, w] of bool, uint8 or floating point in [0, 1]. White
    and 1 are inside; where 8 bits hold nothing above 1, they are a hard mask. No pickle is read.
    Raises BenchmarkError.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        array = _npy(path) if path.suffix == ".npy" else _png(path)
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(f"its shape is {list(array.shape)}, and not [height, width]")
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ValueError("it has values that are not from 0 to 1")
    except Exception as error:  # Pillow's decoder raises nearly every type on damaged files
        raise BenchmarkError(
            f"{path} cannot be read as a mask ({error}): give a grey PNG of 8 or 16 bits, or a npy "
            "file [height, width] of bool, uint8 or floating point from 0 to 1"
        ) from error
    return array.astype(np.float32)


def _npy(path: Path) -> NDArray[np.float32]:
    # Mapped, so that a header which promises more than there is allocates nothing.
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.size > MAX_PIXELS:
        raise ValueError(f"it has more than {MAX_PIXELS} values")
    if array.dtype == np.uint8:
        return _shares(array)
    if array.dtype == np.bool_ or array.dtype.kind == "f":
        return np.asarray(array, dtype=np.float32)
    raise ValueError(f"its values are {array.dtype}")


def _png(path: Path) -> NDArray[np.float32]:
    with Image.open(path, formats=("PNG",)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"it has more than {MAX_PIXELS} pixels")
        if image.mode == "1":
            return np.asarray(image, dtype=np.float32)
        if image.mode == "L":
            return _shares(np.asarray(image))
        if image.mode.startswith("I"):
            return np.asarray(image, dtype=np.float32) / np.float32(65535)
        if image.mode in ("RGB", "RGBA"):
            pixels = np.asarray(image)
            if image.mode == "RGBA" and (pixels[..., 3] < 255).any():
                raise ValueError("it is transparent, so that inside and outside are not told apart")
            if (pixels[..., :3] == pixels[..., :1]).all():
                return _shares(pixels[..., 0])
        raise ValueError(f"its mode is {image.mode}, in colours")


def _shares(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """0 to 255, or the 0 and 1 of a hard mask, as shares."""
    return levels.astype(np.float32) / np.float32(255 if levels.max(initial=0) > 1 else 1)
