"""Maps and edits the way the published reference makes them: one sample, method, threshold a time.

The comparison's other side, written from methods.md (sections 1 to 3, reference quirks) on
diffusers alone: it must not use the package's own maps, editor or batching. Nothing that was
computed once is kept for the next step, as there.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

METHODS = ("ours", "attn_based", "noise_based")
SEED = 8128
MAP_TIMESTEP = 499
MAP_QUERIES = 16 * 16
EDIT_TIMESTEPS = (799, 599, 399, 199)
EDIT_NOISE_TIMESTEPS = (599, 399, 199)
LAST_NORM_CAP = 15.5
W = 1.5

Text = tuple[Tensor, Tensor]
"""Hidden states [B, L, D] and pooled embeddings [B, P] of B prompts."""


@dataclass(frozen=True)
class Entry:
    """One sample as the mapping file has it. runs: row-major ``[start0, length0, ...]``."""

    id: str
    image: Path
    source_prompt: str
    target_prompt: str
    runs: list[int]


def entries(root: Path, limit: int) -> list[Entry]:
    """The first ``limit`` samples of a folder in PIE-Bench's form."""
    mapping = json.loads((root / "mapping_file.json").read_text(encoding="utf-8"))
    return [
        Entry(
            id=sample_id,
            image=root / "annotation_images" / entry["image_path"],
            source_prompt=without_brackets(entry["original_prompt"]),
            target_prompt=without_brackets(entry["editing_prompt"]),
            runs=entry["mask"],
        )
        for sample_id, entry in list(mapping.items())[:limit]
    ]


def without_brackets(prompt: str) -> str:
    return prompt.replace("[", "").replace("]", "")


@dataclass
class ReferenceFlow:
    """An SDXL-shaped diffusers pipeline, asked again for everything that is needed.

    pipeline: a StableDiffusionXLPipeline, its VAE in its own precision. ``counts`` says how much
    was asked of the networks: unet_rows, vae_encodes, vae_decodes, prompt_encodes.
    """

    pipeline: Any
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        from diffusers import DDPMScheduler

        unet = self.pipeline.unet
        self.device, self.dtype = unet.device, unet.dtype
        self.latent_size: int = unet.config.sample_size
        self.image_size: int = self.latent_size * self.pipeline.vae_scale_factor
        self.scheduler = DDPMScheduler.from_config(self.pipeline.scheduler.config)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        dtype: torch.dtype = torch.float32,
        vae_dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> "ReferenceFlow":
        from diffusers import StableDiffusionXLPipeline

        pipeline = StableDiffusionXLPipeline.from_pretrained(
            folder, dtype={"vae": vae_dtype, "default": dtype}, local_files_only=True
        )
        return cls(pipeline.to(device))

    # Networks, unbatched

    def encode_image(self, path: Path) -> Tensor:
        """The VAE's mean, scaled: float32 [1, 4, h, w]."""
        with Image.open(path) as image:
            size = (self.image_size, self.image_size)
            pixels = np.array(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
        vae = self.pipeline.vae
        scaled = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
        self.counts["vae_encodes"] += 1
        found = vae.encode(scaled.to(self.device, vae.dtype)).latent_dist.mode()
        return found.float() * vae.config.scaling_factor

    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """float32 [B, 4, h, w] -> uint8 [B, H, W, 3]."""
        vae = self.pipeline.vae
        self.counts["vae_decodes"] += len(latents)
        pixels = vae.decode((latents / vae.config.scaling_factor).to(vae.dtype)).sample.float()
        levels = (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy() * 255
        return levels.round().astype(np.uint8)

    def encode_prompts(self, prompts: Sequence[str]) -> Text:
        self.counts["prompt_encodes"] += len(prompts)
        hidden, _, pooled, _ = self.pipeline.encode_prompt(
            list(prompts), device=self.device, do_classifier_free_guidance=False
        )
        return hidden, pooled

    def predict_noise(self, latents: Tensor, timestep: int, text: Text) -> Tensor:
        """eps(z, t, c): float32 [B, 4, h, w]."""
        self.counts["unet_rows"] += len(latents)
        side = self.image_size
        sizes = torch.tensor([[side, side, 0, 0, side, side]] * len(latents))
        return self.pipeline.unet(
            latents.to(self.dtype),
            timestep,
            encoder_hidden_states=text[0],
            added_cond_kwargs={
                "text_embeds": text[1],
                "time_ids": sizes.to(self.device, self.dtype),
            },
        ).sample.float()

    # Maps: methods.md, section 2

    @torch.inference_mode()
    def soft_map(self, entry: Entry, method: str) -> Tensor:
        """One method's raw map [g, g], from its own encodes and its own U-Net call."""
        latents = self._noised(self.encode_image(entry.image))
        if method == "noise_based":
            text = self.encode_prompts([entry.source_prompt, entry.target_prompt])
            noise = self.predict_noise(latents.expand(2, -1, -1, -1), MAP_TIMESTEP, text)
            return (noise[0] - noise[1]).mean(dim=0).cpu()
        probe, columns, ids = self._changed(entry.source_prompt, entry.target_prompt)
        text = self.encode_prompts([probe])
        if method == "attn_based":
            return self._attention(latents, text, columns)[0]
        with zeroed_rows([self.pipeline.text_encoder, self.pipeline.text_encoder_2], ids):
            zeroed = self.encode_prompts([probe])
        both = torch.cat([text[0], zeroed[0]]), torch.cat([text[1], zeroed[1]])
        plain, ablated = self._attention(latents.expand(2, -1, -1, -1), both, columns)
        return plain - ablated

    def full_map(self, entry: Entry, method: str, size: tuple[int, int]) -> Tensor:
        """What is stored: the map (rescaled, if it is one of attention) at the image's size."""
        return full_size(self.soft_map(entry, method), method, size)

    def _noised(self, x0: Tensor) -> Tensor:
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(SEED))
        return self.scheduler.add_noise(x0, noise.to(x0.device), torch.tensor([MAP_TIMESTEP]))

    def _changed(self, source: str, target: str) -> tuple[str, list[int], list[int]]:
        """Probe prompt, changed columns, ids to zero: with the reference's quirks."""
        one, two = (self.pipeline.tokenizer(p).input_ids for p in (source, target))
        opcodes = SequenceMatcher(None, one, two).get_opcodes()
        columns: list[int] = []
        ids: list[int] = []
        for kind in ("delete", "replace", "insert"):
            new = [
                column
                for tag, i1, i2, j1, j2 in opcodes
                if tag == kind
                for column in (range(j1, j2) if kind == "insert" else range(i1, i2))
            ]
            columns += new
            if new:  # read at all columns so far, whichever prompt they are of
                prompt = two if kind == "insert" else one
                ids += [prompt[column] for column in columns if column < len(prompt)]
        lost = any(tag in ("delete", "replace") for tag, *_ in opcodes)
        return source if lost else target, columns, ids

    def _attention(self, latents: Tensor, text: Text, columns: list[int]) -> Tensor:
        """[B, g, g]: mean over heads and columns, summed over layers, after the whole call."""
        with stored_attention(self.pipeline.unet) as store:
            self.predict_noise(latents, MAP_TIMESTEP, text)
        layers = [
            layer.unflatten(0, (len(latents), -1))[..., columns].float().mean(dim=(1, 3))
            for layer in store
        ]
        return torch.stack(layers).sum(dim=0).unflatten(1, (16, 16)).cpu()

    # Edits: methods.md, section 3

    @torch.inference_mode()
    def edit(self, entry: Entry, full_map: Tensor, method: str, threshold: float) -> Tensor:
        """The last latents of one variant, [3, 4, h, w]: source, edit before guidance, edit."""
        x0 = self.encode_image(entry.image)
        text = self.encode_prompts([entry.source_prompt, entry.source_prompt, entry.target_prompt])
        whole = binarise(full_map, method, threshold)[None, None].float()
        mask = F.interpolate(whole, (self.latent_size,) * 2, mode="nearest-exact").to(x0.device)
        x = self._levels(x0)
        y = guided = x[0]
        for i, timestep in enumerate(EDIT_TIMESTEPS):
            rows = torch.cat([x[i], y, y])
            u, on_source, on_target = self._mean(
                rows, self.predict_noise(rows, timestep, text), i
            ).split(1)
            coeff = 1.0
            if last := i == len(EDIT_TIMESTEPS) - 1:
                cap = LAST_NORM_CAP * (x0.numel() / (4 * 64 * 64)) ** 0.5
                coeff = min(1.0, cap / float((x[i + 1] - u).norm()))
            guided = coeff * x[i + 1] + on_source - coeff * u
            y = guided + W * (on_target - on_source)
            if not last:
                y = (1 - mask) * x[i + 1] + mask * y
        return torch.cat([x0, guided, y])

    @torch.inference_mode()
    def paint(self, entry: Entry, full_map: Tensor, method: str, threshold: float) -> Image.Image:
        """One variant's picture; all three rows are decoded for it."""
        return Image.fromarray(self.decode(self.edit(entry, full_map, method, threshold))[2])

    def _levels(self, x0: Tensor) -> list[Tensor]:
        """x_0 .. x_K, the source at every level of noise."""
        shape = (len(EDIT_NOISE_TIMESTEPS), *x0.shape[1:])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(SEED)).to(x0.device)
        noised = [
            self.scheduler.add_noise(x0, n[None], torch.tensor([t]))
            for n, t in zip(noise, EDIT_NOISE_TIMESTEPS, strict=True)
        ]
        return [*noised, x0, x0]

    def _mean(self, x: Tensor, eps: Tensor, i: int) -> Tensor:
        """The DDPM posterior's mean (Ho et al., formula 7) towards the next time step."""
        alphas = self.scheduler.alphas_cumprod
        alpha = float(alphas[EDIT_TIMESTEPS[i]])
        following = EDIT_TIMESTEPS[i + 1 : i + 2]
        previous = float(alphas[following[0]]) if following else 1.0
        clean = (x - (1 - alpha) ** 0.5 * eps) / alpha**0.5
        step = alpha / previous
        return (previous**0.5 * (1 - step) * clean + step**0.5 * (1 - previous) * x) / (1 - alpha)


def full_size(soft_map: Tensor, method: str, size: tuple[int, int]) -> Tensor:
    """A raw map [g, g] at the image's size (square, so that the reference's swap is none)."""
    if method != "noise_based":
        low, high = soft_map.min(), soft_map.max()
        soft_map = (soft_map - low) / (high - low + 1e-7)
    return F.interpolate(soft_map[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def binarise(full_map: Tensor, method: str, threshold: float) -> Tensor:
    """The mask, bool, of a stored map [H, W]."""
    if method != "noise_based":
        return full_map > threshold
    c = threshold * full_map.mean()
    return ~(full_map.clamp(torch.zeros(()), c) / c <= 0.5)  # 0 / 0 counts as inside, as there


@dataclass
class StoringProcessor:
    """Attention without the fused kernel; probabilities of the map's resolution are kept."""

    store: list[Tensor]

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        query = attention.head_to_batch_dim(attention.to_q(hidden_states))
        key = attention.head_to_batch_dim(attention.to_k(encoder_hidden_states))
        value = attention.head_to_batch_dim(attention.to_v(encoder_hidden_states))
        probabilities = attention.get_attention_scores(query, key, attention_mask)
        if probabilities.shape[1] == MAP_QUERIES:
            self.store.append(probabilities)
        attended = attention.batch_to_head_dim(torch.bmm(probabilities, value))
        return attention.to_out[1](attention.to_out[0](attended))


@contextmanager
def stored_attention(unet: Any) -> Iterator[list[Tensor]]:
    """The list that one call's cross-attention probabilities [B * heads, 256, L] go to."""
    store: list[Tensor] = []
    before = unet.attn_processors
    storing = StoringProcessor(store)
    unet.set_attn_processor(
        {name: storing if "attn2" in name else own for name, own in before.items()}
    )
    try:
        yield store
    finally:
        unet.set_attn_processor(before)


@contextmanager
def zeroed_rows(encoders: Sequence[Any], ids: Sequence[int]) -> Iterator[None]:
    """The encoders with these rows of their token embedding tables set to zero."""
    tables = [encoder.get_input_embeddings().weight for encoder in encoders]
    before = [table.detach().clone() for table in tables]
    for table in tables:
        table[list(ids)] = 0
    try:
        yield
    finally:
        for table, rows in zip(tables, before, strict=True):
            table.copy_(rows)
