"""D-Edit's tokens, grouped attention, fits and samples, family by family, each from its own fit.

Draws come from the stored states of torch's generator, as the README of the cases describes.
"""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from families import Check, furthest
from items import ItemCase
from torch import Tensor

from piebench_masks.diffusion.attention import Layer
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.items.attention import GroupedAttention, ItemTexts
from piebench_masks.items.edits import REFERENCE_IMAGE_SEED, ItemEdit, ItemEditor
from piebench_masks.items.fit import EMBEDDINGS, UNET, Fit, Picture
from piebench_masks.items.fitted import FitSettings, Fitted, posterior
from piebench_masks.items.mask_edits import Move
from piebench_masks.items.optimise import Draw, State
from piebench_masks.items.partition import Partition
from piebench_masks.items.sampling import Draws, Sampling, schedule
from piebench_masks.items.tokens import ItemPrompt, token_ids

TEXT, LOSS, ROWS, DELTA, NOISE, LATENT, FINAL, PIXELS = (
    1e-5,
    1e-5,
    1e-4,
    1e-5,
    3e-5,
    1e-4,
    5e-4,
    0.1,
)
VAE_MEAN, START, SUMS = 5e-4, 1e-6, 1e-2
PHASES = {EMBEDDINGS: "train_emb", UNET: "train_model"}
MODELS = {"sdxl": "sdxl_random", "sd": "sd1_random"}
ADAPTER = ".default.weight"


@dataclass(frozen=True)
class Call:
    """One of the U-Net: its latents [B, C, h, w], prediction, and SDXL's added conditions."""

    latents: Tensor
    predicted: Tensor
    added: dict[str, Tensor]


@contextmanager
def recorded(backbone: StableDiffusion) -> Iterator[list[Call]]:
    calls: list[Call] = []

    def hook(unet: Any, inputs: Any, named: dict[str, Any], output: Any) -> None:
        added = {k: v.detach() for k, v in (named["added_cond_kwargs"] or {}).items()}
        calls.append(Call(inputs[0].detach(), output.sample.detach(), added))

    handle = backbone.unet.register_forward_hook(hook, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


@dataclass(frozen=True, eq=False)
class RecordedFit(Fit):
    """A fit that keeps its draws, and the first texts of each phase."""

    draws: dict[str, list[Draw]] = field(default_factory=dict)
    first_texts: list[ItemTexts] = field(default_factory=list)

    def draw(self, state: State) -> list[Draw]:
        draws = super().draw(state)
        self.draws.setdefault(state.phase, []).extend(draws)
        return draws

    def texts(self, rows: Sequence[Tensor], picture: int) -> ItemTexts:
        texts = super().texts(rows, picture)
        self.first_texts.append(texts)
        return texts


@dataclass(frozen=True, eq=False)
class Run:
    """A case's fit. start: its tokens' embeddings before it; states: of phases, at their ends."""

    parts: RecordedFit
    start: list[Tensor]
    states: dict[str, State]
    before: dict[str, Tensor]
    calls: dict[str, list[Call]]
    texts: dict[str, ItemTexts]
    fitted: Fitted


@cache
def backbone_of(case: ItemCase) -> StableDiffusion:
    folder = case.goldens.model(MODELS[case.commands["train"].dpm])
    backbone = load_backbone(folder, variant="fp16", rows=4, vae_rows=1)
    assert isinstance(backbone, StableDiffusion)
    return backbone


@cache
def run_of(case: ItemCase) -> Run:
    asked, backbone = case.commands["train"], backbone_of(case)
    settings = FitSettings(
        tokens=asked.num_tokens,
        embedding_steps=asked.max_emb_train_steps,
        unet_steps=asked.max_diffusion_train_steps,
        embedding_learning_rate=asked.embedding_learning_rate,
        unet_learning_rate=asked.diffusion_model_learning_rate,
        batch=asked.train_batch_size,
        accumulation=asked.gradient_accumulation_steps,
        lora_rank=asked.lora_rank if asked.train_full_lora else 0,
        lora_alpha=asked.lora_alpha,
        compat="reference",
    )
    pictures = [Picture(case.image(name), case.items(name)) for name in case.pictures]
    parts = RecordedFit(backbone, pictures, settings)
    first = parts.start_embeddings(generator(case, "init/before_first_item"))
    start = [rows.clone() for rows in first.trained.values()]
    calls, texts = {}, {}
    calls[EMBEDDINGS], texts[EMBEDDINGS] = _run(case, parts, first)
    lora = settings.lora_rank > 0
    place = "start" if lora else "before_posterior0"
    second = parts.start_unet(first, generator(case, f"{PHASES[UNET]}/{place}"))
    before = _parameters(second)
    calls[UNET], texts[UNET] = _run(case, parts, second)
    states = {EMBEDDINGS: first, UNET: second}
    fitted = parts.fitted("model", second)
    return Run(parts, start, states, before, calls, texts, fitted)


def _run(case: ItemCase, parts: RecordedFit, state: State) -> tuple[list[Call], ItemTexts]:
    state.generator.set_state(case.arrays[f"train/rng/{PHASES[state.phase]}/before_posterior0"])
    parts.draw_latents(state)
    parts.first_texts.clear()
    with recorded(parts.backbone) as calls:
        parts.run(state)
    return calls, parts.first_texts[0]


def _parameters(state: State) -> dict[str, Tensor]:
    """Copies of what is trained of the U-Net, and of factors that are not."""
    fixed = {
        name.removeprefix("factors/"): tensor
        for name, tensor in state.fixed.items()
        if name.startswith("factors/")
    }
    return {name: tensor.detach().clone() for name, tensor in {**fixed, **state.trained}.items()}


def generator(case: ItemCase, name: str) -> torch.Generator:
    found = torch.Generator()
    found.set_state(case.arrays[f"train/rng/{name}"])
    return found


def below(case: ItemCase, start: str) -> dict[str, Tensor]:
    """The arrays of a case whose names begin so, by the rest of their names."""
    names = [name for name in case.arrays if name.startswith(start)]
    return {name.removeprefix(start): case.arrays[name] for name in names}


def against(
    case: ItemCase, family: str, name: str, found: Tensor, tolerance: float
) -> Iterator[Check]:
    """Against the array of that name, if there is one."""
    if name in case.arrays:
        error = furthest(found.detach(), case.arrays[name])
        yield Check(family, f"{case.key} {name}", error, tolerance)


def is_fit(case: ItemCase) -> bool:
    return "train" in case.commands


def attention_units(case: ItemCase) -> Iterator[Check]:
    """Grouped attention of single layers."""
    for name, facts in case.facts.items():
        if not name.startswith("ctrl/"):
            continue
        heads, count = facts["heads"], len(facts["lens"])
        parts = {
            part: case.arrays[f"{name}/{part}"].unflatten(0, (-1, heads))
            for part in ("q", "out", *(f"{kind}{i}" for kind in "kv" for i in range(count)))
        }
        found = _attended(parts, case.bits(f"{name}/masks", facts["H"]), facts)
        yield Check("grouped attention", f"{case.key} {name}", furthest(found, parts["out"]), NOISE)


class StoredProjections:
    """Of one layer; the text of item i is the number i."""

    def __init__(self, parts: dict[str, Tensor], scale: float) -> None:
        self._parts, self.scale = parts, scale
        self.query, self.queries = parts["q"], parts["q"].shape[2]

    def key_of(self, context: Tensor) -> Tensor:
        return self._parts[f"k{int(context.item())}"]

    def value_of(self, context: Tensor) -> Tensor:
        return self._parts[f"v{int(context.item())}"]


def _attended(parts: dict[str, Tensor], masks: Tensor, facts: dict[str, Any]) -> Tensor | None:
    grid, batch = facts["length"], len(parts["q"])
    texts = [torch.tensor([[float(i)]]) for i in range(len(masks))]
    group = ItemTexts(masks, texts, torch.zeros(0))
    attention = GroupedAttention([group], torch.zeros(batch, dtype=torch.long), (grid, grid))
    attention.select(torch.arange(batch))
    projections: Any = StoredProjections(parts, facts["scale"])
    return attention.attend(Layer(0, "cross", grid, "mid"), projections)


def tokens(case: ItemCase) -> Iterator[Check]:
    """Ids and first embeddings of items' tokens."""
    if not is_fit(case):
        return
    run, text = run_of(case), backbone_of(case).text
    for i, rows in enumerate(run.start):
        yield from against(case, "tokens at the start", f"train/init/te{i + 1}", rows, START)
    count = case.commands["train"].num_tokens
    for number, facts in enumerate(case.facts["commands"]["train"]["items"]):
        ids = token_ids(text, ItemPrompt(item=number), count, "reference")[0][1 : 1 + count]
        wrong = furthest(ids, facts["ids"])
        yield Check("ids of tokens", f"{case.key} {facts['string']}", wrong, 0)


def fits(case: ItemCase) -> Iterator[Check]:
    """Both phases: draws, texts, predictions, losses, and what was trained."""
    if not is_fit(case):
        return
    run, facts = run_of(case), case.facts["commands"]["train"]
    for phase, stored in PHASES.items():
        state = run.states[phase]
        yield from _fit_draws(case, run, phase)
        for j, picture in enumerate(run.parts.pictures):
            name = f"train/latent0/{stored}/{j}"
            latents = state.fixed[f"latents/{j}"]
            yield from against(case, "latents of fits", name, latents, LATENT)
            vae = posterior(run.parts.backbone, picture.image)
            scale = run.parts.backbone._vae.config.scaling_factor
            for part, found in (("mean", vae.mean), ("std", vae.std)):
                name = f"train/vae_{part}/{stored}/{j}"
                yield from against(case, "the VAE's posterior", name, found / scale, VAE_MEAN)
        first = run.calls[phase][0]
        yield from _texts(case, f"train/text/{stored}/0", run.texts[phase], first)
        name = f"train/pred/{stored}/000"
        yield from against(case, "predictions in fits", name, first.predicted[:1], NOISE)
        for number, call in enumerate(run.calls[phase]):
            name = f"train/pred/{stored}/{number:03d}_pool4"
            found = F.avg_pool2d(call.predicted, 4)
            yield from against(case, "predictions in fits", name, found, NOISE)
        losses = run.fitted.losses[phase].flatten()
        error = furthest(losses, facts["losses"][stored])
        yield Check("losses of every pass", f"{case.key} {stored}", error, LOSS)
    for i, rows in enumerate(run.fitted.rows):
        name = f"train/train_emb/after/te{i + 1}"
        yield from against(case, "tokens after the first phase", name, rows, ROWS)
    yield from _trained(case, run)


def _fit_draws(case: ItemCase, run: Run, phase: str) -> Iterator[Check]:
    facts, stored = case.facts["commands"]["train"], PHASES[phase]
    draws = run.parts.draws[phase]
    posteriors = [run.states[phase].fixed[f"latents/{j}"] for j in range(len(case.pictures))]
    source = generator(case, f"{stored}/before_posterior0")
    found = [torch.randn(latents.shape, generator=source) for latents in posteriors]
    found += [draw.noise for draw in draws]
    names = [name.split()[0] for name in facts["draws"] if name.startswith(f"{stored}/")]
    names = [name for name in names if f"{name} randint" not in " ".join(facts["draws"])]
    for name, noise in zip(names, found, strict=True):
        yield from against(case, "draws of fits", f"train/draw/{name}", noise, 0)
        if name in facts["draw_sums"]:
            sums = [noise.double().sum(), noise.double().square().sum()]
            error = furthest(torch.stack(sums), facts["draw_sums"][name])
            yield Check("sums of draws", f"{case.key} {name}", error, SUMS)
    timesteps = torch.stack([draw.timesteps for draw in draws])
    error = furthest(timesteps, facts["timesteps"][stored])
    yield Check("time steps of fits", f"{case.key} {stored}", error, 0)


def _texts(
    case: ItemCase, name: str, texts: ItemTexts, call: Call, row: int = 0
) -> Iterator[Check]:
    for i, hidden in enumerate(texts.texts):
        yield from against(case, "texts", f"{name}/ehs{i}", hidden[None], TEXT)
    yield from against(case, "pooled texts", f"{name}/pooled", texts.pooled[None], TEXT)
    if call.added:
        told = call.added["time_ids"][row : row + 1].float()
        yield from against(case, "sizes that SDXL is told", f"{name}/time_ids", told, 0)


def _trained(case: ItemCase, run: Run) -> Iterator[Check]:
    after = run.fitted.parameters
    for name, stored in below(case, "train/unet_delta/").items():
        yield _rms(case, "changes of weights, rms", name, after[name] - run.before[name], stored)
    for name, stored in below(case, "train/lora_init/").items():
        error = furthest(run.before[name.removesuffix(ADAPTER)], stored)
        yield Check("LoRA at the start", f"{case.key} {name}", error, 0)
    for name, stored in below(case, "train/lora_after/").items():
        yield _rms(case, "LoRA after, rms", name, after[name.removesuffix(ADAPTER)], stored)
    parts = ("train/unet_delta/", "train/lora_after/")
    names = {name.removesuffix(ADAPTER) for part in parts for name in below(case, part)}
    yield Check("names of weights", case.key, len(names ^ after.keys()), 0)


def _rms(case: ItemCase, family: str, name: str, found: Tensor, stored: Tensor) -> Check:
    error = (found - stored).square().mean().sqrt().item()
    return Check(family, f"{case.key} {name}", error, DELTA)


def edits(case: ItemCase) -> Iterator[Check]:
    """Samples of every edit."""
    for name, asked in case.edits.items() if is_fit(case) else ():
        yield from _edit(case, name, asked)


def _edit(case: ItemCase, name: str, asked: Namespace) -> Iterator[Check]:
    backbone, fitted = backbone_of(case), run_of(case).fitted
    backbone = backbone.adapted({}, rows=2 * asked.num_imgs)
    picture = asked.tgt_name or asked.name
    templates = dict(zip(asked.prompt_auxin_idx_list, asked.prompt_auxin_list, strict=True))
    if asked.recon_an_item:
        templates[asked.tgt_index] = asked.recon_prompt
    number = case.pictures.index(picture)
    editor = ItemEditor(backbone, fitted, case.image(picture), number, templates)
    settings = Sampling(
        steps=asked.num_sampling_steps,
        guidance=asked.guidance_scale,
        strength=case.facts["commands"][name]["sampling_args"]["strength"],
        thickness=asked.edge_thickness,
        images=asked.num_imgs,
        seed=asked.seed,
    )
    layers = {key.split("/")[0]: None for key in below(case, f"{name}/layer/")}
    with recorded(backbone) as calls, _layers(backbone, list(layers)) as seen:
        edit = _edited(case, name, asked, editor, settings)
    images = asked.num_imgs
    yield from _edit_draws(case, name, asked, settings, editor, calls[0].latents[:images])
    prompts = _prompts(case, asked, editor)
    masks = edit.regions.items.masks
    texts = fitted.texts(backbone, prompts, masks)
    yield from _texts(case, name, texts, calls[0], images)
    tokens = fitted.settings.tokens
    ids = [token_ids(backbone.text, prompt, tokens, "reference") for prompt in prompts]
    for found, stored in zip(
        zip(*ids, strict=True), case.facts["commands"][name]["ids"], strict=True
    ):
        for row, expected in zip(found, stored, strict=True):
            yield Check("ids of texts", f"{case.key} {name}", furthest(row, expected), 0)
    levels = [level.timestep for level, _ in schedule(backbone, settings.steps)]
    error = furthest(levels, case.facts["commands"][name]["timesteps"])
    yield Check("time steps of samples", f"{case.key} {name}", error, 0)
    first = calls[0].predicted
    for row, kind in ((0, "uncond"), (images, "cond")):
        found = first[row : row + 1]
        yield from against(case, "first predictions", f"{name}/unet0/{kind}", found, NOISE)
    for layer, (entering, leaving) in seen.items():
        for part, found in (("in", entering), ("out", leaving)):
            place = f"{name}/layer/{layer}/{part}"
            found = found[images : images + 1]
            yield from against(case, "layers of grouped attention", place, found, NOISE)
    entering = torch.stack([call.latents[:images] for call in calls])
    guided = torch.stack([_guided(call.predicted, settings.guidance) for call in calls])
    family = "steps of samples"
    yield from against(case, family, f"{name}/steps_in", entering[1:], FINAL)
    yield from against(case, family, f"{name}/steps_in_pool4", _pooled(entering), FINAL)
    yield from against(case, "guided predictions", f"{name}/noise_pred_cfg0", guided[0], FINAL)
    pooled = _pooled(guided)
    yield from against(case, "guided predictions", f"{name}/noise_pred_cfg_pool4", pooled, FINAL)
    yield from against(case, "final latents", f"{name}/final", edit.latents, FINAL)
    levels_of = edit.images.permute(0, 3, 1, 2).float()
    means = F.adaptive_avg_pool2d(levels_of, 16).permute(0, 2, 3, 1)
    yield from against(case, "pictures, 16x16 means", f"{name}/image_pool16", means, PIXELS)


def _pooled(latents: Tensor) -> Tensor:
    return F.avg_pool2d(latents.flatten(0, 1), 4).unflatten(0, latents.shape[:2])


def _guided(predicted: Tensor, guidance: float) -> Tensor:
    eps, eps_text = predicted.chunk(2)
    return eps + guidance * (eps_text - eps)


def _edited(
    case: ItemCase, name: str, asked: Namespace, editor: ItemEditor, settings: Sampling
) -> ItemEdit:
    picture = asked.tgt_name or asked.name
    if asked.kind == "recon":
        return editor.reconstruct(settings, item=asked.tgt_index if asked.recon_an_item else None)
    given: dict[str, Any] = {
        "edited": case.edited(picture) if asked.load_edited_mask else None,
        "active": asked.active_mask_list,
    }
    if asked.kind == "text":
        return editor.text(settings, asked.tgt_index, asked.tgt_prompt, **given)
    if asked.kind == "image":
        other = 1 - editor.picture
        return editor.image_item(settings, asked.tgt_index, other, asked.src_index, **given)
    given["heir"] = asked.force_mask_remain
    if asked.load_edited_processed_mask:
        names = editor.items.names
        masks = [case.bits(f"{name}/region/item{i}") for i in range(len(names))]
        given["processed"] = Partition(names, torch.stack(masks))
    if asked.kind == "remove":
        return editor.remove(settings, asked.tgt_index, **given)
    lists = (asked.delta_y_list, asked.delta_x_list, asked.resize_list, asked.priority_list)
    columns = [
        values or [default] * len(asked.tgt_indices_list)
        for values, default in zip(lists, (0, 0, 1.0, 1), strict=True)
    ]
    moves = [Move(*one) for one in zip(asked.tgt_indices_list, *columns, strict=True)]
    return editor.move(settings, moves, **given)


def _prompts(case: ItemCase, asked: Namespace, editor: ItemEditor) -> list[ItemPrompt]:
    """What the items attend to, from the arguments alone."""
    prompts = editor.fitted.prompts(editor.picture)
    for number, template in editor.templates.items():
        prompts[number] = ItemPrompt(template, prompts[number].item)
    if asked.recon_an_item:
        return [prompts[asked.tgt_index]]
    if asked.kind == "text":
        prompts[asked.tgt_index] = ItemPrompt(asked.tgt_prompt)
    if asked.kind == "image":
        prompts[asked.tgt_index] = editor.fitted.prompts(1 - editor.picture)[asked.src_index]
    return prompts


def _edit_draws(
    case: ItemCase,
    name: str,
    asked: Namespace,
    settings: Sampling,
    editor: ItemEditor,
    start: Tensor,
) -> Iterator[Check]:
    """The draws that a sample is made of, in their order."""
    yield from against(case, "draws of samples", f"{name}/zT", start, 0)
    if asked.kind == "image":
        settings = Sampling(images=settings.images, steps=settings.steps, seed=REFERENCE_IMAGE_SEED)
    _, channels, height, width = start.shape
    shape, device = (channels, height, width), torch.device("cpu")
    draws, is_xl = Draws(settings, shape, device, "reference"), editor.backbone.text.is_xl
    every = [draws.normal()]
    if asked.kind != "recon":
        every += [draws.normal(1) for _ in range(4)]
        of_edit = Draws(settings, shape, device, "reference")
        of_edit.normal()
        z0, noise = of_edit.of_source(editor.posterior)
        yield from against(case, "the source's latents", f"{name}/z_orig", z0, LATENT)
        yield from against(case, "draws of samples", f"{name}/posterior_noise", every[3], 0)
        yield from against(case, "draws of samples", f"{name}/blend_noise", noise, 0)
    steps = [draws.normal() for _ in range(settings.steps if is_xl else 0)]
    if steps:
        yield from against(case, "draws of samples", f"{name}/step_noise", torch.stack(steps), 0)
    sums = case.facts["commands"][name]["draw_sums"]
    error = furthest(torch.stack([one.double().sum() for one in every + steps]), [*sums.values()])
    yield Check("sums of draws", f"{case.key} {name}", error, SUMS)


@contextmanager
def _layers(
    backbone: StableDiffusion, names: Sequence[str]
) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """What enters and leaves these layers in the first call: [B, N, C]."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(name: str) -> Any:
        def keep(module: Any, inputs: Any, output: Tensor) -> None:
            seen.setdefault(name, (inputs[0], output))

        return keep

    handles = [
        backbone.unet.get_submodule(name).register_forward_hook(hook(name)) for name in names
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


ITEM_FIT_FAMILIES = (attention_units, tokens, fits, edits)
