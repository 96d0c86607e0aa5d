"""The shipped scorers of the shapes world on scenes that their training does not draw."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import piebench_masks
from piebench_masks.data.shapes.grammar import sample_edit
from piebench_masks.data.shapes.render import render_edit
from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.clip import Clip
from piebench_masks.metrics.lpips import Lpips
from piebench_masks.training.clip import edit_accuracy, retrieval_accuracy, train_clip
from piebench_masks.training.scenes import TRAINING_SEEDS
from piebench_masks.training.squeezenet import WEIGHTS, ordered_triples, train_squeezenet

PRETRAINED = Path(piebench_masks.__file__).parent / "pretrained"


@pytest.fixture(scope="module")
def clip() -> Clip:
    model = f"local-dir:{PRETRAINED / 'clip_shapes'}"
    return Clip("clip_shapes", model=model, pretrained=None, rows=8)


@pytest.fixture(scope="module")
def distance() -> Lpips:
    backbone = PRETRAINED / "lpips_shapes" / WEIGHTS
    return Lpips("lpips_shapes", backbone=backbone, weighted=False, rows=3)


def test_images_find_their_own_prompt_among_64(clip: Clip) -> None:
    assert retrieval_accuracy(clip, groups=4) >= 0.95


def test_edited_images_prefer_the_target_prompt(clip: Clip) -> None:
    assert edit_accuracy(clip, per_type=12) >= 0.85


def test_other_textures_are_nearer_than_other_attributes_than_other_scenes(
    distance: Lpips,
) -> None:
    assert ordered_triples(distance, count=120) >= 0.95


def test_true_edits_raise_the_masked_score(clip: Clip) -> None:
    """The column that the Pareto plot needs; a pose or a shape is hard to see there."""
    gains = []
    for index in range(60):
        edit = sample_edit(np.random.default_rng(TRAINING_SEEDS.stop + index), 1 + index % 9)
        source, target, mask = render_edit(edit)
        case = EditCase(source, target, mask, edit.source.prompt(), edit.target.prompt())
        before, after = clip(case, np.stack([source, target]))["clip_shapes_edited"]
        gains.append(after > before)
    assert np.mean(gains) >= 0.75


def test_noise_is_farther_the_stronger_it_is(distance: Lpips) -> None:
    rng = np.random.default_rng(0)
    source, _, _ = render_edit(sample_edit(rng, 1))
    noise = rng.normal(0, 1, source.shape)
    noisy = [np.clip(source + sigma * noise, 0, 255).astype(np.uint8) for sigma in (2, 8, 32)]
    found = distance(EditCase(source, None, None, "", ""), np.stack(noisy))["lpips_shapes"]
    assert 0 < found[0] < found[1] < found[2]


def test_columns_cannot_be_mistaken_for_the_published_metrics(clip: Clip, distance: Lpips) -> None:
    for scorer in (clip, distance):
        assert all(name.startswith(scorer.name) for name in scorer.columns)
        assert all("shapes" in column.label for column in scorer.columns.values())


def test_the_shipped_weights_are_half_precision_and_small() -> None:
    for name, limit in (("clip_shapes", 3.2e6), ("lpips_shapes", 1.6e6)):
        (path,) = (PRETRAINED / name).glob("*.safetensors")
        assert path.stat().st_size < limit
        assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}


@pytest.mark.slow
def test_training_writes_scorers_that_load(tmp_path: Path) -> None:
    recipe = {"device": "cpu", "steps": 2, "batch": 4, "learning_rate": 1e-3}
    train_clip(tmp_path / "clip", tmp_path / "work", **recipe)
    train_squeezenet(tmp_path / "lpips", tmp_path / "work", **recipe)
    Clip(model=f"local-dir:{tmp_path / 'clip'}", pretrained=None).load()
    Lpips(backbone=tmp_path / "lpips" / WEIGHTS, weighted=False).load()
