"""Full-size SDXL-Turbo networks of random weights on a CUDA device: `python benchmarks/gpu.py`.

No download, and no need of one. `--device cpu --tiny` runs every line of it with networks of the
miniature's sizes, whose figures mean nothing. See README.md for what is measured.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from findings import RESULTS, Finding, Sheet, about, publish, shown
from flows import Measured, Place, Setting, be_quiet, in_child, measure
from samples import SHAPES_SIZE, write_samples

PAPER_SAMPLES = 700
PAPER_SIZE = 512
MAPS_AT_MOST, SWEEP_AT_MOST = 60.0, 30 * 60.0
TO_REACH_RATIO, TO_REACH_SHARE = 10.0, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", help="of the U-Net and the text encoders")
    parser.add_argument("--vae-dtype", default="float32")
    parser.add_argument("--tiny", action="store_true", help="the miniature's sizes")
    parser.add_argument("--compile", action="store_true", help="compile the package's U-Net too")
    parser.add_argument("--rows", type=int, help="of the package's U-Net calls; else the best size")
    parser.add_argument("--maps", type=int, default=32, help="samples whose maps are measured")
    parser.add_argument("--edits", type=int, default=4, help="samples whose edits are measured")
    parser.add_argument("--thresholds", type=int, default=21)
    parser.add_argument("--markdown", action="store_true", help="print the tables as markdown")
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sheets, raw = compare(options, Path(folder))
    facts = about(device=raw["rates"]["device"], rows=raw["rows"])
    publish(options.output, facts, sheets, raw, markdown=options.markdown)


def compare(options: argparse.Namespace, folder: Path) -> tuple[list[Sheet], dict[str, Any]]:
    """All tables, and all that was measured for them; each part in a process of its own."""
    place = in_child(prepare, folder, options.tiny, options.device, options.dtype)
    place = replace(place, vae_dtype=options.vae_dtype)
    sizes, compiled = ((1, 2), (2,)) if options.tiny else ((1, 2, 4, 8, 16, 32, 64), (16, 32))
    rates = in_child(device_rates, place, sizes, compiled)
    rows = options.rows or best(rates["unet"])["rows"]
    ours = replace(place, compiled=options.compile, options=(f"model.rows={rows}",))
    maps = Setting(options.maps, phases=("maps",))
    edits = Setting(options.edits, options.thresholds)
    one = replace(edits, samples=1)
    slices = in_child(measure, "project", ours, [maps, edits])
    project = dict(zip(("maps", "edits"), slices, strict=True))
    (reference,) = in_child(measure, "reference", place, [one])
    sheets = [
        unet_sheet(rates),
        Sheet.of(
            f"{PAPER_SAMPLES} samples, {options.thresholds} thresholds of 3 methods, extrapolated",
            extrapolated(reference, project, maps, edits, rates),
        ),
    ]
    raw = {"rates": rates, "rows": rows, "reference": asdict(reference)}
    return sheets, raw | {"project": {name: asdict(each) for name, each in project.items()}}


def prepare(folder: Path, tiny: bool, device: str, dtype: str) -> Place:
    """Networks and samples of the paper's sizes (or the miniature's), written to ``folder``."""
    import torch
    from random_sdxl import write_pipeline, write_scorers

    be_quiet()
    size = SHAPES_SIZE if tiny else PAPER_SIZE
    write_samples(folder / "samples", size=size, per_type=4)
    write_pipeline(folder / "model", tiny=tiny, device=device, dtype=getattr(torch, dtype))
    clip, lpips = write_scorers(folder, tiny=tiny, device=device)
    return Place(
        folder / "samples", size, 1, folder / "model", clip, lpips, device=device, dtype=dtype
    )


def device_rates(place: Place, sizes: Sequence[int], compiled: Sequence[int]) -> dict[str, Any]:
    """What `rates` measures, and the device's name."""
    import torch
    from rates import png_seconds, unet_rates

    be_quiet()
    on_cpu = place.device == "cpu"
    return unet_rates(place.model, place.device, place.dtype, sizes, compiled) | {
        "png_seconds": png_seconds(next(place.data.rglob("*.png"))),
        "device": "cpu" if on_cpu else torch.cuda.get_device_name(place.device),
    }


def best(rates: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return max(rates, key=lambda rate: rate["rows_per_second"])


def unet_sheet(rates: Mapping[str, Any]) -> Sheet:
    """One line a batch size, the best one marked by what it is to reach."""
    fastest = best(rates["unet"])
    rows = [
        [
            f"{rate['variant']}, {rate['rows']} rows",
            shown(rate["rows_per_second"], ""),
            shown(rate["flops_per_second"] / 1e12, ""),
            shown(100 * rate["share_of_matmul"], "%"),
            shown(100 * TO_REACH_SHARE, "%") if rate is fastest else "",
        ]
        for rate in rates["unet"]
    ]
    title = f"U-Net; matrix product {shown(rates['matmul'] / 1e12, 'TFLOP/s')}"
    columns = ("U-Net call", "Rows/s", "TFLOP/s", "Of the matrix product", "To reach, best size")
    return Sheet(title, columns, rows, rates["unet"])


def extrapolated(
    reference: Measured,
    project: Mapping[str, Measured],
    maps: Setting,
    edits: Setting,
    rates: Mapping[str, Any],
) -> list[Finding]:
    """Seconds for the paper's samples from the measured slices; the reference's is one sample."""

    def whole(seconds: float, samples: int) -> float:
        return seconds * PAPER_SAMPLES / samples

    edited = project["edits"]
    ours = {name: whole(seconds, edits.samples) for name, seconds in edited.seconds.items()}
    ours["maps"] = whole(project["maps"].seconds["maps"], maps.samples)
    theirs = {name: whole(seconds, 1) for name, seconds in reference.seconds.items()}
    painted = edited.counts["edits"]["vae_decodes"] / edits.samples
    png = whole(painted * rates["png_seconds"], 1)
    return [
        Finding("maps", theirs.pop("maps"), ours["maps"], "s", at_most=MAPS_AT_MOST),
        *(Finding(name, seconds, ours[name], "s") for name, seconds in theirs.items()),
        Finding(
            "whole sweep",
            sum(reference.seconds.values()) * PAPER_SAMPLES,
            sum(ours.values()),
            "s",
            to_reach=TO_REACH_RATIO,
            at_most=SWEEP_AT_MOST,
        ),
        Finding("edits painted for a sample", float(edits_of(edits)), painted, ""),
        Finding("PNG encoding, if nothing overlapped it", None, png, "s"),
        Finding("peak memory of the process", reference.peak_mib, edited.peak_mib, "MiB"),
        Finding("peak memory of the device", reference.device_mib, edited.device_mib, "MiB"),
    ]


def edits_of(setting: Setting) -> int:
    return sum(map(len, setting.cuts().values()))


if __name__ == "__main__":
    main()
