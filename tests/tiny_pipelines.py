"""The smallest random pipelines of several kinds, each saved as a folder that diffusers loads."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxKontextPipeline,
    FluxTransformer2DModel,
    QwenImageEditPipeline,
    QwenImageTransformer2DModel,
    StableDiffusionInpaintPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from piebench_masks.training.model import MAX_TOKENS, write_tokenizers

WORDS = ("a", "red", "blue", "circle", "square", "big", "on", "grass", "and")
VOCABULARY = 128
"""Of T5: its words, and the 100 tokens that its tokenizer adds when it is loaded."""


def clip_text(folder: Path) -> tuple[CLIPTextModel, CLIPTokenizer]:
    size = write_tokenizers(folder, WORDS)
    config = CLIPTextConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        pad_token_id=size - 1,
    )
    return CLIPTextModel(config), CLIPTokenizer.from_pretrained(folder / "tokenizer")


def t5_tokenizer() -> T5Tokenizer:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return T5Tokenizer(vocab=[*pieces, *((f"▁{word}", -1.0) for word in WORDS)], extra_ids=0)


def autoencoder(levels: int, **more: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=4,
        mid_block_add_attention=False,
        **more,
    )


def save_inpainting(folder: Path) -> Path:
    """Stable Diffusion's inpainting, whose U-Net sees the mask: 64x64 pictures."""
    torch.manual_seed(0)
    text_encoder, tokenizer = clip_text(folder)
    StableDiffusionInpaintPipeline(
        vae=autoencoder(4),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=8,
            in_channels=9,
            block_out_channels=(16, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=2,
            cross_attention_dim=16,
        ),
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def save_kontext(folder: Path) -> Path:
    """FLUX.1 Kontext, of one block of each kind."""
    torch.manual_seed(0)
    text_encoder, tokenizer = clip_text(folder)
    FluxKontextPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder(2, latent_channels=4, shift_factor=0.1, scaling_factor=1.5),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        ),
        tokenizer_2=t5_tokenizer(),
        transformer=FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            axes_dims_rope=(4, 4, 8),
        ),
    ).save_pretrained(folder)
    return folder


def qwen_processor() -> Qwen2VLProcessor:
    marks = ("im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")
    vocabulary = {piece: i for i, piece in enumerate(sorted(ByteLevel.alphabet()))}
    vocabulary["<|endoftext|>"] = len(vocabulary)
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], model_max_length=2048)
    special: Any = {"additional_special_tokens": [f"<|{mark}|>" for mark in marks]}
    tokenizer.add_special_tokens(special)
    sizes: Any = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=sizes),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
    )


def save_qwen(folder: Path) -> Path:
    """Qwen-Image-Edit, which brings every picture to a million pixels: its VAE shrinks 32 times."""
    torch.manual_seed(0)
    processor = qwen_processor()
    tokenizer = processor.tokenizer
    ids = {
        f"{mark}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for mark, name in (
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
            ("image", "image_pad"),
            ("video", "video_pad"),
        )
    }
    QwenImageEditPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLQwenImage(
            base_dim=2,
            z_dim=4,
            dim_mult=[1, 1, 1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False] * 5,
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(
                text_config={
                    "vocab_size": len(tokenizer),
                    "hidden_size": 16,
                    "intermediate_size": 16,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                    "num_key_value_heads": 2,
                    "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
                },
                vision_config={
                    "depth": 1,
                    "hidden_size": 16,
                    "intermediate_size": 16,
                    "num_heads": 2,
                    "out_hidden_size": 16,
                    "fullatt_block_indexes": [0],
                },
                **ids,
            )
        ),
        tokenizer=tokenizer,
        processor=processor,
        transformer=QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(4, 4, 8),
        ),
    ).save_pretrained(folder)
    return folder
