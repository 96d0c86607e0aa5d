"""SDXL-Turbo's networks with random weights: real sizes, no download, meaningless pictures.

Configurations are those that the published models carry; weights are the libraries' own
initialisation. Speed does not depend on what a weight is.
"""

import json
from pathlib import Path
from typing import Any

import torch

from piebench_masks.weights import packaged

UNET = {
    "sample_size": 64,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [320, 640, 1280],
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE = {
    "sample_size": 512,
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.13025,
    "force_upcast": True,
}
TEXT_ENCODER = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
TEXT_ENCODER_2 = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
TEXT = {"vocab_size": 49408, "max_position_embeddings": 77}
CLIP = "ViT-L-14-quickgelu"


def write_pipeline(folder: Path, *, tiny: bool, device: str, dtype: torch.dtype) -> None:
    """A diffusers folder of SDXL-Turbo's sizes, or (``tiny``) of the embedded miniature's.

    Prompts are told apart by the miniature's tokenizers, padded to the model's length. device:
    where weights are drawn; they are saved as ``dtype``, the VAE's in float32.
    """
    from diffusers import (
        AutoencoderKL,
        EulerAncestralDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    shapes = Path(packaged("shapes_turbo"))
    configs = _configs(shapes) if tiny else (UNET, VAE, TEXT_ENCODER | TEXT, TEXT_ENCODER_2 | TEXT)
    tokenizers = {
        name: CLIPTokenizer.from_pretrained(
            shapes / name, model_max_length=configs[2]["max_position_embeddings"]
        )
        for name in ("tokenizer", "tokenizer_2")
    }
    torch.manual_seed(0)
    with torch.device(device):
        unet = UNet2DConditionModel.from_config(configs[0]).to(dtype)
        vae = AutoencoderKL.from_config(configs[1])
        encoders = [
            kind(_text_config(config, tokenizers["tokenizer"])).to(dtype)
            for kind, config in (
                (CLIPTextModel, configs[2]),
                (CLIPTextModelWithProjection, configs[3]),
            )
        ]
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=encoders[0],
        text_encoder_2=encoders[1],
        unet=unet,
        scheduler=EulerAncestralDiscreteScheduler.from_pretrained(shapes / "scheduler"),
        **tokenizers,
    ).save_pretrained(folder)


def _configs(folder: Path) -> tuple[dict[str, Any], ...]:
    parts = ("unet", "vae", "text_encoder", "text_encoder_2")
    return tuple(json.loads((folder / part / "config.json").read_text()) for part in parts)


def _text_config(config: dict[str, Any], tokenizer: Any) -> Any:
    """With the tokenizer's own special tokens: the pooled embedding is the end token's."""
    from transformers import CLIPTextConfig

    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPTextConfig(**config | special)


def write_scorers(folder: Path, *, tiny: bool, device: str) -> tuple[Path, Path]:
    """Folder of a CLIP ViT-L/14 and file of SqueezeNet 1.1 features; ``tiny``: the miniature's."""
    if tiny:
        return Path(packaged("clip_shapes")), Path(
            packaged("lpips_shapes")
        ) / "features.safetensors"
    import open_clip
    from safetensors.torch import save_file
    from torchvision.models import squeezenet1_1

    clip, lpips = folder / "clip", folder / "squeezenet.safetensors"
    clip.mkdir(parents=True)
    with torch.device(device):
        weights = open_clip.create_model(CLIP, pretrained=None, device=device).state_dict()
        features = squeezenet1_1(weights=None).features.state_dict()
    save_file(
        {name: value.contiguous() for name, value in weights.items()},
        clip / "open_clip_model.safetensors",
    )
    config = {
        "model_cfg": open_clip.get_model_config(CLIP),
        "preprocess_cfg": {
            "size": 224,
            "mean": open_clip.OPENAI_DATASET_MEAN,
            "std": open_clip.OPENAI_DATASET_STD,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    (clip / "open_clip_config.json").write_text(json.dumps(config))
    save_file({f"features.{name}": value for name, value in features.items()}, lpips)
    return clip, lpips
