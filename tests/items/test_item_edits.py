"""Edits of a fitted picture: what they keep, what they paint, and what their draws depend on."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from pictures_with_items import SIDE, picture

from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.errors import BenchmarkError
from piebench_masks.items.edits import ItemEditor
from piebench_masks.items.fitted import Fitted
from piebench_masks.items.mask_edits import Move, assign, on_grid
from piebench_masks.items.partition import Partition
from piebench_masks.items.sampling import Sampling

FEW = Sampling(steps=4, thickness=4)


@pytest.fixture
def editor(model: StableDiffusion, fitted: Fitted) -> ItemEditor:
    return ItemEditor(model, fitted, picture(0).image)


def edits(editor: ItemEditor, settings: Sampling) -> dict[str, Any]:
    return {
        "text": editor.text(settings, 0, "a red circle"),
        "image": editor.image_item(settings, 0, 1, 1),
        "remove": editor.remove(settings, 1),
        "move": editor.move(settings, [Move(0, rows=8, columns=4, ratio=0.5)]),
    }


def test_every_edit_keeps_the_hard_region_and_paints_the_active_one(editor: ItemEditor) -> None:
    source = editor.posterior.mean
    for name, edit in edits(editor, FEW).items():
        masks = torch.stack([edit.regions.hard, edit.regions.active])
        hard, active = on_grid(masks, (16, 16))
        assert hard.any() and active.any(), name
        assert torch.equal(edit.latents[..., hard], source[..., hard]), name
        assert (edit.latents != source).any(dim=1)[0, active].all(), name
        assert edit.images.shape == (1, SIDE, SIDE, 3)


def test_an_image_does_not_depend_on_how_many_there_are(editor: ItemEditor) -> None:
    together = edits(editor, replace(FEW, images=2, seed=5))
    for k in range(2):
        alone = edits(editor, replace(FEW, seed=5 + k))
        for name, edit in alone.items():
            assert torch.equal(together[name].latents[k : k + 1], edit.latents), name
            assert torch.equal(together[name].images[k : k + 1], edit.images), name
    assert not torch.equal(together["text"].latents[0], together["text"].latents[1])


def test_strength_is_the_share_of_steps_that_keep_the_soft_region(editor: ItemEditor) -> None:
    latents = {}
    for strength in (0.0, 0.25, 0.3, 0.5, 1.0):
        edit = editor.text(replace(FEW, strength=strength), 0, "a red circle")
        latents[strength] = edit.latents
    soft = on_grid(edit.regions.soft[None], (16, 16))[0]
    assert soft.any()
    # Of 4 steps 0.3 keeps it in 2, as 0.5 does; in all of them it is kept for good.
    assert torch.equal(latents[0.3], latents[0.5])
    assert not torch.equal(latents[0.25], latents[0.3])
    assert not torch.equal(latents[0.0], latents[0.25])
    assert torch.equal(latents[1.0][..., soft], editor.posterior.mean[..., soft])


def test_an_empty_region_gives_the_picture_back_without_a_network(
    model: StableDiffusion, fitted: Fitted
) -> None:
    image, items = picture(0).image, picture(0).items
    empty = assign(items, items.masks[2], 1)  # of the third item nothing is left
    single = replace(fitted, items=(empty, fitted.items[1]))
    editor, before = ItemEditor(model, single, image), model.counts["unet_rows"]
    edit = editor.text(FEW, 2, "grass")
    assert model.counts["unet_rows"] == before
    assert torch.equal(edit.latents, editor.posterior.mean)
    assert torch.equal(edit.images, model.decode(editor.posterior.mean))


def test_under_a_full_region_nothing_is_kept(model: StableDiffusion, fitted: Fitted) -> None:
    full = Partition.from_labels(torch.zeros(SIDE, SIDE, dtype=torch.long), picture(0).items.names)
    single = replace(fitted, items=(full, fitted.items[1]))
    edit = ItemEditor(model, single, picture(0).image).text(FEW, 0, "a red circle")
    other = replace(single, images=(single.images[1], single.images[0]))
    same = ItemEditor(model, other, picture(1).image).text(FEW, 0, "a red circle")
    assert torch.equal(edit.latents, same.latents)  # whatever the picture was


def test_a_region_thinner_than_a_cell_may_have_no_effect(
    model: StableDiffusion, fitted: Fitted
) -> None:
    thin = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    thin[33] = True  # no multiple of the 4 pixels of a cell
    edited = assign(picture(0).items, thin, "line")
    editor = ItemEditor(model, fitted, picture(0).image)
    edit = editor.text(replace(FEW, thickness=0), 3, "grass", edited=edited)
    assert torch.equal(edit.latents, editor.posterior.mean)


def test_reconstruction_depends_on_every_items_tokens_and_on_nothing_of_the_picture(
    model: StableDiffusion, fitted: Fitted, editor: ItemEditor
) -> None:
    before = editor.reconstruct(FEW).latents
    rows = [rows.clone() for rows in fitted.rows]
    for each in rows:
        each[2:4] = each[:2]  # the second item gets the first one's tokens
    after = ItemEditor(model, replace(fitted, rows=rows), picture(0).image).reconstruct(FEW)
    assert not torch.equal(before, after.latents)
    alone = editor.reconstruct(FEW, item=1)
    assert alone.regions.items.masks.all() and not torch.equal(alone.latents, before)
    told = ItemEditor(model, fitted, picture(0).image, templates={1: "a big *"})
    assert not torch.equal(told.reconstruct(FEW).latents, before)


def test_what_is_not_there_is_refused(
    model: StableDiffusion, fitted: Fitted, editor: ItemEditor
) -> None:
    with pytest.raises(BenchmarkError, match="is not the one of this fit"):
        ItemEditor(model, fitted, picture(7).image)
    line = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    line[10:20] = True
    edited = assign(picture(0).items, line, "line")
    with pytest.raises(BenchmarkError, match="line was not there when the picture was fitted"):
        editor.text(FEW, 0, "grass", edited=edited)
    with pytest.raises(BenchmarkError, match="the fit has 2 pictures"):
        editor.image_item(FEW, 0, 2, 0)
    with pytest.raises(BenchmarkError, match="has 2 items, and no item 2"):
        editor.image_item(FEW, 0, 1, 2)
    with pytest.raises(BenchmarkError, match="a template is for item 9"):
        ItemEditor(model, fitted, picture(0).image, templates={9: "*"}).reconstruct(FEW)
    with pytest.raises(BenchmarkError, match="correct Sampling"):
        Sampling(steps=0)
