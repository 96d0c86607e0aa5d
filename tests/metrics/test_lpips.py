"""LPIPS against the package's own forward pass, and its laws."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import lpips as package
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.lpips import Lpips, load_features
from piebench_masks.weights import WeightsError


@pytest.fixture(scope="module")
def random_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random feature layers under torchvision's names."""
    torch.manual_seed(0)
    network = package.LPIPS(net="squeeze", lpips=False, pnet_rand=True, verbose=False).net
    path = tmp_path_factory.mktemp("squeezenet") / "features.safetensors"
    state = {f"features.{n.split('.', 1)[1]}": v for n, v in network.state_dict().items()}
    save_file(state, path)
    return path


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_other_networks_are_the_packages_distance_too(
    net: Literal["alex", "vgg"], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = package.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
    state = {f"features.{n.split('.', 1)[1]}": v for n, v in network.net.state_dict().items()}
    save_file(state, tmp_path / "features.safetensors")
    rng = np.random.default_rng(0)
    source, edited = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[10:40, 20:50] = True
    metric = Lpips(net=net, backbone=tmp_path / "features.safetensors", rows=2)
    found = metric(EditCase(source, None, mask, "", ""), edited[None])
    for suffix, part in {"": mask | True, "_unedit_part": ~mask, "_edit_part": mask}.items():
        one, two = (
            torch.from_numpy(2 * (image / 255 * part[..., None]) - 1).movedim(-1, 0)[None]
            for image in (source, edited)
        )
        with torch.no_grad():
            wanted = network.double()(one, two).item()
        assert found[f"lpips{suffix}"].item() == pytest.approx(wanted, rel=1e-4)
    assert metric.columns["lpips"].label == f"LPIPS {net}"
    assert Lpips(net=net).identity() != Lpips().identity()


@pytest.mark.parametrize("weighted", [True, False])
def test_it_is_the_packages_distance_of_the_masked_images(
    random_backbone: Path, noisy: tuple[EditCase, np.ndarray], weighted: bool
) -> None:
    case, edited = noisy
    metric = Lpips("lpips_other", backbone=random_backbone, weighted=weighted, rows=4)
    assert case.mask is not None
    for suffix, part in {
        "": case.mask | True,
        "_unedit_part": ~case.mask,
        "_edit_part": case.mask,
    }.items():
        one, two = (
            torch.from_numpy(2 * np.float32(images / 255 * part[..., None]) - 1).movedim(-1, 1)
            for images in (case.source[None], edited)
        )
        with torch.no_grad():
            wanted = metric.network(one, two).flatten()
        found = metric(case, edited)[f"lpips_other{suffix}"]
        np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_an_image_has_no_distance_to_itself(
    random_backbone: Path, noisy: tuple[EditCase, np.ndarray]
) -> None:
    case, _ = noisy
    found = Lpips(backbone=random_backbone)(case, case.source[None])
    assert all(value.item() == pytest.approx(0, abs=1e-6) for value in found.values())


def test_the_source_is_encoded_once_for_all_variants(
    random_backbone: Path, noisy: tuple[EditCase, np.ndarray]
) -> None:
    metric = Lpips(backbone=random_backbone, rows=15)
    seen: list[int] = []
    metric.network.net.register_forward_hook(lambda net, given, out: seen.append(len(given[0])))
    metric(*noisy)
    assert seen == [3, 15]  # the source's three parts, then five variants of each


def test_a_part_without_pixels_has_no_score(
    random_backbone: Path, noisy: tuple[EditCase, np.ndarray]
) -> None:
    case, edited = noisy
    metric = Lpips(backbone=random_backbone)
    found = metric(replace(case, mask=np.ones((64, 64), bool)), edited)
    assert np.isnan(found["lpips_unedit_part"]).all()
    np.testing.assert_array_equal(found["lpips_edit_part"], found["lpips"])


def test_a_missing_backbone_is_one_clear_error(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.safetensors"
    with pytest.raises(WeightsError, match=r"(?s)backbone of 'lpips'.*nowhere.*what to do:"):
        Lpips(backbone=missing).load()


def test_a_backbone_with_missing_layers_is_refused(tmp_path: Path, random_backbone: Path) -> None:
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "part.safetensors")
    with pytest.raises(WeightsError, match="Missing key"):
        Lpips(backbone=tmp_path / "part.safetensors").load()


def test_every_layer_of_the_file_is_loaded(random_backbone: Path) -> None:
    model = package.LPIPS(net="squeeze", lpips=False, pnet_rand=True, verbose=False)
    ones = {
        f"features.{name.split('.', 1)[1]}": torch.ones_like(value, dtype=torch.float16)
        for name, value in model.net.state_dict().items()
    }
    load_features(model, ones)
    assert all((value == 1).all() for value in model.net.state_dict().values())
