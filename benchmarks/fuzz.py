"""Hostile and sloppy input: every case ends in a parsed table or in one BenchmarkError.

``python benchmarks/fuzz.py [target ...] [--share 1.0]`` prints a table of cases, and exits with 1
after any crash. A case is made from its target's name and its number alone, by changing something
valid, so that ``--only 123`` brings a crash of case 123 back with its traceback.
"""

import argparse
import functools
import io
import itertools
import json
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from piebench_masks.cli import CONF, explained
from piebench_masks.data import table as samples_tables
from piebench_masks.data.entries import SAMPLE_ID, check_runs
from piebench_masks.data.folder import FIELDS, load_folder
from piebench_masks.data.images import ImageError, load_image
from piebench_masks.data.parsed import DataError
from piebench_masks.data.pie_bench import EDIT_TYPES, load_pie_bench
from piebench_masks.data.pie_bench_pp import unpack_pie_bench_pp
from piebench_masks.data.rle import decode_runs, encode_runs, from_coco, to_coco
from piebench_masks.data.sample import Sample
from piebench_masks.data.table import read_samples, samples_table
from piebench_masks.data.ti2i import load_ti2i
from piebench_masks.editing.external import external_methods, load_edit
from piebench_masks.errors import BenchmarkError
from piebench_masks.regress import checked_baseline
from piebench_masks.report.regression import compare, write_baseline
from piebench_masks.run import Run
from piebench_masks.settings import ExternalEdits

SIDE = 8
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 2**31, 2**63, -(2**70), 10**300),
    *(0.5, -0.0, 1e308, float("nan"), float("inf"), float("-inf")),
    *(
        "",
        " ",
        "0",
        "7",
        "-1",
        "nan",
        "null",
        "é",
        "\x00",
        "\ud800",
        "\x1b[31mred",
        "\u2028",
        "\r\n",
    ),
    *("../../outside.png", "/etc/passwd", "C:\\windows", "a\\b.png", "link.png", "loop.png", "."),
    *("x" * 300, "x/" * 3000, "<script>alert(1)</script>", "${x}", "${oc.env:HOME}", "???", "%s{}"),
    *([], {}, [[]], [0, 4], [0, 4.0], ["0", "4"], [3, -1], [2**70, 1], {"a": None}, [None, True]),
)
"""Values of every type that stand where others belong."""


def odd(draw: Random) -> Any:
    return (
        draw.choice(ODD) if draw.random() < 0.8 else [odd(draw) for _ in range(draw.randrange(4))]
    )


def changed(draw: Random, value: Any) -> Any:
    """The same JSON value with one thing in it replaced, left out, doubled or renamed."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        rest = {k: v for k, v in value.items() if k != key}
        ways = (
            {**value, key: changed(draw, value[key])},
            rest,
            {**rest, str(odd(draw)): value[key]},
        )
        return draw.choices(ways, (8, 1, 1))[0]
    if isinstance(value, list) and value and draw.random() < 0.9:
        place = draw.randrange(len(value))
        one = value[place]
        middle = draw.choice(([changed(draw, one)], [], [one, one]))
        return [*value[:place], *middle, *value[place + 1 :]]
    if isinstance(value, str) and value and draw.random() < 0.3:
        place = draw.randrange(len(value) + 1)
        return value[:place] + str(odd(draw)) + value[place:]
    return odd(draw)


def damaged(draw: Random, data: bytes) -> bytes:
    """The same bytes cut off, with some of them changed, left out or put in."""
    whole = bytearray(data)
    for _ in range(draw.randrange(1, 4)):
        place = draw.randrange(len(whole) + 1)
        if draw.random() < 0.2:
            del whole[place:]
        elif draw.random() < 0.3:
            del whole[place : place + draw.randrange(1, 40)]
        elif draw.random() < 0.3:
            whole[place:place] = draw.randbytes(draw.randrange(1, 40))
        elif place < len(whole):
            whole[place] ^= 1 << draw.randrange(8)
    return bytes(whole)


def written(draw: Random, value: Any) -> bytes:
    """JSON, now and then damaged."""
    data = json.dumps(value).encode()
    return damaged(draw, data) if draw.random() < 0.25 else data


# Data sets


def pictures(folder: Path) -> None:
    """Sound and unsound pictures, beside a link out of the folder."""
    folder.mkdir(parents=True)
    Image.new("RGB", (SIDE, SIDE), (1, 2, 3)).save(folder / "sound.png")
    Image.new("L", (SIDE, SIDE), 255).save(folder / "mask.png")
    Image.new("RGB", (SIDE, SIDE + 1)).save(folder / "tall.png")
    (folder / "torn.png").write_bytes((folder / "sound.png").read_bytes()[:40])
    Image.new("RGB", (SIDE, SIDE)).save(folder.parent.parent / "outside.png")
    (folder / "link.png").symlink_to(folder.parent.parent / "outside.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")


ENTRY = {
    "image_path": "sound.png",
    "original_prompt": "a [red] ball",
    "editing_prompt": "a [blue] ball",
    "editing_instruction": "Make it blue",
    "editing_type_id": "6",
    "blended_word": "ball ball",
    "mask": [0, 3, 60, 100],
    "target_image_path": "sound.png",
}


def sound(samples: list[Sample], images: Path) -> None:
    """What must be true of samples that were not refused."""
    for sample in samples:
        assert SAMPLE_ID.fullmatch(sample.id)
        for path in (sample.image_path, sample.target_image_path or sample.image_path):
            assert (images / path).resolve().is_relative_to(images.resolve())
            assert "\\" not in path
        if sample.mask is not None:
            assert from_coco(sample.mask).shape == load_image(images / sample.image_path).shape[:2]
    for sample_bytes in [samples_table(samples, EDIT_TYPES)]:
        assert len(sample_bytes)


def pie_bench(draw: Random, root: Path) -> None:
    """A mapping file of PIE-Bench v1."""
    images = root / "annotation_images"
    if not images.is_dir():
        pictures(images)
    mapping = changed(draw, {f"s{i}": ENTRY for i in range(draw.randrange(1, 3))})
    if draw.random() < 0.5:
        mapping = changed(draw, mapping)
    (root / "mapping_file.json").write_bytes(written(draw, mapping))
    on_error: Any = draw.choice(("raise", "skip"))
    sound(load_pie_bench(root, mask_size=SIDE, border=0, on_error=on_error).samples, images)


def ti2i(draw: Random, root: Path) -> None:
    """A mapping file of TI2I."""
    images = root / "annotation_images"
    if not images.is_dir():
        pictures(images)
    entry = {"image_path": "data/annotation_images/sound.png", "original_prompt": ""}
    mapping = changed(draw, {"s0": entry | {"editing_prompt": "a [blue] ball"}})
    (root / "mapping_file_ti2i_benchmark.json").write_bytes(written(draw, mapping))
    sound(load_ti2i(root, on_error=draw.choice(("raise", "skip"))).samples, images)


LINE = {
    "image": "sound.png",
    "source_prompt": "a red ball",
    "target_prompt": "a blue ball",
    "mask": "mask.png",
    "edit_type": "3",
    "id": "mine",
}


def folder(draw: Random, root: Path) -> None:
    """A user's list of prompts, CSV or JSON lines."""
    images = root / "own"
    if not images.is_dir():
        pictures(images)
    lines = [changed(draw, LINE) for _ in range(draw.randrange(1, 4))]
    if kind := draw.randrange(2):
        data = b"\n".join(written(draw, line) for line in lines)
    else:
        columns = draw.sample([*FIELDS, "id"], draw.randrange(4, len(FIELDS) + 2))
        rows = [columns, *([(dict(LINE) | line).get(c, "") for c in columns]
                           for line in lines if isinstance(line, dict))]  # fmt: skip
        cell = draw.choice(('"{}"', "{}")).format
        text = "\r\n".join(draw.choice(",,,;").join(cell(v) for v in row) for row in rows)
        data = text.encode(draw.choice(("utf-8", "utf-8-sig", "utf-16")), "surrogatepass")
        data = damaged(draw, data) if draw.random() < 0.25 else data
    name = ("prompts.csv", "prompts.jsonl")[kind]
    (images / name).write_bytes(data)
    on_error: Any = draw.choice(("raise", "skip"))
    sound(load_folder(images, prompts=name, on_error=on_error).samples, images)


PP = {
    "image": {"bytes": b"", "path": None},
    "id": "000000000001",
    "source_prompt": "a cat",
    "target_prompt": "a [dog]",
    "blended_words": "['cat,dog']",
    "mask": "0 4 32 300",
}


def pie_bench_pp(draw: Random, root: Path) -> None:
    """One Parquet file of PIE-Bench++ among nine sound ones."""
    source, bench = root / "hub", root / "bench"
    picture = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE)).save(picture, "PNG")
    row = PP | {"image": {"bytes": picture.getvalue(), "path": None}}
    for number in range(len(EDIT_TYPES)):
        file = source / f"{number}_type" / "V1-0.parquet"
        if number == 3 or not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist([row | {"id": f"{number:012d}"}]), file)
    file = source / "3_type" / "V1-0.parquet"
    rows = [row | {"id": "3"}, row | {"id": "4"}]
    with suppress(pa.ArrowException, ValueError, TypeError, OverflowError, AttributeError):
        key = draw.choice(list(row))
        value = odd(draw) if draw.random() < 0.8 else changed(draw, row[key])
        bad = [{**rows[0], key: value}, *([{**rows[1], key: value}] * draw.randrange(2))]
        if draw.random() < 0.2:
            bad = [{k: v for k, v in r.items() if k != key} for r in bad]
        pq.write_table(pa.Table.from_pylist(bad), file)
    if file.exists() and draw.random() < 0.3:
        file.write_bytes(damaged(draw, file.read_bytes()))
    for old in bench.rglob("*"):
        if old.is_file():
            old.unlink()
    if bench.exists():
        bench.rename(root / f"old-{time.time_ns()}")
    unpack_pie_bench_pp(bench, source=source)
    assert {p.name for p in root.iterdir() if not p.name.startswith("old-")} == {"hub", "bench"}
    on_error: Any = draw.choice(("raise", "skip"))
    parsed = load_pie_bench(bench, mask_size=SIDE, border=1, on_error=on_error)
    sound(parsed.samples, bench / "annotation_images")


def run_lengths(draw: Random, root: Path) -> None:
    """A row-major run list."""
    height, width = draw.randrange(1, 9), draw.randrange(1, 9)
    mask = np.array([[draw.random() < 0.5 for _ in range(width)] for _ in range(height)])
    runs: Any = encode_runs(mask)
    if draw.random() < 0.3:
        runs = [draw.choice((0, 1, 5, 2**31, 2**64, -1)) for _ in range(draw.randrange(7))]
    elif draw.random() < 0.8:
        runs = changed(draw, runs)
    if problem := check_runs(runs, height, width):
        raise DataError(problem)
    decoded = decode_runs(runs, height, width)
    slow = np.zeros(height * width, bool)
    for start, length in (
        itertools.batched(runs, 2)
        if hasattr(itertools, "batched")
        else zip(runs[::2], runs[1::2], strict=True)
    ):
        slow[start : start + length] = True
    assert np.array_equal(decoded.ravel(), slow)
    assert np.array_equal(from_coco(to_coco(decoded)), decoded)


def image_files(draw: Random, root: Path) -> None:
    """A damaged picture of any format and mode."""
    mode = draw.choice(("RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "I;16"))
    suffix = draw.choice(("png", "jpg", "gif", "webp", "bmp", "tif", "ppm"))
    noise = np.frombuffer(draw.randbytes(12 * 9 * 3), np.uint8).reshape(12, 9, 3)
    image = Image.fromarray(noise)
    image = (
        Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
        if mode == "I;16"
        else image.convert(mode)
    )
    exif = Image.Exif()
    exif[0x0112] = draw.randrange(10)
    whole = io.BytesIO()
    try:
        image.save(whole, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()), exif=exif)
    except (OSError, TypeError, ValueError):  # this format has no such mode, or no EXIF
        Image.fromarray(noise).save(whole := io.BytesIO(), "PNG")
    path = root / f"picture.{draw.choice((suffix, 'png', 'jpg'))}"
    path.write_bytes(damaged(draw, whole.getvalue()) if draw.random() < 0.9 else whole.getvalue())
    pixels = load_image(path, draw.choice((None, (4, 5))))
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size


def edits_elsewhere(draw: Random, root: Path) -> None:
    """Folders and pictures of edits that others made."""
    place = root / "output" / "mine" / "annotation_images"
    place.mkdir(parents=True, exist_ok=True)
    (root / "output" / "theirs").mkdir(exist_ok=True)
    methods = changed(draw, {"mine": "none", "theirs": "oracle"})
    ExternalEdits(root=str(root), methods=methods)  # as is checked before anything is looked for
    external_methods(root / "output", methods)
    strip = Image.new("RGB", (draw.choice((1, SIDE, 4 * SIDE)), draw.choice((1, SIDE))))
    strip.save(place / "edit.png")
    if draw.random() < 0.5:
        (place / "edit.png").write_bytes(damaged(draw, (place / "edit.png").read_bytes()))
    edit = load_edit(place / "edit.png", (SIDE, SIDE, 3))
    assert edit.ndim == 3 and edit.shape[0] == edit.shape[1]


# What the program itself has written


def parsed_table(draw: Random, root: Path) -> None:
    """The parsed table of samples, damaged or made by somebody else."""
    mask = to_coco(np.eye(SIDE, dtype=bool))
    genuine = [
        Sample(f"s{i}", "a/b.png", "a", "b", "", EDIT_TYPES[i], "", mask, None, f"{i:064x}")
        for i in range(3)
    ]
    rows = [{name: asdict(one)[name] for name in samples_tables.SCHEMA.names} for one in genuine]
    path = root / "samples.parquet"
    path.write_bytes(samples_table(genuine, EDIT_TYPES))
    forged = draw.random() < 0.7
    if forged:
        rows = [changed(draw, rows[0]), *rows[1:]] if draw.random() < 0.8 else changed(draw, rows)
        try:
            schema = samples_tables.SCHEMA
            checksum = samples_tables._checksum(rows, EDIT_TYPES)
            metadata = {"sha256": checksum, "edit_types": json.dumps(EDIT_TYPES)}
            made = pa.Table.from_pylist(rows, draw.choice((schema, None)))
            pq.write_table(made.replace_schema_metadata(metadata), path)
        except (pa.ArrowException, ValueError, TypeError, OverflowError, AttributeError) as error:
            raise BenchmarkError("not even Parquet can hold that") from error
    if draw.random() < 0.3 or not forged:
        path.write_bytes(damaged(draw, path.read_bytes()))
    for sample, own in zip(read_samples(path)[0], genuine, strict=False):
        assert forged or sample == own
        assert SAMPLE_ID.fullmatch(sample.id) and ".." not in sample.image_path.split("/")
        assert sample.edit_type in EDIT_TYPES


def baseline(draw: Random, root: Path) -> None:
    """A baseline's file for ``piebench-masks regress``."""
    watched = itertools.product(("ours: Dice ↑", "b: LPIPS"), range(4))
    now = pd.DataFrame(
        [(series, f"s{i}", EDIT_TYPES[i], 0.5 + i / 99, -1.0, 5e-4) for series, i in watched],
        columns=["series", "sample", "edit_type", "value", "worse", "shown"],
    )
    path = root / "baseline.parquet"
    rows: Any = now.to_dict("records")
    for _ in range(draw.randrange(3)):
        rows = changed(draw, rows)
    how = {"commit": "abc"} if draw.random() < 0.8 else changed(draw, {"commit": "abc"})
    try:
        write_baseline(path, pd.DataFrame(rows), how)
    except Exception:  # no Parquet file can hold that
        write_baseline(path, now, how)
        path.write_bytes(damaged(draw, path.read_bytes()))
    if draw.random() < 0.2:
        path.write_bytes(damaged(draw, path.read_bytes()))
    before, provenance = checked_baseline(path)
    types = pd.CategoricalDtype(list(EDIT_TYPES), ordered=True)
    compare(before, now.astype({"edit_type": types}), provenance).to_markdown()


# Settings


def config(draw: Random, root: Path) -> None:
    """One or two settings, composed and checked as the command does."""
    names = settings()
    overrides = [f"results_dir={root}", f"data_dir={root}", f"artifacts_dir={root}"]
    for _ in range(draw.randrange(1, 3)):
        sign = draw.choices(("", "+", "++", "~"), (12, 1, 2, 1))[0]
        name = draw.choice(names) if draw.random() < 0.95 else f"{draw.choice(names)}{odd(draw)}"
        overrides.append(f"{sign}{name}={override_text(draw)}")
    try:
        with initialize_config_dir(CONF, version_base="1.3"):
            cfg = compose("config", overrides)
    except Exception as error:  # Hydra's own; the command says one line instead
        assert "\n" not in explained(error).strip()
        raise BenchmarkError(explained(error)) from error
    try:
        run = Run(cfg)
        assert run.methods is not None and run.editors is not None
    finally:
        torch.set_num_threads(1)


def override_text(draw: Random) -> str:
    value = odd(draw)
    if isinstance(value, str) and draw.random() < 0.5:
        return value
    return json.dumps(value).replace('"', draw.choice(('"', "'"))).replace("NaN", "nan")


@functools.cache
def settings() -> list[str]:
    """The dotted names of all settings and groups, of every dataset, editor and search too."""
    found: list[str] = []
    for more in ((), ("dataset=folder", "editor=[turbo_edit,external]", "hparams_search=optuna")):
        with initialize_config_dir(CONF, version_base="1.3"):
            found += leaves(OmegaConf.to_container(compose("config", list(more))))
    return found


def leaves(node: Any, start: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{start}{key}"
        if isinstance(value, dict):
            yield from leaves(value, f"{start}{key}.")


class Target(NamedTuple):
    """What is fuzzed, in how many cases of a full run and of the tests' run."""

    run: Callable[[Random, Path], None]
    cases: int
    tested: int


TARGETS = {
    target.run.__name__: target
    for target in (
        Target(pie_bench, 4000, 80),
        Target(ti2i, 1500, 40),
        Target(folder, 3500, 80),
        Target(pie_bench_pp, 1000, 20),
        Target(run_lengths, 5000, 120),
        Target(image_files, 3000, 60),
        Target(edits_elsewhere, 1000, 30),
        Target(parsed_table, 1500, 30),
        Target(baseline, 1000, 20),
        Target(config, 1000, 60),
    )
}


def outcome(name: str, number: int, folder: Path) -> str:
    """``parsed`` or ``refused``; raises whatever a crash raises."""
    try:
        TARGETS[name].run(Random(f"{name}/{number}"), folder)
    except BenchmarkError as error:
        str(error).encode()  # can be printed
        if not isinstance(error, ImageError) and not str(error).strip():
            raise AssertionError("an error without words") from error
        return "refused"
    return "parsed"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("targets", nargs="*", choices=[*TARGETS, []])
    arguments.add_argument("--share", type=float, default=1.0, help="of the cases of a full run")
    arguments.add_argument("--only", type=int, help="this case alone")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    crashes = total = 0
    print(f"{'target':<16}{'cases':>7}{'parsed':>8}{'refused':>9}{'crashes':>9}{'seconds':>9}")
    for name in given.targets or TARGETS:
        counts: Counter[str] = Counter()
        started = time.monotonic()
        numbers = range(max(1, int(TARGETS[name].cases * given.share)))
        with tempfile.TemporaryDirectory() as place:
            root = Path(place) / name
            root.mkdir()
            for number in [given.only] if given.only is not None else numbers:
                try:
                    counts[outcome(name, number, root)] += 1
                except Exception:
                    counts["crashed"] += 1
                    print(f"{name} {number}:\n{traceback.format_exc()}", file=sys.stderr)
        seconds = time.monotonic() - started
        row = counts.total(), counts["parsed"], counts["refused"], counts["crashed"]
        print("{:<16}{:>7}{:>8}{:>9}{:>9}{:>9.0f}".format(name, *row, seconds), flush=True)
        crashes, total = crashes + counts["crashed"], total + counts.total()
    print(f"{total} cases, {crashes} crashes")
    return int(crashes > 0)


if __name__ == "__main__":
    sys.exit(main())
