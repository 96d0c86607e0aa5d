"""How fast a device is: matrix products, the U-Net's rows, PNG files. Knows no flow."""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

REPEATS = 3
MATRIX_SIDE = {"cuda": 8192, "cpu": 256}


@dataclass(frozen=True)
class Rate:
    """The U-Net at one batch size: rows a second, and the share of the matrix product's rate."""

    variant: str
    rows: int
    rows_per_second: float
    flops_per_second: float
    share_of_matmul: float


def best_seconds(call: Callable[[], object], device: str) -> float:
    """The least of some runs, after one that does not count."""
    found = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return min(found[1:])


def matmul_rate(device: str, dtype: torch.dtype) -> float:
    """Floating point operations a second of one big square matrix product."""
    side = MATRIX_SIDE[torch.device(device).type]
    one, two = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / best_seconds(lambda: one @ two, device)


@torch.inference_mode()
def unet_rates(
    pipeline: Path, device: str, dtype_name: str, sizes: Sequence[int], compiled: Sequence[int]
) -> dict[str, Any]:
    """The U-Net of a diffusers folder as it is, with channels last, and compiled by regions.

    sizes: batch sizes, until memory runs out; compiled: those that the compiled one is asked for.
    """
    from diffusers import UNet2DConditionModel

    dtype = getattr(torch, dtype_name)
    unet = UNet2DConditionModel.from_pretrained(pipeline / "unet", dtype=dtype).to(device).eval()
    with FlopCounterMode(display=False) as counter:
        call_of(unet, 1)()
    flops, matmul = counter.get_total_flops(), matmul_rate(device, dtype)

    def measured(variant: str, wanted: Sequence[int]) -> Iterator[Rate]:
        for rows in wanted:
            try:
                per_second = rows / best_seconds(call_of(unet, rows), device)
            except torch.OutOfMemoryError:
                return
            achieved = flops * per_second
            yield Rate(variant, rows, per_second, achieved, achieved / matmul)

    rates = list(measured("as loaded", sizes))
    unet.to(memory_format=torch.channels_last)
    rates += measured("channels last", sizes)
    # The compiler has nothing to gain on the CPU, where this is run to see that it runs.
    unet.compile_repeated_blocks(backend="eager" if device == "cpu" else "inductor")
    rates += measured("channels last, compiled", compiled)
    return {"matmul": matmul, "flops_per_row": flops, "unet": [asdict(rate) for rate in rates]}


def call_of(unet: Any, rows: int) -> Callable[[], Tensor]:
    """One call of that many rows on random input."""
    config, like = unet.config, {"device": unet.device, "dtype": unet.dtype}
    tokens = 77
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    latents = torch.randn(rows, config.in_channels, *[config.sample_size] * 2, **like)
    text = torch.randn(rows, tokens, config.cross_attention_dim, **like)
    added = {
        "text_embeds": torch.randn(rows, pooled, **like),
        "time_ids": torch.full((rows, 6), 512, **like),
    }
    timestep = torch.full((rows,), 499, device=unet.device)

    def call() -> Tensor:
        return unet(latents, timestep, text, added_cond_kwargs=added).sample

    return call


def png_seconds(picture: Path) -> float:
    """Seconds to encode a picture at PNG's lowest compression level."""
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    return best_seconds(
        lambda: Image.fromarray(pixels).save(io.BytesIO(), "PNG", compress_level=1), "cpu"
    )
