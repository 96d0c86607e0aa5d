"""Captions of concepts by a tiny random T5, loaded as the real one is."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from piebench_masks.identity import part_identity
from piebench_masks.prompts.flan_t5 import FlanT5
from piebench_masks.weights import WeightsError


@pytest.fixture(scope="module")
def t5(t5_folder: Path) -> FlanT5:
    return FlanT5(model=str(t5_folder), count=3, max_tokens=6)


def test_concepts_have_so_many_captions_each(t5: FlanT5) -> None:
    first, second = t5.captions(["circle", "blue square"])
    assert len(first) == len(second) == 3
    assert first != second and len(set(first)) > 1
    assert all(caption == " ".join(caption.split()) != "" for caption in first + second)


def test_neither_other_concepts_nor_the_global_generator_matter(t5: FlanT5) -> None:
    together = t5.captions(["circle", "square"])
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert t5.captions(["square"]) == together[1:]
    assert torch.equal(torch.get_rng_state(), before)
    assert replace(t5, seed=1).captions(["square"]) != together[1:]


def test_what_it_is_in_keys(t5: FlanT5, t5_folder: Path, tmp_path: Path) -> None:
    same = shutil.copytree(t5_folder, tmp_path / "same")
    moved = replace(t5, model=str(same), cache_dir=str(tmp_path), device="cuda")
    assert part_identity(moved) == part_identity(t5)
    assert part_identity(replace(t5, count=2)) != part_identity(t5)


def test_a_model_that_is_not_there(t5: FlanT5) -> None:
    with pytest.raises(WeightsError, match=r"no/such/folder.*\n.*concepts\.model"):
        replace(t5, model="no/such/folder").load()
