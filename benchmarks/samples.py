"""The samples that are measured: the shapes miniature, as it is or enlarged."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from piebench_masks.data.rle import decode_runs, encode_runs
from piebench_masks.data.shapes.write import write_shapes

SHAPES_SIZE = 64


def write_samples(root: Path, *, size: int, per_type: int) -> None:
    """Ten times ``per_type`` samples in PIE-Bench's form, pictures and annotations of that side.

    In the mapping's order every edit type comes once before any comes twice. Raises ValueError if
    the side is no multiple of the miniature's.
    """
    if size % SHAPES_SIZE:
        raise ValueError(f"the side {size} is no multiple of {SHAPES_SIZE}")
    write_shapes(root, per_type=per_type)
    path = root / "mapping_file.json"
    mapping = json.loads(path.read_text(encoding="utf-8"))
    mixed = sorted(mapping, key=lambda sample_id: (sample_id[1:], sample_id[0]))
    factor = size // SHAPES_SIZE
    for entry in mapping.values():
        mask = decode_runs(entry["mask"], SHAPES_SIZE, SHAPES_SIZE)
        entry["mask"] = encode_runs(mask.repeat(factor, axis=0).repeat(factor, axis=1))
    path.write_text(json.dumps({name: mapping[name] for name in mixed}), encoding="utf-8")
    if factor > 1:
        for picture in (root / "annotation_images").rglob("*.png"):
            enlarge(picture, size)


def enlarge(picture: Path, size: int) -> None:
    """Bicubic, in place."""
    with Image.open(picture) as image:
        larger = image.resize((size, size), Image.Resampling.BICUBIC)
    Image.fromarray(np.asarray(larger)).save(picture)
