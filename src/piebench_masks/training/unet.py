"""Trains the miniature's U-Net together with both text encoders and writes the pipeline folder.

Noise prediction, and two terms on cross-attention that small models need for usable maps: tokens
are pulled to the region they name (TokenCompose, CVPR 2024), and where a word's embedding is
zeroed, as the map method ``ours`` does it, its attention is pulled flat.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor

from piebench_masks.data.shapes.grammar import EVERYTHING, WORDS
from piebench_masks.training.captions import ablated_words, pointed_at, tokenize
from piebench_masks.training.few_steps import FewSteps, draw_edits
from piebench_masks.training.loop import Schedule, train
from piebench_masks.training.model import Denoiser, save_pipeline, write_tokenizers
from piebench_masks.training.scenes import draw_pool
from piebench_masks.training.vae import encode_images

log = logging.getLogger(__name__)

_GROUNDED_BELOW = 700  # timestep above which the image no longer tells where things are
_LOST = 4.0  # weight of a dropped word's attention beside another word's
_TUNED = 0.72  # share of the steps that are tuned to few-step editing


class RecordingAttention:
    """An attention processor that adds each layer's probabilities, mean over heads, to a list."""

    def __init__(self, recorded: list[Tensor]) -> None:
        self.recorded = recorded

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: None = None,
        temb: None = None,
    ) -> Tensor:
        projected = (
            attn.to_q(hidden_states),
            attn.to_k(encoder_hidden_states),
            attn.to_v(encoder_hidden_states),
        )
        query, key, value = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in projected)
        probabilities = (query @ key.transpose(-1, -2) * attn.scale).float().softmax(dim=-1)
        self.recorded.append(probabilities.mean(dim=1))
        mixed = (probabilities.to(value.dtype) @ value).transpose(1, 2).flatten(2)
        return attn.to_out[0](mixed)


class TrainedAttention:
    """Plain products where gradients are kept: the fused kernel's backward pass is the slowest part
    of a step on a CPU, its forward pass the quickest.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        plain = AttnProcessor() if torch.is_grad_enabled() else AttnProcessor2_0()
        return plain(*args, **kwargs)


def record_grounded_layers(denoiser: Denoiser) -> list[Tensor]:
    """Record the cross-attention [B,h*w,32] of the layers at the U-Net's full resolution."""
    recorded: list[Tensor] = []
    denoiser.unet.set_attn_processor(TrainedAttention())
    last = len(denoiser.unet.up_blocks) - 1
    for name, layer in denoiser.unet.named_modules():
        if name.endswith("attn2") and name.startswith(("down_blocks.0.", f"up_blocks.{last}.")):
            layer.set_processor(RecordingAttention(recorded))
    return recorded


def grounding_loss(recorded: Sequence[Tensor], targets: Tensor, weights: Tensor) -> Tensor:
    """KL(target || the token's attention over the pixels), mean over tokens and layers.

    recorded: [B,Q,L] each; targets: [B,L,Q], each row sums to 1; weights: [B,L].
    """
    total = torch.zeros((), device=targets.device)
    own = torch.xlogy(targets, targets).sum(dim=-1)
    for attention in recorded:
        shares = attention / attention.sum(dim=1, keepdim=True)
        cross = (targets * (shares + 1e-6).log().transpose(1, 2)).sum(dim=-1)
        total = total + ((own - cross) * weights).sum() / weights.sum().clamp_min(1)
    return total / len(recorded)


def train_unet(
    folder: Path,
    work: Path,
    *,
    device: str,
    steps: int,
    batch: int,
    learning_rate: float,
    scenes: int,
    grounding: float,
    edits: int,
    silence: float,
    channels: tuple[int, int] = (64, 128),
) -> None:
    """Train in the latents of ``folder/vae``; write U-Net, text encoders, tokenizers, scheduler.

    The folder is written at every checkpoint, with the averaged weights. Losses (SHAPES.md): noise
    prediction weighted min((snr + 1) / snr, 20) / 5, plus ``grounding`` times the grounding loss,
    and in the last ``_TUNED`` of the steps the loss of few-step editing on a pool of ``edits`` and
    ``silence`` times that of predictions beside them, whose attention is grounded, too: with half
    the batch for the scenes, half of it for the edits and a quarter to compare prompts.
    """
    torch.manual_seed(0)
    denoiser = Denoiser(write_tokenizers(folder, WORDS), channels).to(device)
    recorded = record_grounded_layers(denoiser)
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    vae.requires_grad_(False).to(device)
    pool = draw_pool(scenes)
    captions = tokenize(pool.scenes, folder)
    means, deviations = encode_images(
        vae, pool.images, device, work / f"latents-{scenes}.safetensors"
    )
    log.info("encoded %d scenes: std %s", scenes, means[:4096].float().std(dim=(0, 2, 3)).tolist())
    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    )
    alphas_cumprod = scheduler.alphas_cumprod
    pairs = draw_edits(edits, vae, folder, work, device)
    few_steps = FewSteps(denoiser, vae, alphas_cumprod, pairs, device)

    def loss(step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(step)
        tuned = step >= (1 - _TUNED) * steps
        size = batch // 2 if tuned else batch
        rows = torch.randint(scenes, (size,), generator=generator)
        caption = captions.at(rows)
        lost = ablated_words(caption, generator)
        timesteps = torch.randint(1000, (size,), generator=generator)
        late = torch.rand(size, generator=generator) < 0.7
        timesteps = torch.where(late, 150 + timesteps * 850 // 1000, timesteps)
        alpha = alphas_cumprod[timesteps][:, None, None, None]
        drawn, noise = torch.randn(2, size, *means.shape[1:], generator=generator)
        noisy = alpha.sqrt() * (means[rows] + deviations[rows] * drawn) + (1 - alpha).sqrt() * noise
        recorded.clear()
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            predicted = denoiser(
                noisy.to(device),
                timesteps.to(device),
                [ids.to(device) for ids in caption.ids],
                (~lost).float().to(device),
            )
        error = (predicted.float() - noise.to(device)).square().mean(dim=(1, 2, 3))
        regions = torch.where(lost, EVERYTHING, caption.regions)
        targets = pointed_at(pool.regions[rows], regions)
        weights = torch.where(lost, _LOST, 1.0) * caption.words
        weights *= (timesteps < _GROUNDED_BELOW)[:, None]
        terms = {
            "noise": (error * (1 / alpha.flatten()).clamp_max(20).to(device) / 5).mean(),
            "grounding": grounding
            * grounding_loss(recorded, targets.to(device), weights.to(device)),
        }
        if tuned:
            terms["editing"] = few_steps.editing(batch // 2, generator)
            recorded.clear()
            compared = few_steps.compare_prompts(-(-batch // 4), generator)
            terms["silence"] = silence * compared.silence
            terms["pointing"] = grounding * grounding_loss(
                recorded, compared.targets.to(device), compared.words.float().to(device)
            )
        return terms

    train(
        denoiser,
        loss,
        Schedule(steps, learning_rate, warm_up=300, average=0.9995),
        work / "unet.safetensors",
        on_checkpoint=lambda: _export(folder, denoiser, recorded),
    )


def _export(folder: Path, denoiser: Denoiser, recorded: list[Tensor]) -> None:
    recorded.clear()  # a tensor with a history cannot be copied
    save_pipeline(folder, denoiser)
