"""Laws of MasaCtrl, on a tiny random model of seven transformer blocks."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import laws
import pytest
import torch

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.inversion import ddim, direct, edit_friendly, null_text
from piebench_masks.editing.masactrl import MasaCtrl
from piebench_masks.errors import BenchmarkError

EDITORS = [MasaCtrl(inversion, steps=3, guidance=3.0, start_step=1) for inversion in (ddim, direct)]


@pytest.mark.parametrize(
    "editor",
    [pytest.param(EDITORS[0], marks=pytest.mark.slow), EDITORS[1]],
    ids=["ddim", "direct"],
)
def test_the_laws_of_editors(editor: MasaCtrl, tiny: Backbone, tiny_folder: Path) -> None:
    laws.company_changes_nothing(editor, tiny_folder)
    laws.evaluations_are_counted(editor, tiny)
    laws.outside_is_the_sources_own(editor, tiny)
    laws.everything_is_no_mask(editor, tiny)


def test_the_source_prompt_has_no_part_in_it(tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    other = laws.changed(sources, source_prompt=["a sketch", "sand"])
    first, second = (
        laws.sample(EDITORS[1], tiny, each, laws.MASKS, laws.OWNER).latents
        for each in (sources, other)
    )
    assert torch.equal(first, second)


def test_without_a_target_prompt_the_source_comes_back(tiny: Backbone) -> None:
    sources = laws.changed(laws.two_samples(tiny), target_prompt=["", ""])
    everywhere, owner = laws.EVERYTHING.expand(2, -1, -1), torch.tensor([0, 1])
    editor = replace(EDITORS[0], start_step=0, start_block=0.0)
    found = laws.sample(editor, tiny, sources, everywhere, owner).latents
    plain = replace(editor, start_step=3)
    expected = laws.sample(plain, tiny, sources, everywhere, owner).latents
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("without", [{"start_step": 3}, {"start_block": 1.0}])
def test_it_starts_at_its_step_and_at_its_share_of_the_blocks(
    tiny: Backbone, without: dict[str, float]
) -> None:
    def edited(**settings: float) -> torch.Tensor:
        editor = replace(EDITORS[1], **settings)
        return laws.sample(editor, tiny, sources, laws.MASKS[:1], laws.OWNER[:1]).latents

    sources = laws.two_samples(tiny)
    plain = edited(start_step=3, start_block=1.0)
    assert torch.equal(edited(**without), plain)
    assert not torch.equal(edited(start_step=2, start_block=6 / 7), plain)
    # Five of seven blocks come before the share of ten sixteenths; blocks are whole.
    assert torch.equal(edited(start_block=0.625), edited(start_block=5 / 7))


@pytest.mark.parametrize("inversion", [null_text, partial(edit_friendly, skip=0.25)])
def test_only_with_the_inversions_it_is_known_with(inversion: object) -> None:
    with pytest.raises(BenchmarkError, match=r"masactrl.*inversion=ddim or inversion=direct"):
        MasaCtrl(inversion)  # type: ignore[arg-type]
