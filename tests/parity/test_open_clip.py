"""Our open_clip scorer and its preprocessing against transformers' CLIP of the same weights."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer
from transformers_clip import to_open_clip

from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.clip import Clip

NARROW = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
}
"""ViT-L/14 with its patches, head size, vocabulary and activation, but smaller."""
PROMPTS = (
    "A female robot, it's wearing (tiny) earrings!?",
    "Ünïcode & the  WOODEN table's cup of café crème, 12345 times",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)  # one whose cosines are positive
    config = CLIPConfig(
        projection_dim=768,
        text_config=NARROW,
        vision_config={"patch_size": 14, **NARROW},
        initializer_factor=4.0,  # so that pictures and prompts matter
    )
    folder = tmp_path_factory.mktemp("clip")
    CLIPModel(config).eval().save_pretrained(folder)
    to_open_clip(folder, folder)
    return folder


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Four pictures with structure at all scales."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 8, 8, 3)).repeat(64, axis=1).repeat(64, axis=2)
    return (0.7 * coarse + 0.3 * rng.integers(0, 256, coarse.shape)).astype(np.uint8)


def torchmetrics_scores(folder: Path, images: list[np.ndarray], prompts: list[str]) -> np.ndarray:
    """CLIPScore's definition: transformers' own preprocessing, 100 max(0, cosine)."""
    bpe = open_clip.tokenizer.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): i for token, i in bpe.encoder.items()}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=list(bpe.bpe_ranks))
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    pixels = CLIPImageProcessorPil()(list(images), return_tensors="pt")["pixel_values"]
    tokens = tokenizer(prompts, padding=True, return_tensors="pt", verbose=False)
    seen = {name: values[:, :77] for name, values in tokens.items()}  # CLIPScore's own way to cut
    with torch.no_grad():
        output = model(**seen, pixel_values=pixels)
    cosine = (output.image_embeds * output.text_embeds).sum(dim=-1)
    return 100 * cosine.clamp(min=0).numpy()


@pytest.mark.parametrize("target_prompt", [PROMPTS[1], "a very long prompt " * 30])
def test_scores_are_those_of_torchmetrics(
    folder: Path, pictures: np.ndarray, target_prompt: str
) -> None:
    source, *edited = pictures
    mask = np.zeros(source.shape[:2], dtype=bool)
    mask[100:400, 50:300] = True
    clip = Clip(model=f"local-dir:{folder}", pretrained=None, rows=2)
    found = clip(EditCase(source, None, mask, PROMPTS[0], target_prompt), np.stack(edited))
    expected = {
        "clip_whole": torchmetrics_scores(folder, edited, [target_prompt] * 3),
        "clip_edited": torchmetrics_scores(
            folder, [image * mask[..., None] for image in edited], [target_prompt] * 3
        ),
        "clip_source": torchmetrics_scores(folder, [source] * 3, [PROMPTS[0]] * 3),
    }
    assert np.ptp(np.concatenate(list(expected.values()))) > 1  # points: they could differ
    for column, scores in expected.items():
        np.testing.assert_allclose(found[column], scores, atol=1e-3, rtol=0, err_msg=column)


def test_pictures_are_prepared_as_by_transformers(folder: Path) -> None:
    clip = Clip(model=f"local-dir:{folder}", pretrained=None)
    wide = np.random.default_rng(1).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    ours = clip._open_clip[1](Image.fromarray(wide))
    theirs = CLIPImageProcessorPil()(wide, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
