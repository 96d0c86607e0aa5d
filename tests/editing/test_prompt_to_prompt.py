"""Laws of Prompt-to-Prompt with every inversion, on a tiny random model."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import laws
import pytest
import torch

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.editing.editor import Sources
from piebench_masks.editing.inversion import (
    ddim,
    direct,
    edit_friendly,
    negative_prompt,
    null_text,
)
from piebench_masks.editing.prompt_to_prompt import PromptToPrompt, blend_masks
from piebench_masks.errors import BenchmarkError

INVERSIONS = {
    "ddim": ddim,
    "direct": direct,
    "negative_prompt": negative_prompt,
    "null_text": partial(null_text, inner_steps=2),
    "edit_friendly": partial(edit_friendly, skip=0.25),
}
LEFT = torch.arange(16).expand(16, 16) < 8
EVERYTHING = torch.ones(16, 16, dtype=torch.bool)
MASKS = torch.stack([EVERYTHING, LEFT, ~LEFT, EVERYTHING])
OWNER = torch.tensor([0, 1, 0, 2])
PROMPTS = [
    ("a red circle on grass", "a blue circle on grass", "circle circle"),
    ("a big circle", "a sketch of a big square", ""),
    ("a red square and a circle", "a blue circle and a square", "red blue"),
]


@pytest.fixture(scope="module")
def single(tiny_folder: Path) -> Backbone:
    """One row at a time, in double precision: untrained models amplify what is rounded."""
    return load_backbone(tiny_folder, dtype=torch.float64, rows=1)


def sources_of(*rows: int) -> Sources:
    x0 = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))[list(rows)]
    black = torch.zeros(64, 64, 3, dtype=torch.uint8)
    scenes = [
        Scene(str(row), black, *PROMPTS[row][:2], blended_words=PROMPTS[row][2]) for row in rows
    ]
    return Sources(scenes, Posterior(x0, torch.zeros_like(x0)))


def editor(inversion: str, **settings: Any) -> PromptToPrompt:
    return PromptToPrompt(INVERSIONS[inversion], steps=3, guidance=3.0, **settings)


def edited(
    backbone: Backbone,
    p2p: PromptToPrompt,
    sources: Sources,
    masks: torch.Tensor = EVERYTHING[None],
    owner: torch.Tensor = OWNER[:1],
) -> torch.Tensor:
    return p2p.sample(backbone, sources, p2p.invert(backbone, sources), masks, owner).latents


@pytest.mark.parametrize(
    ("inversion", "settings"),
    [
        ("ddim", {}),
        pytest.param("null_text", {"proximal": 0.75}, marks=pytest.mark.slow),
        ("edit_friendly", {"alignment": "replace", "self_replace_side": 1.0}),
    ],
)
def test_a_batch_is_the_same_as_one_by_one(
    tiny_folder: Path, single: Backbone, inversion: str, settings: dict[str, Any]
) -> None:
    p2p = editor(inversion, **settings)
    padded = load_backbone(tiny_folder, dtype=torch.float64, rows=3)
    together = edited(padded, p2p, sources_of(0, 1, 2), MASKS, OWNER)
    assert together.isfinite().all()
    for mask, owner, expected in zip(MASKS, OWNER.tolist(), together, strict=True):
        (alone,) = edited(single, p2p, sources_of(owner), mask[None])
        torch.testing.assert_close(alone, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("inversion", INVERSIONS)
def test_evaluations_are_those_asked_of_the_unet(single: Backbone, inversion: str) -> None:
    p2p, sources = editor(inversion), sources_of(0, 1)
    before = single.counts["unet_rows"]
    inverted = p2p.invert(single, sources)
    assert single.counts["unet_rows"] - before == inverted.nfe.sum()
    before = single.counts["unet_rows"]
    found = p2p.edit(single, sources, inverted, MASKS[:2], OWNER[:2])
    assert single.counts["unet_rows"] - before == found.nfe.sum()


@pytest.mark.parametrize("alignment", ["refine", "replace"])
def test_between_equal_prompts_the_sources_attention_changes_nothing(
    single: Backbone, alignment: Any
) -> None:
    sources = sources_of(0, 2)
    sources = laws.changed(sources, target_prompt=sources.source_prompts)
    p2p = editor("ddim", alignment=alignment, cross_replace=1.0, reweight=1.0)
    masks, owner = EVERYTHING.expand(2, -1, -1), OWNER[:2]
    steered = edited(single, p2p, sources, masks, owner)
    free = replace(p2p, cross_replace=0.0, self_replace=0.0, blend_threshold=None)
    expected = edited(single, free, sources, masks, owner)
    torch.testing.assert_close(steered, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"cross_replace": 0.8},
        {"self_replace": 0.0},
        {"self_replace_side": 1.0},
        {"reweight": 1.0},
        {"blend_threshold": 0.9},
        {"proximal": 0.75},
        {"cross_replace_words": {"blue": (0.0, 0.9)}},
    ],
)
def test_every_setting_matters(single: Backbone, settings: dict[str, Any]) -> None:
    p2p, sources = editor("direct", reweight=5.0), sources_of(2)
    assert not torch.allclose(
        edited(single, p2p, sources), edited(single, replace(p2p, **settings), sources), atol=1e-3
    )


def test_what_guidance_misses_may_be_added_to_the_edits(single: Backbone) -> None:
    """The source's own offsets lead an edit to the source prompt to the picture itself."""
    free = {"cross_replace": 0.0, "self_replace": 0.0, "blend_threshold": None, "reweight": 1.0}
    sources = sources_of(0)
    same = laws.changed(sources, target_prompt=sources.source_prompts)
    x0 = sources.encoded.mean
    missed = edited(single, editor("direct", **free), same)
    assert not torch.isclose(missed, x0, atol=1e-2).all()
    led = editor("direct", offsets="source", **free)
    torch.testing.assert_close(edited(single, led, same), x0, atol=1e-3, rtol=1e-3)
    its_own = editor("direct", offsets="target", **free)
    torch.testing.assert_close(edited(single, its_own, sources), x0, atol=1e-3, rtol=1e-3)
    assert not torch.isclose(edited(single, led, sources), x0, atol=1e-2).all()
    with pytest.raises(BenchmarkError, match=r"with offsets: choose inversion=direct"):
        editor("ddim", offsets="source")


def test_replace_and_refine_differ_where_a_word_is_new(single: Backbone) -> None:
    p2p, sources = editor("direct"), sources_of(0)
    replaced = edited(single, replace(p2p, alignment="replace"), sources)
    assert not torch.allclose(edited(single, p2p, sources), replaced, atol=1e-3)


def test_outside_the_blended_words_the_edit_is_its_source(single: Backbone) -> None:
    """With a threshold that nothing but the largest attention exceeds, only some places differ."""
    p2p, sources = editor("direct", blend_threshold=0.98), sources_of(0)
    x0 = sources.encoded.mean
    kept = (edited(single, p2p, sources) == x0).all(dim=1)
    assert 0 < kept.sum() < kept.numel()
    free = (edited(single, replace(p2p, blend_threshold=None), sources) == x0).all(dim=1)
    assert not free.any()


def test_without_a_word_to_blend_everything_may_differ_except_in_the_published_code(
    single: Backbone,
) -> None:
    p2p, sources = editor("direct"), laws.changed(sources_of(0), blended_words=["sand sketch"])
    x0 = sources.encoded.mean
    assert not (edited(single, p2p, sources) == x0).all(dim=1).any()
    assert torch.equal(edited(single, replace(p2p, compat="reference"), sources), x0)


def test_no_map_no_mask() -> None:
    maps = torch.zeros(2, 4, 4)
    maps[1, 0, 0] = 1
    nothing, corner = blend_masks(maps, (8, 8), 0.3)
    assert not nothing.any()
    assert torch.equal(corner.nonzero().amax(dim=0), torch.tensor([3, 3]))  # one place further
    assert corner.sum() == 16


@pytest.mark.parametrize(
    "wrong", [{"cross_replace": 2.0}, {"proximal": -0.1}, {"cross_replace_words": {"red": 0.4}}]
)
def test_what_is_no_share_of_the_steps_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(BenchmarkError, match=next(iter(wrong))):
        editor("ddim", **wrong)
