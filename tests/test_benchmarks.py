"""The benchmarks' reference flow computes what the package computes, and the scripts run.

Nothing here looks at a clock.
"""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from rich.console import Console

from piebench_masks.data.images import load_image
from piebench_masks.data.sample import Sample
from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.attention import AttentionControl, Layer, Projections
from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.diffusion.unet import parts
from piebench_masks.editing.turbo_edit import edited, invert
from piebench_masks.masks import METHODS, MapMethod
from piebench_masks.masks.diffedit import DiffEdit
from piebench_masks.masks.ours import Ours
from piebench_masks.masks.postprocess import Propagate
from piebench_masks.masks.rows import Answers
from piebench_masks.masks.soft_maps import needs_model
from piebench_masks.report.published import published
from piebench_masks.run import Run
from piebench_masks.stages.edit import edit_folder, edit_name
from piebench_masks.stages.maps import read_map
from piebench_masks.stages.parse import parse
from piebench_masks.stages.scores import edit_scores, mask_scores
from piebench_masks.stages.variants import Variant, Variants

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
THRESHOLDS = 3
SAMPLE = "100000000000"
"""One whose object changes, so that it has a part to edit and a background."""
TIE = 1e-4
"""Pixels this near to a cut may lie on either side of it."""
EDITING = {
    "clip_whole": "clip_shapes_whole",
    "clip_edited": "clip_shapes_edited",
    "clip_source": "clip_shapes_source",
    "psnr": "psnr_unedit_part",
    "mse": "mse_unedit_part",
    "ssim": "ssim_unedit_part",
    "lpips": "lpips_shapes_unedit_part",
}
"""The reference's editing scores and the package's columns of them."""


class Both(NamedTuple):
    """One shapes sample through both flows, and what they left behind."""

    reference: Any
    reference_measured: Any
    run: Run
    project_measured: Any
    sample: Sample

    @property
    def entry(self) -> Any:
        return self.reference.samples[0]

    def full_map(self, method: str) -> torch.Tensor:
        return torch.from_numpy(np.load(self.reference.map_file(self.entry, method)))

    def masked(self) -> list[Variant]:
        return [
            v
            for v in Variants(self.run).of(self.sample, "turbo_edit")
            if v.method in self.reference.cuts
        ]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("flows")
    (made := folder / "reference").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)  # scripts beside each other, no package
        cpu, flows, reference_flow, reference_run = map(
            importlib.import_module, ("cpu", "flows", "reference_flow", "reference_run")
        )
        place = cpu.shapes(folder / "data", 64)
        keep_only(place.data, SAMPLE)
        setting = flows.Setting(samples=1, thresholds=THRESHOLDS)
        reference = reference_run.ReferenceRun(
            reference_flow.ReferenceFlow.load(place.model),
            flows.reference_scorers(place),
            reference_flow.entries(place.data, 1),
            setting.cuts(),
            place.size,
            place.border,
            made,
        )
        reference_measured = flows.measured_reference(reference, setting.phases)
        run = Run(flows.configuration(place, setting, folder))
        project_measured = flows.measured_project(place, run, setting)
        (sample,) = parse(run, Console(quiet=True)).samples
        yield Both(reference, reference_measured, run, project_measured, sample)


def keep_only(data: Path, sample_id: str) -> None:
    mapping = data / "mapping_file.json"
    mapping.write_text(json.dumps({sample_id: json.loads(mapping.read_text())[sample_id]}))


def test_the_reference_asks_for_everything_again(both: Both) -> None:
    variants = 3 * THRESHOLDS
    assert both.reference_measured.counts == {
        "maps": {"vae_encodes": 3, "prompt_encodes": 5, "unet_rows": 5},
        "edits": {
            "vae_encodes": variants,
            "prompt_encodes": 3 * variants,
            "unet_rows": 12 * variants,
            "vae_decodes": 3 * variants,
        },
        "segmentation scores": {},
        "editing scores": {},
    }


def test_the_package_asks_for_what_differs(both: Both) -> None:
    counts = both.project_measured.counts
    variants = Variants(both.run).of(both.sample, "turbo_edit")
    masks = {v.name: v.mask.array(16) for v in variants if v.mask}
    painted = sum(mask.any() for mask in masks.values())
    assert counts["maps"]["unet_rows"] == 3
    assert counts["edits"]["unet_rows"] == 5 + 6 * painted + (len(masks) - painted)
    assert counts["edits"]["vae_decodes"] == len(masks)
    assert sum(phase.get("vae_encodes", 0) for phase in counts.values()) == 1


def test_maps(both: Both) -> None:
    for method in both.reference.cuts:
        found = read_map(both.run, method, both.sample)
        expected = both.reference.flow.soft_map(both.entry, method)
        assert expected.std() > 1e-3
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_latents_and_pictures(both: Both) -> None:
    run, masked, backbone = both.run, both.masked(), both.run.backbone
    source = load_image(both.entry.image, (backbone.image_size, backbone.image_size))
    texts = both.sample.source_prompt, both.sample.target_prompt
    prompts = [backbone.encode_prompts([text]) for text in texts]
    x0 = backbone.encode_images(torch.from_numpy(source)[None]).mean
    masks = torch.from_numpy(np.stack([v.mask.array(16) for v in masked if v.mask]))
    owner = torch.zeros(len(masked), dtype=torch.long)
    inversion = invert(backbone, x0, *prompts, steps=4, seed=8128)
    *_, latents = edited(backbone, inversion, *prompts, masks, owner, steps=4, w=1.5)
    assert len(masked) == 3 * THRESHOLDS
    for variant, found in zip(masked, latents, strict=True):
        method, threshold = variant.method, variant.threshold
        full_map = both.full_map(method)
        expected = both.reference.flow.edit(both.entry, full_map, method, threshold)[2]
        torch.testing.assert_close(found, expected, atol=5e-4, rtol=0)
        name = edit_name(run, "turbo_edit", both.sample, variant.name)
        picture = edit_folder(run, "turbo_edit").read_image(name)
        assert picture is not None
        with Image.open(both.reference.edit_file(both.entry, method, threshold)) as image:
            assert np.abs(np.asarray(image, dtype=int) - picture).max() <= 1


def test_segmentation_scores(both: Both) -> None:
    written = json.loads((both.reference.folder / "segmentation.json").read_text())
    found = mask_scores(both.run, [both.sample]).set_index(["method", "threshold"])
    assert len(found) == len(written) == 3 * THRESHOLDS
    compared = 0
    for _, method, threshold in both.reference.variants():
        full_map = both.full_map(method)
        cut = threshold if method != "noise_based" else threshold * full_map.mean() / 2
        if (full_map - cut).abs().min() < TIE:
            continue
        compared += 1
        name = both.reference.edit_file(both.entry, method, threshold).stem
        expected = pd.Series(written[name])
        ours = found.loc[(method, threshold), list(expected.index)].astype(float)
        np.testing.assert_allclose(ours, expected, rtol=1e-6)
    assert compared >= THRESHOLDS


def test_editing_scores(both: Both) -> None:
    written = json.loads((both.reference.folder / "editing.json").read_text())
    found = edit_scores(both.run, [both.sample]).set_index(["method", "threshold"])
    for _, method, threshold in both.reference.variants():
        name = both.reference.edit_file(both.entry, method, threshold).stem
        ours = found.loc[(method, threshold), list(EDITING.values())].astype(float)
        expected = [written[name][column] for column in EDITING]
        # The pictures may differ by one level in a few pixels.
        np.testing.assert_allclose(ours, expected, rtol=2e-3)


COMPARED = "| What | Reference's flow | Ours | Ratio | To reach |"


def run_script(name: str, *options: str, output: Path, columns: str = COMPARED) -> dict[str, Any]:
    """What a script prints must be tables; returns the JSON that it writes."""
    command = [sys.executable, str(BENCHMARKS / name), *options, "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert columns in done.stdout
    written = json.loads(output.read_text())
    assert {"date", "commit", "command", "machine", "cpu", "cores", "versions"} <= set(
        written["about"]
    )
    return written


@pytest.mark.slow
def test_the_cpu_script(tmp_path: Path) -> None:
    written = run_script("cpu.py", "--quick", "--markdown", output=tmp_path / "cpu.json")
    lines = {line["what"]: line for sheet in written["figures"].values() for line in sheet}
    compared = {
        *("U-Net rows, maps", "U-Net rows, edits"),
        *("VAE encodes", "VAE decodes", "prompt encodes"),
        *("maps", "edits", "editing scores", "whole pipeline"),
        *("segmentation scores, 64x64", "segmentation scores, 512x512"),
        *("nothing cached", "the same again, all cached", "peak memory"),
        *(f"samples 1, thresholds 1, methods {methods}" for methods in (1, 3)),
    }
    assert all(lines[what]["ratio"] > 0 for what in compared)
    assert lines["from the shell: start, loading and report as well"]["ours"] > 0
    assert {"whole", "repeated", "paper size"} <= set(written["raw"])


CHANGED_SCENE = Scene(
    "one", torch.zeros(64, 64, 3, dtype=torch.uint8), "a red circle on grass", "a blue circle"
)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("counted")


@pytest.fixture
def without_values(tiny_folder: Path) -> Any:
    config = UNet2DConditionModel.load_config(tiny_folder / "unet")
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(config)


RECORDED = {
    "changed words": Ours(),
    "every head": METHODS["attn_multi"],
    "both kinds": METHODS["casa"],
    "propagated": DiffEdit(draws=2, post=(Propagate(),)),
}


@pytest.mark.parametrize("method", RECORDED.values(), ids=RECORDED)
def test_what_is_counted_is_what_is_recorded(
    method: MapMethod, counting: Any, without_values: Any, tiny: Backbone
) -> None:
    scenes = [CHANGED_SCENE, replace(CHANGED_SCENE, id="two", target_prompt="a big red circle")]
    found = counting.counted(without_values, tiny, scenes, [method], rows=2, map_size=16)
    cells = counting.planned(tiny, scenes, method)
    flat = torch.zeros(2, 4, 16, 16)
    seeded = {"sample_mode": "argmax", "seed": 0, "noise_dtype": torch.float32}
    answers = Answers(tiny, Posterior(flat, flat), cells, **seeded)
    arrays = [
        array
        for cell in cells
        for name in cell.tracks
        for array in by_grid(answers.recordings([cell])[cell.condition, cell.level].arrays[name])
    ]
    assert found.rows == len(answers)
    assert found.kept == sum(array.nbytes for array in arrays) > 0


def by_grid(recorded: Any) -> list[torch.Tensor]:
    return list(recorded.values()) if isinstance(recorded, dict) else [recorded]


def test_self_attention_is_reduced_row_by_row(
    counting: Any, without_values: Any, tiny: Backbone
) -> None:
    method = RECORDED["propagated"]
    found = counting.counted(without_values, tiny, [CHANGED_SCENE], [method], rows=4, map_size=16)
    ((heads,),) = {(layer.heads,) for layer in finest_self_attention(without_values)}
    one_row = 4 * heads * 256 * 256
    assert found.self_attention_rows == 1
    assert found.attention == 3 * one_row  # scores, scaled scores and their softmax
    assert found.of_block == 4 * one_row
    assert found.row_kept == found.kept == 4 * 256 * 256


def test_a_whole_block_of_attention_would_be_counted(counting: Any, without_values: Any) -> None:
    class Whole(AttentionControl):
        def attend(self, layer: Layer, projections: Projections) -> None:
            projections.probabilities.mean(dim=1)

    attention = finest_self_attention(without_values)[0]
    hidden = torch.empty(4, 256, attention.to_q.in_features, device="meta")
    held, layer = counting.Held(), Layer(0, "self", 16, "down")
    found = counting.recorded_layer(held, Whole(), layer, attention, hidden, None)
    assert found.attention_rows == 4


def finest_self_attention(unet: Any) -> list[Any]:
    return [
        unet.get_submodule(name.removesuffix(".processor"))
        for name, layer in parts(unet)[0].items()
        if layer.grid == 16 and not layer.is_cross
    ]


@pytest.mark.slow
def test_the_methods_script(tmp_path: Path) -> None:
    columns = "| What | First edition's four | All | Ratio | At most |"
    options = "--quick", "--markdown"
    written = run_script("methods.py", *options, output=tmp_path / "methods.json", columns=columns)
    together, alone, memory, held = written["figures"].values()
    assert [line["what"] for line in together] == ["U-Net rows a sample", "seconds a sample"]
    assert [together[0][side] for side in ("four", "all")] == [21, 25]
    assert together[1]["ratio"] > 0
    asking = {name for name, method in METHODS.items() if needs_model({name: method})}
    assert {line["method"] for line in alone} == asking | {"ours_self", "diffedit_self"}
    assert len(memory) == 2 + len(alone)
    assert held[0]["held"] == 1
    layers = {
        (layer["kind"], layer["grid"]): (layer["layers"], layer["heads"])
        for layer in written["raw"]["model"]["layers"]
    }
    sizes = {32: (10, 10), 16: (60, 20)}  # SDXL's
    assert layers == {(kind, g): sizes[g] for kind in ("cross", "self") for g in sizes}


PUBLISHED_ROWS = {
    "ddim+p2p": 450,
    "negative-prompt-inversion+p2p": 350,
    "directinversion+p2p": 650,
    "ddim+masactrl": 400,
    "directinversion+pnp": 250,
    "ddim+pix2pix-zero": 350,
    "edit-friendly-inversion+p2p": 328,
    "edict+direct_forward": 720,
    "blended-latent-diffusion": 76,
}
"""Of the published code's 50 steps."""


def test_the_published_editors_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    counted = importlib.import_module("editor_rows").REFERENCE
    assert {name: counted[name].rows(50) for name in PUBLISHED_ROWS} == PUBLISHED_ROWS
    lines = published("editing")
    assert {*lines.loc[lines["model"].isin(["sd14", "sd15"]), "editor"]} <= {*counted}


@pytest.mark.slow
def test_the_editors_script(tmp_path: Path) -> None:
    options = "--quick", "--markdown"
    written = run_script("editor_rows.py", *options, output=tmp_path / "editor_rows.json")
    one, masked = ({line["what"]: line for line in sheet} for sheet in written["figures"].values())
    # Of four steps and two masks: an inversion, a source branch, and two rows a mask.
    assert one["directinversion+p2p"]["ours"] == 4 + 4 + 8
    assert masked["directinversion+p2p"]["ours"] == 4 + 4 + 2 * 8
    assert one["directinversion+p2p"]["reference"] == 13 * 4
    assert all(line["ratio"] >= 1 for line in one.values())
    assert all(masked[name]["ratio"] >= one[name]["ratio"] for name in one)
    assert "all rows of Table 1" in one


@pytest.mark.slow
def test_the_regions_script(tmp_path: Path) -> None:
    columns = "| What | One at a time | Together | Ratio | To reach |"
    options = "--quick", "--markdown"
    written = run_script("regions.py", *options, output=tmp_path / "regions.json", columns=columns)
    ((rows, painting, scoring),) = written["figures"].values()
    assert rows["reference"] == rows["ours"] == 2 * 10 * 4  # ten steps of four boxes, with guidance
    assert painting["ratio"] > 0 and scoring["ratio"] > 0
    assert written["raw"]["levels off"] <= 1


@pytest.mark.slow
def test_the_gpu_script_on_the_cpu(tmp_path: Path) -> None:
    tiny = "--device=cpu", "--tiny", "--maps=2", "--edits=1", "--thresholds=2"
    options = *tiny, "--dtype=float32", "--markdown"
    written = run_script("gpu.py", *options, output=tmp_path / "gpu.json")
    rates, sweep = written["figures"].values()
    assert {rate["variant"] for rate in rates} == {
        "as loaded",
        "channels last",
        "channels last, compiled",
    }
    assert all(rate["share_of_matmul"] > 0 for rate in rates)
    assert {"maps", "edits", "segmentation scores", "editing scores", "whole sweep"} <= {
        line["what"] for line in sweep
    }
    assert {"rates", "rows", "reference", "project"} <= set(written["raw"])
