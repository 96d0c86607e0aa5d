"""The benchmarks' reference flow computes what the package computes, and both scripts run.

Nothing here looks at a clock.
"""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rich.console import Console

from piebench_masks.data.images import load_image
from piebench_masks.data.sample import Sample
from piebench_masks.editing.turbo_edit import edited, invert
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


def run_script(name: str, *options: str, output: Path) -> dict[str, Any]:
    """What a script prints must be tables; returns the JSON that it writes."""
    command = [sys.executable, str(BENCHMARKS / name), *options, "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| What | Reference's flow | Ours | Ratio | To reach |" in done.stdout
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
