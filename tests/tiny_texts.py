"""Random models of the published structures that write texts, small enough for every test."""

from pathlib import Path

import torch
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
)

WORDS = ("a", "photograph", "sketch", "of", "red", "blue", "circle", "square", "grass", "sand")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")
LAYER = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}


def save_blip(folder: Path) -> Path:
    """BLIP for captions, of pictures that it sees at 32x32."""
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate((*SPECIAL, *WORDS))})
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    torch.manual_seed(0)
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(token)
        for name, token in (("pad", "[PAD]"), ("bos", "[DEC]"), ("sep", "[SEP]"), ("eos", "[SEP]"))
    }
    text = {
        **LAYER,
        **ids,
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": 32,
        "num_hidden_layers": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.5,
    }
    vision = {
        **LAYER,
        "num_hidden_layers": 2,
        "image_size": 32,
        "patch_size": 8,
        "initializer_range": 0.5,
    }
    network = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
    for weight in network.parameters():
        if weight.ndim > 1:  # untrained, pictures would hardly matter
            torch.nn.init.xavier_normal_(weight, gain=2.0)
    network.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    BlipProcessor(BlipImageProcessor(size=size), tokenizer).save_pretrained(folder)
    return folder
