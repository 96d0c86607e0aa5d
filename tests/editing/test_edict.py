"""Laws of EDICT, on a tiny random model."""

from dataclasses import replace
from pathlib import Path

import laws
import pytest
import torch

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.edict import Edict, mixed, unmixed

EDITOR = Edict(steps=5, strength=0.8)
PUBLISHED = replace(EDITOR, compat="reference")
BOTH = torch.tensor([0, 1])


@pytest.mark.parametrize(
    "editor", [EDITOR, pytest.param(PUBLISHED, marks=pytest.mark.slow)], ids=["exact", "reference"]
)
def test_the_laws_of_editors(editor: Edict, tiny: Backbone, tiny_folder: Path) -> None:
    laws.company_changes_nothing(editor, tiny_folder)
    laws.evaluations_are_counted(editor, tiny)
    laws.evaluations_are_counted(replace(editor, guidance=1.0), tiny)
    laws.everything_is_no_mask(editor, tiny)


def test_mixing_is_undone() -> None:
    pair = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(unmixed(mixed(pair, 0.93), 0.93), pair)
    x, y = pair
    expected = 0.93 * x + 0.07 * y
    torch.testing.assert_close(mixed(pair, 0.93)[0], expected)
    torch.testing.assert_close(mixed(pair, 0.93)[1], 0.07 * expected + 0.93 * y)


@pytest.mark.parametrize("editor", [EDITOR, PUBLISHED], ids=["exact", "reference"])
def test_between_equal_prompts_the_way_back_is_exact(editor: Edict, tiny: Backbone) -> None:
    """Under any mask, and with guidance: what ordinary inversions miss by far."""
    sources = laws.two_samples(tiny)
    same = laws.changed(sources, target_prompt=sources.source_prompts)
    inverted = editor.invert(tiny, same)
    found = editor.sample(tiny, same, inverted, laws.MASKS, laws.OWNER).latents
    expected = inverted.x[-1, 0][laws.OWNER]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert not torch.isclose(inverted.x[0, 0], inverted.x[-1, 0], atol=0.1).all()


def test_the_strength_is_the_share_of_the_schedule_that_is_inverted(tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    inverted, published = (editor.invert(tiny, sources) for editor in (EDITOR, PUBLISHED))
    assert inverted.timesteps == [601, 401, 201, 1]
    assert published.timesteps == [600, 400, 200, 0]
    assert torch.equal(inverted.x[-1], sources.encoded.mean.double().expand(2, -1, -1, -1, -1))
    draw = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(1))
    x0 = sources.encoded.mean + sources.encoded.std * draw
    assert torch.equal(published.x[-1, 1], x0.double())
    assert (inverted.nfe == 4 * 2 * 2).all()


def test_the_two_latents_take_turns_to_be_first(tiny: Backbone) -> None:
    """The first of a step sees the other as it enters, which outside the mask is the source's."""
    sources = laws.two_samples(tiny)
    inverted, watched = EDITOR.invert(tiny, sources), laws.Watched(tiny)
    masks = laws.NOTHING.expand(2, -1, -1)
    EDITOR.edit(watched, sources, inverted, masks, BOTH)  # type: ignore[arg-type]
    for i, (timestep, latents) in enumerate(watched.calls[::2]):
        assert timestep == inverted.timesteps[i]
        other = inverted.x[i, 1 - i % 2]
        assert torch.equal(latents, torch.cat([other, other]))
    assert len(watched.calls) == 2 * 4


def test_the_last_step_of_the_published_schedule_changes_little(tiny: Backbone) -> None:
    """From time step 0 to the picture, which has the noise of time step 0."""
    inverted = PUBLISHED.invert(tiny, laws.two_samples(tiny))
    step = inverted.x[-2] - unmixed(inverted.x[-1], PUBLISHED.mixing)
    assert step.abs().max() < 1e-6
