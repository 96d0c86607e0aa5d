"""Random panoptic segmenters of the published structures, and a fit of the tiny model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pictures_with_items import QUICK, picture
from transformers import (
    CLIPTokenizer,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    OneFormerConfig,
    OneFormerForUniversalSegmentation,
    OneFormerImageProcessor,
    OneFormerProcessor,
    SwinConfig,
)

from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.items.fit import fit
from piebench_masks.items.fitted import Fitted
from piebench_masks.training.model import write_tokenizers

SIDE = 64
CLASSES = ("sky/cloud", "teddy bear", "wall-other_merged")


@pytest.fixture(scope="session")
def panoptic(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of transformers models: mask2former, oneformer."""
    root = tmp_path_factory.mktemp("panoptic")
    for seed, (name, write) in enumerate((("mask2former", mask2former), ("oneformer", oneformer))):
        torch.manual_seed(seed)
        network, processor = write(root)
        with torch.no_grad():  # untrained, pictures would hardly matter
            for weight in network.parameters():
                if weight.ndim > 1:
                    torch.nn.init.xavier_normal_(weight, gain=2)
        network.save_pretrained(root / name)
        processor.save_pretrained(root / name)
    return {name: root / name for name in ("mask2former", "oneformer")}


def sizes() -> dict[str, Any]:
    return {
        "backbone_config": SwinConfig(
            image_size=SIDE,
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            window_size=4,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        "mask_feature_size": 32,
        "hidden_dim": 32,
        "encoder_feedforward_dim": 32,
        "dim_feedforward": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "num_attention_heads": 2,
        "num_queries": 8,
        "id2label": dict(enumerate(CLASSES)),
        "label2id": {label: i for i, label in enumerate(CLASSES)},
    }


def mask2former(root: Path) -> tuple[Any, Any]:
    config = Mask2FormerConfig(feature_size=32, **sizes())
    pixels = Mask2FormerImageProcessor(size={"shortest_edge": SIDE, "longest_edge": 2 * SIDE})
    return Mask2FormerForUniversalSegmentation(config), pixels


def oneformer(root: Path) -> tuple[Any, Any]:
    vocabulary = write_tokenizers(root, ("the", "task", "is", "panoptic"))
    config = OneFormerConfig(
        **{name: value for name, value in sizes().items() if name != "mask_feature_size"},
        conv_dim=32,
        mask_dim=32,
        task_seq_len=16,
        text_encoder_vocab_size=vocabulary,
    )
    # As those on the hub, it names a file of classes that only training reads.
    pixels = OneFormerImageProcessor(size={"shortest_edge": SIDE, "longest_edge": 2 * SIDE})
    pixels.class_info_file = "coco_panoptic.json"
    tokenizer = CLIPTokenizer.from_pretrained(root / "tokenizer")
    return OneFormerForUniversalSegmentation(config), OneFormerProcessor(pixels, tokenizer)


@pytest.fixture(scope="session")
def model(tiny_folder: Path) -> StableDiffusion:
    backbone = load_backbone(tiny_folder, rows=2)
    assert isinstance(backbone, StableDiffusion)
    return backbone


@pytest.fixture(scope="session")
def fitted(model: StableDiffusion) -> Fitted:
    return fit(model, [picture(0), picture(1, ("sky", "sea"))], QUICK, model="tiny")
