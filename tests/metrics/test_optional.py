"""Metrics that are chosen on purpose: DINOv2, DreamSim's package, a judge; on tiny models."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from piebench_masks.metrics import scores_of
from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.dino import DinoV2
from piebench_masks.metrics.dreamsim import DreamSim
from piebench_masks.metrics.judge import QUESTION, Judge, verdict
from piebench_masks.weights import WeightsError

Noisy = tuple[EditCase, np.ndarray]


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=224,
        patch_size=32,
        initializer_range=0.5,
    )
    folder = tmp_path_factory.mktemp("dinov2")
    Dinov2Model(config).save_pretrained(folder)
    return folder


def test_dinov2_compares_class_tokens_and_keys(dinov2: Path, noisy: Noisy) -> None:
    case, edited = noisy
    metric = DinoV2(model=str(dinov2), rows=3)
    found = scores_of(metric, case, edited)
    model = Dinov2Model.from_pretrained(dinov2, dtype=torch.float64).eval()
    key = [m for n, m in model.named_modules() if n.endswith(("k_proj", "key"))][-1]

    def seen(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = torch.from_numpy(image / 255).movedim(-1, 0)[None]
        pixels = torch.nn.functional.interpolate(
            pixels, (224, 224), mode="bilinear", antialias=True, align_corners=False
        )
        mean, std = (
            torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        )
        keys: list[torch.Tensor] = []
        hook = key.register_forward_hook(lambda m, given, out: keys.append(out[0]))
        with torch.no_grad():
            token = model((pixels - mean) / std).last_hidden_state[0, 0].numpy()
        hook.remove()
        units = keys[0].numpy() / np.linalg.norm(keys[0].numpy(), axis=1, keepdims=True)
        return token, units @ units.T

    assert case.mask is not None
    for suffix, part in {"": case.mask | True, "_unedit_part": ~case.mask}.items():
        (token, alike), (other, unlike) = (
            seen(image * part[..., None]) for image in (case.source, edited[0])
        )
        cosine = token @ other / np.linalg.norm(token) / np.linalg.norm(other)
        assert found[f"dino_i{suffix}"][0] == pytest.approx(cosine, abs=1e-4)
        distance = np.mean((alike - unlike) ** 2)
        assert found[f"dinov2_structure{suffix}"][0] == pytest.approx(distance, rel=2e-3)
    itself = scores_of(metric, case, case.source[None])
    assert itself["dino_i"].item() == pytest.approx(1, abs=1e-6)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of two small layers that knows the words of its question and its answer."""
    folder = tmp_path_factory.mktemp("judge")
    words = [
        "<pad>",
        "<unk>",
        "<s>",
        "</s>",
        "<image>",
        "change",
        "kept",
        ",",
        "USER",
        *"0123456789",
    ]
    words += sorted({word for word in QUESTION.replace(",", " ").split() if word not in words})
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<image>"],
    )
    template = (
        "{% for m in messages %}USER {% for c in m['content'] %}{% if c['type'] == 'image' %}"
        "<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}"
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        fast,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=32, patch_size=16, intermediate_size=32, **sizes),
        text_config=LlamaConfig(
            vocab_size=len(words),
            intermediate_size=32,
            num_key_value_heads=2,
            bos_token_id=2,
            eos_token_id=3,
            pad_token_id=0,
            **sizes,
        ),
        image_token_id=4,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_judges_answers_are_kept_and_repeat(judge: Path, noisy: Noisy) -> None:
    case, edited = noisy
    metric = Judge(model=str(judge), repeats=3, max_new_tokens=6)
    found, again = (scores_of(metric, case, edited[:2]) for _ in range(2))
    assert [len(text.split(" | ")) for text in found["judge_answers"]] == [3, 3]
    assert list(found["judge_answers"]) == list(again["judge_answers"])
    alone = scores_of(metric, case, edited[1:2])
    assert alone["judge_answers"][0] == found["judge_answers"][1]
    assert found["judge_change"].shape == (2,)


def test_verdicts_are_read_averaged_and_compared(
    judge: Path, noisy: Noisy, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter(
        [
            ["change 4, kept 9", "Change: 5, kept: 9.", "change 8, kept 9"],
            ["I cannot say", "change 2, kept 3", "change 11, kept 3"],
            ["", "", ""],
        ]
    )
    monkeypatch.setattr(Judge, "answers", lambda self, case, image: next(said))
    case, edited = noisy
    found = Judge(model=str(judge))(case, edited[:3])
    np.testing.assert_allclose(found["judge_change"], [17 / 3, 2, np.nan])
    np.testing.assert_allclose(found["judge_kept"], [9, 3, np.nan])
    np.testing.assert_allclose(found["judge_agreement"], [0.5, np.nan, np.nan])
    assert verdict("change 3 and kept 7.5") == (3, 7.5)


def test_a_judge_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"(?s)The judge could not.*what to do: check"):
        Judge(model=str(tmp_path / "none")).load()


def test_dreamsims_package_is_asked_for_every_edit(
    noisy: Noisy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The package's interface: a network of two batches, and what prepares one picture."""
    asked: dict[str, Any] = {}

    def dreamsim(**settings: Any) -> tuple[Any, Any]:
        asked.update(settings)
        return lambda one, two: (one - two).abs().mean(dim=(1, 2, 3)), prepare

    def prepare(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image) / 255).movedim(-1, 0)[None]

    module = ModuleType("dreamsim")
    module.dreamsim = dreamsim  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dreamsim", module)
    case, edited = noisy
    found = scores_of(DreamSim(cache_dir=str(tmp_path), rows=2), case, edited)["dreamsim"]
    wanted = np.abs(edited / 255 - case.source / 255).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(found, wanted)
    assert asked["cache_dir"] == str(tmp_path) and asked["dreamsim_type"] == "ensemble"


def test_dreamsim_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "dreamsim", None)
    with pytest.raises(WeightsError, match=r"pip install 'piebench-masks\[dreamsim\]'"):
        DreamSim().load()
