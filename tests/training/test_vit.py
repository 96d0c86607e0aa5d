"""Training the vision transformer: pairs that share objects, and the folder that is written."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import ViTModel

from piebench_masks.data.shapes.grammar import CLASHES, sample_scene
from piebench_masks.training.vit import attention_on_objects, draw_pairs, elsewhere, train_vit
from piebench_masks.weights import packaged


def test_a_pair_shares_its_objects_and_not_the_background() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        scene = sample_scene(rng)
        other = elsewhere(rng, scene)
        assert other.things == scene.things and other.background != scene.background
        assert not {(thing.color, other.background) for thing in other.things} & CLASHES
    images = draw_pairs(range(3))
    assert images.shape == (6, 3, 64, 64) and images.dtype == torch.uint8
    assert torch.equal(draw_pairs([1])[1], images[4])


def test_the_written_folder_is_a_vit(tmp_path: Path) -> None:
    train_vit(tmp_path / "vit", tmp_path, device="cpu", steps=2, batch=2, learning_rate=1e-3)
    weights = load_file(tmp_path / "vit" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    vit, report = ViTModel.from_pretrained(
        tmp_path / "vit", add_pooling_layer=False, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert vit(torch.zeros(1, 3, 64, 64)).last_hidden_state.shape == (1, 257, 96)


def test_the_packaged_one_looks_at_objects() -> None:
    share, area = attention_on_objects(Path(packaged("vit_shapes")))
    assert 0.1 < area < 0.14
    assert share > 4 * area
