"""One picture at a time from Python, on the embedded model."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from rich.console import Console

from piebench_masks.api import EncodedScene, Pipeline
from piebench_masks.cli import CONF
from piebench_masks.data.images import load_image
from piebench_masks.data.shapes.grammar import sample_edit
from piebench_masks.data.shapes.render import render_edit
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.editing.items import Items
from piebench_masks.errors import BenchmarkError
from piebench_masks.items.fitted import FitSettings
from piebench_masks.masks import METHODS
from piebench_masks.masks.clipseg import ClipSeg
from piebench_masks.pipeline import run_pipeline
from piebench_masks.run import Run
from piebench_masks.stages.edit import edit_folder, edit_name
from piebench_masks.stages.latents import image_file
from piebench_masks.stages.parse import parse
from piebench_masks.stages.variants import Variants
from piebench_masks.weights import packaged

Recolouring = tuple[Image.Image, np.ndarray, str, str]


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load()


@pytest.fixture(scope="module")
def recolouring() -> Recolouring:
    """A scene, its annotated mask, and the prompts of a colour edit."""
    edit = sample_edit(np.random.default_rng(2**40), 6)
    source, _, mask = render_edit(edit)
    return Image.fromarray(source), mask, edit.source.prompt(), edit.target.prompt()


@pytest.fixture
def scene(pipeline: Pipeline, recolouring: Recolouring) -> EncodedScene:
    image, _, *prompts = recolouring
    return pipeline.scene(image, *prompts)


def test_the_soft_map_is_high_where_the_edit_belongs(
    scene: EncodedScene, recolouring: Recolouring
) -> None:
    _, mask, *_ = recolouring
    soft_map = scene.soft_map("attn_based")
    assert soft_map.shape == mask.shape and 0 <= soft_map.min() <= soft_map.max() <= 1
    assert soft_map[mask].mean() > 2 * soft_map[~mask].mean()


def test_the_map_has_the_pictures_size_and_the_edit_the_models(
    pipeline: Pipeline, recolouring: Recolouring, tmp_path: Path
) -> None:
    image, _, *prompts = recolouring
    path = tmp_path / "wide.png"
    image.convert("RGBA").resize((200, 120)).save(path)
    scene = pipeline.scene(path, *prompts)
    assert scene.soft_map().shape == (120, 200)
    assert scene.edit().size == (64, 64)
    assert scene.mask().shape == (16, 16)


def test_an_edit_changes_the_masked_part_most(
    scene: EncodedScene, recolouring: Recolouring
) -> None:
    image, mask, *_ = recolouring
    edited = np.asarray(scene.edit("attn_based", 0.35))
    change = np.abs(edited.astype(float) - np.asarray(image)).mean(axis=2)
    assert change[mask].mean() > 2 * change[~mask].mean()
    assert np.array_equal(edited, np.asarray(scene.edit("attn_based", 0.35)))


def test_three_thresholds_cost_one_encoding(pipeline: Pipeline, scene: EncodedScene) -> None:
    before = pipeline.backbone.counts["vae_encodes"]
    masks = [scene.mask("ours", threshold) for threshold in (0.2, 0.4, 0.6)]
    for mask in masks:
        scene.edit(mask)
    assert pipeline.backbone.counts["vae_encodes"] == before + 1
    assert masks[0].sum() > masks[1].sum() > masks[2].sum()


def test_a_method_is_cut_at_its_threshold_unless_another_is_given(scene: EncodedScene) -> None:
    for name in ("ours", "noise_based", "diffedit"):
        assert np.array_equal(scene.mask(name), scene.mask(name, METHODS[name].threshold))
    assert np.array_equal(
        np.asarray(scene.edit("diffedit")), np.asarray(scene.edit(scene.mask("diffedit")))
    )


def test_a_mask_of_any_size_is_brought_to_the_latents(scene: EncodedScene) -> None:
    mask = scene.mask("attn_based", 0.35)
    large = mask.repeat(4, axis=0).repeat(4, axis=1)
    assert np.array_equal(np.asarray(scene.edit(large)), np.asarray(scene.edit(mask)))
    assert np.array_equal(np.asarray(scene.edit(None)), np.asarray(scene.edit(mask | True)))
    with pytest.raises(BenchmarkError, match=r"bool \[height, width\]"):
        scene.edit(scene.soft_map())  # type: ignore[arg-type]


def test_a_method_is_as_good_as_its_name(scene: EncodedScene) -> None:
    soft_map = scene.soft_map(METHODS["diffedit"])
    assert np.array_equal(soft_map, scene.soft_map("diffedit"))


def test_options_of_the_command_are_methods_too(scene: EncodedScene) -> None:
    assert scene.soft_map("saliency_shapes").shape == (64, 64)
    raw = scene.raw_map("saliency_shapes")
    assert raw.shape == (16, 16) and raw.max() == pytest.approx(1)
    with pytest.raises(BenchmarkError, match=r"no mask method 'external'.*regions_shapes"):
        scene.soft_map("external")


@pytest.mark.slow
def test_regions_are_painted_and_scored_by_the_miniatures_networks(
    pipeline: Pipeline, scene: EncodedScene
) -> None:
    before = pipeline.backbone.counts["unet_rows"]
    found = scene.raw_map("regions_shapes")
    assert pipeline.backbone.counts["unet_rows"] == before + 2 * 10 * 36
    assert found.shape == (16, 16) and found.max() == pytest.approx(1)


def test_what_an_editor_fits_to_a_picture_is_kept_for_all_its_masks(
    pipeline: Pipeline, scene: EncodedScene, recolouring: Recolouring
) -> None:
    short = FitSettings(tokens=2, embedding_steps=2, unet_steps=2, accumulation=1)
    words = ClipSeg(model=packaged("clipseg_shapes"), words="prompt")
    editor, counts = Items(short, words, steps=2), pipeline.backbone.counts
    mask = recolouring[1]
    before = counts["unet_backward_rows"]
    pictures = [np.array(scene.edit(each, editor=editor)) for each in (mask, ~mask, mask)]
    assert counts["unet_backward_rows"] - before == 4 * short.batch
    assert (pictures[0] == pictures[2]).all() and (pictures[0] != pictures[1]).any()
    scene.edit(mask, editor=replace(editor, fit=replace(short, tokens=1)))
    assert counts["unet_backward_rows"] - before == 2 * 4 * short.batch


def test_equal_prompts_give_an_empty_map_and_an_unknown_method_is_named(
    pipeline: Pipeline, recolouring: Recolouring
) -> None:
    image, _, prompt, _ = recolouring
    scene = pipeline.scene(image, prompt, prompt)
    assert not scene.soft_map().any()
    with pytest.raises(BenchmarkError, match="no mask method 'best'"):
        scene.soft_map("best")


def test_the_same_pixels_from_a_file_and_from_memory_are_the_same(
    pipeline: Pipeline, scene: EncodedScene, recolouring: Recolouring, tmp_path: Path
) -> None:
    image, _, *prompts = recolouring
    image.save(tmp_path / "scene.png")
    assert np.array_equal(load_image(tmp_path / "scene.png"), np.asarray(image))
    from_file = pipeline.scene(str(tmp_path / "scene.png"), *prompts).soft_map()
    assert np.array_equal(from_file, scene.soft_map())
    assert torch.is_grad_enabled()


def test_an_edit_is_the_stages_edit_of_that_sample_and_mask(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    write_shapes(tmp_path / "shapes", per_type=1)
    places = [f"{name}_dir={tmp_path}/{name}" for name in ("artifacts", "results")]
    small = ["limit=2", "mask=[ours]", "baselines=[oracle]", "thresholds=[0.35]", "tracker=none"]
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("config", [*places, *small, f"dataset.root={tmp_path}/shapes"])
    console = Console(file=io.StringIO())
    assert run_pipeline(cfg, ["parse", "masks", "edit"], console) == 0
    run = Run(cfg)
    samples, variants = parse(run, console).samples, Variants(run)
    for sample in samples:
        scene = pipeline.scene(
            image_file(run, sample.image_path), sample.source_prompt, sample.target_prompt
        )
        for variant in variants.of(sample, "turbo_edit"):
            name = edit_name(run, "turbo_edit", sample, variant.name)
            stored = edit_folder(run, "turbo_edit").read_image(name)
            assert variant.mask is not None
            edited = np.asarray(scene.edit(variant.mask.array(16)))
            assert stored is not None and np.array_equal(edited, stored), variant
