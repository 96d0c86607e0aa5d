"""Every kind of picture a benchmark folder may hold comes out as the RGB that a viewer shows."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from piebench_masks.data import images
from piebench_masks.data.images import ImageError, load_image

RED = (255, 0, 0)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", ".png"), ("RGBA", ".png"), ("P", ".png"), ("RGBA", ".tif"), ("CMYK", ".tif")],
)
def test_modes_and_formats_come_out_as_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    path = saved(Image.new("RGB", (3, 2), RED).convert(mode), tmp_path / f"image{suffix}")
    image = load_image(path)
    assert image.shape == (2, 3, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - RED).max() <= 1


def test_grey_is_repeated_in_the_three_channels(tmp_path: Path) -> None:
    assert load_image(saved(Image.new("L", (1, 1), 77), tmp_path / "g.png")).tolist() == [
        [[77] * 3]
    ]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    image = load_image(saved(Image.fromarray(values), tmp_path / f"deep{suffix}"))
    assert image[0, :, 0].tolist() == [0, 1, 128, 255]


def test_transparency_shows_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (*RED, 0))
    image.putpixel((1, 0), (*RED, 255))
    assert load_image(saved(image, tmp_path / "a.png")).tolist() == [[[255] * 3, list(RED)]]


def test_a_transparent_palette_colour_shows_white(tmp_path: Path) -> None:
    image = Image.new("P", (1, 1), 0)
    image.putpalette([0, 0, 0])
    assert load_image(saved(image, tmp_path / "p.png", transparency=0)).tolist() == [[[255] * 3]]


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    path = saved(Image.new("RGB", (20, 10)), tmp_path / "turned.jpg", exif=exif)
    assert load_image(path).shape == (20, 10, 3)


def test_a_size_is_height_and_width(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (4, 4), RED), tmp_path / "i.png")
    assert load_image(path, size=(5, 7)).shape == (5, 7, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".gif"])
def test_a_file_cut_short_is_an_error_that_names_it(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = saved(Image.fromarray(noise), tmp_path / f"torn{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=rf"torn{suffix} cannot be read .* replace it"):
        load_image(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89PNG\r\n"])
def test_what_is_no_picture_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "not.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="cannot be read as an image"):
        load_image(path)


def test_what_is_no_file_is_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    for path in (tmp_path, tmp_path / "nowhere.png", tmp_path / "pipe"):
        with pytest.raises(ImageError, match="is missing"):
            load_image(path)


def test_more_pixels_than_allowed_are_refused_undecoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(Image.new("L", (40, 30)), tmp_path / "large.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 1199)
    with pytest.raises(ImageError, match="40x30 pixels, more than the 1199"):
        load_image(path)


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    path = saved(Image.new("1", (30_000, 30_000)), tmp_path / "bomb.png")
    with pytest.raises(ImageError, match=r"bomb\.png cannot be read .* decompression bomb"):
        load_image(path)
