"""Laws of D-Edit under masks, on a tiny random model."""

import json
from dataclasses import replace
from pathlib import Path

import laws
import pytest
import torch

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.editor import check_needs
from piebench_masks.editing.items import ItemFitting, Items, under
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import part_identity
from piebench_masks.items.fitted import FitSettings
from piebench_masks.items.mask_edits import ring
from piebench_masks.items.partition import Partition
from piebench_masks.masks.clipseg import ClipSeg
from piebench_masks.weights import packaged

SHORT = FitSettings(tokens=2, embedding_steps=2, unet_steps=2, accumulation=1)
EDITOR = Items(SHORT, steps=3, thickness=64)
PASSES = 4
SIDE = 64


def labels(*rows: str) -> Partition:
    """Items of a small picture, a digit a pixel."""
    return Partition.from_labels(
        torch.tensor([[int(digit) for digit in row] for row in rows]), ("a", "b", "c")
    )


def mask(*rows: str) -> torch.Tensor:
    return torch.tensor([[digit == "x" for digit in row] for row in rows])


@pytest.mark.parametrize("compat", ["exact", "reference"])
def test_the_laws_of_editors(compat: str, tiny: Backbone, tiny_folder: Path) -> None:
    editor = replace(EDITOR, fit=replace(SHORT, compat=compat))  # type: ignore[arg-type]
    laws.company_changes_nothing(editor, tiny_folder)
    laws.evaluations_are_counted(editor, tiny)


def test_outside_the_mask_and_its_ring_is_the_source(tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    found = laws.sample(EDITOR, tiny, sources, laws.MASKS, laws.OWNER)
    for latents, where, row in zip(found.latents, laws.MASKS, laws.OWNER, strict=True):
        source = sources.encoded.mean[row]
        soft = ring(where, 1)  # 4 pixels of 64, as 64 of 1024, are one cell
        assert torch.equal(latents[:, ~where & ~soft], source[:, ~where & ~soft])
        assert (latents != source).any(dim=0)[where].all()
    assert found.nfe.tolist() == [6, 0, 6, 6]  # nothing is asked for under an empty mask


def test_under_a_full_mask_nothing_is_kept(tiny: Backbone) -> None:
    sources = laws.one_sample(laws.two_samples(tiny), 0)
    inverted = EDITOR.invert(tiny, sources)
    other = replace(sources, posterior=replace(sources.encoded, mean=-sources.encoded.mean))
    full, owner = laws.EVERYTHING[None], torch.tensor([0])
    found, expected = (
        EDITOR.sample(tiny, each, inverted, full, owner).latents for each in (other, sources)
    )
    assert torch.equal(found, expected)


def test_samples_have_draws_of_their_own(tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    seeds = set()
    for editor in (EDITOR, replace(EDITOR, seed=1)):
        for row, scene in enumerate(sources.scenes):
            fitted = editor.invert(tiny, laws.one_sample(sources, row)).fitted(0)
            prepared = [editor.prepared(scene, fitted, where) for where in laws.MASKS]
            (seed,) = {settings.seed for _, _, settings in prepared}
            seeds.add(seed)
    assert len(seeds) == 4


def test_backward_rows_are_those_of_the_fit(tiny: Backbone) -> None:
    before = tiny.counts["unet_backward_rows"]
    inverted = EDITOR.invert(tiny, laws.two_samples(tiny))
    assert tiny.counts["unet_backward_rows"] - before == inverted.backward.sum()
    assert inverted.backward.tolist() == [PASSES * SHORT.batch] * 2


def test_a_mask_is_the_item_that_it_covers_most_of() -> None:
    items = labels("0011", "0011", "2211")
    found, target = under(items, mask("....", ".xx.", ".xx."))
    assert target == 1
    # What it had beside goes to the nearest of the others that the mask leaves.
    assert found.labels.tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [2, 1, 1, 0]]


def test_a_mask_is_a_new_item_where_no_other_could_take_what_is_left() -> None:
    single = Partition(("all",), torch.ones(1, 2, 3, dtype=torch.bool))
    found, target = under(single, mask(".x.", "..."))
    assert target == 1 and found.names == ("all", "edit")
    assert found.labels.tolist() == [[0, 1, 0], [0, 0, 0]]
    found, target = under(labels("001", "001"), mask("xxx", ".xx"))
    assert target == 3 and found.labels.tolist() == [[3, 3, 3], [0, 3, 3]]


def test_a_full_and_an_empty_mask_are_items() -> None:
    items = labels("0011", "0111")
    full, target = under(items, mask("xxxx", "xxxx"))
    assert target == 1 and full.masks[1].all()
    empty, target = under(items, mask("....", "...."))
    assert target == 0 and not empty.masks[0].any() and empty.masks[1].all()


def test_a_mask_is_told_the_target_prompt_or_the_blended_words_target() -> None:
    scene = Scene("0", torch.zeros(4, 4, 3, dtype=torch.uint8), "a cat", "a red dog")
    blended = replace(EDITOR, words="blended")
    assert EDITOR.told(scene) == blended.told(scene) == "a red dog"
    assert blended.told(replace(scene, blended_words="cat dog")) == "dog"
    assert EDITOR.told(replace(scene, blended_words="cat dog")) == "a red dog"


def test_it_reads_what_its_segmentation_and_its_words_read() -> None:
    assert EDITOR.reads == ("image", "prompts", "mask")
    texts = replace(EDITOR, segmentation=ClipSeg(model=packaged("clipseg_shapes")))
    assert texts.reads == ("image", "prompts")
    words = replace(EDITOR, words="blended", segmentation=ClipSeg(words="blended"))
    assert words.reads == ("image", "prompts", "blended_word")
    assert words.fitting.reads == ("image", "prompts", "blended_word")


def test_a_fit_is_known_by_what_changes_it() -> None:
    def known(editor: Items) -> str:
        return json.dumps(part_identity(editor.fitting), sort_keys=True)

    same = replace(
        EDITOR, steps=9, words="blended", strength=0.1, thickness=0, guidance=2.0, seed=5
    )
    assert known(same) == known(EDITOR)
    texts = ClipSeg(model=packaged("clipseg_shapes"))
    others = [
        replace(EDITOR, fit=replace(SHORT, unet_steps=3)),
        replace(EDITOR, segmentation=texts),
        replace(EDITOR, segmentation=replace(texts, threshold=0.4)),
    ]
    assert len({known(each) for each in [EDITOR, *others]}) == 4


def test_a_text_that_names_nothing_leaves_one_item() -> None:
    image = torch.zeros(SIDE, SIDE, 3, dtype=torch.uint8)
    inserted = Scene("0", image, "a circle", "a circle on grass")
    fitting = ItemFitting(SHORT, ClipSeg(model=packaged("clipseg_shapes")))
    assert fitting.items(inserted, torch.device("cpu")).names == ("all",)


def test_what_it_cannot_do_is_said(tiny: Backbone) -> None:
    (scene,) = laws.one_sample(laws.two_samples(tiny), 1).scenes
    with pytest.raises(BenchmarkError, match=r"sample 1 has no annotated mask.*segmentation"):
        EDITOR.fitting(tiny, replace(scene, annotation=None))
    with pytest.raises(BenchmarkError, match="segmentation is 'boxes': choose annotated"):
        Items(segmentation="boxes")  # type: ignore[arg-type]
    with pytest.raises(BenchmarkError, match="words are 'source'"):
        Items(words="source")  # type: ignore[arg-type]
    with pytest.raises(BenchmarkError, match="correct Sampling"):
        Items(thickness=-20)
    with pytest.raises(BenchmarkError, match="Items needs adaptation"):
        check_needs(EDITOR, {"self_attention"})
