"""Random segmenters of the published structures, small enough for tests that need real networks."""

from collections.abc import Callable
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest
import torch
from transformers import (
    BertTokenizer,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    CLIPTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    Sam2Config,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam3Config,
    Sam3ImageProcessor,
    Sam3Model,
    Sam3Processor,
    SwinConfig,
    ViTImageProcessor,
)

from piebench_masks.training.model import MAX_TOKENS, write_tokenizers

WORDS = ("red", "blue", "circle", "square", "grass", "sand")
SIDE = 64
"""Of the pictures as the networks see them."""
LAYER = {"hidden_size": 32, "num_attention_heads": 2}
PYRAMID = [[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2]


@pytest.fixture(scope="session")
def segmenters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of transformers models: clipseg, sam3, grounding_dino, sam2."""
    root = tmp_path_factory.mktemp("segmenters")
    vocabulary_size = write_tokenizers(root, WORDS)
    writers: dict[str, Callable[[], tuple[Any, Any]]] = {
        "clipseg": lambda: clipseg(clip_tokenizer(root), clip_text(vocabulary_size)),
        "sam3": lambda: sam3(clip_tokenizer(root), clip_text(vocabulary_size)),
        "grounding_dino": lambda: grounding_dino(root),
        "sam2": sam2,
    }
    for seed, (name, write) in enumerate(writers.items()):
        torch.manual_seed(seed)
        network, processor = write()
        strengthen(network)
        network.save_pretrained(root / name)
        processor.save_pretrained(root / name)
    return {name: root / name for name in writers}


def strengthen(network: torch.nn.Module) -> None:
    """Untrained, pictures and words would hardly matter."""
    for weight in network.parameters():
        if weight.ndim > 1:
            torch.nn.init.xavier_normal_(weight, gain=1.5)


def clip_tokenizer(root: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(root / "tokenizer")


def clip_text(vocabulary_size: int) -> dict[str, Any]:
    return LAYER | {
        "vocab_size": vocabulary_size,
        "intermediate_size": 64,
        "projection_dim": 32,
        "num_hidden_layers": 2,
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": vocabulary_size - 2,
        "eos_token_id": vocabulary_size - 1,
        "pad_token_id": vocabulary_size - 1,
    }


def clipseg(tokenizer: CLIPTokenizer, text: dict[str, Any]) -> tuple[Any, Any]:
    config = CLIPSegConfig(
        text_config=text,
        vision_config=LAYER
        | {"intermediate_size": 64, "num_hidden_layers": 3, "image_size": SIDE, "patch_size": 8},
        projection_dim=32,
        reduce_dim=16,
        extract_layers=[0, 1, 2],
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    )
    pixels = ViTImageProcessor(size={"height": SIDE, "width": SIDE})
    return CLIPSegForImageSegmentation(config), CLIPSegProcessor(pixels, tokenizer)


def sam3(tokenizer: CLIPTokenizer, text: dict[str, Any]) -> tuple[Any, Any]:
    transformer = LAYER | {"num_layers": 1, "intermediate_size": 64}
    backbone = LAYER | {
        "model_type": "sam3_vit_model",
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "image_size": SIDE,
        "patch_size": 8,
        "window_size": 4,
        "global_attn_indexes": [1],
        "pretrain_image_size": SIDE,
    }
    config = Sam3Config(
        text_config=text | {"model_type": "clip_text_model"},
        vision_config={
            "backbone_config": backbone,
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[4 * SIDE // 8] * 2, [2 * SIDE // 8] * 2, [SIDE // 8] * 2],
        },
        geometry_encoder_config=transformer,
        detr_encoder_config=transformer,
        detr_decoder_config=transformer | {"num_queries": 6},
        mask_decoder_config=LAYER,
    )
    pixels = Sam3ImageProcessor(
        size={"height": SIDE, "width": SIDE}, mask_size={"height": SIDE // 2, "width": SIDE // 2}
    )
    return Sam3Model(config), Sam3Processor(pixels, tokenizer)


def grounding_dino(root: Path) -> tuple[Any, Any]:
    """With BERT's numbers of the special tokens, which the network knows by heart."""
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: "."}
    pieces = [*WORDS, *ascii_lowercase, *(f"##{letter}" for letter in ascii_lowercase)]
    tokens = special | {1029: "?"} | dict(enumerate(pieces, start=200))
    vocabulary = [tokens.get(number, f"[unused{number}]") for number in range(1030)]
    (root / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=SIDE,
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            window_size=4,
            out_indices=[2, 3, 4],
        ),
        text_config=LAYER
        | {
            "model_type": "bert",
            "vocab_size": len(vocabulary),
            "num_hidden_layers": 1,
            "intermediate_size": 64,
        },
        num_queries=6,
        d_model=64,
        max_text_len=MAX_TOKENS,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
    )
    pixels = GroundingDinoImageProcessor(size={"shortest_edge": SIDE, "longest_edge": 2 * SIDE})
    tokenizer = BertTokenizer.from_pretrained(root)
    return GroundingDinoForObjectDetection(config), GroundingDinoProcessor(pixels, tokenizer)


def sam2() -> tuple[Any, Any]:
    widths = [8, 16, 32, 64]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": widths[0],
        "image_size": [SIDE, SIDE],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [3],
    }
    config = Sam2Config(
        vision_config={
            "backbone_config": backbone,
            "backbone_channel_list": widths[::-1],
            "backbone_feature_sizes": PYRAMID,
            "fpn_hidden_size": 32,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": SIDE, "mask_input_channels": 4},
        mask_decoder_config=LAYER | {"mlp_dim": 32, "iou_head_hidden_dim": 32},
    )
    pixels = Sam2ImageProcessor(
        size={"height": SIDE, "width": SIDE}, mask_size={"height": SIDE // 4, "width": SIDE // 4}
    )
    return Sam2Model(config), Sam2Processor(pixels)
