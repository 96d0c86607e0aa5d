"""Captions by a tiny random BLIP, loaded as the real one is."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from piebench_masks.identity import part_identity
from piebench_masks.prompts.blip import Blip
from piebench_masks.weights import WeightsError


@pytest.fixture(scope="module")
def blip(blip_folder: Path) -> Blip:
    return Blip(model=str(blip_folder), max_tokens=6, rows=2)


def pictures(count: int) -> list[NDArray[np.uint8]]:
    """Of different sizes and colours."""
    sides = np.random.default_rng(0)
    return [
        np.full((24 + 8 * i, 40, 3), sides.integers(0, 256, 3), dtype=np.uint8)
        for i in range(count)
    ]


def test_captions_begin_as_told_and_depend_on_their_pictures(blip: Blip) -> None:
    captions = blip.captions(pictures(5))
    assert len(captions) == 5
    assert all(caption.startswith("a photograph of") for caption in captions)
    assert all(len(caption.split()) <= 3 + 6 for caption in captions)
    assert not any("[" in caption for caption in captions)
    assert len(set(captions)) > 1
    sketch = replace(blip, start="a sketch").captions(pictures(1))
    assert sketch[0].startswith("a sketch")


def test_neither_other_pictures_nor_their_order_matter(blip: Blip) -> None:
    together = blip.captions(pictures(3))
    assert [blip.captions([picture])[0] for picture in pictures(3)] == together
    assert blip.captions(pictures(3)[::-1]) == together[::-1]


def test_what_it_is_in_keys(blip: Blip, blip_folder: Path, tmp_path: Path) -> None:
    same = shutil.copytree(blip_folder, tmp_path / "same")
    moved = replace(blip, model=str(same), cache_dir=str(tmp_path), rows=1, device="cuda")
    assert part_identity(moved) == part_identity(blip)
    assert part_identity(replace(blip, start="a")) != part_identity(blip)
    weights = Path(same) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert part_identity(replace(blip, model=str(same))) != part_identity(blip)


def test_a_model_that_is_not_there_or_torn(blip: Blip, blip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no/such/folder.*\n.*captions\.model"):
        replace(blip, model="no/such/folder").load()
    torn = Path(shutil.copytree(blip_folder, tmp_path / "torn"))
    (torn / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="model of captions"):
        replace(blip, model=str(torn)).load()
