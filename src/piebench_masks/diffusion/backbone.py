"""The frozen diffusion model: pictures and prompts in, latents, conditioning and noise out.

Loads a diffusers folder of SDXL's or Stable Diffusion 1's and 2's form; sizes come from its
configs. Must not know what the predictions are used for.
"""

import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from piebench_masks.batching import Blocks
from piebench_masks.diffusion.attention import AttentionControl, ControlledProcessor, Layer
from piebench_masks.errors import BenchmarkError

KEPT_PROMPTS = 1024
"""So many prompts' embeddings are kept in memory, 0.3 GB of SDXL's in half precision."""


@dataclass(frozen=True)
class Posterior:
    """The VAE's Gaussian over latents, already times its scaling factor; both [B, 4, h, w]."""

    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, index: Tensor | slice | list[int]) -> "Posterior":
        return Posterior(self.mean[index], self.std[index])


@dataclass(frozen=True)
class Conditioning:
    """What the U-Net knows of B prompts: hidden [B, L, D] and pooled [B, P], P = 0 before SDXL."""

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


class Backbone:
    """A loaded model. Every network call is batched in blocks of fixed size.

    ``counts`` says how much was asked of the networks: unet_rows, vae_encodes, vae_decodes,
    prompt_encodes. ``layers``: the U-Net's attention layers, by name, as they are evaluated.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        device: torch.device,
        rows: int,
        vae_rows: int,
        map_size: int,
        compiled: bool,
    ) -> None:
        from diffusers import DDPMScheduler

        # Tensor cores want a picture's channels side by side.
        order = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        self._unet = pipeline.unet.to(device, memory_format=order).eval().requires_grad_(False)
        self._vae = pipeline.vae.to(device, memory_format=order).eval().requires_grad_(False)
        parts = pipeline.components
        self._tokenizers = [parts[n] for n in ("tokenizer", "tokenizer_2") if n in parts]
        self._text_encoders = [
            parts[name].to(device).eval().requires_grad_(False)
            for name in ("text_encoder", "text_encoder_2")
            if name in parts
        ]
        self._is_xl = len(self._text_encoders) == 2
        processors = _controlled(self._unet.attn_processors)
        self.layers = {name: processor.layer for name, processor in processors.items()}
        self._unet.set_attn_processor(processors)
        if compiled:
            self._unet.compile_repeated_blocks()
        self._unet_blocks, self._text_blocks = Blocks(rows), Blocks(rows)
        self._encode_blocks, self._decode_blocks = Blocks(vae_rows), Blocks(vae_rows)
        self._texts: dict[tuple[str, frozenset[int]], Tensor] = {}
        self.device = device
        self.dtype: torch.dtype = self._unet.dtype
        self.rows, self.map_size = rows, map_size
        self.latent_size: int = self._unet.config.sample_size
        self.latent_channels: int = self._unet.config.in_channels
        self.image_size: int = self.latent_size * pipeline.vae_scale_factor
        self.max_tokens: int = pipeline.tokenizer.model_max_length
        scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        self.alphas_cumprod: Tensor = scheduler.alphas_cumprod
        self._predicts_velocity = scheduler.config.prediction_type == "v_prediction"
        self.counts: Counter[str] = Counter()

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        variant: str | None = None,
        dtype: torch.dtype = torch.float32,
        vae_dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        rows: int = 8,
        vae_rows: int = 2,
        map_size: int = 16,
        compiled: bool = False,
    ) -> "Backbone":
        """Load a diffusers folder. The VAE has its own precision: SDXL's overflows in float16.

        rows, vae_rows: of the U-Net and of the VAE in one block; map_size: side of the attention
        layers that maps are read from; compiled: torch.compile the transformer blocks. Raises
        BenchmarkError.
        """
        from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

        wanted = (
            "a folder that diffusers' save_pretrained wrote for SDXL or Stable Diffusion 1 or 2"
        )
        if not (folder / "model_index.json").is_file():
            raise BenchmarkError(
                f"no diffusion model: looked for {folder / 'model_index.json'}; give {wanted}, for "
                "SDXL-Turbo: hf download stabilityai/sdxl-turbo --local-dir <folder>"
            )
        is_xl = (folder / "text_encoder_2").is_dir()
        pipeline = load_pipeline(
            StableDiffusionXLPipeline if is_xl else StableDiffusionPipeline,
            folder,
            wanted,
            variant=variant,
            dtype=dtype,
            vae_dtype=vae_dtype,
            **({} if is_xl else {"safety_checker": None, "feature_extractor": None}),
        )
        where = torch.device(device)
        return cls(
            pipeline,
            device=where,
            rows=rows,
            vae_rows=vae_rows,
            map_size=map_size,
            compiled=compiled,
        )

    def tokenize(self, prompt: str) -> list[int]:
        """The first tokenizer's ids, with BOS and EOS, neither padded nor truncated."""
        return self._tokenizers[0](prompt, verbose=False).input_ids

    def token_text(self, token_id: int) -> str:
        """What one id of the first tokenizer reads."""
        return self._tokenizers[0].decode([token_id], clean_up_tokenization_spaces=False)

    @torch.inference_mode()
    def encode_images(self, images: Tensor) -> Posterior:
        """images: uint8 [B, H, W, 3] -> the posterior over latents [B, 4, H/f, W/f], float32."""

        def encode(block: Tensor) -> Tensor:
            pixels = block.to(self.device).permute(0, 3, 1, 2).float() / 255 * 2 - 1
            latent = self._vae.encode(pixels.to(self._vae.dtype)).latent_dist
            return torch.stack([latent.mean, latent.std], dim=1).float()

        self.counts["vae_encodes"] += len(images)
        moments = self._encode_blocks.map(encode, images) * self._vae.config.scaling_factor
        return Posterior(*moments.unbind(dim=1))

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """latents: [B, 4, h, w] -> images: uint8 [B, H, W, 3] on the CPU.

        Raises BenchmarkError where a picture is not finite: it would be black.
        """

        def decode(block: Tensor) -> Tensor:
            scaled = block.to(self.device) / self._vae.config.scaling_factor
            pixels = self._vae.decode(scaled.to(self._vae.dtype)).sample.float()
            if not pixels.isfinite().all():
                raise BenchmarkError(
                    "the decoded picture is not finite: the latents are not, or the VAE overflowed "
                    "(use model.vae_dtype=float32)"
                )
            levels = (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1) * 255
            return levels.round().to(torch.uint8).cpu()

        self.counts["vae_decodes"] += len(latents)
        return self._decode_blocks.map(decode, latents)

    @torch.inference_mode()
    def encode_prompts(
        self, prompts: Sequence[str], ablate: Sequence[Collection[int]] | None = None
    ) -> Conditioning:
        """SDXL: both encoders' penultimate hidden states, and the second one's pooled embedding;
        Stable Diffusion 1 and 2: the only one's last hidden state.

        ablate: for each prompt the token ids whose embedding is zeroed, at every position where
        they occur and, as in the reference, by the same ids in both encoders although '!' and the
        padding have other ids in the second. Equal ones are encoded once.
        """
        ablated = ablate or [()] * len(prompts)
        texts = [(text, frozenset(ids)) for text, ids in zip(prompts, ablated, strict=True)]
        if new := [text for text in dict.fromkeys(texts) if text not in self._texts]:
            self._texts |= zip(new, self._encode_texts(new), strict=True)
        encoded = torch.stack([self._texts[text] for text in texts]).to(self.device)
        for text in list(self._texts)[:-KEPT_PROMPTS]:
            del self._texts[text]
        shape = (self.max_tokens, self._unet.config.cross_attention_dim)
        hidden_size = shape[0] * shape[1]
        return Conditioning(encoded[:, :hidden_size].unflatten(1, shape), encoded[:, hidden_size:])

    def _encode_texts(self, texts: Sequence[tuple[str, frozenset[int]]]) -> Tensor:
        """Hidden states, flat, and pooled embedding of prompts with ablated ids: [B, L D + P]."""
        prompts = [prompt for prompt, _ in texts]
        token_ids = [
            tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
            for tokenizer in self._tokenizers
        ]
        dropped = [torch.tensor(sorted(ids), dtype=torch.long) for _, ids in texts]
        zeroed = [
            torch.stack([torch.isin(row, ids) for row, ids in zip(rows, dropped, strict=True)])
            for rows in token_ids
        ]

        def encode(*block: Tensor) -> Tensor:
            hidden = []
            count = len(self._text_encoders)
            parts = zip(self._text_encoders, block[:count], block[count:], strict=True)
            for encoder, ids, zero in parts:
                with _zeroed_embeddings(encoder, zero.to(self.device)):
                    output = encoder(ids.to(self.device), output_hidden_states=True)
                hidden.append(output.hidden_states[-2] if self._is_xl else output.last_hidden_state)
            # The second encoder's pooled embedding rides along: a block is one tensor.
            pooled = [output.text_embeds] if self._is_xl else []
            return torch.cat([torch.cat(hidden, dim=-1).flatten(1), *pooled], dim=1)

        self.counts["prompt_encodes"] += len(texts)
        return self._text_blocks.map(encode, *token_ids, *zeroed).cpu()

    def predict_noise(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        control: AttentionControl | None = None,
    ) -> Tensor:
        """eps(z, t, c) for every row; latents [B, 4, h, w], timesteps [B] -> [B, 4, h, w] float32.

        control: is shown, and may replace, the attention of the B rows, some rows at a time. Has a
        gradient where the conditioning asks for one.
        """
        hidden = conditioning.hidden

        def predict(rows: Tensor, z: Tensor, t: Tensor, hidden: Tensor, pooled: Tensor) -> Tensor:
            if control is not None:
                control.select(rows)
            return self._noise(z.to(self.device), t.to(self.device), hidden, pooled, control)

        self.counts["unet_rows"] += len(latents)
        index = torch.arange(len(latents), device=self.device)
        with _seen_residuals(self._unet, control), torch.inference_mode(not hidden.requires_grad):
            return self._unet_blocks.map(
                predict, index, latents, timesteps, hidden, conditioning.pooled
            )

    def _noise(
        self, z: Tensor, t: Tensor, hidden: Tensor, pooled: Tensor, control: AttentionControl | None
    ) -> Tensor:
        added = None
        if self._is_xl:
            height, width = (side * self.image_size // self.latent_size for side in z.shape[-2:])
            sizes = torch.tensor([height, width, 0, 0, height, width], device=self.device)
            time_ids = sizes.to(hidden.dtype).expand(len(z), -1)
            added = {"text_embeds": pooled, "time_ids": time_ids}
        predicted = self._unet(
            z.to(self.dtype),
            t,
            encoder_hidden_states=hidden,
            added_cond_kwargs=added,
            cross_attention_kwargs={"control": control},
        ).sample.float()
        if not self._predicts_velocity:
            return predicted
        alpha = self.alphas_cumprod.to(self.device)[t].view(-1, 1, 1, 1)
        return alpha.sqrt() * predicted + (1 - alpha).sqrt() * z


def load_pipeline(
    kind: Any,
    folder: Path,
    wanted: str,
    *,
    variant: str | None,
    dtype: torch.dtype,
    vae_dtype: torch.dtype,
    **parts: Any,
) -> Any:
    """A diffusers pipeline of that kind. ``wanted``: what the folder should be, in words.

    Raises BenchmarkError where it does not load.
    """
    try:
        with _quiet():
            return kind.from_pretrained(
                folder,
                variant=variant,
                # Without an explicit dtype the text encoders may come up in another precision.
                dtype={"vae": vae_dtype, "default": dtype},
                use_safetensors=True,
                local_files_only=True,
                **parts,
            )
    except Exception as error:  # three libraries raise a dozen unrelated types
        raise BenchmarkError(
            f"the diffusion model in {folder} does not load with variant={variant}: {error}; "
            f"give {wanted}, with the weights of that variant as safetensors"
        ) from error


@contextmanager
def _zeroed_embeddings(encoder: Any, zeroed: Tensor) -> Iterator[None]:
    """The encoder with its token embeddings zeroed where ``zeroed`` [B, L] says so."""

    def zero(module: nn.Module, args: tuple[Any, ...], embeddings: Tensor) -> Tensor:
        return embeddings.masked_fill(zeroed[..., None], 0.0)

    hook = encoder.get_input_embeddings().register_forward_hook(zero)
    try:
        yield
    finally:
        hook.remove()


def _controlled(processors: dict[str, Any]) -> dict[str, ControlledProcessor]:
    """The model's own processors by name, each told where it is."""
    # As they are evaluated: the model lists its way up before its middle.
    places: tuple[Literal["down", "mid", "up"], ...] = ("down", "mid", "up")
    at = [(place, name) for place in places for name in processors if name.startswith(place)]
    blocks = list(dict.fromkeys(name.rsplit(".", 2)[0] for _, name in at))
    return {
        name: ControlledProcessor(
            processors[name], Layer(place, blocks.index(block), is_cross=kind == "attn2")
        )
        for place, name in at
        for block, kind, _ in [name.rsplit(".", 2)]
    }


@contextmanager
def _seen_residuals(unet: Any, control: AttentionControl | None) -> Iterator[None]:
    """The U-Net whose ResNet blocks' residuals are what ``control`` makes of them."""

    def hook(name: str) -> Any:
        return lambda module, args, hidden: control.residual(name, hidden) if control else None

    handles = [
        unet.get_submodule(name).conv2.register_forward_hook(hook(name))
        for name in (control.resnets if control else ())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars or advice from diffusers and transformers while a model is loaded."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries: tuple[Any, ...] = (diffusers_logging, transformers_logging)
    before = [(each.get_verbosity(), each.is_progress_bar_enabled()) for each in libraries]
    try:
        for library in libraries:
            library.set_verbosity_error()
            library.disable_progress_bar()
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for library, (verbosity, bars) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()
