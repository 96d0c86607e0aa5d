"""Every kind of picture a benchmark folder may hold comes out as the RGB that a viewer shows."""

import os
import struct
import tracemalloc
import zlib
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


UPRIGHT = np.arange(2 * 3, dtype=np.uint8).reshape(2, 3)[..., None].repeat(3, axis=-1)
STORED = {  # what a camera stores under each EXIF orientation
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: np.rot90(UPRIGHT, 1),
    7: UPRIGHT[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(UPRIGHT, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_the_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    np.testing.assert_array_equal(
        load_image(saved(stored, tmp_path / "turned.png", exif=exif)), UPRIGHT
    )


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_is_none_is_left_alone(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(Image.fromarray(UPRIGHT), tmp_path / "odd.png", exif=exif)
    np.testing.assert_array_equal(load_image(path), UPRIGHT)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tif"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, suffix: str) -> None:
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8))
    path = tmp_path / f"moving{suffix}"
    first.save(path, save_all=True, append_images=[second], lossless=True)
    assert (load_image(path) == RED).all()


def test_webp_and_one_pixel_are_images(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (1, 1), RED), tmp_path / "dot.webp", lossless=True)
    assert load_image(path).tolist() == [[list(RED)]]


def test_grey_with_alpha_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("LA", (2, 1), (100, 255))
    image.putpixel((1, 0), (100, 0))
    found = load_image(saved(image, tmp_path / "la.png"))
    assert found.tolist() == [[[100] * 3, [255] * 3]]


def test_the_alpha_of_a_palette_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((1, 0), 1)
    path = saved(image, tmp_path / "p.png", transparency=bytes([51, 255]))
    assert load_image(path).tolist() == [[[204] * 3, list(RED)]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_without_a_range_are_refused(tmp_path: Path, mode: str) -> None:
    path = saved(Image.new(mode, (2, 2), 7), tmp_path / "deep.tif")
    with pytest.raises(ImageError, match=f"mode {mode} has no fixed range"):
        load_image(path)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises pixels that are not there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


@pytest.mark.parametrize("side", [9_000, 60_000, 2**31 - 1])
def test_a_header_that_promises_too_much_is_refused_before_memory_is_taken(
    tmp_path: Path, side: int
) -> None:
    (tmp_path / "bomb.png").write_bytes(png_of_size(side, side))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=r"bomb\.png .*(more than the|decompression bomb)"):
            load_image(tmp_path / "bomb.png")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_text_called_jpg_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "note.jpg").write_text("not a picture")
    with pytest.raises(ImageError, match=r"note\.jpg cannot be read .* replace it by an intact"):
        load_image(tmp_path / "note.jpg")


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
