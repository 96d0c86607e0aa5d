"""Random networks of the structures that Learnable Regions looks at, as folders."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from transformers import ViTConfig, ViTModel

CLIP = {
    "embed_dim": 8,
    "vision_cfg": {
        "image_size": 32,
        "patch_size": 8,
        "width": 16,
        "head_width": 8,
        "layers": 2,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}


def save_dino(folder: Path) -> Path:
    """Patches of 8 pixels, as DINO ViT-B/8 has them."""
    torch.manual_seed(3)
    network = ViTModel(
        ViTConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=224,
            patch_size=8,
        ),
        add_pooling_layer=False,
    )
    for name, weight in network.named_parameters():
        if weight.ndim > 1 and "position" not in name:  # untrained, it would look everywhere alike
            torch.nn.init.normal_(weight, std=0.4)
    network.save_pretrained(folder)
    return folder


def save_clip(folder: Path) -> str:
    """What ``open_clip.create_model`` is given for it."""
    folder.mkdir()
    torch.manual_seed(4)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP}))
    network = open_clip.CLIP(**CLIP)
    for weight in network.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"
