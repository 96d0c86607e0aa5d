"""The few-step editors and ReNoise, batched, against the loops of `slow_editors.py`."""

from pathlib import Path
from typing import Any

import laws
import numpy as np
import pytest
import slow_editors
import torch
from oracle import Array, Oracle

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.editing.chord import ChordEdit
from piebench_masks.editing.editor import Sources
from piebench_masks.editing.infedit import InfEdit
from piebench_masks.editing.ledits_pp import LeditsPP
from piebench_masks.editing.renoise import renoise

PROMPTS = (
    ("a red circle on grass", "a blue circle on grass", "red blue"),
    ("a circle on sand", "a big circle on sand", ""),
)
"""A replaced word, which is blended, and an insert."""
MASKS, OWNER = laws.MASKS[[2, 0, 3]], torch.tensor([0, 1, 1])


@pytest.fixture(scope="module")
def double(tiny_folder: Path) -> Backbone:
    return load_backbone(tiny_folder, dtype=torch.float64, rows=4)


@pytest.fixture(scope="module")
def slow(tiny_folder: Path) -> Oracle:
    return Oracle.load(tiny_folder)


@pytest.fixture(scope="module")
def x0() -> Array:
    draw = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return draw.double().numpy()


def found(editor: Any, backbone: Backbone, x0: Array) -> torch.Tensor:
    latents = torch.from_numpy(x0).float()
    black = torch.zeros(64, 64, 3, dtype=torch.uint8)
    scenes = [Scene("", black, source, target, blended_words=w) for source, target, w in PROMPTS]
    sources = Sources(scenes, Posterior(latents, torch.zeros_like(latents)))
    return laws.sample(editor, backbone, sources, MASKS, OWNER).latents


@pytest.mark.parametrize("refinement", [0.3, None])
def test_chord(double: Backbone, slow: Oracle, x0: Array, refinement: float | None) -> None:
    editor = ChordEdit(start=0.8, delta=0.2, strength=0.7, refinement=refinement, seed=3)
    for latents, mask, b in zip(found(editor, double, x0), MASKS, OWNER, strict=True):
        expected = slow_editors.chord(slow, x0[b], *PROMPTS[b][:2], mask.numpy(), **vars(editor))
        np.testing.assert_allclose(latents, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("blend_threshold", [0.5, None])
def test_infedit(double: Backbone, slow: Oracle, x0: Array, blend_threshold: float | None) -> None:
    editor = InfEdit(steps=3, skip=0.4, blend_threshold=blend_threshold, seed=3)
    for latents, mask, b in zip(found(editor, double, x0), MASKS, OWNER, strict=True):
        source, target, blended = PROMPTS[b]
        expected = slow_editors.infedit(
            slow, x0[b], source, target, mask.numpy(), blended=blended, **vars(editor)
        )
        np.testing.assert_allclose(latents, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("order", [1, 2])
def test_ledits_pp(double: Backbone, slow: Oracle, x0: Array, order: int) -> None:
    settings: Any = {"scale": 2.0, "threshold": 0.6, "steps": 3, "skip": 0.4, "seed": 3}
    editor = LeditsPP(order=order, **settings)  # type: ignore[arg-type]
    for latents, mask, b in zip(found(editor, double, x0), MASKS, OWNER, strict=True):
        expected = slow_editors.ledits_pp(
            slow, x0[b], *PROMPTS[b][:2], mask.numpy(), order=order, **settings
        )
        np.testing.assert_allclose(latents, expected, atol=1e-3, rtol=1e-3)


def test_renoise(double: Backbone, slow: Oracle, x0: Array) -> None:
    first, later = (0, 2), (1, 3)
    source = [prompts[0] for prompts in PROMPTS]
    inverted = renoise(
        double,
        torch.from_numpy(x0).float(),
        double.encode_prompts(source),
        steps=3,
        guidance=1.0,
        first_averaged=first,
        averaged=later,
    )
    for b, prompt in enumerate(source):
        expected = slow_editors.renoise(slow, x0[b], prompt, steps=3, first=first, later=later)
        np.testing.assert_allclose(inverted.x[:, b], expected, atol=1e-3, rtol=1e-3)
