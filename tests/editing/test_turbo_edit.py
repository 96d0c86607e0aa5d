"""Laws of TurboEdit under masks, on a tiny random model."""

import pytest
import torch

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Backbone, Conditioning, Posterior
from piebench_masks.editing.editor import Sampled, Sources
from piebench_masks.editing.turbo_edit import TurboEdit, edited, invert
from piebench_masks.errors import BenchmarkError

Inputs = tuple[torch.Tensor, Conditioning, Conditioning]
PROMPTS = (
    ["a red circle on grass", "a big circle"],
    ["a blue circle on grass", "a big square"],
)

LEFT = torch.arange(16).expand(16, 16) < 8
NOTHING = torch.zeros(16, 16, dtype=torch.bool)
EVERYTHING = ~NOTHING
MASKS = torch.stack([EVERYTHING, NOTHING, LEFT, ~LEFT, NOTHING])
OWNER = torch.tensor([0, 0, 1, 0, 1])


@pytest.fixture(scope="module")
def inputs(tiny: Backbone) -> Inputs:
    x0 = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    source, target = map(tiny.encode_prompts, PROMPTS)
    return x0, source, target


def turbo_edit(
    backbone: Backbone,
    x0: torch.Tensor,
    rows: list[int],
    masks: torch.Tensor,
    owner: torch.Tensor,
    steps: int,
) -> tuple[torch.Tensor, Sampled]:
    """U-Net evaluations of these rows' inversion, and their edits."""
    editor = TurboEdit(steps=steps)  # type: ignore[arg-type]
    source, target = ([texts[row] for row in rows] for texts in PROMPTS)
    latents, black = x0[rows], torch.zeros(64, 64, 3, dtype=torch.uint8)
    scenes = [Scene("", black, *texts) for texts in zip(source, target, strict=True)]
    sources = Sources(scenes, Posterior(latents, torch.zeros_like(latents)))
    inverted = editor.invert(backbone, sources)
    return inverted.nfe, editor.sample(backbone, sources, inverted, masks, owner)


@pytest.mark.parametrize("steps", [3, 4])
def test_a_batch_is_the_same_as_one_by_one(tiny: Backbone, inputs: Inputs, steps: int) -> None:
    nfe, together = turbo_edit(tiny, inputs[0], [0, 1], MASKS, OWNER, steps)
    for n, (mask, owner) in enumerate(zip(MASKS, OWNER.tolist(), strict=True)):
        own_nfe, alone = turbo_edit(tiny, inputs[0], [owner], mask[None], torch.tensor([0]), steps)
        torch.testing.assert_close(alone.latents[0], together.latents[n], atol=1e-5, rtol=0)
        assert (own_nfe[0], alone.nfe[0]) == (nfe[owner], together.nfe[n])


@pytest.mark.parametrize("steps", [3, 4])
def test_rows_asked_of_the_unet_are_those_said(tiny: Backbone, inputs: Inputs, steps: int) -> None:
    before = tiny.counts["unet_rows"]
    nfe, edits = turbo_edit(tiny, inputs[0], [0, 1], MASKS, OWNER, steps)
    painted, empty = 3, 2
    expected = 2 * (steps + 1) + painted * 2 * (steps - 1) + empty
    assert tiny.counts["unet_rows"] - before == expected == nfe.sum() + edits.nfe.sum()


def test_until_the_last_step_the_outside_is_exactly_the_source(
    tiny: Backbone, inputs: Inputs
) -> None:
    inversion = invert(tiny, *inputs, steps=4, seed=8128)
    *masked, last = edited(tiny, inversion, *inputs[1:], MASKS, OWNER, steps=4, w=1.5)
    outside = ~MASKS[:, None].expand_as(last)
    for y, x in zip(masked, inversion.x[1:], strict=False):
        assert torch.equal(y[outside], x[OWNER][outside])
    assert not torch.equal(last[outside], inputs[0][OWNER][outside])


def test_without_a_change_of_prompt_the_source_comes_back(tiny: Backbone, inputs: Inputs) -> None:
    x0, source, _ = inputs
    inversion = invert(tiny, x0, source, source, steps=4, seed=8128)
    *_, latents = edited(tiny, inversion, source, source, MASKS, OWNER, steps=4, w=1.5)
    # Up to the norm cap, which takes away from the last step's z for the source as well.
    capped = inversion.u[-1] + inversion.coeff[-1] * (x0 - inversion.u[-1])
    torch.testing.assert_close(latents, capped[OWNER], atol=1e-4, rtol=0)


def test_the_norm_cap_is_each_samples_own_and_follows_the_latents_size(
    tiny: Backbone, inputs: Inputs
) -> None:
    inversion = invert(tiny, *inputs, steps=4, seed=8128)
    norms = (inversion.coeff * (inversion.x[1:] - inversion.u)).flatten(2).norm(dim=2)
    torch.testing.assert_close(norms[-1], torch.full((2,), 15.5 / 4))
    assert (norms[:-1] > 15.5 / 4).all()


def test_only_three_or_four_steps(tiny: Backbone, inputs: Inputs) -> None:
    with pytest.raises(BenchmarkError, match="3 or 4"):
        turbo_edit(tiny, inputs[0], [0, 1], MASKS, OWNER, steps=2)
