"""Trains the miniature's CLIP and writes it as a folder that open_clip reads (``local-dir:``).

Contrastive training on both images of random edits: two scenes that differ in one word are the
hardest negatives a batch can hold. Knows scenes, the training loop and the scorer it trains for.
"""

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from ..data.shapes.grammar import WORDS, Edit, sample_edit, sample_scene
from ..data.shapes.render import IMAGE_SIZE, render, render_edit
from ..metrics.case import EditCase
from ..metrics.clip import Clip
from .loop import Schedule, train
from .model import MAX_TOKENS, write_tokenizers
from .scenes import TRAINING_SEEDS, to_unit_range

log = logging.getLogger(__name__)

HELD_OUT_SEED = TRAINING_SEEDS.stop + 2**31
_MASKED = 0.5  # share of edits shown through their mask, as the scorer's masked column sees them
_SHARPEST = 20.0
"""Most that similarities are multiplied by: more would tell prompts apart whose cosines hardly do,
and it is the cosines that are the scores."""


def clip_config(vocabulary_size: int) -> dict[str, Any]:
    """open_clip's description of the model and of its preprocessing."""
    return {
        "model_cfg": {
            "embed_dim": 96,
            "vision_cfg": {"image_size": IMAGE_SIZE, "layers": [1, 1, 1, 1], "width": 16},
            "text_cfg": {
                "context_length": MAX_TOKENS,
                "vocab_size": vocabulary_size,
                "hf_tokenizer_name": "clip_shapes",  # open_clip then reads the folder's tokenizer
                "width": 64,
                "heads": 4,
                "layers": 2,
            },
        },
        "preprocess_cfg": {"size": IMAGE_SIZE, "mean": [0.5] * 3, "std": [0.5] * 3},
    }


def train_clip(
    folder: Path, work: Path, *, device: str, steps: int, batch: int, learning_rate: float
) -> None:
    """Train on ``batch`` edits a step; write config, tokenizer, float16 weights to ``folder``.

    ``work`` keeps the checkpoint. Logs what :func:`retrieval_accuracy`, :func:`edit_accuracy` and
    :func:`edit_gains` find on scenes that training does not see.
    """
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as written:
        config = clip_config(write_tokenizers(Path(written), WORDS))
        # The tokenizer that pads with id 0: open_clip finds the end token as the highest id.
        shutil.copytree(Path(written) / "tokenizer_2", folder, dirs_exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n")
    tokenizer = HFTokenizer(str(folder), context_length=MAX_TOKENS)
    model = open_clip.CLIP(**config["model_cfg"]).to(device)

    def loss(step: int) -> dict[str, Tensor]:
        images, prompts = draw_batch(range(step * batch, (step + 1) * batch))
        with torch.autocast(model.logit_scale.device.type, torch.bfloat16):
            seen = model.encode_image(to_unit_range(images).to(device), normalize=True)
            said = model.encode_text(tokenizer(prompts).to(device), normalize=True)
        scale = model.logit_scale.exp().clamp(max=_SHARPEST)
        logits, own = scale * seen.float() @ said.float().T, torch.arange(len(said), device=device)
        return {
            "image": F.cross_entropy(logits, own) / 2,
            "text": F.cross_entropy(logits.T, own) / 2,
        }

    train(model, loss, Schedule(steps, learning_rate), work / "clip.safetensors")
    # The averaged weights have seen no batch: give the batch norms statistics of their own.
    update_bn(
        (to_unit_range(draw_batch(range(i * batch, (i + 1) * batch))[0]) for i in range(40)),
        model.visual,
        device=torch.device(device),
    )
    state = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    scorer = Clip("clip_shapes", model=f"local-dir:{folder}", pretrained=None, rows=64)
    log.info("retrieval among 64 prompts: %.3f", retrieval_accuracy(scorer))
    log.info("edits told from their sources: %.3f", edit_accuracy(scorer))
    for kind, gains in edit_gains(scorer).items():
        log.info("type %d: gains of the true edit, whole and masked: %.1f, %.1f", kind, *gains)


def draw_batch(seeds: Sequence[int]) -> tuple[Tensor, list[str]]:
    """Both images of one edit a seed, uint8 [2N,3,H,W], and their prompts; some are masked."""
    images, prompts = [], []
    for seed in seeds:
        rng = np.random.default_rng(TRAINING_SEEDS[seed])
        edit = sample_edit(rng, int(rng.integers(10)))
        source, target, mask = render_edit(edit)
        shown = mask[..., None] if rng.random() < _MASKED else True
        images += [source * shown, target * shown]
        prompts += [edit.source.prompt(), edit.target.prompt()]
    return torch.from_numpy(np.stack(images)).movedim(-1, 1), prompts


def retrieval_accuracy(scorer: Clip, groups: int = 8, size: int = 64) -> float:
    """Share of held-out images whose own prompt scores best among ``size`` different ones."""
    hits = []
    for group in range(groups):
        rng = np.random.default_rng(HELD_OUT_SEED + group)
        scenes = {(scene := sample_scene(rng)).prompt(): scene for _ in range(2 * size)}
        prompts = list(scenes)[:size]
        images = render([scenes[prompt] for prompt in prompts]).images
        similarity = scorer.embed_images(images) @ scorer.embed_prompts(prompts).T
        hits.append((similarity.argmax(dim=1).cpu() == torch.arange(size)).double().mean().item())
    return float(np.mean(hits))


def edit_accuracy(scorer: Clip, per_type: int = 30) -> float:
    """Share of held-out edits, evenly of types 1 to 9, whose image prefers the target prompt.

    The other choice is the source prompt, which differs in one word or phrase.
    """
    edits = [_held_out_edit(index, 1 + index % 9) for index in range(9 * per_type)]
    images = render([edit.target for edit in edits]).images
    seen = scorer.embed_images(images)
    source, target = (
        (seen * scorer.embed_prompts([scene.prompt() for scene in scenes])).sum(dim=1)
        for scenes in ([edit.source for edit in edits], [edit.target for edit in edits])
    )
    return (target > source).double().mean().item()


def edit_gains(scorer: Clip, per_type: int = 30) -> dict[int, tuple[float, float]]:
    """By edit type 1 to 9, and over all as 0: how much higher the true edit scores than the source.

    Medians over held-out edits, in points from 0 to 100: of the whole picture, and of the part
    under the edit's mask.
    """
    gains: dict[int, list[NDArray[np.float64]]] = {kind: [] for kind in range(10)}
    for index in range(9 * per_type):
        kind = 1 + index % 9
        edit = _held_out_edit(index, kind)
        source, target, mask = render_edit(edit)
        case = EditCase(source, target, mask, edit.source.prompt(), edit.target.prompt())
        scores = scorer(case, np.stack([source, target]))
        gain = np.array(
            [np.diff(scores[f"{scorer.name}_{part}"])[0] for part in ("whole", "edited")]
        )
        gains[kind].append(gain)
        gains[0].append(gain)
    return {kind: tuple(np.median(found, axis=0).tolist()) for kind, found in gains.items()}


def _held_out_edit(index: int, kind: int) -> Edit:
    return sample_edit(np.random.default_rng(HELD_OUT_SEED + 10**6 + index), kind)
