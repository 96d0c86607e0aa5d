"""Protocols: every switch against formulas in float64, networks asked once, nothing mixed."""

import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from rich.console import Console

from piebench_masks.cli import CONF
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.errors import BenchmarkError
from piebench_masks.metrics.lpips import Lpips
from piebench_masks.pipeline import run_pipeline
from piebench_masks.regress import regress
from piebench_masks.run import Run
from piebench_masks.settings import typed
from piebench_masks.stages.edit import edit_folder
from piebench_masks.stages.parse import parse
from piebench_masks.stages.variants import Variants
from piebench_masks.weights import packaged

Start = Callable[..., Path]
SIDE = 64
TYPES = ("0", "1", "8", "9")
"""Edit types of the samples: random, object, background and style; the last one's mask is full."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four samples in PIE-Bench's form, and noisy edits of them."""
    root = tmp_path_factory.mktemp("protocols")
    write_shapes(root / "shapes", per_type=1)
    mapping = root / "shapes" / "mapping_file.json"
    entries = json.loads(mapping.read_text())
    entries = {name: entry for name, entry in entries.items() if name[0] in TYPES}
    mapping.write_text(json.dumps(entries))
    rng = np.random.default_rng(0)
    for entry in entries.values():
        pixels = picture(root, entry).astype(int) + rng.integers(-60, 60, (SIDE, SIDE, 3))
        file = root / "output" / "mine" / "annotation_images" / entry["image_path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
    return root


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Run with overrides: the folder of results."""

    def run(*overrides: str) -> Path:
        places = f"artifacts_dir={tmp_path}/artifacts", f"results_dir={tmp_path}/results"
        with initialize_config_dir(CONF, version_base="1.3"):
            cfg = compose("config", [*places, "tracker=none", *overrides])
        assert run_pipeline(cfg, cfg.stages, Console(file=io.StringIO())) == 0
        return tmp_path / "results" / str(cfg.name)

    return run


def external(data: Path) -> list[str]:
    return [
        "experiment=external",
        "dataset=shapes",
        f"dataset.root={data}/shapes",
        "dataset.load.border=1",
        "metrics=shapes",
        f"editor.external.root={data}/output",
    ]


def picture(root: Path, entry: dict[str, Any], folder: str = "shapes") -> Any:
    with Image.open(root / folder / "annotation_images" / entry["image_path"]) as image:
        return np.asarray(image.convert("RGB"))


def entries_of(data: Path) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = json.loads(
        (data / "shapes" / "mapping_file.json").read_text()
    )
    return entries


def annotated(entry: dict[str, Any]) -> Any:
    """The mask as the file has it, pixel by pixel."""
    mask = np.zeros(SIDE * SIDE, bool)
    for start, length in zip(entry["mask"][::2], entry["mask"][1::2], strict=True):
        for pixel in range(start, min(start + length, SIDE * SIDE)):
            mask[pixel] = True
    return mask.reshape(SIDE, SIDE)


def frame() -> Any:
    rows, columns = np.indices((SIDE, SIDE))
    return (rows % (SIDE - 1) == 0) | (columns % (SIDE - 1) == 0)


def box(mask: Any) -> Any:
    inner = mask & ~frame()
    found = np.zeros_like(mask)
    if inner.any():
        rows, columns = (sorted({int(i) for i in axis}) for axis in inner.nonzero())
        found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return found


PARTS: dict[str, Callable[[Any], Any]] = {
    "official": lambda mask: mask | frame(),
    "border_annotated": lambda mask: mask,
    "border_cleared": lambda mask: mask & ~frame(),
    "box": lambda mask: box(mask) | frame(),
}


def mse(one: Any, two: Any, part: Any) -> float:
    if not part.any():
        return float("nan")
    difference = (one / 255 - two / 255) * part[..., None]
    return float((difference**2).mean())


def scores_of(results: Path, protocol: str, column: str, editor: str = "mine") -> Any:
    rows = pd.read_parquet(results / "protocol_scores.parquet")
    rows = rows[(rows["protocol"] == protocol) & (rows["editor"] == editor)]
    return rows.set_index("sample")[column]


def test_every_part_is_that_of_a_second_formula(start: Start, data: Path) -> None:
    results = start(*external(data), f"protocol=[{','.join(PARTS)},undefined_zero]")
    for name, part in PARTS.items():
        for suffix, turn in (("_unedit_part", np.logical_not), ("_edit_part", lambda mask: mask)):
            found = scores_of(results, name, f"mse{suffix}")
            assert set(found.index) == set(entries_of(data))
            for sample, entry in entries_of(data).items():
                pictures = picture(data, entry), picture(data, entry, "output/mine")
                wanted = mse(*pictures, turn(part(annotated(entry))))
                assert found[sample] == pytest.approx(wanted, rel=1e-6, nan_ok=True)
    left_out, zero = (
        scores_of(results, name, "mse_unedit_part") for name in ("official", "undefined_zero")
    )
    assert left_out.isna().sum() == 2 and (zero[left_out.isna()] == 0).all()
    pd.testing.assert_series_equal(zero[left_out.notna()], left_out.dropna())


def test_the_tables_are_of_the_first_protocol_and_say_which(start: Start, data: Path) -> None:
    both = start(*external(data), "protocol=[box,official]", "name=both")
    one = start(*external(data), "protocol=box", "name=one")
    for stem in ("editing.csv", "editing.md"):
        assert (both / "tables" / stem).read_text() == (one / "tables" / stem).read_text()
    scores = pd.read_parquet(one / "edit_scores.parquet")
    assert set(scores["protocol"]) == {"box"} and scores["protocol_digest"].nunique() == 1
    assert (
        f"Protocol: box ({scores['protocol_digest'][0]}; part box)."
        in (one / "tables" / "editing.md").read_text()
    )
    assert not (one / "protocol_scores.parquet").exists()
    table = pd.read_csv(both / "tables" / "protocols.csv")
    assert set(table["protocol"]) == {"box", "official"}
    assert table[["score", "edit"]].notna().all(axis=None)  # shown once, written in every row
    rows = table[(table["metric"] == "mse_unedit_part")].set_index("protocol")
    found = {name: scores_of(both, name, "mse_unedit_part") for name in ("box", "official")}
    change = found["official"].mean() - found["box"].mean()
    assert rows.loc["official", "difference"] == pytest.approx(1e4 * change)
    low, high = rows.loc["official", ["difference_low", "difference_high"]]
    assert low <= rows.loc["official", "difference"] <= high


def test_types_and_sizes_of_a_protocol(start: Start, data: Path) -> None:
    results = start(
        *external(data),
        "protocol=[official,without_random,size_1024,own_size]",
        "protocol.size_1024.size=96",
    )
    kept = scores_of(results, "without_random", "mse").index
    assert {sample[0] for sample in kept} == {*TYPES} - {"0"}
    for name, side in (("size_1024", 96), ("own_size", SIDE)):
        found = scores_of(results, name, "mse_unedit_part")
        for sample, entry in entries_of(data).items():
            part = PARTS["official"](annotated(entry))
            sized = (
                np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
                for image in (picture(data, entry), picture(data, entry, "output/mine"))
            )
            grid = [(2 * place + 1) * SIDE // (2 * side) for place in range(side)]
            wanted = mse(*sized, ~part[grid][:, grid])
            assert found[sample] == pytest.approx(wanted, rel=1e-6, nan_ok=True)


def test_brackets_reach_clip_as_the_file_has_them(start: Start, data: Path) -> None:
    results = start(*external(data), "protocol=[official,brackets_kept]")
    folder = f"local-dir:{packaged('clip_shapes')}"
    model, preprocess = open_clip.create_model_from_pretrained(folder)
    model, tokenizer = model.double().eval(), open_clip.get_tokenizer(folder)
    for name, change in (("official", str.maketrans("", "", "[]")), ("brackets_kept", {})):
        found = scores_of(results, name, "clip_shapes_whole")
        for sample, entry in entries_of(data).items():
            pixels = preprocess(Image.fromarray(picture(data, entry, "output/mine")))
            tokens = tokenizer([entry["editing_prompt"].translate(change)])
            with torch.no_grad():
                image = model.encode_image(pixels[None].double())
                text = model.encode_text(tokens)
            cosine = torch.nn.functional.cosine_similarity(image, text).item()
            assert found[sample] == pytest.approx(100 * max(cosine, 0), abs=1e-3)


def test_the_part_may_be_the_editors_own_mask(start: Start, data: Path, tmp_path: Path) -> None:
    settings = ["mask=[ours]", "limit=2", "thresholds=3", "metrics=shapes"]
    settings += [f"dataset.root={data}/shapes", f"artifacts_dir={tmp_path}/artifacts"]
    results = start(*settings, "protocol=[official,editor_mask]")
    rows = pd.read_parquet(results / "protocol_scores.parquet")
    rows = rows[(rows["protocol"] == "editor_mask") & (rows["editor"] == "turbo_edit")]
    with initialize_config_dir(CONF, version_base="1.3"):
        run = Run(compose("config", settings))
    samples = parse(run, Console(quiet=True)).samples
    sources = {sample.id: picture(data, entries_of(data)[sample.id]) for sample in samples}
    variants = {(s.id, v.name): v for s in samples for v in Variants(run).of(s, "turbo_edit")}
    assert len(rows) > 10
    for row in rows.to_dict("records"):
        mask = variants[row["sample"], row["mask"]].mask
        assert mask is not None
        part = mask.array(run.sizes[1]).repeat(4, axis=0).repeat(4, axis=1)
        [file] = edit_folder(run, "turbo_edit").path.glob(f"{row['sample']}-*/{row['mask']}.png")
        with Image.open(file) as image:
            wanted = mse(sources[row["sample"]], np.asarray(image), ~part)
        assert row["mse_unedit_part"] == pytest.approx(wanted, rel=1e-6, nan_ok=True)


def test_networks_see_every_distinct_input_once(
    start: Start, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    features = Lpips._features

    def counted(self: Lpips, images: torch.Tensor, masks: torch.Tensor) -> Any:
        seen.extend(mask.numpy().tobytes() for mask in masks)
        return features(self, images, masks)

    monkeypatch.setattr(Lpips, "_features", counted)
    again = ["+metrics.lpips.rows=1", "overwrite=always"]
    one = start(*external(data), *again, "protocol=official", "name=one")
    alone = Counter(seen)
    seen.clear()
    more = ["undefined_zero", "brackets_kept", "without_random", "own_size"]
    many = start(*external(data), *again, f"protocol=[official,{','.join(more)}]", "name=many")
    assert Counter(seen) == alone
    seen.clear()
    start(*external(data), *again, "protocol=[official,border_cleared]")
    # Of the other border there are new parts; the pictures as a whole are not taken again.
    whole = np.ones((SIDE, SIDE), bool).tobytes()
    assert Counter(seen)[whole] == alone[whole] and len(seen) > alone.total()
    assert all(Counter(seen)[part] == count for part, count in alone.items())
    for stem in ("editing.csv", "editing.md"):
        assert (one / "tables" / stem).read_text() == (many / "tables" / stem).read_text()


def test_a_protocol_can_change_a_metrics_settings(start: Start, data: Path) -> None:
    results = start(
        *external(data),
        "protocol=[official,undefined_zero]",
        "protocol.undefined_zero.metrics={clip: {name: other}, lpips: {weighted: false}}",
    )
    whole = scores_of(results, "official", "clip_shapes_whole")
    np.testing.assert_array_equal(scores_of(results, "undefined_zero", "other_whole"), whole)
    assert scores_of(results, "official", "other_whole").isna().all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["protocol.official.border=none"], "protocol.border is 'none'"),
        (["protocol.official.edit_types=[Nonsense]"], "has 'Nonsense', which the data set has not"),
        (["protocol.official.metrics={lpips: {nett: alex}}"], "nett"),
        (["protocol.official.metrics={lpips: {net: resnet}}"], "resnet"),
        (["protocol.official.size=1"], "protocol.size is 1"),
    ],
)
def test_what_is_wrong_with_a_protocol_is_said(
    start: Start, data: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(BenchmarkError, match=message):
        start(*external(data), *overrides)


def test_a_baseline_of_another_protocol_is_refused(
    start: Start, data: Path, tmp_path: Path
) -> None:
    def compared(*overrides: str) -> int:
        places = f"artifacts_dir={tmp_path}/artifacts", f"results_dir={tmp_path}/results"
        settings = [*external(data), "tracker=none", "stages=[parse,score]", *overrides]
        with initialize_config_dir(CONF, version_base="1.3"):
            return regress(typed(compose("config", [*places, *settings])), Console(quiet=True))

    assert compared("baseline=update") == 0
    baseline = f"baseline={tmp_path}/results/baselines/external.parquet"
    assert compared(baseline) == 0
    with pytest.raises(
        BenchmarkError, match=r"protocol official, this run under box \(part 'mask' then, 'box'"
    ):
        compared(baseline, "protocol=box")
    with pytest.raises(BenchmarkError, match="another lpips"):
        compared(baseline, "metrics.lpips.name=lpips_other")
