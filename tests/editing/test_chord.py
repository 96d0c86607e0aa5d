"""Laws of ChordEdit, on a tiny random model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import laws
import pytest
import torch

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.chord import ChordEdit
from piebench_masks.errors import BenchmarkError

EDITOR = ChordEdit()
PLAIN = replace(EDITOR, refinement=None)


@pytest.mark.parametrize("editor", [EDITOR, PLAIN], ids=["refined", "plain"])
def test_the_laws_of_editors(editor: ChordEdit, tiny: Backbone, tiny_folder: Path) -> None:
    laws.company_changes_nothing(editor, tiny_folder)
    laws.evaluations_are_counted(editor, tiny)


def test_outside_the_mask_the_step_changes_nothing(tiny: Backbone) -> None:
    """And the refinement is given what the step made of the whole picture."""
    sources, watched = laws.two_samples(tiny), laws.Watched(tiny)
    inverted = EDITOR.invert(tiny, sources)
    x0 = sources.encoded.mean[laws.OWNER]
    found = PLAIN.sample(tiny, sources, inverted, laws.MASKS, laws.OWNER).latents
    outside = ~laws.MASKS[:, None].expand_as(found)
    assert torch.equal(found[outside], x0[outside])
    assert torch.isclose(found[~outside], x0[~outside]).float().mean() < 0.01
    EDITOR.edit(watched, sources, inverted, laws.MASKS, laws.OWNER)  # type: ignore[arg-type]
    ((timestep, z),) = watched.calls
    level, draw = tiny.level(299), torch.randn(4, 16, 16, generator=_generator())
    assert timestep == 299
    torch.testing.assert_close(z, level.signal * found + level.noise * draw)


def test_between_equal_prompts_nothing_is_changed(tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    same = laws.changed(sources, target_prompt=sources.source_prompts)
    found = laws.sample(PLAIN, tiny, same, laws.MASKS, laws.OWNER).latents
    torch.testing.assert_close(found, sources.encoded.mean[laws.OWNER], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "wrong", [{"start": 0.1}, {"start": 1.1}, {"delta": 0.0}, {"refinement": 0.0}]
)
def test_levels_lie_within_the_schedule(wrong: dict[str, Any]) -> None:
    with pytest.raises(BenchmarkError, match=r"chord\.(start|refinement) is"):
        ChordEdit(**wrong)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(EDITOR.seed)
