"""Items in files: what is read, what is written, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from piebench_masks.errors import BenchmarkError
from piebench_masks.items.partition import (
    MAX_ITEMS,
    Partition,
    PartitionError,
    central_square,
    item_file,
    picture_file,
    read_index,
    read_partition,
    read_picture,
    write_index,
    write_masks,
)

LABELS = torch.tensor([[0, 0, 1], [2, 2, 1]])
NAMES = ("wall_brick", "teddy bear", "küche")
TOP = np.array([[True, True], [False, False]])


def items() -> Partition:
    return Partition.from_labels(LABELS, NAMES)


def save(folder: Path, **masks: object) -> None:
    """Masks by the stems of their names, as npy."""
    for name, mask in masks.items():
        np.save(folder / f"{name}.npy", np.asarray(mask))


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("write", [write_index, write_masks])
def test_what_is_written_is_read(
    write: Callable[..., object], edited: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "new"
    drawn = Partition.from_labels(LABELS, (*NAMES, "nothing"))  # an item may be empty
    write(folder, drawn, edited=edited)
    found = read_partition(folder, edited=edited)
    assert found.names == drawn.names and torch.equal(found.masks, drawn.masks)
    assert torch.equal(found.labels, LABELS.byte()) and found.size == (2, 3)
    with pytest.raises(PartitionError, match="has no masks: put a file mask"):
        read_partition(folder, edited=not edited)
    write(folder, items(), edited=not edited)
    write(folder, drawn, edited=edited)  # in the place of the earlier ones
    assert not [path for path in folder.iterdir() if "~" in path.name]


def test_an_index_files_pixels_are_the_items(tmp_path: Path) -> None:
    with Image.open(write_index(tmp_path, items())) as image:
        assert image.mode == "P" and np.array_equal(np.array(image), LABELS.numpy())
        assert len({image.convert("RGB").getpixel(at) for at in ((0, 0), (2, 0), (0, 1))}) == 3
    Image.fromarray(LABELS.numpy().astype(np.uint8)).save(tmp_path / "grey.png")
    assert read_index(tmp_path / "grey.png", ["a", "b", "c"]).names == ("a", "b", "c")
    assert read_index(tmp_path / "grey.png").names == ("item",) * 3


def test_masks_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    square = np.zeros((2, 2), dtype=bool)
    save(tmp_path, mask10_d=square, mask2_c=~TOP, maskEdited0_x=~square)
    Image.fromarray(TOP.astype(np.uint8) * 255).save(tmp_path / "mask0_a.png")
    np.save(tmp_path / "mask-1_gone.npy", ~square)
    found = read_partition(tmp_path)
    assert found.names == ("a", "c", "d")
    assert torch.equal(found.masks, torch.from_numpy(np.stack([TOP, ~TOP, square])))
    assert read_partition(tmp_path, edited=True).names == ("x",)


@pytest.mark.parametrize(
    ("name", "exact", "reference"),
    [
        ("mask0_cup.npy", (0, "cup", False), (0, "cup", False)),
        ("mask7_wall_brick.npy", (7, "wall_brick", False), (7, "", False)),
        ("maskEdited3_t-1000.png", (3, "t-1000", True), None),
        ("maskEdited-1_c.npy", None, None),
        ("masks.png", None, None),
        ("picture.png", None, None),
        ("mask0_cup.txt", None, None),
    ],
)
def test_names_of_files(name: str, exact: object, reference: object) -> None:
    assert item_file(name) == exact
    assert item_file(name, "reference") == reference


@pytest.mark.parametrize("name", ["maskSAM0_bag(0.5).npy", "mask_cup.npy", "mask1.png"])
def test_names_that_only_begin_like_a_mask_are_told(name: str, tmp_path: Path) -> None:
    save(tmp_path, mask0_all=np.ones((2, 2), dtype=bool))
    (tmp_path / name).touch()
    with pytest.raises(BenchmarkError, match=r"is no mask<i>_<name>\..*: rename or remove it") as e:
        read_partition(tmp_path)
    assert str(e.value).startswith(f"{tmp_path}: {name}")


@pytest.mark.parametrize(
    ("masks", "problem"),
    [
        ({"mask0_a": TOP, "mask1_b": TOP}, "4 pixels .* row 0, column 0, in a, b: draw masks"),
        ({"mask0_a": TOP}, "2 pixels .* row 1, column 0, in none: draw masks"),
        ({"mask0_a": TOP, "mask1_b": ~TOP[:1]}, "mask1_b.npy has 2x1 pixels, mask0_a.npy has 2x2"),
        ({"mask0_a": TOP, "mask0_b": ~TOP}, "two masks of one item among mask0_a.npy, mask0_b.npy"),
        ({"mask0_a": TOP * 0.5, "mask1_b": 1 - TOP * 0.5}, "mask0_a.npy has values between 0 and"),
        ({"mask0_a": TOP[None]}, r"mask0_a.npy cannot be read .*its shape is \[1, 2, 2\]"),
        ({"mask0_a": np.array([[{}]])}, "mask0_a.npy cannot be read .*Python objects in dtype"),
        ({"mask0_ a": TOP, "mask1_b": ~TOP}, "' a' is no name of an item: use printable"),
        ({}, "has no masks: put a file mask<i>_<name>.npy"),
    ],
)  # fmt: skip
def test_what_is_no_partition_is_told(
    masks: dict[str, object], problem: str, tmp_path: Path
) -> None:
    save(tmp_path, **masks)
    with pytest.raises(BenchmarkError, match=problem) as error:
        read_partition(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    "masks",
    [torch.ones(1, 2, 2), *(torch.ones(shape) > 0 for shape in ((2, 2), (2, 2, 2), (1, 0, 2)))],
)
def test_masks_are_bool_one_for_each_name(masks: torch.Tensor) -> None:
    with pytest.raises(PartitionError, match=r"1 names and .* give from 1 to 255 items"):
        Partition(("a",), masks)


def test_damaged_and_foreign_index_files_are_told(tmp_path: Path) -> None:
    path = write_index(tmp_path, items())
    whole = path.read_bytes()
    for data in (whole[:-30], b"no PNG", b""):
        path.write_bytes(data)
        with pytest.raises(PartitionError, match=f"{path} cannot be read as items .*give a PNG"):
            read_partition(tmp_path)
    colours = Image.new("RGB", (2, 2))
    colours.save(path)
    with pytest.raises(PartitionError, match="of mode RGB"):
        read_partition(tmp_path)
    for names in ({"a": 1}, [1, 2, 3], ["../a", "b", "c"], ["a", "b"], ["a"] * (MAX_ITEMS + 1)):
        text = PngInfo()
        text.add_text("names", json.dumps(names))
        Image.fromarray(LABELS.numpy().astype(np.uint8)).save(path, pnginfo=text)
        with pytest.raises(PartitionError, match=str(path)):
            read_partition(tmp_path)


def test_no_file_leads_out_of_its_folder(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    folder.mkdir()
    write_index(outside, items())
    Image.new("RGB", (4, 4)).save(outside / "picture.png")
    for name in ("masks.png", "picture.png"):
        (folder / name).symlink_to(outside / name)
    for read in (read_partition, picture_file):
        with pytest.raises(PartitionError, match=r"leads out of .*: put the file itself there"):
            read(folder)


def test_masks_of_two_kinds_are_not_mixed(tmp_path: Path) -> None:
    write_index(tmp_path, items())
    with pytest.raises(PartitionError, match=r"already has masks \(masks.png\): remove them"):
        write_masks(tmp_path, items())
    save(tmp_path, mask0_all=np.ones((2, 3), dtype=bool))
    with pytest.raises(PartitionError, match=r"already has masks \(mask0_all.npy\)"):
        write_index(tmp_path, items())
    with pytest.raises(PartitionError, match="two masks of one item"):
        read_partition(tmp_path)


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BenchmarkError, match=r"cannot be written .*free space or allow writing"):
        write_index(tmp_path / "file", items())
    long = Partition.from_labels(LABELS, ("a" * 300, "b", "c"))
    with pytest.raises(BenchmarkError, match="or shorten the name"):
        write_masks(tmp_path, long)
    write_index(tmp_path, long)
    assert read_partition(tmp_path).names == long.names


def test_the_picture_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(PartitionError, match="has no picture: put one"):
        picture_file(tmp_path)
    Image.new("RGB", (30, 20), "red").save(tmp_path / "mine.jpg")
    write_index(tmp_path, items())  # masks are no pictures
    assert picture_file(tmp_path) == picture_file(tmp_path, 512) == tmp_path / "mine.jpg"
    assert read_picture(tmp_path, 8).shape == (8, 8, 3)
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "img_8.png")
    assert picture_file(tmp_path, 8) == tmp_path / "img_8.png"
    with pytest.raises(PartitionError, match=r"has img_8.png, mine.jpg: put one picture"):
        picture_file(tmp_path, 16)


@pytest.mark.parametrize("shape", [(20, 33), (41, 20), (20, 20)])
def test_a_pictures_middle_is_kept(shape: tuple[int, int]) -> None:
    picture = np.zeros((*shape, 3), dtype=np.uint8)
    top, left = (shape[0] - 20) // 2, (shape[1] - 20) // 2
    picture[top : top + 20, left : left + 20] = 200
    assert np.array_equal(central_square(picture, 20), np.full((20, 20, 3), 200))
    assert np.array_equal(central_square(picture, 5), np.full((5, 5, 3), 200))
