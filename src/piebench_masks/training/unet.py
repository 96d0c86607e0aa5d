"""Trains the miniature's U-Net together with both text encoders and writes the pipeline folder.

Noise prediction, and two terms on cross-attention that small models need for usable maps: tokens
are pulled to the region they name (TokenCompose, CVPR 2024), and where a word's embedding is
zeroed, as the map method ``ours`` does it, its attention is pulled flat.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTokenizer

from piebench_masks.data.shapes.grammar import EVERYTHING, WORDS, Scene
from piebench_masks.training.loop import Schedule, train
from piebench_masks.training.model import MAX_TOKENS, Denoiser, save_pipeline, write_tokenizers
from piebench_masks.training.scenes import Pool, draw_pool, to_unit_range

log = logging.getLogger(__name__)

_GROUNDED_BELOW = 700  # timestep above which the image no longer tells where things are
_ABLATED = 0.35  # share of captions that lose words


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


def record_grounded_layers(denoiser: Denoiser) -> list[Tensor]:
    """Record the cross-attention [B,h*w,32] of the layers at the U-Net's full resolution."""
    recorded: list[Tensor] = []
    # Plain products: the fused kernel's backward pass is the slowest part of a step on a CPU.
    denoiser.unet.set_attn_processor(AttnProcessor())
    last = len(denoiser.unet.up_blocks) - 1
    for name, layer in denoiser.unet.named_modules():
        if name.endswith("attn2") and name.startswith(("down_blocks.0.", f"up_blocks.{last}.")):
            layer.set_processor(RecordingAttention(recorded))
    return recorded


@dataclass(frozen=True)
class Captions:
    """Token ids [N,32] of both tokenizers, the region [N,32] that each token points at, and which
    tokens are words of the prompt, bool [N,32]."""

    ids: tuple[Tensor, Tensor]
    regions: Tensor
    words: Tensor

    def at(self, rows: Tensor) -> "Captions":
        return Captions(
            (self.ids[0][rows], self.ids[1][rows]), self.regions[rows], self.words[rows]
        )


def tokenize(scenes: Sequence[Scene], folder: Path) -> Captions:
    """Captions of scenes with the tokenizers in ``folder``; every twentieth one is left empty."""
    said = [scene.words() if row % 20 else [] for row, scene in enumerate(scenes)]
    prompts = [" ".join(word for word, _ in words) for words in said]
    ids = [
        CLIPTokenizer.from_pretrained(folder / name)(
            prompts, padding="max_length", return_tensors="pt"
        ).input_ids
        for name in ("tokenizer", "tokenizer_2")
    ]
    regions = torch.full((len(scenes), MAX_TOKENS), EVERYTHING)
    words = torch.zeros(len(scenes), MAX_TOKENS, dtype=torch.bool)
    for row, pointed in enumerate(said):
        regions[row, 1 : 1 + len(pointed)] = torch.tensor([region for _, region in pointed])
        words[row, 1 : 1 + len(pointed)] = True
    return Captions((ids[0], ids[1]), regions, words)


def ablated_words(captions: Captions, generator: torch.Generator) -> Tensor:
    """Which words lose their embedding, bool [B,32]; words of one id go together.

    Of the captions that lose any, half lose each id with p = 0.3, a quarter one word, a quarter all
    the words of one object: what the benchmark's edits change.
    """
    ids, words = captions.ids[0], captions.words
    rows = torch.arange(len(ids))
    size = int(ids.max()) + 1

    def ids_at(positions: Tensor) -> Tensor:
        return F.one_hot(ids, size).mul(positions[..., None]).amax(dim=1).bool()

    draw = torch.rand(len(ids), 3, generator=generator)
    one = 1 + (draw[:, 0] * words.sum(dim=1)).long()
    single = F.one_hot(one, MAX_TOKENS).bool()
    thing = words & (captions.regions == (draw[:, 1] > 0.5).long()[:, None])
    lost = torch.rand(len(ids), size, generator=generator) < 0.3
    kind = (draw[:, 2] * 4 / _ABLATED).long()
    lost = torch.where((kind == 2)[:, None], ids_at(single), lost)
    lost = torch.where((kind == 3)[:, None], ids_at(thing), lost)
    lost &= (kind < 4)[:, None]
    return lost[rows[:, None], ids] & words


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


@torch.no_grad()
def encode_pool(vae: AutoencoderKL, pool: Pool, device: str, rows: int = 64) -> tuple[Tensor, ...]:
    """Mean and standard deviation of the scenes' scaled latents, float16 [N,4,h,w] each."""
    encoded: list[tuple[Tensor, Tensor]] = []
    for images in pool.images.split(rows):
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            posterior = vae.encode(to_unit_range(images).to(device)).latent_dist
        scale = vae.config.scaling_factor
        encoded.append(
            ((posterior.mean * scale).half().cpu(), (posterior.std * scale).half().cpu())
        )
    means, deviations = (torch.cat(parts) for parts in zip(*encoded, strict=True))
    return means, deviations


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
    channels: tuple[int, int] = (64, 128),
) -> None:
    """Train in the latents of ``folder/vae``; write U-Net, text encoders, tokenizers, scheduler.

    The folder is written at every checkpoint, with the averaged weights. Losses (SHAPES.md): noise
    prediction weighted min((snr + 1) / snr, 20) / 5, plus ``grounding`` times the grounding loss.
    """
    torch.manual_seed(0)
    denoiser = Denoiser(write_tokenizers(folder, WORDS), channels).to(device)
    recorded = record_grounded_layers(denoiser)
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).to(device)
    pool = draw_pool(scenes)
    captions = tokenize(pool.scenes, folder)
    means, deviations = encode_pool(vae, pool, device)
    log.info("encoded %d scenes: std %s", scenes, means[:4096].float().std(dim=(0, 2, 3)).tolist())
    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    )
    alphas_cumprod = scheduler.alphas_cumprod

    def loss(step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(scenes, (batch,), generator=generator)
        caption = captions.at(rows)
        lost = ablated_words(caption, generator)
        timesteps = torch.randint(1000, (batch,), generator=generator)
        late = torch.rand(batch, generator=generator) < 0.7
        timesteps = torch.where(late, 150 + timesteps * 850 // 1000, timesteps)
        alpha = alphas_cumprod[timesteps][:, None, None, None]
        drawn, noise = torch.randn(2, batch, *means.shape[1:], generator=generator)
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
        targets = pool.regions[rows].flatten(2).float()[torch.arange(batch)[:, None], regions]
        targets /= targets.sum(dim=-1, keepdim=True).clamp_min(1e-3)
        weights = caption.words * (timesteps < _GROUNDED_BELOW)[:, None]
        return {
            "noise": (error * (1 / alpha.flatten()).clamp_max(20).to(device) / 5).mean(),
            "grounding": grounding
            * grounding_loss(recorded, targets.to(device), weights.float().to(device)),
        }

    train(
        denoiser,
        loss,
        Schedule(steps, learning_rate, warm_up=300),
        work / "unet.safetensors",
        on_checkpoint=lambda: _export(folder, denoiser, recorded),
    )


def _export(folder: Path, denoiser: Denoiser, recorded: list[Tensor]) -> None:
    recorded.clear()  # a tensor with a history cannot be copied
    save_pipeline(folder, denoiser)
