"""Masks made elsewhere: read safely from files, and cut as any other map."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from piebench_masks.data.external_masks import external_masks, load_external_mask, mask_file
from piebench_masks.data.scene import Scene
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks.external import External, external_methods
from piebench_masks.masks.soft_maps import needs_model, soft_maps

HARD = np.zeros((40, 48), bool)
HARD[5:20, 8:30] = True
SOFT = np.linspace(0, 1, 40 * 48, dtype=np.float32).reshape(40, 48)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a.npy", HARD),
        ("a.npy", HARD.astype(np.uint8)),
        ("a.npy", HARD.astype(np.uint8) * 255),
        ("a.npy", HARD.astype(np.float64)),
        ("a.npy", HARD.astype(np.float16)),
        ("a.png", Image.fromarray(HARD)),
        ("a.png", Image.fromarray(HARD.astype(np.uint8))),
        ("a.png", Image.fromarray(HARD.astype(np.uint8) * 255)),
        ("a.png", Image.fromarray(HARD.astype(np.uint8) * 255).convert("RGBA")),
        ("a.png", Image.fromarray(HARD.astype(np.uint16) * 65535)),
    ],
)
def test_hard_masks_of_every_kind(tmp_path: Path, name: str, array: np.ndarray) -> None:
    path = tmp_path / name
    array.save(path) if isinstance(array, Image.Image) else np.save(path, array)
    mask = load_external_mask(path)
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask, HARD)


def test_soft_masks(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", SOFT)
    Image.fromarray(np.round(SOFT * 255).astype(np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(np.round(SOFT * 65535).astype(np.uint16)).save(tmp_path / "16.png")
    np.testing.assert_array_equal(load_external_mask(tmp_path / "a.npy"), SOFT)
    np.testing.assert_allclose(load_external_mask(tmp_path / "8.png"), SOFT, atol=0.5 / 255)
    np.testing.assert_allclose(load_external_mask(tmp_path / "16.png"), SOFT, atol=1e-5)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.full((4, 4), np.nan), "0 to 1"),
        (np.full((4, 4), 3.0), "0 to 1"),
        (np.full((4, 4), -0.1), "0 to 1"),
        (np.zeros((4, 4, 3)), "shape"),
        (np.zeros((0, 4)), "shape"),
        (np.zeros((4, 4), np.int64), "int64"),
        (np.zeros((4, 4), complex), "complex"),
        (np.array([[{"a": 1}]]), "cannot be read as a mask"),
    ],
)
def test_arrays_that_are_no_mask(tmp_path: Path, array: np.ndarray, reason: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(BenchmarkError, match=reason) as error:
        load_external_mask(tmp_path / "a.npy")
    assert str(tmp_path / "a.npy") in str(error.value)
    assert "give a grey PNG" in str(error.value)


def test_pictures_that_are_no_mask(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[..., 0] = 200
    transparent = np.zeros((4, 4, 4), np.uint8)
    for content in (colours, transparent):
        Image.fromarray(content).save(path)
        with pytest.raises(BenchmarkError, match="cannot be read"):
            load_external_mask(path)
    for damaged in (b"", b"\x89PNG\r\n", b"GIF89a"):
        path.write_bytes(damaged)
        with pytest.raises(BenchmarkError, match="cannot be read"):
            load_external_mask(path)


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", HARD)
    content = (tmp_path / "a.npy").read_bytes()
    for shape in (b"(400000, 480000), }", b"(4000, 48), }"):
        there = b"(40, 48), }".ljust(len(shape))
        assert there in content
        start = content.replace(there, shape)
        (tmp_path / "a.npy").write_bytes(start)
        with pytest.raises(BenchmarkError, match="cannot be read"):
            load_external_mask(tmp_path / "a.npy")


def test_methods_are_folders_that_say_what_they_know(tmp_path: Path) -> None:
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
    assert external_masks(tmp_path, {"mine": "prompts"}) == {"mine": "prompts"}
    for methods in ({}, {"other": "prompts"}):
        with pytest.raises(BenchmarkError, match="there are mine, theirs"):
            external_masks(tmp_path, methods)  # type: ignore[arg-type]
    with pytest.raises(BenchmarkError, match="choose one of nothing, prompts"):
        external_masks(tmp_path, {"mine": "all"})  # type: ignore[dict-item]


def test_files_are_named_as_the_picture_or_by_the_id(tmp_path: Path) -> None:
    folder = tmp_path / "root" / "mine" / "0_random"
    folder.mkdir(parents=True)
    root = tmp_path / "root"
    np.save(folder / "cat.npy", HARD)
    np.save(root / "mine" / "000001.npy", HARD)
    assert mask_file(root, "mine", "0_random/cat.jpg", "000000") == folder / "cat.npy"
    assert mask_file(root, "mine", "0_random/dog.jpg", "000001").name == "000001.npy"
    with pytest.raises(BenchmarkError, match=r"no mask of sample 000002: put .*dog\.png"):
        mask_file(root, "mine", "0_random/dog.jpg", "000002")


def test_no_path_leaves_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "mine").mkdir(parents=True)
    np.save(tmp_path / "secret.npy", HARD)
    (root / "mine" / "linked.npy").symlink_to(tmp_path / "secret.npy")
    for image_path in ("../../secret.jpg", str(tmp_path / "secret.jpg"), "linked.jpg"):
        with pytest.raises(BenchmarkError, match="leads out of"):
            mask_file(root, "mine", image_path, "0")


def test_a_mask_is_a_map() -> None:
    scenes = [Scene(str(i), torch.zeros(64, 64, 3, dtype=torch.uint8), "a", "b") for i in range(4)]
    hard = torch.rand(64, 64) > 0.7
    masks = [hard.float(), torch.ones(20, 30), torch.rand(256, 200), BenchmarkError("not there")]
    methods = external_methods({"mine": "prompts"}, threshold=0.5)
    assert not needs_model(methods)
    found = soft_maps(None, None, scenes, methods, map_size=16, external={"mine": masks})["mine"]
    assert isinstance(found[0], torch.Tensor)
    cut = methods["mine"].cutter.masks(found[0], [methods["mine"].threshold], (64, 64), "exact")
    assert torch.equal(cut[0], hard)
    assert [m.shape for m in found[1:3]] == [(30, 30), (64, 64)]  # type: ignore[union-attr]
    assert str(found[3]) == "not there"
    with pytest.raises(BenchmarkError, match="state what the masks were made from"):
        External(knows="everything")  # type: ignore[arg-type]
