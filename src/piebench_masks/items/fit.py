"""Fitting a model to pictures: first the tokens of their items, then weights of the U-Net (D-Edit,
arXiv 2403.04880).

Knows pictures and their items; must not know files of pictures or what is edited later.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from piebench_masks.diffusion.ddpm import TRAIN_TIMESTEPS
from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.errors import BenchmarkError
from piebench_masks.items import adapters
from piebench_masks.items.attention import ItemTexts, predict_noise
from piebench_masks.items.fitted import FitSettings, Fitted, image_identity, posterior
from piebench_masks.items.optimise import HALF_SCALE, Checkpoint, Draw, Progress, State, optimise
from piebench_masks.items.partition import Partition
from piebench_masks.items.tokens import ItemPrompt, item_texts, new_rows

EMBEDDINGS, UNET = "embeddings", "unet"
"""The phases, in this order."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture to fit: uint8 [H, W, 3], and its items, of the same size."""

    image: Tensor
    items: Partition

    def __post_init__(self) -> None:
        if tuple(self.image.shape) != (*self.items.size, 3) or self.image.dtype != torch.uint8:
            raise BenchmarkError(
                f"a picture of shape {list(self.image.shape)} ({self.image.dtype}) with items of "
                f"{self.items.size}: give uint8 [height, width, 3] and masks of its size"
            )


@dataclass(frozen=True, eq=False)
class Fit:
    """A fit of one model to pictures, by its parts; `fit` does all of it.

    Every function that draws takes its draws from the generator that it is given. Raises
    BenchmarkError for pictures or a model that cannot be fitted.
    """

    backbone: StableDiffusion
    pictures: Sequence[Picture]
    settings: FitSettings

    def __post_init__(self) -> None:
        cell = self.backbone.image_size // self.backbone.latent_size
        for picture in self.pictures:
            if any(side % cell for side in picture.items.size):
                raise BenchmarkError(
                    f"a picture of {picture.items.size} pixels: give sides that are multiples of "
                    f"{cell}, the pixels of a cell of this model's latents"
                )
        if not self.pictures or "inpainting" in self.backbone.provides:
            raise BenchmarkError(
                "a fit is of at least one picture and of a model that makes pictures from text "
                "alone, no inpainting model: choose another model.id"
            )

    def start_embeddings(self, generator: torch.Generator) -> State:
        """The first phase before its first pass: tokens as `new_rows` gives them are trained."""
        count = sum(len(picture.items.names) for picture in self.pictures)
        asked = self.settings
        rows = new_rows(self.backbone.text, count, asked.tokens, generator, asked.compat)
        trained = {str(i): each.to(self.backbone.device) for i, each in enumerate(rows)}
        return self._state(EMBEDDINGS, generator, trained, {})

    def start_unet(self, first: State, generator: torch.Generator) -> State:
        """The second phase before its first pass: weights are trained, the tokens stay as the first
        phase left them.
        """
        asked, backbone = self.settings, self.backbone
        fixed = {f"rows/{name}": rows.detach() for name, rows in first.trained.items()}
        fixed["losses"] = torch.tensor(first.losses)
        if not asked.lora_rank:
            trained = adapters.cross_attention(backbone)
        else:
            trained = adapters.lora(backbone, asked.lora_rank, generator, asked.compat)
            if asked.compat == "reference" and len(self.pictures) == 1:
                # The public code's layer multiplies by the weight that it had before LoRA.
                for name in adapters.output_factors(backbone):
                    fixed[f"factors/{name}"] = trained.pop(name)
        return self._state(UNET, generator, trained, fixed)

    def draw_latents(self, state: State) -> None:
        """Draw the latents of the pictures, once for all passes of a phase."""
        for i, picture in enumerate(self.pictures):
            found = posterior(self.backbone, picture.image)
            noise = torch.randn(found.mean.shape, generator=state.generator)
            state.fixed[f"latents/{i}"] = found.mean + found.std * noise.to(found.std)

    def run(
        self,
        state: State,
        checkpoint: Checkpoint | None = None,
        progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """The passes of a phase that are not done."""
        asked, is_first = self.settings, state.phase == EMBEDDINGS
        optimise(
            state,
            lambda: self.draw(state),
            self.loss(state),
            steps=asked.embedding_steps if is_first else asked.unet_steps,
            accumulation=asked.accumulation,
            learning_rate=(asked.embedding_learning_rate if is_first else asked.unet_learning_rate),
            share=1 / len(self.pictures) if is_first else 1.0,
            checkpoint=checkpoint,
            progress=progress,
        )

    def loss(self, state: State) -> Callable[[int, Draw], Tensor]:
        """Of a picture and its draw, as a phase has it: see `optimise`."""
        return self._embedding_loss(state) if state.phase == EMBEDDINGS else self._unet_loss(state)

    def fitted(self, model: str, state: State) -> Fitted:
        """What came out. model: its identity; state: of the second phase, at its end."""
        parameters = {**_named(state.fixed, "factors/"), **state.trained}
        losses = {EMBEDDINGS: state.fixed["losses"], UNET: torch.tensor(state.losses)}
        return Fitted(
            model=model,
            images=tuple(image_identity(picture.image) for picture in self.pictures),
            items=tuple(picture.items for picture in self.pictures),
            settings=self.settings,
            rows=[rows.cpu() for rows in _named(state.fixed, "rows/").values()],
            parameters={name: tensor.detach().cpu() for name, tensor in parameters.items()},
            losses={
                phase: each.cpu().reshape(-1, len(self.pictures)) for phase, each in losses.items()
            },
        )

    def texts(self, rows: Sequence[Tensor], picture: int) -> ItemTexts:
        """What the items of a picture attend to."""
        first = sum(len(each.items.names) for each in self.pictures[:picture])
        items, asked = self.pictures[picture].items, self.settings
        prompts = [ItemPrompt(item=first + i) for i in range(len(items.names))]
        return item_texts(
            self.backbone.text,
            rows,
            prompts,
            items.masks,
            tokens=asked.tokens,
            compat=asked.compat,
        )

    def draw(self, state: State) -> list[Draw]:
        """The draws of one pass, from the state's generator: see `optimise`."""
        shapes = [latents.shape[1:] for latents in _named(state.fixed, "latents/").values()]
        batch, generator = self.settings.batch, state.generator

        def noise(shape: torch.Size) -> Tensor:
            return torch.randn((batch, *shape), generator=generator)

        def timesteps() -> Tensor:
            return torch.randint(0, TRAIN_TIMESTEPS, (batch,), generator=generator)

        # The order is the public code's.
        if state.phase == EMBEDDINGS:
            noises = [noise(shape) for shape in shapes]
            return [Draw(each, timesteps()) for each in noises]
        return [Draw(noise(shape), timesteps()) for shape in shapes]

    def _state(
        self,
        phase: str,
        generator: torch.Generator,
        trained: dict[str, Tensor],
        fixed: dict[str, Tensor],
    ) -> State:
        scale = HALF_SCALE if self.backbone.dtype == torch.float16 else 1.0
        return State(phase, generator, trained, fixed, scale=scale)

    def _embedding_loss(self, state: State) -> Callable[[int, Draw], Tensor]:
        def loss(picture: int, draw: Draw) -> Tensor:
            rows = [state.trained[str(i)] for i in range(len(state.trained))]
            texts = self.texts(rows, picture)
            return self._loss(state.fixed[f"latents/{picture}"], texts, {}, draw)

        return loss

    def _unet_loss(self, state: State) -> Callable[[int, Draw], Tensor]:
        rows = list(_named(state.fixed, "rows/").values())
        with torch.no_grad():
            texts = [self.texts(rows, picture) for picture in range(len(self.pictures))]
        rank, alpha = self.settings.lora_rank, self.settings.lora_alpha

        def loss(picture: int, draw: Draw) -> Tensor:
            weights = state.trained
            if rank:
                weights = adapters.merged(self.backbone, weights, alpha / rank)
            return self._loss(state.fixed[f"latents/{picture}"], texts[picture], weights, draw)

        return loss

    def _loss(
        self, latents: Tensor, texts: ItemTexts, weights: Mapping[str, Tensor], draw: Draw
    ) -> Tensor:
        """The mean squared error of the noise that is predicted in noisy latents [1, C, h, w]."""
        asked = self.settings
        backbone = self.backbone.adapted(weights, told_size=asked.told_size, rows=asked.batch)
        levels = [backbone.level(timestep) for timestep in draw.timesteps.tolist()]
        shape = (-1, 1, 1, 1)
        signal = torch.tensor([level.signal for level in levels]).view(shape).to(latents)
        sigma = torch.tensor([level.noise for level in levels]).view(shape).to(latents)
        noise = draw.noise.to(latents)
        x, owner = signal * latents + sigma * noise, torch.zeros(len(noise), dtype=torch.long)
        backbone.counts["unet_backward_rows"] += len(noise)
        predicted = predict_noise(backbone, x, draw.timesteps, [texts], owner)
        return (predicted - noise).square().mean()


def fit(
    backbone: StableDiffusion,
    pictures: Sequence[Picture],
    settings: FitSettings,
    *,
    model: str,
    checkpoint: Path | None = None,
    every: int = 10,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Fitted:
    """Fit a model to one picture, or to two or more for edits with items of each other's.

    model: its identity, as of `resolve_model`. checkpoint: where the state is saved after ``every``
    steps of AdamW, and from where a fit that was stopped goes on as if it had not been; it is left
    there. The draws belong to the pictures and the seed; reference: to the seed alone, and then
    they are not those of the public code, whose loading of a model draws as well.
    Raises BenchmarkError.
    """
    parts = Fit(backbone, pictures, settings)
    identity = fit_identity(model, pictures, settings)
    saved = Checkpoint(checkpoint, identity, every) if checkpoint else None
    state = saved.load(backbone.device) if saved else None
    if state is None:
        seed = settings.seed
        if settings.compat == "exact":
            images = [image_identity(picture.image) for picture in pictures]
            seed = int(_digest([seed, *images]), 16) >> 1  # below 2**63
        state = parts.start_embeddings(torch.Generator().manual_seed(seed))
        parts.draw_latents(state)
    if state.phase == EMBEDDINGS:
        parts.run(state, saved, progress)
        state = parts.start_unet(state, state.generator)
        parts.draw_latents(state)
    parts.run(state, saved, progress)
    return parts.fitted(model, state)


def fit_identity(model: str, pictures: Sequence[Picture], settings: FitSettings) -> str:
    """16 hex digits, which differ where the result of `fit` can."""
    images = [image_identity(picture.image) for picture in pictures]
    items = [partition_identity(picture.items) for picture in pictures]
    return _digest([model, asdict(settings), *images, *items])


def _named(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    """Those whose names start so, by the rest of their names."""
    found = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
    return dict(sorted(found.items()))


def partition_identity(items: Partition) -> list[str]:
    """A hash of the masks, then the names."""
    labels = items.labels.numpy().tobytes()
    return [hashlib.sha256(labels).hexdigest(), *items.names]


def _digest(value: object) -> str:
    """16 hex digits of a JSON value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
