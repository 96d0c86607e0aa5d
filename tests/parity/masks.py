"""What public mask methods computed on random models, family by family.

The form of ../shared/goldens_masks/public; its README, one folder above, says what each array is
and what the tolerances are. Methods run on our own records, which start from the stored latents.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from families import Check, furthest
from goldens import kind_of
from PIL import Image
from torch import Tensor

from piebench_masks.data.scene import Knows, Scene
from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.diffusion.recorder import Recorder, Track
from piebench_masks.masks import (
    AttnMulti,
    AttnSelf,
    Casa,
    Chord,
    ClipSeg,
    Clusters,
    GroundedSam,
    Instant,
    Ledits,
    MapMethod,
    Needs,
    Relevance,
    Sam3,
)
from piebench_masks.masks.attention import weighted_attention, word_attention
from piebench_masks.masks.attn_multi import heat_maps
from piebench_masks.masks.binarize import BINARIZERS, rescale
from piebench_masks.masks.clusters import cluster_means, k_means
from piebench_masks.masks.postprocess import Blur, Graph, Propagate
from piebench_masks.masks.record import Record, Recording
from piebench_masks.masks.soft_maps import soft_maps

CROSS, SELF, NOISE, RAW, RESCALED = 2e-6, 2e-8, 2e-5, 1e-5, 2e-4
PIXELS, PLACES, SEGMENTER = 4 / 4096, 0.01, 1e-4
RANK = {64: 2.5e-4, 16: 4e-3}
EVERYTHING = Needs(conditions=("source", "target"), noise=True, cross_attention=(16, 32)) | Needs(
    conditions=("probe",), cross_attention=(16, 32), self_attention=(16, 32)
)


@dataclass(frozen=True)
class Shown(MapMethod):
    """Gives its record away."""

    knows: ClassVar[Knows] = "instruction"
    asked: Needs = field(default_factory=Needs)
    records: list[Record] = field(default_factory=list)

    @property
    def needs(self) -> Needs:
        return self.asked

    def __call__(self, record: Record) -> Tensor:
        self.records.append(record)
        return torch.zeros(1, 1)


@dataclass(frozen=True)
class MaskGoldens:
    """A folder of cases, and the folders of the models that they were made with."""

    folder: Path
    shared: Path

    @staticmethod
    def knows(folder: Path) -> bool:
        """Whether the folder has this form, whatever it is called."""
        return kind_of(folder) == "goldens_masks"

    @cached_property
    def cases(self) -> list["MaskCase"]:
        return [MaskCase(self, path.stem) for path in sorted(self.folder.glob("*.npz"))]

    def backbone(self, name: str) -> Backbone:
        if name not in self._backbones:
            (folder,) = self.shared.glob(f"*/model/{name}")
            self._backbones[name] = load_backbone(folder, variant="fp16", rows=1, vae_rows=1)
        return self._backbones[name]

    @cached_property
    def _backbones(self) -> dict[str, Backbone]:
        return {}


@dataclass(frozen=True)
class MaskCase:
    """One file of arrays and its facts."""

    goldens: MaskGoldens
    key: str

    @cached_property
    def arrays(self) -> dict[str, Tensor]:
        with np.load(self.goldens.folder / f"{self.key}.npz") as stored:
            return {name: torch.from_numpy(stored[name]) for name in stored}

    @cached_property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.goldens.folder / f"{self.key}.json").read_text())
        return facts

    @property
    def is_step(self) -> bool:
        """Whether it is one U-Net step of a pair of prompts."""
        return "in/x0" in self.arrays and "changed_columns" in self.facts

    @cached_property
    def backbone(self) -> Backbone:
        return self.goldens.backbone(self.facts["model"])

    def record(self, needs: Needs, instruction: str = "") -> Record:
        """What these needs record of the pair, from the stored latents."""
        shown = Shown(asked=needs)
        self._soft_map(shown, instruction)
        return shown.records[0]

    def soft_map(self, method: MapMethod) -> Tensor:
        found = self._soft_map(method)
        if isinstance(found, Exception):
            raise found
        return found

    def _soft_map(self, method: MapMethod, instruction: str = "") -> Any:
        x0 = self.arrays["in/x0"][None]
        prompts = self.facts["source_prompt"], self.facts["target_prompt"]
        picture = torch.zeros(512, 512, 3, dtype=torch.uint8)
        scene = Scene(self.key, picture, *prompts, instruction=instruction)
        posterior = Posterior(x0, torch.zeros_like(x0))
        seed = self.facts["seed"]
        return soft_maps(self.backbone, posterior, [scene], {"m": method}, seed=seed)["m"][0]

    @cached_property
    def everything(self) -> Record:
        return self.record(EVERYTHING)

    @property
    def probe(self) -> Recording:
        return self.everything.at("probe")

    def check(self, family: str, name: str, found: Tensor, tolerance: float) -> Check:
        """Against the array of that name."""
        return self.error(family, name, furthest(found, self.arrays[name]), tolerance)

    def error(self, family: str, name: str, error: float, tolerance: float) -> Check:
        return Check(family, f"{self.key} {name}", error, tolerance)

    def bits(self, name: str, like: Tensor) -> Tensor:
        bits = np.unpackbits(self.arrays[name].numpy())[: like.numel()]
        return torch.from_numpy(bits).bool().view_as(like)

    def share(self, family: str, name: str, found: Tensor, allowed: float = PIXELS) -> Check:
        """Of the pixels that a mask differs in from the stored bits."""
        wrong = (found != self.bits(name, found)).double().mean().item()
        return self.error(family, name, wrong, allowed)


def blocks(case: MaskCase) -> Iterator[Check]:
    """What one U-Net step records."""
    if not case.is_step:
        return
    for row, condition in enumerate(("source", "target")):
        recording = case.everything.at(condition)  # type: ignore[arg-type]
        stored = case.arrays[f"cross/r16/{condition}"]
        yield case.error(
            "predicted noise",
            condition,
            furthest(recording.noise[0], case.arrays["out/eps"][row]),
            NOISE,
        )
        for grid in (16, 32):
            found = word_attention(recording, grid)[: len(stored)]
            yield case.check("cross-attention", f"cross/r{grid}/{condition}", found, CROSS)
    updown = word_attention(case.probe, 16, places=("down", "up"))
    name = "cross/r16_updown/probe"
    yield case.check("cross-attention", name, updown[: len(case.arrays[name])], CROSS)
    attention = {grid: found[0] for grid, found in case.probe.self_attention.items()}
    yield case.check("self-attention", "self/r16/probe", attention[16], SELF)
    rows = slice(*case.facts["self_r32_row_index"])
    yield case.check("self-attention", "self/r32/probe_rows", attention[32][rows], SELF)
    yield case.check("self-attention", "self/r32/probe_diag", attention[32].diag(), SELF)
    sums = attention[32].double().sum(dim=0)
    yield case.check("self-attention", "self/r32/probe_colsum", sums, 1024 * SELF)


def words(case: MaskCase) -> Iterator[Check]:
    """DAAM's heat maps, and words of other texts."""
    if not case.is_step:
        return
    needs = Needs(conditions=("probe",), cross_attention=("every",), heads="each")
    heat = heat_maps(case.record(needs).at("probe"))
    yield from _daam(case, heat)
    changed, multi = case.facts["changed_columns"], case.soft_map(AttnMulti())
    yield case.error("attn_multi", "map", furthest(multi, heat[changed].mean(dim=0)), RAW)
    probe = case.facts["probe"]
    for word, facts in case.facts["ovk"].items():
        asked = Needs(conditions=(probe,), cross_attention=(16, 32), texts=("instruction",))
        recording = case.record(asked, instruction=facts["text"]).at(probe)
        for grid in (16, 32):
            attention = word_attention(recording, grid, text="instruction")
            found = attention[facts["columns"]].mean(dim=0)
            yield case.check("words of other texts", f"ovk/{word}/r{grid}", found, CROSS)


def heat_of_one_prompt(case: MaskCase) -> Iterator[Check]:
    """DAAM where a file has latents and a prompt, and no pair."""
    if case.is_step or "daam" not in case.facts:
        return
    backbone, track = case.backbone, Track("cross", "every", heads="each")
    latents = case.arrays["in/z_t"][None]
    conditioning = backbone.encode_prompts([case.facts["prompt"]])
    recorder = Recorder([frozenset({track})], torch.zeros(1, backbone.max_tokens), 16)
    backbone.predict_noise(latents, torch.tensor([case.facts["t"]]), conditioning, recorder)
    arrays = {grid: found[None] for grid, found in recorder.recorded(0, track).items()}
    layers = {grid: recorder.layers("cross", grid) for grid in arrays}
    recording = Recording(
        latents=latents, arrays={"attention to own": arrays, "cross layers": layers}
    )
    yield from _daam(case, heat_maps(recording))


def _daam(case: MaskCase, heat: Tensor) -> Iterator[Check]:
    if (stored := case.arrays.get("daam/all_tokens_pool2")) is not None:
        pooled = torch.nn.functional.avg_pool2d(heat[: len(stored)], 2)
        yield case.check("DAAM", "daam/all_tokens_pool2", pooled, CROSS)
    for word, columns in case.facts["daam"]["words"].items():
        yield case.check("DAAM", f"daam/word/{word}", heat[columns].mean(dim=0), CROSS)


def operators(case: MaskCase) -> Iterator[Check]:
    """Methods that carry attention along self-attention."""
    if not case.is_step:
        return
    changed = AttnSelf().needs
    record = case.record(changed)
    start = weighted_attention(record, (0.7, 0.3), 32)
    yield case.check("attn_self", "m0/multi", start, RAW)
    for power in (1, 2):
        for transposed, kind in ((False, "plain"), (True, "transposed")):
            post = Propagate(power, transposed)
            name = f"prop/r32/k{power}/{kind}"
            yield case.check("attn_self", name, post(start, record), RAW)
    found = case.soft_map(AttnSelf())
    stored = rescale(case.arrays["prop/r32/k1/plain"])
    yield case.error("attn_self", "rescaled", furthest(found, stored), RESCALED)
    yield case.check("casa", "casa/r32/norm", case.soft_map(Casa()), RESCALED)
    raw = case.arrays["casa/m0"].float()
    yield case.check("casa", "casa/r32/raw", Graph()(raw, record), RAW)
    still = Graph(lam=0.0)(raw, record)
    yield case.error("casa", "lam = 0", furthest(still, raw), 1e-6)
    yield from _clusters(case)


def _clusters(case: MaskCase) -> Iterator[Check]:
    for grid, start in ((16, "m0/r16"), (32, "m0/multi")):
        attention = case.probe.self_attention[grid][0]
        soft_map = case.arrays[start].float()
        labels = k_means(attention, soft_map.flatten(), 8).view(grid, grid)
        wrong = (labels != case.arrays[f"cluster/r{grid}/labels"]).double().mean().item()
        yield case.error("clusters", f"labels at {grid}", wrong, PLACES)
        stored = case.arrays[f"cluster/r{grid}/labels"].flatten().long()
        means = cluster_means(soft_map, stored)
        yield case.check("clusters", f"cluster/r{grid}/soft", means, RAW)
    soft = case.soft_map(Clusters())
    near = (soft - case.arrays["cluster/r32/soft"]).abs() < RESCALED
    yield case.error("clusters", "map", 1 - near.double().mean().item(), PLACES)


def noise(case: MaskCase) -> Iterator[Check]:
    """Methods that look at predicted noise."""
    if not case.is_step:
        return
    found = case.soft_map(Relevance())
    yield case.check("relevance", "relevance/map", found, RESCALED)
    yield case.share("relevance", "relevance/mask0.5", found >= 0.5)
    yield case.check("chord", "chord/map", case.soft_map(Chord()), 1e-4)
    soft = case.soft_map(Ledits())
    yield case.check("ledits", "ledits/soft", soft, 2 * RANK[16])
    for quantile in (0.5, 0.7, 0.8, 0.9):
        mask = BINARIZERS["reaches"].masks(soft, [quantile], (64, 64), "exact")[0]
        yield case.share("ledits", f"ledits/lam{quantile}/mask", mask)
    for name, method in (("map", Instant()), ("alt_map", Instant(unlike=0.88))):
        found = case.soft_map(method)
        yield case.check("instant", f"instant/{name}", found, RESCALED)
    mask = BINARIZERS["above"].masks(case.soft_map(Instant()), [0.2], (64, 64), "exact")[0]
    yield case.share("instant", "instant/mask0.2", mask)


def cuts(case: MaskCase) -> Iterator[Check]:
    """Binarizers on the stored maps."""
    if not case.is_step:
        return
    maps = (("attn16", "m0/r16"), ("prop32", "prop/r32/k1/plain"), ("noise", "noise/sum_abs"))
    for name, array in maps:
        soft_map = case.arrays[array].float()
        size = (len(soft_map), len(soft_map))
        for kind, binarizer, threshold in (
            ("otsu", "otsu", 0.0),
            *((f"q{q}", "above_quantile", q) for q in (0.5, 0.8, 0.9, 0.95)),
        ):
            mask = BINARIZERS[binarizer].masks(soft_map, [threshold], size, "exact")[0]
            yield case.share(
                "quantiles and Otsu", f"threshold/{name}/{kind}", mask, 4 / mask.numel()
            )


def ledits(case: MaskCase) -> Iterator[Check]:
    """The masks of LEDITS++'s pipeline from what it recorded."""
    for name in case.arrays:
        if not name.endswith("/attn_sum") or not name.startswith("edit/"):
            continue
        variant = name.removesuffix("/attn_sum")
        if f"{variant}/attn_smooth" not in case.arrays:
            continue
        blur = Blur(sigma=0.5**0.5, size=3)
        sums = case.arrays[name].float()
        record = Record(Scene("", torch.zeros(1, 1, 3, dtype=torch.uint8), "", ""), 16)
        smooth = torch.stack([blur(m, record) for m in sums.flatten(0, 1)]).view_as(sums)
        yield case.check("LEDITS++ masks", f"{variant}/attn_smooth", smooth, 1e-6)
        yield from _quantile_cuts(case, variant, "M1", case.arrays[f"{variant}/attn_smooth"])
        if f"{variant}/noise_sum" in case.arrays:
            yield from _quantile_cuts(case, variant, "M2", case.arrays[f"{variant}/noise_sum"])


def _quantile_cuts(case: MaskCase, variant: str, name: str, maps: Tensor) -> Iterator[Check]:
    """Of every step and concept; a concept that a step skips has no mask."""
    asked = case.facts["variants"][variant.split("/")[1]]["edit_threshold"]
    quantiles = asked if isinstance(asked, list) else [asked] * maps.shape[1]
    bits = np.unpackbits(case.arrays[f"{variant}/{name}"].numpy(), axis=-1)
    for step, concepts in enumerate(maps.float()):
        for concept, (soft_map, quantile) in enumerate(zip(concepts, quantiles, strict=True)):
            stored = torch.from_numpy(bits[step, concept]).bool().view_as(soft_map)
            mask = BINARIZERS["above_quantile"].masks(
                soft_map, [quantile], (len(soft_map), len(soft_map)), "exact"
            )[0]
            if stored.any():
                wrong = (mask != stored).double().mean().item()
                where = f"{variant}/{name}, step {step}, concept {concept}"
                yield case.error("LEDITS++ masks", where, wrong, PIXELS)


def segmenters(case: MaskCase) -> Iterator[Check]:
    """What segmenters find on pictures, through their processors."""
    if not any(name.startswith("clipseg/") for name in case.arrays):
        return
    cpu = torch.device("cpu")
    model = {
        name: str(next(case.goldens.shared.glob(f"*/model/{name}_random")))
        for name in ("clipseg", "sam3", "grounding_dino", "sam2")
    }
    with torch.no_grad():
        for key in sorted({name.split("/")[1] for name in case.arrays}):
            with Image.open(case.goldens.folder / "inputs" / f"{key}.png") as image:
                picture = np.array(image.convert("RGB"))
            size = picture.shape[:2]

            def word(part: str, key: str = key) -> str:
                found: str = case.facts[f"{part}/{key}/"]["word"]
                return found

            (share,) = ClipSeg(model=model["clipseg"]).found([picture], [word("clipseg")], cpu)
            logits = f"clipseg/{key}/logits"
            yield case.check("clipseg", logits, share.logit(), SEGMENTER)
            small = F.interpolate(share[None, None], (64, 64), mode="bilinear")[0, 0]
            yield case.check("clipseg", f"clipseg/{key}/prob64", small, SEGMENTER)
            mask = BINARIZERS["above"].masks(share, [0.5], size, "exact")[0]
            yield case.share("clipseg", f"clipseg/{key}/mask512_0.5", mask, SEGMENTER)
            (share,) = Sam3(model=model["sam3"]).found([picture], [word("sam3")], cpu)
            yield case.check("sam3", f"sam3/{key}/soft_max_score_x_prob", share, SEGMENTER)
            yield from _grounded(case, key, picture, word("gdino"), model)


def _grounded(
    case: MaskCase, key: str, picture: Any, word: str, model: dict[str, str]
) -> Iterator[Check]:
    cpu, scores = torch.device("cpu"), []
    for name in case.arrays:
        part, of, *rest = name.split("/")
        if (part, of) == ("gdino", key) and rest[-1] == "scores":
            scores.append(float(rest[0].removeprefix("t")))
    for score in sorted(scores):
        method = GroundedSam(
            model=model["grounding_dino"], mask_model=model["sam2"], box_score=score
        )
        boxes, found = method.boxes(picture, word, cpu)
        yield case.check("grounded_sam", f"gdino/{key}/t{score:g}/scores", found, SEGMENTER)
    # The boxes of the last, highest score went on to the other model.
    yield case.check("grounded_sam", f"sam2/{key}/boxes_in", boxes, 10 * SEGMENTER)
    covered = method.covered(picture, boxes, cpu)
    yield case.share("grounded_sam", f"sam2/{key}/union", covered.any(dim=0), SEGMENTER)
    (soft_map,) = method.found([picture], [word], cpu)
    yield case.share("grounded_sam", f"sam2/{key}/union", soft_map > score, SEGMENTER)


MASK_FAMILIES = (blocks, words, heat_of_one_prompt, operators, noise, cuts, ledits, segmenters)
