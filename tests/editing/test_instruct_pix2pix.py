"""InstructPix2Pix with a tiny random model of its structure, loaded as the real one is."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import laws
import pytest
import torch
from instructed_model import save_model

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.editing.editor import paint
from piebench_masks.editing.instruct_pix2pix import InstructPix2Pix
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import part_identity

STEPS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("instruct"), 8)


@pytest.fixture(scope="module")
def editor(folder: Path) -> InstructPix2Pix:
    return InstructPix2Pix(id=str(folder), rows=3, steps=STEPS)


def test_neither_other_edits_nor_the_size_of_blocks_change_anything(
    editor: InstructPix2Pix, tiny: Backbone, tiny_folder: Path
) -> None:
    sources = laws.two_samples(tiny)
    together = laws.sample(
        replace(editor, rows=9), load_backbone(tiny_folder), sources, laws.MASKS, laws.OWNER
    )
    assert together.latents.shape == (4, 4, 8, 8)
    for mask, owner, latents in zip(laws.MASKS, laws.OWNER, together.latents, strict=True):
        own = laws.one_sample(sources, int(owner))
        alone = laws.sample(editor, tiny, own, mask[None], torch.tensor([0]))
        torch.testing.assert_close(alone.latents[0], latents, atol=1e-4, rtol=1e-4)


def test_a_mask_changes_the_edit_and_an_instruction_does(
    editor: InstructPix2Pix, tiny: Backbone
) -> None:
    sources = laws.two_samples(tiny)
    other = laws.changed(sources, instruction=["big", "square"])
    masks = torch.stack([laws.EVERYTHING, laws.LEFT])
    first, second = (
        laws.sample(editor, tiny, each, masks, torch.tensor([0, 0])).latents
        for each in (sources, other)
    )
    assert not torch.isclose(first[0], first[1], atol=1e-3).all()
    assert not torch.isclose(first[0], second[0], atol=1e-3).all()


def test_what_has_no_instruction_is_edited_by_its_target_prompt(
    editor: InstructPix2Pix, tiny: Backbone
) -> None:
    sources = laws.two_samples(tiny)
    said = laws.changed(sources, instruction=[" ", "big"], target_prompt=["big", "circle"])
    found = laws.sample(editor, tiny, said, laws.MASKS, torch.tensor([0, 0, 1, 1])).latents
    told = laws.changed(sources, instruction=["big", "big"])
    expected = laws.sample(editor, tiny, told, laws.MASKS, torch.tensor([0, 0, 1, 1])).latents
    torch.testing.assert_close(found, expected)


def test_before_every_step_but_the_first_the_outside_is_the_noised_source(
    editor: InstructPix2Pix, tiny: Backbone
) -> None:
    seen: list[torch.Tensor] = []

    def look(module: Any, args: tuple[torch.Tensor, ...], output: Any) -> None:
        seen.append(args[0])

    sources = laws.one_sample(laws.two_samples(tiny), 0)
    inverted = editor.invert(tiny, sources)
    pipeline, _ = editor.model.loaded(tiny)
    handle = pipeline.unet.register_forward_hook(look)
    masks, owner = laws.LEFT[None], torch.tensor([0])
    edited = editor.sample(tiny, sources, inverted, masks, owner)
    handle.remove()
    assert inverted.nfe.tolist() == [0]
    assert edited.nfe.tolist() == [3 * STEPS] == [sum(map(len, seen))]
    x0 = inverted.posterior.mean
    noise = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(editor.seed))
    # The right half, of the masks' 16 columns and of the latents' 8.
    for sigma, latents in zip(pipeline.scheduler.sigmas[1:STEPS], seen[1:], strict=True):
        expected = (x0 + sigma * noise) / (sigma**2 + 1).sqrt()
        torch.testing.assert_close(latents[:1, :4, :, 4:], expected[..., 4:])
        assert not torch.isclose(latents[:1, :4, :, :4], expected[..., :4], atol=1e-3).all()


def test_edits_are_pictures_of_the_models_own_vae(editor: InstructPix2Pix, tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    edited, _ = paint(tiny, editor, sources, laws.MASKS[:1], laws.OWNER[:1])
    _, model = editor.model.loaded(tiny)
    latents = laws.sample(editor, tiny, sources, laws.MASKS[:1], laws.OWNER[:1]).latents
    assert edited.images.shape == (1, 64, 64, 3)
    assert torch.equal(edited.images, model.decode(latents))


def test_its_evaluations_are_counted_with_those_of_the_runs_model(
    editor: InstructPix2Pix, tiny: Backbone
) -> None:
    before = tiny.counts.copy()
    laws.evaluations_are_counted(editor, tiny)
    counted = tiny.counts - before
    assert counted["unet_rows"] == 2 * 3 * STEPS
    assert counted["vae_encodes"] == 2 + 2 and counted["vae_decodes"] == 2


def test_where_its_files_lie_is_not_part_of_its_key(
    editor: InstructPix2Pix, folder: Path, tmp_path: Path
) -> None:
    same = shutil.copytree(folder, tmp_path / "same")
    moved = replace(editor, id=str(same), cache_dir=str(tmp_path), rows=9)
    assert part_identity(moved) == part_identity(editor)
    assert part_identity(replace(editor, steps=2)) != part_identity(editor)


def test_the_identity_is_the_content_of_the_model(
    editor: InstructPix2Pix, folder: Path, tmp_path: Path
) -> None:
    same, other = (Path(shutil.copytree(folder, tmp_path / name)) for name in ("same", "other"))
    weights = other / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert replace(editor, id=str(same)).identity() == editor.identity()
    assert replace(editor, id=str(other)).identity() != editor.identity()


def test_a_model_that_is_not_there(tiny: Backbone, tmp_path: Path) -> None:
    missing = tmp_path / "no" / "model"
    with pytest.raises(BenchmarkError, match=rf"{missing}.*editor\.instruct_pix2pix\.id"):
        InstructPix2Pix(id=str(missing)).invert(tiny, laws.two_samples(tiny))


def test_a_model_without_its_weights(tiny: Backbone, folder: Path, tmp_path: Path) -> None:
    torn = Path(shutil.copytree(folder, tmp_path / "torn"))
    (torn / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(BenchmarkError, match=r"torn does not load.*instruct_pix2pix\.id"):
        InstructPix2Pix(id=str(torn)).invert(tiny, laws.two_samples(tiny))


def test_a_model_of_another_kind(tiny: Backbone, tmp_path: Path) -> None:
    plain = save_model(tmp_path, 4)
    with pytest.raises(
        BenchmarkError, match=r"does not edit by instruction: its U-Net takes 4 channels"
    ):
        InstructPix2Pix(id=str(plain)).invert(tiny, laws.two_samples(tiny))
