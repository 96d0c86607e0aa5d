"""Trains the miniature's autoencoder and writes it as the pipeline folder's ``vae``.

Knows scenes and the training loop, not the diffusion model that will live in its latents.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from piebench_masks.training.loop import Schedule, train
from piebench_masks.training.scenes import draw_pool, to_unit_range

log = logging.getLogger(__name__)

SCALING_FACTOR = 0.13025  # SDXL's
LATENT_STD = 0.8  # of a scaled latent; SDXL's lie between 0.65 and 0.95
_CROP = 32


def build_vae(channels: Sequence[int] = (32, 64, 128), sample_size: int = 64) -> AutoencoderKL:
    """An untrained AutoencoderKL of SDXL's form, one layer a block, without attention."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=tuple(channels),
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=sample_size,
        scaling_factor=SCALING_FACTOR,
        mid_block_add_attention=False,
    )


def train_vae(
    folder: Path,
    work: Path,
    *,
    device: str,
    steps: int,
    batch: int,
    learning_rate: float,
    scenes: int,
    kl: float,
    noise: float,
    channels: Sequence[int] = (32, 64, 128),
) -> None:
    """Train on random crops, the last fifth on whole images; write ``folder/vae`` in float16.

    ``work`` keeps the checkpoint. The loss is L1 + 2 MSE + 0.3 L1 of the gradients + ``kl`` KL.
    Decoded are latents with ``noise`` times their standard deviation, so that what the U-Net
    predicts need not be exact. Logs the PSNR of scenes that training does not see.
    """
    torch.manual_seed(0)
    vae = build_vae(channels).to(device, memory_format=torch.channels_last)
    images = draw_pool(scenes).images

    def loss(step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(step)
        crops = step < 0.8 * steps
        rows = torch.randint(scenes, (batch if crops else batch // 2,), generator=generator)
        chosen = images[rows]
        if crops:
            top, left = torch.randint(images.shape[-1] - _CROP + 1, (2,), generator=generator)
            chosen = chosen[..., top : top + _CROP, left : left + _CROP]
        pixels = to_unit_range(chosen).to(device, memory_format=torch.channels_last)
        with torch.autocast(pixels.device.type, torch.bfloat16):
            posterior = vae.encode(pixels).latent_dist
            mean = posterior.mean.float()
            added = noise * mean.std(dim=(0, 2, 3), keepdim=True)
            drawn = torch.randn(mean.shape, generator=generator).to(device)
            latents = mean + (posterior.var.float() + added**2).sqrt() * drawn
            decoded = vae.decode(latents).sample.float()
        difference = decoded - pixels
        rows, columns = difference.diff(dim=-2).abs().mean(), difference.diff(dim=-1).abs().mean()
        divergence = (posterior.mean**2 + posterior.var - 1 - posterior.logvar).float().mean() / 2
        return {
            "l1": difference.abs().mean(),
            "mse": 2 * (difference**2).mean(),
            "gradient": 0.3 * (rows + columns),
            "kl": kl * divergence,
        }

    schedule = Schedule(steps, learning_rate, average=0.998)
    train(vae, loss, schedule, work / "vae.safetensors")
    vae.eval().requires_grad_(False)
    normalise_latents(vae, to_unit_range(images[:1024]).to(device))
    vae.half().save_pretrained(folder / "vae")
    unseen = to_unit_range(draw_pool(256, first_seed=scenes).images).to(device)
    shown = vae.float().decode(vae.encode(unseen).latent_dist.mode()).sample.clamp(-1, 1)
    psnr = -10 * torch.log10(((shown - unseen) / 2).square().mean(dim=(1, 2, 3))).mean()
    log.info("PSNR of 256 unseen scenes: %.2f dB", psnr)


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, pixels: Tensor) -> None:
    """Fold the latents' statistics into the 1x1 convolutions, so that SDXL's factor is right.

    After that ``SCALING_FACTOR * latent`` has mean 0 and standard deviation LATENT_STD in every
    channel, and decoding is unchanged.
    """
    latents = vae.encode(pixels).latent_dist.mode()
    mean = latents.mean(dim=(0, 2, 3))
    gain = LATENT_STD / SCALING_FACTOR / latents.std(dim=(0, 2, 3))
    encode, decode = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    encode.bias[:channels] -= mean
    encode.bias[:channels] *= gain
    encode.weight[:channels] *= gain[:, None, None, None]
    encode.bias[channels:] += 2 * gain.log()
    decode.bias += F.linear(mean, decode.weight[:, :, 0, 0])
    decode.weight /= gain[None, :, None, None]


@torch.no_grad()
def encode_images(
    vae: AutoencoderKL,
    images: Tensor,
    device: str,
    cache: Path,
    grey: Tensor | None = None,
    rows: int = 64,
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of images' scaled latents, float16 [N,4,h,w] each.

    images: uint8 [N,3,H,W]; grey: bool [N,h,w], cells that are painted over in grey, as inpainting
    has them. ``cache`` keeps the latents, so that a phase that goes on need not wait: its metadata
    tell them apart from those of other weights and of other images.
    """
    about = {"vae": _digest(*vae.state_dict().values())}
    about["images"] = _digest(images) if grey is None else _digest(images, grey)
    if cache.is_file():
        with safe_open(cache, "pt") as stored:
            if stored.metadata() == about:
                return stored.get_tensor("mean"), stored.get_tensor("std")
    encoded: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(images), rows):
        pixels = to_unit_range(images[start : start + rows])
        if grey is not None:
            cells = grey[start : start + rows, None].float()
            pixels *= 1 - F.interpolate(cells, pixels.shape[2:], mode="nearest-exact")
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            posterior = vae.encode(pixels.to(device)).latent_dist
        scale = vae.config.scaling_factor
        encoded.append(
            ((posterior.mean * scale).half().cpu(), (posterior.std * scale).half().cpu())
        )
    means, deviations = (torch.cat(parts) for parts in zip(*encoded, strict=True))
    cache.parent.mkdir(parents=True, exist_ok=True)
    save_file({"mean": means, "std": deviations}, cache, about)
    return means, deviations


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()
