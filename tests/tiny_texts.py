"""Random models of the published structures that write texts, small enough for every test."""

from pathlib import Path

import torch
from tiny_pipelines import VOCABULARY, t5_tokenizer
from tiny_pipelines import WORDS as T5_WORDS
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    T5Config,
    T5ForConditionalGeneration,
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


def save_t5(folder: Path) -> Path:
    """T5, which writes words of its vocabulary."""
    torch.manual_seed(0)
    network = T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY,
            d_model=16,
            d_kv=8,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            decoder_start_token_id=0,
        )
    )
    for weight in network.parameters():
        if weight.ndim > 1:  # untrained, requests would hardly matter
            torch.nn.init.xavier_normal_(weight, gain=8.0)
    words = range(4, 4 + len(T5_WORDS))
    network.generation_config.suppress_tokens = [
        token for token in range(VOCABULARY) if token not in words
    ]
    network.save_pretrained(folder)
    t5_tokenizer().save_pretrained(folder)
    return folder
