"""What the reference's editors computed on a random Stable Diffusion 1, family by family.

The form of ../shared/goldens_editors/public; its README, one folder above, says what each array is
and what the tolerances are. Whatever a case lacks is not there to be compared.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from families import Check, furthest, relative
from goldens import ONE
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.attention import Layer, Projections
from piebench_masks.diffusion.backbone import Backbone, Conditioning, Posterior
from piebench_masks.diffusion.ddim import ddim_step
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.editing.alignment import Bounds, cross_schedule, refine, replace
from piebench_masks.editing.branches import sample_edits
from piebench_masks.editing.editor import Sources
from piebench_masks.editing.inversion import (
    Inversion,
    ddim,
    direct,
    edit_friendly,
    negative_prompt,
    null_text,
)
from piebench_masks.editing.prompt_to_prompt import (
    AttentionSteering,
    PromptToPrompt,
    blend_masks,
)

STEPS, GUIDANCE = 10, 7.5
LATENT, EMBEDDING, NOISE_LOSS, OPTIMISED = 1e-4, 1e-5, 1e-3, 5e-2
UNIT, BLEND_CHANGE = 1e-6, 1e-5
RMS, RMS_NULL_TEXT, MOST, WORD_MAP, FLIPPED = 2e-3, 5e-3, 5e-2, 1e-2, 4
NULL_TEXT = partial(null_text, inner_steps=3)
EDIT_FRIENDLY = partial(edit_friendly, skip=0)


@dataclass(frozen=True)
class EditorGoldens:
    """A folder of cases, and the folder of the model that they were made with."""

    folder: Path
    models: Path

    @staticmethod
    def knows(folder: Path) -> bool:
        """Whether the folder has this form: its pairs name the words to blend."""
        facts = folder.glob("*.json")
        return any(path.stem == "units" or '"blend_words"' in path.read_text() for path in facts)

    @cached_property
    def cases(self) -> list["EditorCase"]:
        return [EditorCase(self, path.stem) for path in sorted(self.folder.glob("*.npz"))]

    @cached_property
    def backbone(self) -> Backbone:
        return load_backbone(self.folder_of_backbone, variant="fp16", rows=1, vae_rows=1)

    @property
    def folder_of_backbone(self) -> Path:
        return self.models / "sd1_random"


@dataclass(frozen=True)
class EditorCase:
    """A pair: one picture with two prompts; or a collection of units, whose facts are a list."""

    goldens: EditorGoldens
    key: str

    @cached_property
    def arrays(self) -> dict[str, Tensor]:
        with np.load(self.goldens.folder / f"{self.key}.npz") as stored:
            return {name: torch.from_numpy(stored[name]) for name in stored}

    @cached_property
    def facts(self) -> Any:
        return json.loads((self.goldens.folder / f"{self.key}.json").read_text())

    @property
    def backbone(self) -> Backbone:
        return self.goldens.backbone

    @cached_property
    def prompts(self) -> tuple[str, str]:
        return self.facts["source_prompt"], self.facts["target_prompt"]

    @cached_property
    def conditioning(self) -> tuple[Conditioning, Conditioning, Conditioning]:
        """Of no prompt, the source's and the target's, one row each."""
        every = self.backbone.encode_prompts(["", *self.prompts])
        return every[:1], every[1:2], every[2:]

    @cached_property
    def image(self) -> Tensor:
        """uint8 [1, 512, 512, 3]."""
        return torch.from_numpy(
            np.array(Image.open(self.goldens.folder / self.facts["image"]).convert("RGB"))
        )[None]

    @cached_property
    def posterior(self) -> Posterior:
        return self.backbone.encode_images(self.image)

    @cached_property
    def planar_posterior(self) -> Posterior:
        """Of the picture laid out channel by channel, as diffusers' DiffEdit encodes it for maps.

        On a CPU the VAE's answer depends on that by up to 7e-3; this is the exact one, to 2e-5.
        Editors and everything else encode it pixel by pixel, as diffusers does with PIL's pictures.
        """
        return self.backbone.encode_images(self.planar_image)

    @property
    def planar_image(self) -> Tensor:
        return self.image.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)

    @cached_property
    def x0(self) -> Tensor:
        """The reference's own latents [1, 4, 64, 64], of pictures laid out channel by channel."""
        return self.arrays["p2p/x_stars"][:1]

    @cached_property
    def sources(self) -> Sources:
        source, target = self.prompts
        blended = " ".join(self.facts["blend_words"])
        scene = Scene(self.key, self.image[0], source, target, blended_words=blended)
        return Sources([scene], Posterior(self.x0, torch.zeros_like(self.x0)))

    @cache  # noqa: B019
    def inverted(self, invert: Callable[..., Inversion]) -> Inversion:
        """Our inversion with the source prompt."""
        return invert(self.backbone, self.x0, self.conditioning[1], steps=STEPS, guidance=GUIDANCE)

    @property
    def ddim(self) -> Inversion:
        return self.inverted(ddim)

    @property
    def null_text(self) -> Inversion:
        return self.inverted(NULL_TEXT)

    @property
    def edit_friendly(self) -> Inversion:
        """With all steps; the reference's noise maps are those of unit variance."""
        return self.inverted(EDIT_FRIENDLY)

    def mask(self, name: str, side: int = 64) -> Tensor:
        """Stored masks, bool [n, side, side]."""
        bits = np.unpackbits(self.arrays[name].numpy()).astype(bool)
        return torch.from_numpy(bits).reshape(-1, side, side)

    def stored(self, name: str, index: str = "") -> Iterator[tuple[int, Tensor]]:
        """A thinned array's rows with their numbers; nothing where there is none."""
        if name in self.arrays:
            rows = self.arrays[name]
            numbers = self.arrays.get(index or f"{name}_index", torch.arange(len(rows)))
            yield from zip(numbers.tolist(), rows, strict=True)


def conditioning(case: EditorCase) -> Iterator[Check]:
    """The text encoder's last hidden states of no prompt, the source and the target."""
    if "p2p/context" in case.arrays:
        found = Conditioning.cat(case.conditioning).hidden
        error = furthest(found, case.arrays["p2p/context"])
        yield Check("SD prompt embeddings", f"{case.key} p2p/context", error, EMBEDDING)


def inversions(case: EditorCase) -> Iterator[Check]:
    """DDIM inversion, and edit-friendly inversion's latents and noise maps."""
    for i, expected in case.stored("p2p/x_stars"):
        error = furthest(case.ddim.x[STEPS - i][0], expected)
        yield Check("DDIM inversion", f"{case.key} p2p/x_stars {i}", error, LATENT)
    method = "edit-friendly-inversion+p2p"
    for i, expected in case.stored(f"{method}/wts"):
        error = furthest(case.edit_friendly.x[STEPS - i][0], expected)
        yield Check("edit-friendly inversion", f"{case.key} {method}/wts {i}", error, LATENT)
    for i, expected in case.stored(f"{method}/zs"):
        step = STEPS - 1 - i
        noise, variance = case.edit_friendly.noise, case.edit_friendly.variance
        assert noise is not None and variance is not None
        error = furthest(noise[step][0] / variance[step] ** 0.5, expected)
        yield Check("edit-friendly noise maps", f"{case.key} {method}/zs {i}", error, LATENT)


def direct_offsets(case: EditorCase) -> Iterator[Check]:
    """What PnP Inversion adds to its source branch: x minus the guided step, from stored x."""
    known = dict(case.stored("p2p/x_stars"))
    timesteps = case.arrays.get("p2p/timesteps", torch.empty(0, dtype=torch.long)).tolist()
    levels = [case.backbone.level(timestep) for timestep in (*timesteps, 0)]
    offsets = case.stored(
        "directinversion+p2p/noise_loss_src", "directinversion+p2p/noise_loss_index"
    )
    for i, expected in offsets:
        # The i-th step leads from x_stars[STEPS - i] to the one below it.
        x, below = (known.get(STEPS - i - low) for low in (0, 1))
        if x is None or below is None:
            continue
        t = torch.full((1,), timesteps[i])
        away, toward = (
            case.backbone.predict_noise(x[None], t, text) for text in case.conditioning[:2]
        )
        guided = away + GUIDANCE * (toward - away)
        error = furthest(below - ddim_step(x, guided[0], levels[i], levels[i + 1]), expected)
        yield Check("direct inversion's offsets", f"{case.key} noise_loss {i}", error, NOISE_LOSS)


def null_text_inversion(case: EditorCase) -> Iterator[Check]:
    """The optimised embeddings; the first step of Adam has the size of the rate in any case."""
    for i, expected in case.stored("null-text-inversion+p2p/uncond"):
        error = furthest(case.null_text.negative[i].hidden[0], expected)
        yield Check("null-text embeddings", f"{case.key} uncond {i}", error, OPTIMISED)


def alignments(case: EditorCase) -> Iterator[Check]:
    """Words' positions, mappers, schedules and equalizers of the collection of units."""
    if case.key != "units":
        return
    for number, facts in enumerate(case.facts):
        name, editor = f"case{number}", prompt_to_prompt(case, "directinversion+p2p")
        source, target = (editor.parse(case.backbone, facts[side]) for side in ("src", "tar"))
        for prompt, side in ((source, "src"), (target, "tar")):
            found: dict[str, Any] = {"ids": prompt.ids, "word_positions": prompt.positions}
            found |= {f"words/{word}": prompt.find(word) for word in facts["words"]}
            expected = {f"words/{word}": places[side] for word, places in facts["words"].items()}
            expected |= {"ids": facts[f"{side}_ids"]}
            expected |= {"word_positions": facts[f"word_positions_{side}"]}
            for what, value in found.items():
                error = float(value != expected[what])
                yield Check("words' positions", f"{name} {side} {what}", error, 0)

        refined = refine(source, target, 77)
        mapper = torch.where(refined.target_share == 1, -1, refined.source_share.argmax(dim=0))
        for what, values in (
            ("refine_mapper", mapper),
            ("refine_alphas", 1 - refined.target_share),
        ):
            yield from _exactly(case, f"{name}/{what}", values[None], "prompt alignments")
        replaced = replace(source, target, 77)
        error = float((replaced is None) != ("replace_mapper_error" in facts))
        yield Check("prompt alignments", f"{name}/replace_mapper_error", error, 0)
        if replaced is not None:
            yield from _exactly(
                case, f"{name}/replace_mapper", replaced.source_share[None], "prompt alignments"
            )

        schedules: dict[str, tuple[Bounds, dict[str, Bounds]]] = {
            "default0.4": ((0, 0.4), {}),
            "word": ((0.1, 0.8), {facts["alpha_word"]: (0, 0.3)}),
        }
        for steps in (10, 50):
            for what, bounds in schedules.items():
                yield from _exactly(
                    case,
                    f"{name}/alpha_words/steps{steps}/{what}",
                    cross_schedule(target, steps, 77, *bounds),
                    "cross-attention schedules",
                )
        plan = editor.plan(source, target, facts["equalizer_word"], 77)
        keeps = torch.where(
            refined.target_share == 1, plan.target_share[0], plan.source_share[0].sum(dim=0)
        )
        yield from _exactly(case, f"{name}/equalizer_2", keeps[None], "equalizers")


def _exactly(case: EditorCase, name: str, found: Tensor, family: str) -> Iterator[Check]:
    if name in case.arrays:
        yield Check(family, name, furthest(found, case.arrays[name]), UNIT)


def local_blends(case: EditorCase) -> Iterator[Check]:
    """LocalBlend on the maps of synthetic attention."""
    if case.key != "units":
        return
    for number, facts in enumerate(case.facts):
        editor = prompt_to_prompt(case, "directinversion+p2p")
        prompts = [editor.parse(case.backbone, facts[side]) for side in ("src", "tar")]
        for what, blend in facts.get("localblend", {}).items():
            g = torch.Generator().manual_seed(100 + number)
            layers = [
                F.interpolate(torch.randn(4, 77, 4, 4, generator=g), size=16, mode="bilinear")
                for _ in range(5)
            ]
            x = torch.randn(2, 4, 64, 64, generator=g)
            steering = editor.steering(
                [editor.plan(*prompts, " ".join(blend["words"]), 77)], ONE, 16, 64 * 64
            )
            last = STEPS - 1  # where no attention is replaced
            for side, control in enumerate(
                (steering.source(last), steering.edit(last, ONE, negative=False))
            ):
                assert control is not None
                control.select(ONE)
                for block, layer in enumerate(layers):
                    maps = (4 * layer.flatten(2).transpose(1, 2)).softmax(-1)
                    rows = maps[2 * side : 2 * side + 2][None]
                    control.attend(Layer(block, "cross", 16, "up"), Synthetic(rows))
            blended = steering.blend(last, x[:1], x[1:])
            name = f"localblend/case{number}/{what}"
            found = torch.cat([steering.source_maps, steering.edit_maps]) / len(layers)
            error = furthest(found, case.arrays[f"{name}/maps"])
            yield Check("LocalBlend maps", f"{name}/maps", error, UNIT)
            differs = (blended != x[:1]).any(dim=1)[0]
            flipped = (differs != case.mask(f"{name}/mask")[0]).sum().item()
            yield Check("LocalBlend masks (pixels)", f"{name}/mask", flipped, 0)
            change = case.arrays[f"{name}/out_sum_abs_diff_to_in"].item()
            error = relative((blended - x[1:]).abs().sum().item(), change)
            yield Check("LocalBlend changes (relative)", name, error, BLEND_CHANGE)


class Synthetic(Projections):
    """A layer with these probabilities [rows, heads, Q, L], that shows them as what it attends."""

    def __init__(self, probabilities: Tensor) -> None:
        queries, positions = probabilities.shape[2:]
        self.queries, self.scale, self.probabilities = queries, 1.0, probabilities
        self.query = probabilities.log()
        self.key = self.value = torch.eye(positions).expand(*probabilities.shape[:2], -1, -1)


def controllers(case: EditorCase) -> Iterator[Check]:
    """What is attended with at every step, on synthetic attention."""
    if case.key != "units_ctrl":
        return
    for number, facts in enumerate(case.facts):
        for kind in ("p2p/case{}/plain", "p2p/case{}/reweight", "ef/case{}"):
            name = kind.format(number)
            is_ef = kind.startswith("ef")
            if f"{name}/cross" not in case.arrays:
                continue
            method = "edit-friendly-inversion+p2p" if is_ef else "directinversion+p2p"
            editor = dataclasses.replace(
                prompt_to_prompt(case, method),
                alignment="replace" if facts["is_replace_controller"] else "refine",
                reweight=2.0 if kind.endswith("reweight") else 1.0,
            )
            prompts = [editor.parse(case.backbone, facts[side]) for side in ("src", "tar")]
            steering = editor.steering([editor.plan(*prompts, facts["word"], 77)], ONE, 16, 64 * 64)
            g = torch.Generator().manual_seed(7)
            for step in range(STEPS):
                for _ in range(1 + is_ef):  # the unconditional call is drawn for, too
                    x, y = (
                        (3 * torch.randn(8 - 4 * is_ef, 64, length, generator=g)).softmax(-1)
                        for length in (77, 64)
                    )
                kinds: tuple[tuple[Literal["cross", "self"], Tensor, int], ...]
                kinds = ("cross", x, 24), ("self", y, 16)
                for what, values, shown in kinds:
                    rows = values[-4:].unflatten(0, (2, 2))
                    layer = Layer(0, what, 8, "up")
                    expected = case.arrays[f"{name}/{what}"][step, -2:]
                    source = steering.source(step)
                    source.select(ONE)
                    source.attend(layer, Synthetic(rows[:1]))
                    edit = steering.edit(step, ONE, negative=False)
                    assert edit is not None
                    edit.select(ONE)
                    found = edit.attend(layer, Synthetic(rows[1:]))
                    found = rows[1] if found is None else found[0]
                    error = furthest(found[:, :4, :shown], expected)
                    yield Check("controlled attention", f"{name} {what} {step}", error, UNIT)


P2P: dict[str, tuple[Callable[..., Inversion], dict[str, Any]]] = {
    "ddim+p2p": (ddim, {}),
    "negative-prompt-inversion+p2p": (negative_prompt, {}),
    "directinversion+p2p": (direct, {}),
    "directinversion+p2p@replace": (direct, {"alignment": "replace"}),
    "null-text-inversion+p2p": (NULL_TEXT, {}),
    "negative-prompt-inversion+proximal-guidance": (negative_prompt, {"proximal": 0.75}),
    "null-text-inversion+proximal-guidance": (NULL_TEXT, {"proximal": 0.75}),
    "edit-friendly-inversion+p2p": (
        partial(edit_friendly, skip=0.2),
        {
            "alignment": "replace",
            "self_replace_side": 0.25,
            "reweight": 1.0,
            "blend_threshold": None,
        },
    ),
}


def prompt_to_prompt(case: EditorCase, method: str) -> PromptToPrompt:
    inversion, settings = P2P[method]
    return PromptToPrompt(inversion, steps=STEPS, guidance=GUIDANCE, compat="reference", **settings)


class Traced:
    """A steering that is looked at after every step: both branches, and its sums of maps."""

    def __init__(self, steering: AttentionSteering) -> None:
        self.source, self.edit, self._steering = steering.source, steering.edit, steering
        self.branches: list[Tensor] = []
        self.maps: list[Tensor] = []

    def blend(self, step: int, source: Tensor, y: Tensor) -> Tensor:
        y = self._steering.blend(step, source, y)
        self.branches.append(torch.cat([source, y]))
        self.maps.append(torch.cat([self._steering.source_maps, self._steering.edit_maps]))
        return y


def p2p_trajectory(
    case: EditorCase, method: str, inverted: Inversion, steps: int = STEPS
) -> Iterator[Check]:
    """A method's first steps, against all that is stored of them."""
    editor = prompt_to_prompt(case, method)
    whole = steps >= len(inverted.timesteps)
    inverted = dataclasses.replace(inverted, levels=inverted.levels[: steps + 1])
    traced = Traced(editor.steering(editor.plans(case.backbone, case.sources), ONE, 16, 64 * 64))
    sample_edits(
        case.backbone,
        inverted,
        *case.conditioning[1:],
        torch.ones(1, 64, 64, dtype=torch.bool),
        ONE,
        traced,
        guidance=editor.guidance,
        proximal=editor.proximal,
    )
    latents = {"step4_tar": traced.branches[4][1]}
    if whole:
        source, target = traced.branches[-1]
        latents |= {"final_src": source, "final_tar": target}
    if whole and f"{method}/final" in case.arrays:
        latents["final"] = torch.stack([case.arrays[f"{method}/final"][0], target])
    null = method.startswith("null-text")
    for name in (f"{method}/{part}" for part in latents):
        if name in case.arrays:
            found, expected = latents[name.rpartition("/")[2]], case.arrays[name]
            rms = (found - expected).square().mean().sqrt().item()
            family = f"p2p latents, rms{' (null-text)' * null}"
            yield Check(family, f"{case.key} {name}", rms, RMS_NULL_TEXT if null else RMS)
            yield Check("p2p latents", f"{case.key} {name}", furthest(found, expected), MOST)
    for step, expected in list(case.stored(f"{method}/step_pool4"))[: len(traced.branches)]:
        error = furthest(F.avg_pool2d(traced.branches[step], 4), expected)
        yield Check(
            "p2p latents, every step (4x4 means)", f"{case.key} {method} {step}", error, MOST
        )
    for step, maps in enumerate(traced.maps[2:]):
        name = f"{case.key} {method} {step + 2}"
        if f"{method}/lb_maps" in case.arrays:
            expected = case.arrays[f"{method}/lb_maps"][step]
            error = furthest(maps / 5, expected)  # the mean of as many layers
            yield Check("p2p word maps", name, error, WORD_MAP)
        if f"{method}/lb_mask" in case.arrays:
            differs = blend_masks(maps, (64, 64), 0.3).any(dim=0)
            flipped = (differs != case.mask(f"{method}/lb_mask")[step]).sum().item()
            yield Check("p2p masks (pixels)", name, flipped, FLIPPED)


def _from_stored(case: EditorCase, inverted: Inversion) -> Inversion:
    """The inversion with the reference's own latents, as far as there are any."""
    x = inverted.x.clone()
    for i, stored in case.stored("p2p/x_stars"):
        x[STEPS - i, 0] = stored
    trajectory = None if inverted.trajectory is None else x
    return dataclasses.replace(inverted, x=x, trajectory=trajectory)


def p2p_first_steps(case: EditorCase) -> Iterator[Check]:
    """Half of an edit."""
    method = "directinversion+p2p"
    if f"{method}/step4_tar" in case.arrays:
        inverted = _from_stored(case, dataclasses.replace(case.ddim, trajectory=case.ddim.x))
        yield from p2p_trajectory(case, method, inverted, steps=5)


def p2p_edits(case: EditorCase) -> Iterator[Check]:
    """Every method from beginning to end."""
    for method in P2P:
        if any(name.startswith(f"{method}/") for name in case.arrays):
            inverted = case.inverted(P2P[method][0])
            if not method.startswith("edit-friendly"):
                inverted = _from_stored(case, inverted)
            yield from p2p_trajectory(case, method, inverted)


Family = Callable[[EditorCase], Iterator[Check]]

EDITOR_FAMILIES: tuple[Family, ...] = (
    conditioning,
    inversions,
    direct_offsets,
    null_text_inversion,
    alignments,
    local_blends,
    controllers,
    p2p_first_steps,
    p2p_edits,
)

SLOW_FAMILIES: tuple[Family, ...] = (null_text_inversion, p2p_edits)
"""Those that cost more than some seconds a pair: left to `make test-all` and to `check.py`."""
