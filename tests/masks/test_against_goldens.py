"""What methods of other papers need can be asked for: recordings and operators as they were stored.

The formulas are those of ../shared/goldens_masks/README.md.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from piebench_masks.data.scene import Knows, Scene
from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.masks import MapMethod, Needs
from piebench_masks.masks.binarize import BINARIZERS, rescale
from piebench_masks.masks.postprocess import Blur, Graph, Propagate
from piebench_masks.masks.record import Record
from piebench_masks.masks.soft_maps import soft_maps

SHARED = Path(os.environ.get("PIEBENCH_SHARED", Path(__file__).parents[3] / "shared"))
PUBLIC = SHARED / "goldens_masks" / "public"
NEEDS = (
    Needs(
        conditions=("source", "target"),
        noise=True,
        cross_attention=(16, "finest"),
        self_attention=("every",),
    )
    | Needs(conditions=("probe",), cross_attention=("every",), heads="each", words="changed")
    | Needs(conditions=("source", "target"), levels=(0.9, 0.75), noise=True)
)


@dataclass(frozen=True)
class Shown(MapMethod):
    """Gives its record away."""

    knows: ClassVar[Knows] = "instruction"
    asked: Needs = NEEDS
    records: list[Record] = field(default_factory=list)

    @property
    def needs(self) -> Needs:
        return self.asked

    def __call__(self, record: Record) -> Tensor:
        self.records.append(record)
        return torch.zeros(1, 1)


@dataclass(frozen=True)
class Case:
    facts: dict[str, Any]
    stored: dict[str, Tensor]
    record: Record
    other: Record  # keys of other texts


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    if not PUBLIC.is_dir():
        pytest.skip(f"no reference data at {PUBLIC}; set PIEBENCH_SHARED to its folder")
    return load_backbone(SHARED / "goldens" / "model" / "sdxl_random", variant="fp16")


@pytest.fixture(scope="module", params=["step_insert", "step_replace"])
def case(backbone: Backbone, request: pytest.FixtureRequest) -> Case:
    facts = json.loads((PUBLIC / f"{request.param}.json").read_text())
    with np.load(PUBLIC / f"{request.param}.npz") as arrays:
        stored = {name: torch.from_numpy(arrays[name]) for name in arrays}
    x0 = stored["in/x0"][None]
    picture = torch.zeros(512, 512, 3, dtype=torch.uint8)
    prompts = facts["source_prompt"], facts["target_prompt"]
    word = next(iter(facts["ovk"].values()))["text"]
    scene = Scene("a", picture, *prompts, instruction=word)
    probe, texts = facts["probe"], ("source", "target", "instruction")
    keys = Needs(conditions=(probe,), cross_attention=(16, 32), texts=texts)
    methods = {"everything": Shown(), "keys": Shown(asked=keys)}
    seed = facts["seed"]
    soft_maps(backbone, Posterior(x0, x0.abs()), [scene], methods, seed=seed)
    return Case(facts, stored, *(method.records[0] for method in methods.values()))


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(
        found.double(), expected.double(), atol=tolerance, rtol=0, check_stride=False
    )


def summed(case: Case, grid: int, keep: Callable[[Any], bool] = lambda layer: True) -> Tensor:
    """The probe's cross-attention, mean over layers: [L, g, g]."""
    probe = case.record.at(case.facts["probe"])
    chosen = [i for i, layer in enumerate(probe.layers(grid)) if keep(layer)]
    return probe.cross_attention[grid][0, chosen].mean(dim=0)


def test_attention_and_noise(case: Case) -> None:
    for condition in ("source", "target"):
        row = case.record.at(condition)
        close(row.latents[0], case.stored["in/z_t"], 1e-6)
        close(row.noise[0], case.stored["out/eps"][int(condition == "target")], 2e-5)
        for grid in (16, 32):
            expected = case.stored[f"cross/r{grid}/{condition}"]
            found = row.cross_attention[grid][0].mean(dim=0)[: len(expected)]
            close(found, expected, 2e-6)
    updown = case.stored["cross/r16_updown/probe"]
    close(summed(case, 16, lambda layer: layer.place != "mid")[: len(updown)], updown, 2e-6)
    probe = case.record.at("probe")
    assert list(probe.changed) == case.facts["changed_columns"]
    shown = case.record.at(case.facts["probe"]).self_attention
    close(shown[16][0], case.stored["self/r16/probe"], 2e-8)
    rows = slice(*case.facts["self_r32_row_index"])
    close(shown[32][0][rows], case.stored["self/r32/probe_rows"], 2e-8)


def test_propagation_and_graph(case: Case) -> None:
    condition = case.facts["probe"]
    for grid, start in ((16, "m0/r16"), (32, "m0/multi")):
        for power in (1, 2):
            for transposed in (False, True):
                kind = "transposed" if transposed else "plain"
                post = Propagate(power, transposed, grid, condition)
                record = _only(case, condition, grid)
                found = post(case.stored[start].float(), record)
                close(found, case.stored[f"prop/r{grid}/k{power}/{kind}"], 1e-5)
    m0 = case.stored["casa/m0"].float()
    record = _only(case, condition, 32)
    close(Graph(condition=condition)(m0, record), case.stored["casa/r32/raw"], 1e-5)
    close(Graph(condition=condition)(rescale(m0), record), case.stored["casa/r32/norm"], 1e-4)


def _only(case: Case, condition: str, grid: int) -> Record:
    """As if only that grid had been asked for."""
    row = case.record.at(condition)  # type: ignore[arg-type]
    arrays = {"self_attention": {grid: row.self_attention[grid]}}
    return replace(case.record, recordings={(condition, None): replace(row, arrays=arrays)})


def test_daam(case: Case) -> None:
    """Mean over all heads and the layers on the way down and up, clamped after upsampling."""
    probe, heads = case.record.at("probe"), []
    for grid, arrays in probe.cross_attention.items():
        for layer, each in zip(probe.layers(grid), arrays[0], strict=True):
            if layer.place != "mid":
                heads.append(F.interpolate(each, (64, 64), mode="bicubic").clamp(min=0))
    found = torch.cat(heads).mean(dim=0)
    words = {columns[0]: word for word, columns in case.facts["daam"]["words"].items()}
    for column, heat in zip(probe.changed, found, strict=True):
        if column in words:
            close(heat, case.stored[f"daam/word/{words[column]}"], 1e-6)


def test_words_of_other_texts(case: Case) -> None:
    texts = {"instruction": case.record.scene.instruction}
    texts |= {
        "source": case.record.scene.source_prompt,
        "target": case.record.scene.target_prompt,
    }
    checked = 0
    for word, facts in case.facts["ovk"].items():
        for name, text in texts.items():
            if text != facts["text"]:
                continue
            tokens = case.other.tokenize(text)  # type: ignore[misc]
            assert list(case.other.positions(word, tokens)) == facts["columns"]
            for grid in (16, 32):
                attention = case.other.at(case.facts["probe"]).attention_to(name)[grid][0]
                found = attention.mean(dim=0)[facts["columns"]].mean(dim=0)
                close(found, case.stored[f"ovk/{word}/r{grid}"], 2e-6)
                checked += 1
    assert checked >= 2


def test_chord(case: Case) -> None:
    change = {}
    for share in (0.9, 0.75):
        source, target = (case.record.at(name, share) for name in ("source", "target"))
        level = source.level
        change[share] = level.noise * (source.noise - target.noise)[0] / level.signal
    u = (0.15 * change[0.9] + 0.9 * change[0.75]) / 1.05
    close(u, case.stored["chord/u"], 1e-4)


def test_smoothing_of_ledits(case: Case) -> None:
    blurred = Blur(sigma=0.5**0.5, size=3)(case.stored["ledits/attn_sum"], case.record)
    close(blurred, case.stored["ledits/attn_smooth"], 1e-6)


@pytest.mark.parametrize(
    ("name", "array"),
    [("attn16", "m0/r16"), ("prop32", "prop/r32/k1/plain"), ("noise", "noise/sum_abs")],
)
def test_cuts(case: Case, name: str, array: str) -> None:
    soft_map = case.stored[array].float()
    size = (len(soft_map), len(soft_map))
    for kind, binarizer, threshold in (
        ("otsu", "otsu", 0.0),
        *((f"q{q}", "above_quantile", q) for q in (0.5, 0.8, 0.9, 0.95)),
    ):
        mask = BINARIZERS[binarizer].masks(soft_map, [threshold], size, "exact")[0]
        bits = np.unpackbits(case.stored[f"threshold/{name}/{kind}"].numpy())
        wrong = (mask.flatten() != torch.from_numpy(bits).bool()).sum().item()
        assert wrong <= 4
