"""A CLIP in transformers' format, rewritten in open_clip's: the same weights under other names."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig

NAMES = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "text_model.encoder.layers": "transformer.resblocks",
    "vision_model.encoder.layers": "visual.transformer.resblocks",
    "layer_norm": "ln_",
    "self_attn": "attn",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def to_open_clip(source: Path, folder: Path) -> None:
    """Write what ``open_clip.create_model("local-dir:<folder>")`` loads."""
    state: dict[str, torch.Tensor] = {}
    projections: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in load_file(source / "model.safetensors").items():
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)
        prefix, _, last = name.rpartition("attn.")
        if last[:7] in ("q_proj.", "k_proj.", "v_proj."):
            projections.setdefault(f"{prefix}attn.in_proj_{last[7:]}", {})[last[0]] = value
        elif not name.endswith("position_ids"):
            state[name] = value
    state |= {name: torch.cat([qkv[x] for x in "qkv"]) for name, qkv in projections.items()}
    state["visual.proj"] = state.pop("visual_projection.weight").T.contiguous()
    state["text_projection"] = state.pop("text_projection.weight").T.contiguous()
    save_file(state, folder / "open_clip_model.safetensors")

    config = CLIPConfig.from_pretrained(source)
    vision, text = config.vision_config, config.text_config
    model = {
        "embed_dim": config.projection_dim,
        "quick_gelu": vision.hidden_act == "quick_gelu",
        "vision_cfg": {
            **_sizes(vision),
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
        },
        "text_cfg": {
            **_sizes(text),
            "heads": text.num_attention_heads,
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))


def _sizes(config: Any) -> dict[str, float]:
    return {
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        # open_clip multiplies the ratio by the width again and cuts off what is behind the point
        "mlp_ratio": (config.intermediate_size + 0.5) / config.hidden_size,
    }
