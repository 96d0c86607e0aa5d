"""SDXL and Stable Diffusion 1 and 2, frozen: a U-Net, a VAE and CLIP's text encoders.

Loads a diffusers folder; sizes come from its configs. Must not know what the predictions are for.
"""

import copy
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from piebench_masks.batching import Blocks
from piebench_masks.diffusion.attention import AttentionControl
from piebench_masks.diffusion.backbone import (
    Ablation,
    Capability,
    Conditioning,
    Posterior,
    Prompt,
    Span,
)
from piebench_masks.diffusion.ddim import leading_timesteps
from piebench_masks.diffusion.ddpm import trailing_timesteps
from piebench_masks.diffusion.level import Level, Spacing
from piebench_masks.diffusion.pipelines import load_pipeline
from piebench_masks.diffusion.text import Text
from piebench_masks.diffusion.unet import control_attention, parts, seen_residuals
from piebench_masks.errors import BenchmarkError

INPAINTING_CHANNELS = 9
"""Of an inpainting U-Net's input: the latents, those of the masked picture, and the mask."""


class StableDiffusion:
    """A `Backbone`. Every network call is batched in blocks of fixed size.

    counts: shared with whoever passes one, else its own. unet: the network, frozen, whose
    parameters' names `adapted` knows; text: the tokenizers and text encoders.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        device: torch.device,
        rows: int,
        vae_rows: int,
        map_size: int,
        compiled: bool = False,
        few_steps: bool = True,
        counts: Counter[str] | None = None,
    ) -> None:
        from diffusers import DDPMScheduler

        # Tensor cores want a picture's channels side by side.
        order = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        self.unet = pipeline.unet.to(device, memory_format=order).eval().requires_grad_(False)
        self._vae = pipeline.vae.to(device, memory_format=order).eval().requires_grad_(False)
        self.counts: Counter[str] = Counter() if counts is None else counts
        components = pipeline.components
        self.text = Text(
            [components[name] for name in ("tokenizer", "tokenizer_2") if name in components],
            [components[name] for name in ("text_encoder", "text_encoder_2") if name in components],
            device=device,
            rows=rows,
            counts=self.counts,
        )
        self.layers, self.residuals = parts(self.unet)
        control_attention(self.unet, self.layers)
        if compiled:
            self.unet.compile_repeated_blocks()
        self._unet_blocks = Blocks(rows)
        self._encode_blocks, self._decode_blocks = Blocks(vae_rows), Blocks(vae_rows)
        self.device, self.dtype = device, self.unet.dtype
        self.map_size = map_size
        self.latent_size: int = self.unet.config.sample_size
        self.image_size: int = self.latent_size * pipeline.vae_scale_factor
        self.max_tokens = self.text.max_tokens
        self.provides = _provides(self.unet.config.in_channels, few_steps)
        scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        self._alphas: Tensor = scheduler.alphas_cumprod
        self._predicts_velocity = scheduler.config.prediction_type == "v_prediction"
        self._weights: Mapping[str, Tensor] = {}
        self._told_size: int | None = None

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        variant: str | None,
        dtype: torch.dtype,
        vae_dtype: torch.dtype,
        device: torch.device,
        rows: int,
        vae_rows: int,
        map_size: int,
        compiled: bool,
        few_steps: bool,
    ) -> "StableDiffusion":
        """Load a diffusers folder: see `load_backbone`. Raises BenchmarkError."""
        from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

        is_xl = (folder / "text_encoder_2").is_dir()
        pipeline = load_pipeline(
            StableDiffusionXLPipeline if is_xl else StableDiffusionPipeline,
            folder,
            "a folder that diffusers' save_pretrained wrote for SDXL or Stable Diffusion 1 or 2",
            variant=variant,
            dtype=dtype,
            vae_dtype=vae_dtype,
            **({} if is_xl else {"safety_checker": None, "feature_extractor": None}),
        )
        return cls(
            pipeline,
            device=device,
            rows=rows,
            vae_rows=vae_rows,
            map_size=map_size,
            compiled=compiled,
            few_steps=few_steps,
        )

    @staticmethod
    def describe(folder: Path, *, few_steps: bool = True) -> tuple[int, int, frozenset[Capability]]:
        """Sides of images and latents, and what a folder's model provides, from configs alone."""
        try:
            unet = json.loads((folder / "unet" / "config.json").read_text())
            latent, channels = unet["sample_size"], unet["in_channels"]
            levels = json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchmarkError(
                f"{folder} is no folder of a diffusers pipeline: unet/config.json with sample_size "
                f"and vae/config.json with block_out_channels were looked for ({error}). Correct "
                "model.id."
            ) from error
        return latent * 2 ** (len(levels) - 1), latent, _provides(channels, few_steps)

    def adapted(
        self,
        weights: Mapping[str, Tensor],
        *,
        told_size: int | None = None,
        rows: int | None = None,
    ) -> "StableDiffusion":
        """A backbone of the same networks whose calls have these weights in place of the U-Net's.

        weights: by their names in the U-Net, in its shapes and any precision; those that ask for a
        gradient get one. told_size: the side of pictures that SDXL is told, None for the true
        one; rows: in one block of the U-Net, None for as many as now.
        """
        other = copy.copy(self)
        other._weights = {name: w.to(self.device, self.dtype) for name, w in weights.items()}
        other._told_size = told_size
        other._unet_blocks = Blocks(rows or self._unet_blocks.rows)
        return other

    def tokenize(self, prompt: str) -> list[int]:
        return self.text.tokenize(prompt)

    def token_text(self, token_id: int) -> str:
        return self.text.token_text(token_id)

    def spans(self, prompt: str) -> list[Span]:
        return self.text.spans(prompt)

    def encode_prompts(
        self, prompts: Sequence[Prompt], ablate: Sequence[Ablation] | None = None
    ) -> Conditioning:
        return self.text.encode(prompts, ablate)

    @torch.inference_mode()
    def encode_images(self, images: Tensor) -> Posterior:
        def encode(block: Tensor) -> Tensor:
            pixels = block.to(self.device).permute(0, 3, 1, 2).float() / 255 * 2 - 1
            latent = self._vae.encode(pixels.to(self._vae.dtype)).latent_dist
            return torch.stack([latent.mean, latent.std], dim=1).float()

        self.counts["vae_encodes"] += len(images)
        moments = self._encode_blocks.map(encode, images) * self._vae.config.scaling_factor
        return Posterior(*moments.unbind(dim=1))

    def decode(self, latents: Tensor) -> Tensor:
        def decode(block: Tensor) -> Tensor:
            return (self._pixels(block) * 255).round().to(torch.uint8).cpu()

        return self._decoded(decode, latents)

    def decode_truncated(self, latents: Tensor) -> Tensor:
        """``decode`` with levels cut off where it rounds them, as some reference codes have it."""

        def decode(block: Tensor) -> Tensor:
            return (self._pixels(block) * 255).to(torch.uint8).cpu()

        return self._decoded(decode, latents)

    @torch.inference_mode()
    def _decoded(self, decode: Callable[[Tensor], Tensor], latents: Tensor) -> Tensor:
        self.counts["vae_decodes"] += len(latents)
        return self._decode_blocks.map(decode, latents)

    def _pixels(self, latents: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, H, W, 3] in 0..1, without blocks."""
        scaled = latents.to(self.device) / self._vae.config.scaling_factor
        pixels = self._vae.decode(scaled.to(self._vae.dtype)).sample.float()
        if not pixels.isfinite().all():
            raise BenchmarkError(
                "the decoded picture is not finite: the latents are not, or the VAE overflowed "
                "(use model.vae_dtype=float32)"
            )
        return (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)

    def level(self, timestep: float) -> Level:
        return Level.of_alpha(timestep, self._alphas[int(timestep)])

    def levels(self, steps: int, spacing: Spacing = "leading") -> list[Level]:
        """The picture counts as having the noise of time step 0, as everywhere with this model."""
        timesteps = {"leading": leading_timesteps, "trailing": trailing_timesteps}[spacing](steps)
        return [self.level(timestep) for timestep in (*timesteps, 0)]

    def predict_noise(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        control: AttentionControl | None = None,
    ) -> Tensor:
        hidden = conditioning.hidden

        def predict(rows: Tensor, z: Tensor, t: Tensor, hidden: Tensor, pooled: Tensor) -> Tensor:
            if control is not None:
                control.select(rows)
            return self._noise(z.to(self.device), t.to(self.device), hidden, pooled, control)

        self.counts["unet_rows"] += len(latents)
        index = torch.arange(len(latents), device=self.device)
        differentiable = hidden.requires_grad or latents.requires_grad
        differentiable |= control is not None and control.differentiable
        differentiable |= any(weight.requires_grad for weight in self._weights.values())
        with seen_residuals(self.unet, control), torch.inference_mode(not differentiable):
            return self._unet_blocks.map(
                predict, index, latents, timesteps, hidden, conditioning.pooled
            )

    def _noise(
        self, z: Tensor, t: Tensor, hidden: Tensor, pooled: Tensor, control: AttentionControl | None
    ) -> Tensor:
        added = None
        if self.text.is_xl:
            height, width = (side * self.image_size // self.latent_size for side in z.shape[-2:])
            if self._told_size is not None:
                height = width = self._told_size
            sizes = torch.tensor([height, width, 0, 0, height, width], device=self.device)
            time_ids = sizes.to(hidden.dtype).expand(len(z), -1)
            added = {"text_embeds": pooled, "time_ids": time_ids}
        texts = {"encoder_hidden_states": hidden, "added_cond_kwargs": added}
        arguments = texts | {"cross_attention_kwargs": {"control": control}}
        if self._weights:
            inputs = z.to(self.dtype), t
            output = functional_call(self.unet, dict(self._weights), inputs, arguments)
        else:
            output = self.unet(z.to(self.dtype), t, **arguments)
        prediction = output.sample.float()
        if not self._predicts_velocity:
            return prediction
        alpha = self._alphas.to(self.device)[t.long()].view(-1, 1, 1, 1)
        latents = z[:, : prediction.shape[1]]  # an inpainting model's input has more channels
        return alpha.sqrt() * prediction + (1 - alpha).sqrt() * latents


def _provides(channels: int, few_steps: bool) -> frozenset[Capability]:
    capabilities: set[Capability] = {"self_attention", "residuals"}
    if channels == INPAINTING_CHANNELS:
        capabilities.add("inpainting")
    if few_steps:
        capabilities.add("few_steps")
    return frozenset(capabilities)
