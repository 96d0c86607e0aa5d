"""Structure distance with a tiny random ViT against a token-by-token computation in float64."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms import Compose, Normalize, Resize
from transformers import ViTConfig, ViTModel

from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.structure import Structure
from piebench_masks.weights import WeightsError


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT of DINO's form: 224 px, patches of 32 instead of 8, two blocks."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        patch_size=32,
        initializer_range=0.5,
    )
    folder = tmp_path_factory.mktemp("vit")
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def slow_distance(metric: Structure, one: np.ndarray, two: np.ndarray, divisor: float) -> float:
    prepare = Compose(
        [Resize(224, max_size=480), Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    )
    model = deepcopy(metric.network).double()
    last = next(m for n, m in model.named_modules() if n.endswith(("layers.1", "layer.1")))
    key = next(m for n, m in last.named_modules() if n.endswith(("k_proj", "key")))
    similarities = []
    for image in (one, two):
        pixels = prepare(torch.from_numpy(image / divisor).movedim(-1, 0))
        hidden: list[torch.Tensor] = []
        hook = last.register_forward_pre_hook(lambda m, given: hidden.append(given[0]))  # noqa: B023
        with torch.no_grad():
            model(pixels[None], interpolate_pos_encoding=True)
            keys = key(last.layernorm_before(hidden[0]))[0].numpy()
        hook.remove()
        similarities.append(
            [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in keys] for b in keys]
        )
    return float(np.mean((np.array(similarities[0]) - np.array(similarities[1])) ** 2))


@pytest.mark.parametrize(("input_range", "divisor"), [("0..1", 255), ("0..255", 1)])
def test_it_compares_the_last_blocks_keys(
    vit: Path, noisy: tuple[EditCase, np.ndarray], input_range: str, divisor: float
) -> None:
    case, edited = noisy
    metric = Structure(model=str(vit), input_range=input_range, rows=4)
    found = metric(case, edited)
    assert case.mask is not None
    background = (~case.mask)[..., None]
    for variant in (0, 4):
        whole = slow_distance(metric, case.source, edited[variant], divisor)
        outside = slow_distance(
            metric, case.source * background, edited[variant] * background, divisor
        )
        assert found["structure_distance"][variant] == pytest.approx(whole, rel=1e-3)
        assert found["structure_distance_unedit_part"][variant] == pytest.approx(outside, rel=1e-3)


def test_wide_images_keep_their_form(vit: Path) -> None:
    rng = np.random.default_rng(0)
    source, edited = rng.integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    metric = Structure(model=str(vit), input_range="0..1", rows=1)
    found = metric(EditCase(source, None, None, "", ""), edited[None])["structure_distance"]
    assert found.item() == pytest.approx(slow_distance(metric, source, edited, 255), rel=1e-3)


def test_an_image_has_no_distance_to_itself(vit: Path, noisy: tuple[EditCase, np.ndarray]) -> None:
    case, _ = noisy
    found = Structure(model=str(vit))(case, case.source[None])
    assert all(value.item() == pytest.approx(0, abs=1e-8) for value in found.values())


def test_a_part_without_pixels_has_no_score(vit: Path, noisy: tuple[EditCase, np.ndarray]) -> None:
    case, edited = noisy
    found = Structure(model=str(vit))(replace(case, mask=None), edited)
    assert np.isfinite(found["structure_distance"]).all()
    assert np.isnan(found["structure_distance_edit_part"]).all()


def test_missing_weights_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"(?s)DINO model.*empty.*what to do: connect"):
        Structure(model=str(tmp_path / "empty")).load()
