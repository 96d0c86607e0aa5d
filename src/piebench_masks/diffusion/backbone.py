"""The interface of a frozen generative model: pictures and prompts in, noise out.

A protocol and the values that pass through it. Must not know how any model is loaded or built.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from piebench_masks.diffusion.attention import AttentionControl, Layer, Residual
from piebench_masks.diffusion.level import Level, Spacing

Capability = Literal["few_steps", "self_attention", "residuals", "inpainting", "adaptation"]
"""Abilities that a model may lack: it samples in a few steps; its self-attention, or its ResNet
blocks' residuals, can be seen and replaced; it takes a mask and the picture around it as input; it
can be fitted to pictures, and asked with other weights than its own (`StableDiffusion.adapted`).
"""
Prompt = str | tuple[str, ...]
"""A text, or several, whose embeddings' mean stands for them."""
Span = tuple[int, int]
"""The first character of a part of a prompt, and the one behind its last."""


@dataclass(frozen=True)
class Posterior:
    """The VAE's Gaussian over latents, already times its scaling factor; both [B, C, h, w]."""

    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, index: Tensor | slice | list[int]) -> "Posterior":
        return Posterior(self.mean[index], self.std[index])

    def draw(self, seed: int) -> Tensor:
        """Latents [B, C, h, w]; every row has the draw that it would get alone."""
        noise = torch.randn(self.mean.shape[1:], generator=torch.Generator().manual_seed(seed))
        return self.mean + self.std * noise.to(self.mean.device)


@dataclass(frozen=True)
class Conditioning:
    """The embeddings of B prompts: hidden [B, L, D] and pooled [B, P], P = 0 where the model has
    none.
    """

    hidden: Tensor
    pooled: Tensor

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, index: Tensor | slice | list[int]) -> "Conditioning":
        return Conditioning(self.hidden[index], self.pooled[index])

    @staticmethod
    def cat(parts: Sequence["Conditioning"]) -> "Conditioning":
        return Conditioning(
            torch.cat([part.hidden for part in parts]), torch.cat([part.pooled for part in parts])
        )


@dataclass(frozen=True)
class Ablation:
    """The tokens of one prompt whose embeddings are zeroed, at every position where they occur.

    spans: each text encoder zeroes its own tokens that overlap these characters. ids: every encoder
    zeroes these ids, its padding included, as the reference does: the first encoder's, although
    '!' and the padding have other ids in SDXL's second.
    """

    spans: tuple[Span, ...] = ()
    ids: frozenset[int] = frozenset()


class Backbone(Protocol):
    """A loaded model. No row's result depends on how many others were asked for with it.

    image_size, latent_size: sides of the pictures and of the latents; map_size: side of the
    attention layers that maps are read from; layers, residuals: attention layers and ResNet blocks
    by name, as they are evaluated, empty where the model shows none; counts: rows computed by
    the networks (unet_rows, vae_encodes, vae_decodes, prompt_encodes).
    """

    device: torch.device
    dtype: torch.dtype
    image_size: int
    latent_size: int
    map_size: int
    max_tokens: int
    layers: dict[str, Layer]
    residuals: dict[str, Residual]
    provides: frozenset[Capability]
    counts: Counter[str]

    def tokenize(self, prompt: str) -> list[int]:
        """The first tokenizer's ids, with BOS and EOS, neither padded nor truncated."""

    def token_text(self, token_id: int) -> str:
        """What one id of the first tokenizer reads."""

    def spans(self, prompt: str) -> list[Span]:
        """The characters of the prompt that each token of ``tokenize`` stands for; (0, 0): none."""

    def encode_prompts(
        self, prompts: Sequence[Prompt], ablate: Sequence[Ablation] | None = None
    ) -> Conditioning:
        """B prompts as the network is given them, some without some of their words."""

    def encode_images(self, images: Tensor) -> Posterior:
        """images: uint8 [B, H, W, 3] -> the posterior over latents [B, C, h, w], float32."""

    def decode(self, latents: Tensor) -> Tensor:
        """latents: [B, C, h, w] -> images: uint8 [B, H, W, 3] on the CPU.

        Raises BenchmarkError where a picture is not finite: it would be black.
        """

    def level(self, timestep: float) -> Level:
        """The level of noise of a time step, 0 to 1000."""

    def levels(self, steps: int, spacing: Spacing = "leading") -> list[Level]:
        """A schedule, noisiest first: steps + 1 levels, of which the last is the picture's."""

    def predict_noise(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        control: AttentionControl | None = None,
    ) -> Tensor:
        """eps(z, t, c) for every row; latents [B, C, h, w], timesteps [B] -> [B, C, h, w] float32.

        timesteps: may lie between two whole ones. control: is shown, and may replace, the attention
        of the B rows, some rows at a time. Has a gradient where latents, conditioning or control
        ask for one.
        """
