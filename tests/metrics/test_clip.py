"""Laws of CLIP scores on a small random model; its values: tests/parity/test_open_clip.py."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.clip import Clip
from piebench_masks.weights import WeightsError

CONFIG = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 24, "head_width": 8, "patch_size": 16},
    "text_cfg": {"width": 8, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module")
def random_clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**CONFIG).state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}))
    return Clip(model=f"local-dir:{folder}", pretrained=None, rows=1)


def test_scores_are_cosines_in_percent(
    random_clip: Clip, noisy: tuple[EditCase, np.ndarray]
) -> None:
    case, edited = noisy
    assert case.mask is not None
    found = random_clip(case, edited)
    texts = random_clip.embed_prompts([case.source_prompt, case.target_prompt]).double()
    for variant, image in enumerate(edited):
        images = [case.source, image, image * case.mask[..., None]]
        cosine = (random_clip.embed_images(images).double() @ texts.T).clamp(min=0)
        for column, row, text in (("source", 0, 0), ("whole", 1, 1), ("edited", 2, 1)):
            wanted = 100 * cosine[row, text].item()
            assert found[f"clip_{column}"][variant] == pytest.approx(wanted, rel=1e-4)


def test_prompts_are_read_once_for_all_variants(
    random_clip: Clip, noisy: tuple[EditCase, np.ndarray]
) -> None:
    case = replace(noisy[0], source_prompt="never read", target_prompt="nor this one")
    seen: list[int] = []
    hook = random_clip.network.ln_final.register_forward_hook(lambda *given: seen.append(1))
    first, again = random_clip(case, noisy[1]), random_clip(case, noisy[1])
    hook.remove()
    assert len(seen) == 2
    np.testing.assert_equal(first, again)


def test_gain_and_direction_are_what_doing_nothing_cannot_win(
    random_clip: Clip, noisy: tuple[EditCase, np.ndarray]
) -> None:
    case, edited = noisy
    found = random_clip(case, np.concatenate([edited, case.source[None]]))
    texts = random_clip.embed_prompts([case.source_prompt, case.target_prompt]).double().numpy()
    pictures = random_clip.embed_images([case.source, *edited]).double().numpy()
    told = texts[1] - texts[0]
    for variant, picture in enumerate(pictures[1:]):
        moved = picture - pictures[0]
        cosine = moved @ told / np.linalg.norm(moved) / np.linalg.norm(told)
        assert found["clip_direction"][variant] == pytest.approx(cosine, abs=1e-3)
        gain = 100 * (max(picture @ texts[1], 0) - max(pictures[0] @ texts[1], 0))
        assert found["clip_gain"][variant] == pytest.approx(gain, abs=1e-3)
        assert found["clip_happened"][variant] == (gain >= 1)
    assert found["clip_direction"][-1] == found["clip_gain"][-1] == found["clip_happened"][-1] == 0
    same = replace(case, source_prompt=case.target_prompt)
    assert np.isnan(random_clip(same, edited)["clip_direction"]).all()


@pytest.mark.parametrize("mask", [None, np.zeros((64, 64), bool)], ids=["no mask", "empty mask"])
def test_without_a_part_to_edit_there_is_no_score_of_it(
    random_clip: Clip, noisy: tuple[EditCase, np.ndarray], mask: np.ndarray | None
) -> None:
    case, edited = noisy
    found = random_clip(replace(case, mask=mask), edited)
    assert found.keys() == random_clip.columns.keys()
    assert np.isnan(found["clip_edited"]).all()
    assert np.isfinite(found["clip_whole"]).all()


def test_a_missing_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"(?s)model of 'clip'.*nowhere.*what to do: connect"):
        Clip(model=f"local-dir:{tmp_path / 'nowhere'}", pretrained=None).load()


def test_a_folder_without_weights_is_not_filled_with_noise(tmp_path: Path) -> None:
    config = {"embed_dim": 8, "vision_cfg": {"layers": 1}, "text_cfg": {"layers": 1}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(WeightsError, match="pretrained weights"):
        Clip(model=f"local-dir:{tmp_path}", pretrained=None).load()


def test_the_first_token_of_a_picture_is_what_is_embedded(
    random_clip: Clip, noisy: tuple[EditCase, np.ndarray]
) -> None:
    tokens = random_clip.tokens(noisy[1])
    assert tokens.shape == (5, 1 + 4 * 4, 24)
    embedded = torch.nn.functional.normalize(tokens[:, 0] @ random_clip.network.visual.proj, dim=-1)
    torch.testing.assert_close(embedded, random_clip.embed_images(noisy[1]), atol=1e-5, rtol=1e-5)


def test_without_a_network_one_request_says_what_is_missing(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", "from piebench_masks.metrics.clip import Clip; Clip().load()"],
        env=os.environ | {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "The CLIP model of 'clip' could not be loaded" in process.stderr
    assert "Retrying" not in process.stderr
