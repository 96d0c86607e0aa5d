"""Trains the miniature's segmenter and writes it as a folder of CLIPSeg's format.

All of it is trained, not only the decoder as in CLIPSeg: there is no CLIP to begin with. Knows
scenes, the training loop and the method that it trains for.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    CLIPTokenizer,
    ViTImageProcessor,
)

from piebench_masks.data.shapes.grammar import WORDS, Scene, sample_edit, sample_scene
from piebench_masks.data.shapes.render import IMAGE_SIZE, render_edit
from piebench_masks.masks.clipseg import ClipSeg
from piebench_masks.training.clip import HELD_OUT_SEED
from piebench_masks.training.loop import Schedule, train
from piebench_masks.training.model import MAX_TOKENS, write_tokenizers
from piebench_masks.training.scenes import TRAINING_SEEDS, pool_of, to_unit_range

log = logging.getLogger(__name__)

_MEANINGLESS = ("a", "and", "of", "on", "the")
_TEXTS = 4
"""For each picture: only the words tell the masks of one picture apart."""
_UNLIKE = 4.0
"""What is taken from the patches' similarities times CLIP's scale, at first 14: most are unlike."""
_ABSENT = 0.1  # share of words that the picture does not show
FIRST_SEED = 2**30


def build_segmenter(vocabulary_size: int) -> CLIPSegForImageSegmentation:
    """CLIPSeg's structure on 64x64 pictures in patches of 8."""
    text = {
        "vocab_size": vocabulary_size,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": vocabulary_size - 2,
        "eos_token_id": vocabulary_size - 1,
        "pad_token_id": vocabulary_size - 1,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": IMAGE_SIZE,
        "patch_size": 8,
    }
    return CLIPSegForImageSegmentation(
        CLIPSegConfig(
            text_config=text,
            vision_config=vision,
            projection_dim=64,
            reduce_dim=64,
            extract_layers=[1, 2, 3],
            decoder_num_attention_heads=4,
            decoder_intermediate_size=128,
        )
    )


class Trained(nn.Module):
    """The segmenter's forward pass with gradients everywhere; its own has them in the decoder."""

    def __init__(self, network: CLIPSegForImageSegmentation) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor, ids: Tensor, attended: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of pictures [B,3,64,64] and of K texts each, [B*K,32]: [B*K,64,64], [B*K,8,8].

        The second are CLIP's own: how alike the patches and the text are.
        """
        clip, config = self.network.clip, self.network.config
        seen = clip.vision_model(pixels, output_hidden_states=True).hidden_states
        said = clip.text_projection(clip.text_model(ids, attended).pooler_output)
        texts = len(ids) // len(pixels)
        activations = [seen[n + 1].repeat_interleave(texts, 0) for n in config.extract_layers]
        logits: Tensor = self.network.decoder(activations, said).logits
        patches = clip.visual_projection(clip.vision_model.post_layernorm(seen[-1][:, 1:]))
        alike = (
            F.normalize(patches, dim=-1).repeat_interleave(texts, 0)
            @ F.normalize(said, dim=-1)[..., None]
        )
        side = round(alike.shape[1] ** 0.5)
        return logits, (alike * clip.logit_scale.exp()).view(-1, side, side) - _UNLIKE


def train_segmenter(
    folder: Path, work: Path, *, device: str, steps: int, batch: int, learning_rate: float
) -> None:
    """Train on ``batch`` scenes a step, each seen once; write the folder with float16 weights.

    Loss: cross-entropy of every pixel and one minus the soft Dice of every picture; and that of
    every patch by its similarity to the text, without which the words hardly tell two objects
    apart. Logs Dice on edits that training does not see (:func:`held_out_dice`).
    """
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as written:
        size = write_tokenizers(Path(written), WORDS)
        tokenizer = CLIPTokenizer.from_pretrained(Path(written) / "tokenizer")
    half = [0.5] * 3
    pixels = ViTImageProcessor(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, image_mean=half, image_std=half
    )
    CLIPSegProcessor(pixels, tokenizer).save_pretrained(folder)
    model = Trained(build_segmenter(size)).to(device)

    def loss(step: int) -> dict[str, Tensor]:
        first = FIRST_SEED + step * batch
        images, words, masks = draw_words(range(first, first + batch))
        tokens = tokenizer(words, padding="max_length", return_tensors="pt").to(device)
        wanted = masks.to(device)
        logits, alike = model(
            to_unit_range(images).to(device), tokens.input_ids, tokens.attention_mask
        )
        shares = logits.sigmoid()
        both = 2 * (shares * wanted).sum(dim=(1, 2)) + 1
        return {
            "patches": F.binary_cross_entropy_with_logits(
                alike, F.adaptive_avg_pool2d(wanted, alike.shape[-1])
            ),
            "pixels": F.binary_cross_entropy_with_logits(logits, wanted),
            "dice": 0.3 * (1 - both / ((shares + wanted).sum(dim=(1, 2)) + 1)).mean(),
        }

    train(
        model,
        loss,
        Schedule(steps, learning_rate, warm_up=300),
        work / "segmenter.safetensors",
        on_checkpoint=lambda: _export(folder, model),
    )
    _export(folder, model)
    for kind, dice in held_out_dice(folder).items():
        log.info("type %d: Dice %.3f", kind, dice)


def draw_words(seeds: Sequence[int]) -> tuple[Tensor, list[str], Tensor]:
    """One scene a seed: images uint8 [N,3,64,64]; for each ``_TEXTS`` times words, and where they
    are seen, [N * _TEXTS,64,64].
    """
    rngs = [np.random.default_rng(TRAINING_SEEDS[seed]) for seed in seeds]
    pool = pool_of([sample_scene(rng) for rng in rngs], cells=IMAGE_SIZE)
    words, masks = [], []
    for rng, scene, regions in zip(rngs, pool.scenes, pool.regions.float(), strict=True):
        for said, pointed in [_some_words(rng, scene) for _ in range(_TEXTS)]:
            words.append(said)
            masks.append(
                regions[sorted(pointed)].amax(dim=0) if pointed else torch.zeros_like(regions[0])
            )
    return pool.images, words, torch.stack(masks)


def _some_words(rng: Generator, scene: Scene) -> tuple[str, set[int]]:
    """Words and what they point at: one word, some that describe one thing, or an absent one."""
    words = scene.words()
    if rng.random() < _ABSENT:
        absent = sorted(set(WORDS) - set(_MEANINGLESS) - {word for word, _ in words})
        return absent[int(rng.random() * len(absent))], set()
    if rng.random() < 0.5:
        telling = [word for word, _ in words if word not in _MEANINGLESS]
        one = telling[int(rng.random() * len(telling))]
        return one, {region for word, region in words if word == one}
    region = words[int(rng.random() * len(words))][1]
    run = [word for word, of in words if of == region]
    start = int(rng.random() * len(run))
    chosen = run[start : start + 1 + int(rng.random() * len(run))]
    if all(word in _MEANINGLESS for word in chosen):
        chosen = run
    return " ".join(chosen), {region}


def held_out_dice(folder: Path, per_type: int = 30) -> dict[int, float]:
    """By edit type 1 to 9, and over all as 0: mean Dice at one half of the words that edits change.

    Of insertions, which change none of the source's words, there are none.
    """
    method, found = ClipSeg(model=str(folder), rows=32), dict[int, list[float]]()
    for kind in range(1, 10):
        rng = np.random.default_rng(HELD_OUT_SEED + kind)
        pictures: list[NDArray[np.uint8]] = []
        words: list[str] = []
        masks: list[NDArray[np.bool_]] = []
        while len(words) < per_type and kind != 2:
            edit = sample_edit(rng, kind)
            source, _, mask = render_edit(edit)
            said = [word for word, _ in edit.source.words()]
            if lost := [word for word in said if word not in edit.target.prompt().split()]:
                pictures.append(source)
                words.append(" ".join(lost))
                masks.append(mask)
        if not words:
            continue
        shares = torch.stack(method.found(pictures, words, torch.device("cpu"))).numpy() > 0.5
        for share, mask in zip(shares, masks, strict=True):
            dice = 2 * (share & mask).sum() / max(1, share.sum() + mask.sum())
            found.setdefault(kind, []).append(float(dice))
            found.setdefault(0, []).append(float(dice))
    return {kind: float(np.mean(dice)) for kind, dice in sorted(found.items())}


def _export(folder: Path, model: Trained) -> None:
    state: dict[str, Any] = {k: v.half() for k, v in model.network.state_dict().items()}
    model.network.config.dtype = torch.float16
    model.network.save_pretrained(folder, state_dict=state)
