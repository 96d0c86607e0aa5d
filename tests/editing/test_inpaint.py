"""Inpainting with tiny random models of its structure, against diffusers' own pipelines."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import laws
import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLInpaintPipeline,
    UNet2DConditionModel,
)
from instructed_model import save_model
from PIL import Image
from tiny_pipelines import save_inpainting
from torch import Tensor

from piebench_masks.data.scene import Scene
from piebench_masks.data.shapes.grammar import sample_edit
from piebench_masks.data.shapes.render import render_edit
from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.editing.editor import Sources, paint
from piebench_masks.editing.inpaint import Inpaint, own_scheduler
from piebench_masks.editing.instructed import fitted
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import part_identity
from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.target_error import TargetError
from piebench_masks.training.clip import HELD_OUT_SEED
from piebench_masks.training.inpainting import in_cells
from piebench_masks.weights import packaged

STEPS = 4
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
STABLE = {**NOISE, "steps_offset": 1, "set_alpha_to_one": False}
SCHEDULERS = {
    "ddim": DDIMScheduler(**STABLE, clip_sample=False),
    "pndm": PNDMScheduler(**STABLE, skip_prk_steps=True),
    "velocity": DDIMScheduler(**STABLE, clip_sample=False, prediction_type="v_prediction"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model with three schedulers."""
    root = tmp_path_factory.mktemp("inpainting")
    plain = save_inpainting(root / "plain")
    for name, scheduler in SCHEDULERS.items():
        shutil.copytree(plain, root / name)
        pipeline = StableDiffusionInpaintPipeline.from_pretrained(plain, safety_checker=None)
        pipeline.register_modules(scheduler=scheduler)
        pipeline.save_pretrained(root / name)
    return {name: root / name for name in SCHEDULERS}


@pytest.fixture(scope="module")
def editor(folders: dict[str, Path]) -> Inpaint:
    return Inpaint(id=str(folders["pndm"]), rows=4, steps=STEPS)


@pytest.fixture(scope="module")
def published(editor: Inpaint) -> Inpaint:
    return replace(editor, compat="reference")


@pytest.fixture(scope="module")
def unet(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An inpainting U-Net for the tiny SDXL."""
    folder = tmp_path_factory.mktemp("unet")
    config = UNet2DConditionModel.load_config(tiny_folder / "unet")
    torch.manual_seed(1)
    UNet2DConditionModel.from_config({**config, "in_channels": 9}).save_pretrained(folder)
    return folder


def as_pictures(sources: Sources, owner: Tensor, masks: Tensor) -> dict[str, Any]:
    """What a pipeline of diffusers is given."""
    pixels = fitted(masks, sources.images.movedim(-1, 1))[:, 0].numpy().astype(np.uint8) * 255
    return {
        "prompt": [sources.target_prompts[row] for row in owner],
        "image": [Image.fromarray(sources.images[row].numpy()) for row in owner],
        "mask_image": [Image.fromarray(mask) for mask in pixels],
        "height": 64,
        "width": 64,
        "num_inference_steps": STEPS,
        "guidance_scale": 7.5,
    }


def seeds(editor: Inpaint, count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(editor.seed) for _ in range(count)]


@pytest.mark.parametrize("name", ["ddim", "pndm", "velocity"])
def test_compat_reference_is_diffusers_own_pipeline(
    name: str, folders: dict[str, Path], published: Inpaint, tiny: Backbone
) -> None:
    sources = laws.two_samples(tiny)
    editor = replace(published, id=str(folders[name]))
    painted = laws.sample(editor, tiny, sources, laws.MASKS, laws.OWNER)
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(folders[name], safety_checker=None)
    given = as_pictures(sources, laws.OWNER, laws.MASKS)
    expected = pipeline(**given, generator=seeds(editor, 4), output_type="latent").images
    torch.testing.assert_close(painted.latents, expected, atol=1e-4, rtol=1e-4)
    rows = {"ddim": STEPS, "pndm": STEPS + 1, "velocity": STEPS}[name]
    assert painted.nfe.tolist() == [2 * rows] * 4
    pictures = pipeline(**given, generator=seeds(editor, 4), output_type="np").images
    edited, _ = paint(tiny, editor, sources, laws.MASKS, laws.OWNER)
    assert (edited.images / 255 - torch.from_numpy(pictures)).abs().max() < 1.1 / 255


def test_draws_may_be_handed_in(published: Inpaint, tiny: Backbone) -> None:
    """As where one generator serves a whole batch, and pictures are no bytes."""
    sources = laws.two_samples(tiny)
    pictures = sources.images[laws.OWNER] * 0.9
    masks = fitted(laws.MASKS, pictures.movedim(-1, 1))[:, 0]
    generator = torch.Generator().manual_seed(5)
    draws = torch.stack([torch.randn(4, 4, 8, 8, generator=generator) for _ in range(2)])
    text = published.invert(tiny, sources).text[laws.OWNER]
    painted = published.inpainted(tiny, pictures, text, masks, [], draws)
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(published.id, safety_checker=None)
    given = as_pictures(sources, laws.OWNER, laws.MASKS)
    given |= {"image": pictures.movedim(-1, 1) / 255, "mask_image": masks[:, None].float()}
    generator = torch.Generator().manual_seed(5)
    expected = pipeline(**given, generator=generator, output_type="latent").images
    torch.testing.assert_close(painted.latents, expected, atol=1e-4, rtol=1e-4)


def test_exact_is_the_pipeline_with_ddim_and_the_posteriors_mean(
    folders: dict[str, Path], editor: Inpaint, tiny: Backbone
) -> None:
    sources, owner = laws.two_samples(tiny), laws.OWNER[[0, 2, 3]]
    masks = laws.MASKS[[0, 2, 3]]
    painted = laws.sample(editor, tiny, sources, masks, owner)
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(folders["ddim"], safety_checker=None)
    given = as_pictures(sources, owner, masks)
    pixels = fitted(masks, sources.images.movedim(-1, 1))
    left = (sources.images[owner].movedim(-1, 1) / 127.5 - 1) * ~pixels
    with torch.no_grad():
        mean = pipeline.vae.encode(left).latent_dist.mean * pipeline.vae.config.scaling_factor
    noise = torch.randn(4, 8, 8, generator=seeds(editor, 1)[0]).expand(3, -1, -1, -1)
    expected = pipeline(
        **given, latents=noise, masked_image_latents=mean, output_type="latent"
    ).images
    torch.testing.assert_close(painted.latents, expected, atol=1e-4, rtol=1e-4)
    assert painted.nfe.tolist() == [2 * STEPS] * 3


def test_sdxl_with_the_unet_of_another_folder(
    tiny_folder: Path, unet: Path, published: Inpaint, tiny: Backbone
) -> None:
    editor = replace(published, id=str(tiny_folder), unet=str(unet))
    sources = laws.two_samples(tiny)
    painted = laws.sample(editor, tiny, sources, laws.MASKS, laws.OWNER)
    pipeline = StableDiffusionXLInpaintPipeline.from_pretrained(
        tiny_folder, unet=UNet2DConditionModel.from_pretrained(unet), dtype=torch.float32
    )
    given = as_pictures(sources, laws.OWNER, laws.MASKS)
    generators = seeds(editor, 4)  # ancestral steps go on drawing from them
    expected = pipeline(**given, strength=1.0, generator=generators, output_type="latent").images
    assert own_scheduler(pipeline, 1).__class__.__name__ == "EulerAncestralDiscreteScheduler"
    torch.testing.assert_close(painted.latents, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("compat", ["exact", "reference"])
def test_evaluations_are_counted(compat: Any, editor: Inpaint, tiny: Backbone) -> None:
    for guidance in (7.5, 1.0):
        each = replace(editor, compat=compat, guidance=guidance)
        before = tiny.counts.copy()
        laws.evaluations_are_counted(each, tiny)
        counted = tiny.counts - before
        rows = STEPS if compat == "exact" else 2 * (STEPS + 1)  # of the empty mask: none, or all
        assert counted["unet_rows"] == rows * (2 if guidance > 1 else 1)


@pytest.mark.parametrize("compat", ["exact", "reference"])
def test_neither_other_edits_nor_the_size_of_blocks_change_anything(
    compat: Any, editor: Inpaint, tiny: Backbone, tiny_folder: Path
) -> None:
    sources, one_row = laws.two_samples(tiny), replace(editor, compat=compat, rows=1)
    together = laws.sample(
        replace(one_row, rows=9), load_backbone(tiny_folder), sources, laws.MASKS, laws.OWNER
    )
    assert together.latents.shape == (4, 4, 8, 8)
    for mask, owner, latents in zip(laws.MASKS, laws.OWNER, together.latents, strict=True):
        own = laws.one_sample(sources, int(owner))
        alone = laws.sample(one_row, tiny, own, mask[None], torch.tensor([0]))
        torch.testing.assert_close(alone.latents[0], latents, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("compat", ["exact", "reference"])
def test_without_a_mask_the_source_has_no_part(
    compat: Any, editor: Inpaint, tiny: Backbone
) -> None:
    sources = laws.changed(laws.two_samples(tiny), target_prompt=["a big circle"] * 2)
    masks = torch.stack([laws.EVERYTHING] * 2 + [laws.LEFT] * 2)
    owner = torch.tensor([0, 1, 0, 1])
    whole, other, left, other_left = laws.sample(
        replace(editor, compat=compat), tiny, sources, masks, owner
    ).latents
    assert torch.equal(whole, other)
    assert not torch.isclose(left, other_left, atol=1e-3).all()


def test_the_empty_mask_leaves_the_sources_own_latents(editor: Inpaint, tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    masks = torch.stack([laws.NOTHING, laws.LEFT, laws.NOTHING])
    painted = laws.sample(editor, tiny, sources, masks, torch.tensor([0, 0, 1]))
    _, model = editor.model.loaded(tiny)
    expected = model.encode_images(sources.images).mean
    torch.testing.assert_close(painted.latents[[0, 2]], expected)
    assert painted.nfe.tolist() == [0, 2 * STEPS, 0]
    nothing = laws.sample(editor, tiny, sources, masks[:1], torch.tensor([1]))
    torch.testing.assert_close(nothing.latents, expected[1:])


def test_the_background_is_painted_or_put_back(editor: Inpaint, tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    masks, owner = laws.MASKS[[1, 2]], torch.tensor([0, 1])
    painted, laid = (
        paint(tiny, replace(editor, background=background), sources, masks, owner)[0].images
        for background in ("painted", "source")
    )
    assert torch.equal(laid[0], sources.images[0])
    assert torch.equal(laid[1, :, 32:], sources.images[1, :, 32:])
    assert torch.equal(laid[1, :, :32], painted[1, :, :32])
    assert not torch.equal(painted[1, :, 32:], sources.images[1, :, 32:])
    assert editor.masking == "inpainting"
    assert replace(editor, background="source").masking == "inpainting, laid over"


def test_what_the_model_is_told(editor: Inpaint, tiny: Backbone) -> None:
    sources = laws.changed(
        laws.two_samples(tiny), target_prompt=["big", "circle"], instruction=["square", " "]
    )
    told = {
        "target": editor,
        "instruction": replace(editor, prompt="instruction"),
        "template": replace(editor, template="a {} on grass"),
    }
    _, model = editor.model.loaded(tiny)
    texts = {name: each.invert(tiny, sources).text.hidden for name, each in told.items()}
    for name, expected in {
        "target": ["big", "circle"],
        "instruction": ["square", "circle"],
        "template": ["a big on grass", "a circle on grass"],
    }.items():
        torch.testing.assert_close(texts[name], model.encode_prompts(expected).hidden)
    assert editor.reads == ("image", "prompts")
    assert told["instruction"].reads == ("image", "prompts", "instruction")
    with pytest.raises(BenchmarkError, match=r"template is 'a picture'.*must have \{\}"):
        replace(editor, template="a picture")


def test_pictures_of_another_size_are_brought_to_the_models_and_back(
    editor: Inpaint, tiny: Backbone
) -> None:
    images = torch.full((2, 32, 32, 3), 200, dtype=torch.uint8)
    scenes = [Scene(str(i), image, "a", "big") for i, image in enumerate(images)]
    larger = torch.full((2, 64, 64, 3), 200, dtype=torch.uint8)
    same = [Scene(str(i), image, "a", "big") for i, image in enumerate(larger)]
    masks, owner = laws.MASKS[[2, 3]], torch.tensor([0, 1])
    small, _ = paint(tiny, editor, Sources(scenes, None), masks, owner)
    own, _ = paint(tiny, editor, Sources(same, None), masks, owner)
    assert small.images.shape == (2, 32, 32, 3)
    shrunk = Image.fromarray(own.images[0].numpy()).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(small.images[0].numpy(), np.asarray(shrunk))


def test_the_unet_and_the_settings_are_part_of_its_key_and_places_are_not(
    editor: Inpaint, unet: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    same = shutil.copytree(editor.id, tmp_path / "same")
    moved = replace(editor, id=str(same), cache_dir=str(tmp_path), rows=9)
    assert part_identity(moved) == part_identity(editor)
    for change in ({"steps": 2}, {"template": "a {}"}, {"background": "source"}, {"seed": 1}):
        assert part_identity(replace(editor, **change)) != part_identity(editor)  # type: ignore[arg-type]
    xl = replace(editor, id=str(tiny_folder), unet=str(unet))
    copied = Path(shutil.copytree(unet, tmp_path / "unet"))
    assert replace(xl, unet=str(copied)).identity() == xl.identity()
    weights = copied / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert replace(xl, unet=str(copied)).identity() != xl.identity()
    base = Path(shutil.copytree(tiny_folder, tmp_path / "base"))
    (base / "unet" / "config.json").write_text(json.dumps({}))  # which nobody reads
    assert replace(xl, id=str(base)).identity() == xl.identity()


def test_models_that_do_not_fit_are_named(editor: Inpaint, tiny: Backbone, tmp_path: Path) -> None:
    sources = laws.two_samples(tiny)
    missing = tmp_path / "no" / "model"
    with pytest.raises(BenchmarkError, match=rf"{missing}.*editor\.inpaint\.id"):
        Inpaint(id=str(missing)).invert(tiny, sources)
    plain = save_model(tmp_path / "plain", 4)
    with pytest.raises(BenchmarkError, match=r"does not paint under masks.*takes 4 channels"):
        Inpaint(id=str(plain)).invert(tiny, sources)
    with pytest.raises(BenchmarkError, match=r"(?s)U-Net of editor\.inpaint\.unet.*to the folder"):
        replace(editor, unet=str(missing)).invert(tiny, sources)


def test_the_miniatures_own_paints_what_the_prompt_says(tiny: Backbone) -> None:
    """Two edits of each type but materials under their true masks; the source scores 1."""
    model = Inpaint(
        id=packaged("shapes_turbo"),
        unet=packaged("shapes_inpainting"),
        steps=10,
        guidance=3,
        rows=8,
    )
    rngs = [np.random.default_rng(HELD_OUT_SEED + 3 * 10**6 + i) for i in range(16)]
    edits = [sample_edit(rng, (1, 2, 3, 4, 5, 6, 8, 9)[i % 8]) for i, rng in enumerate(rngs)]
    pairs = [render_edit(edit) for edit in edits]
    scenes = [
        Scene(str(i), torch.from_numpy(source), edit.source.prompt(), edit.target.prompt())
        for i, (edit, (source, _, _)) in enumerate(zip(edits, pairs, strict=True))
    ]
    masks = torch.stack([torch.from_numpy(in_cells(mask)) for _, _, mask in pairs])
    edited, _ = paint(tiny, model, Sources(scenes, None), masks, torch.arange(len(edits)))
    errors = [
        TargetError()(EditCase(*pair, "", ""), image[None])["target_error"].item()
        for pair, image in zip(pairs, edited.images.numpy(), strict=True)
    ]
    assert np.median(errors) < 0.3
