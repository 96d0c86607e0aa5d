"""The miniature's untrained parts: SDXL-Turbo's structure in small, its vocabulary, its folder.

Builds and writes; trains nothing. Sizes are those of SHAPES.md.
"""

import copy
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import diffusers
import torch
from diffusers import EulerAncestralDiscreteScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

MAX_TOKENS = 32
START, END = "<|startoftext|>", "<|endoftext|>"


class Denoiser(nn.Module):
    """What is trained together: the U-Net and both text encoders."""

    def __init__(self, vocabulary_size: int, channels: tuple[int, int] = (64, 128)) -> None:
        super().__init__()
        self.text_encoder = CLIPTextModel(_text_config(48, vocabulary_size))
        self.text_encoder_2 = CLIPTextModelWithProjection(_text_config(80, vocabulary_size))
        self.unet = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=channels,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            transformer_layers_per_block=1,
            attention_head_dim=(2, 4),  # the number of heads: a misnomer that SDXL's config shares
            cross_attention_dim=48 + 80,
            addition_embed_type="text_time",
            addition_time_embed_dim=16,
            projection_class_embeddings_input_dim=6 * 16 + 64,
            use_linear_projection=True,
        )
        for name, weight in self.text_encoder.named_parameters():
            if "layers.2." in name or "final_layer_norm" in name:  # nobody reads its last layer
                weight.requires_grad_(False)

    def forward(
        self, latents: Tensor, timesteps: Tensor, ids: Sequence[Tensor], keep: Tensor
    ) -> Tensor:
        """The predicted noise [B,4,h,w].

        ids: the token ids [B,32] of each tokenizer; keep: float [B,32], 0 where a token's embedding
        is to be exactly zero, as the map method ``ours`` has it (methods.md, section 2).
        """
        states = []
        for encoder, tokens in zip((self.text_encoder, self.text_encoder_2), ids, strict=True):
            hook = encoder.get_input_embeddings().register_forward_hook(
                lambda module, inputs, output: output * keep[..., None]
            )
            encoded = encoder(tokens, output_hidden_states=True)
            hook.remove()
            states.append(encoded.hidden_states[-2])
        size = 4.0 * self.unet.config.sample_size
        time_ids = latents.new_tensor([size, size, 0, 0, size, size]).expand(len(latents), 6)
        return self.unet(
            latents,
            timesteps,
            torch.cat(states, dim=-1),
            added_cond_kwargs={"text_embeds": encoded.text_embeds, "time_ids": time_ids},
        ).sample


def _text_config(width: int, vocabulary_size: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary_size,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=3,
        num_attention_heads=width // 16,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=64,
        bos_token_id=vocabulary_size - 2,
        eos_token_id=vocabulary_size - 1,
        pad_token_id=vocabulary_size - 1,
    )


def save_pipeline(folder: Path, denoiser: Denoiser) -> None:
    """Write ``denoiser`` in float16, SDXL-Turbo's scheduler and the index of the pipeline.

    The ``vae`` and the tokenizers are the business of their own writers. Each file is replaced in
    one go: a reader never meets half of one.
    """
    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        steps_offset=1,
    )
    parts = {name: copy.deepcopy(part).half() for name, part in denoiser.named_children()}
    with TemporaryDirectory(dir=folder) as written:
        for name, part in (parts | {"scheduler": scheduler}).items():
            part.save_pretrained(Path(written) / name)
        _write_json(Path(written) / "model_index.json", _MODEL_INDEX)
        for path in sorted(Path(written).rglob("*.*")):
            place = folder / path.relative_to(written)
            place.parent.mkdir(exist_ok=True)
            path.replace(place)


_MODEL_INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": diffusers.__version__,
    "feature_extractor": [None, None],
    "force_zeros_for_empty_prompt": True,
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "EulerAncestralDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


# --- vocabulary ----------------------------------------------------------------------------------


def _byte_symbols() -> list[str]:
    """The 256 characters that stand for bytes in CLIP's vocabulary, printable ones first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(rest))]


def learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte pair encoding's merges, most frequent pair first, until every word is one token."""
    spelled = [[*word[:-1], f"{word[-1]}</w>"] for word in sorted(words)]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in spelled for pair in pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = [_merged(word, best) for word in spelled]
    return merges


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    parts: list[str] = []
    for symbol in word:
        if parts and (parts[-1], symbol) == pair:
            parts[-1] += symbol
        else:
            parts.append(symbol)
    return parts


def write_tokenizers(folder: Path, words: Iterable[str]) -> int:
    """Write ``folder/tokenizer`` and ``folder/tokenizer_2`` and return the vocabulary's size.

    They differ as SDXL's do: the second pads with "!", id 0, the first with the end token.
    """
    merges = learn_merges(words)
    symbols = _byte_symbols()
    tokens = [*symbols, *(f"{s}</w>" for s in symbols), *map("".join, merges), START, END]
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    for name, padding in (("tokenizer", END), ("tokenizer_2", "!")):
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": padding}
        config = {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": MAX_TOKENS,
            "do_lower_case": True,
            "errors": "replace",
            **special,
        }
        vocabulary = {token: index for index, token in enumerate(tokens)}
        _write_json(place / "vocab.json", vocabulary)
        _write_json(place / "tokenizer_config.json", config)
        _write_json(place / "special_tokens_map.json", special)
        (place / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(tokens)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
