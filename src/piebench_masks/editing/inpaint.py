"""Inpainting (Rombach et al., arXiv 2112.10752): a model paints what a mask cuts out of a picture.

Learnable Regions (arXiv 2311.16432) edits so. Knows no files but those of its model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Capability, Conditioning
from piebench_masks.diffusion.ddim import ddim_step
from piebench_masks.diffusion.guidance import evaluations, guided_noise
from piebench_masks.diffusion.level import Level
from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.diffusion.stable_diffusion import INPAINTING_CHANNELS
from piebench_masks.editing.diffusers_pipeline import brought, laid_over
from piebench_masks.editing.editor import Edited, Editor, Sampled, Sources, decoded
from piebench_masks.editing.instructed import fitted, instructions
from piebench_masks.editing.own_model import OwnModel
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import NO_OUTPUT

GREY = 127.5
"""What masked pixels are for the VAE: 0 on its scale from -1 to 1."""
Predict = Callable[[Tensor, float | Tensor], Tensor]
"""The noise in latents at a time step."""


@dataclass(frozen=True)
class Prompted:
    """What the model is told of B samples; no U-Net evaluations: nfe is 0, long [B]."""

    text: Conditioning
    nfe: Tensor


@dataclass(frozen=True)
class Inpaint(Editor):
    """An inpainting model as an editor: it sees the mask, and the picture without what is masked.

    id: a hub name, or the folder of a pipeline of Stable Diffusion or SDXL whose U-Net takes nine
    channels; unet: the folder of such a U-Net, in the place of the pipeline's own; rows: of the
    U-Net in one block; prompt: what it is told, a sample without an instruction its target prompt;
    template: {} stands for that; background: painted, as the model paints it, or source, which puts
    the pixels outside the mask back. Sampling starts from noise alone. Every edit has the same
    draws, from ``seed``: those of that noise, then those of the posterior.

    compat: exact takes DDIM steps and the mean of the masked picture's posterior, and the empty
    mask leaves the source's own latents, at no evaluation; reference does as diffusers' inpainting
    pipelines do: the checkpoint's own scheduler, a draw of the posterior, and the empty mask like
    any other. It runs on the device of the run's model, and adds to that model's counts. Raises
    BenchmarkError where there is no such model.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = ()

    id: str = field(default="sd2-community/stable-diffusion-2-inpainting", metadata=NO_OUTPUT)
    unet: str | None = field(default=None, metadata=NO_OUTPUT)
    revision: str | None = field(default=None, metadata=NO_OUTPUT)
    variant: str | None = None
    cache_dir: str | None = field(default=None, metadata=NO_OUTPUT)
    rows: int = field(default=8, metadata=NO_OUTPUT)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    steps: int = 50
    guidance: float = 7.5
    prompt: Literal["target", "instruction"] = "target"
    template: str = "{}"
    background: Literal["painted", "source"] = "painted"
    compat: Compat = "exact"
    seed: int = 0

    def __post_init__(self) -> None:
        if "{}" not in self.template:
            raise BenchmarkError(
                f"editor.inpaint.template is {self.template!r}: it must have {{}}, where the "
                "prompt stands"
            )

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("image", "prompts", *(("instruction",) if self.prompt == "instruction" else ()))

    @property
    def masking(self) -> str:
        """How masks are kept to, as tables have it."""
        return "inpainting" + (", laid over" if self.background == "source" else "")

    def identity(self) -> str:
        """What stands for the model in artifact keys: its commit, or its files' content."""
        return self.model.identity()

    @cached_property
    def model(self) -> OwnModel:
        return OwnModel(
            setting="editor.inpaint",
            id=self.id,
            unet=self.unet,
            example="sd2-community/stable-diffusion-2-inpainting, or a folder of an inpainting "
            "model",
            kinds=("StableDiffusionInpaintPipeline", "StableDiffusionXLInpaintPipeline"),
            channels=INPAINTING_CHANNELS,
            ability="paint under masks",
            evaluations=evaluations(self.guidance),
            revision=self.revision,
            variant=self.variant,
            cache_dir=self.cache_dir,
            rows=self.rows,
            dtype=self.dtype,
        )

    def invert(self, backbone: Backbone, sources: Sources) -> Prompted:
        _, model = self.model.loaded(backbone)
        own = instructions(sources) if self.prompt == "instruction" else sources.target_prompts
        text = model.encode_prompts([self.template.replace("{}", prompt) for prompt in own])
        return Prompted(text, torch.zeros(len(sources), dtype=torch.long))

    def edit(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: Prompted,
        masks: Tensor,
        owner: Tensor,
    ) -> Edited:
        _, model = self.model.loaded(backbone)
        edited = decoded(model, self.sample(backbone, sources, inverted, masks, owner))
        pictures = sources.images[owner.cpu()]
        images = sized(edited.images, pictures.shape[1])
        if self.background == "source":
            images = laid_over(pictures, images, masks.cpu(), feather=0)
        return Edited(images, edited.nfe, edited.finite)

    def sample(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: Prompted,
        masks: Tensor,
        owner: Tensor,
    ) -> Sampled:
        """Pictures and masks are brought to the size of the model's own pictures."""
        _, model = self.model.loaded(backbone)
        pictures = sized(sources.images, model.image_size)[owner.cpu()]
        pixel_masks = fitted(masks, pictures.movedim(-1, 1))[:, 0]
        # Each has a generator of its own, and so the noise that it would get alone.
        generators = [torch.Generator().manual_seed(self.seed) for _ in pictures]
        return self.inpainted(backbone, pictures, inverted.text[owner], pixel_masks, generators)

    @torch.inference_mode()
    def inpainted(
        self,
        backbone: Backbone,
        pictures: Tensor,
        text: Conditioning,
        masks: Tensor,
        generators: Sequence[torch.Generator],
        draws: Tensor | None = None,
    ) -> Sampled:
        """Latents of N pictures, painted under masks of their own.

        pictures: [N, H, W, 3] in 0 to 255, of any type; text: of N; masks: bool [N, H, W];
        generators: N, of what is drawn; draws: [2, N, C, h, w], the noise and that of the
        posterior, which else are drawn first.
        """
        pipeline, model = self.model.loaded(backbone)
        published = self.compat == "reference"
        masks = masks.to(model.device)
        left = torch.where(masks[..., None], GREY, pictures.to(model.device).float())
        posterior = model.encode_images(left)
        if draws is None:
            shape = posterior.mean.shape[1:]
            draws = torch.stack(
                [
                    torch.stack([torch.randn(shape, generator=each) for each in generators])
                    for _ in range(2)
                ]
            )
        noise, drawn = draws.to(posterior.mean)
        latents = posterior.mean + posterior.std * drawn if published else posterior.mean
        # The mask of a latent is that of its first pixel.
        stride = masks.shape[-1] // latents.shape[-1]
        seen = torch.cat([masks[:, None, ::stride, ::stride].float(), latents], dim=1)
        painted = masks.flatten(1).any(dim=1) | published
        nfe = torch.zeros(len(masks), dtype=torch.long)
        if not painted.any():
            return Sampled(latents, nfe)
        seen, text, noise = seen[painted], text[painted], noise[painted]
        negative = model.encode_prompts([""])[[0] * len(seen)]
        if published and pipeline.config.get("force_zeros_for_empty_prompt", False):
            negative = Conditioning(
                torch.zeros_like(negative.hidden), torch.zeros_like(negative.pooled)
            )

        def predict(z: Tensor, timestep: float | Tensor) -> Tensor:
            z = torch.cat([z, seen], dim=1)
            return guided_noise(model, z, timestep, text, negative, self.guidance)

        if published:
            scheduler = own_scheduler(pipeline, self.steps)
            arguments = pipeline.prepare_extra_step_kwargs([*generators], 0.0)
            latents = scheduled(predict, noise, scheduler, **arguments)
            steps = len(scheduler.timesteps)
        else:
            latents = latents.clone()
            latents[painted] = ddim(predict, noise, model.levels(self.steps))
            steps = self.steps
        nfe[painted.cpu()] = steps * evaluations(self.guidance)
        return Sampled(latents, nfe)


def ddim(predict: Predict, x: Tensor, levels: Sequence[Level]) -> Tensor:
    """DDIM's steps from x at the first level to the last (Song et al., arXiv 2010.02502)."""
    for level, following in pairwise(levels):
        x = ddim_step(x, predict(x, level.timestep), level, following)
    return x


def scheduled(predict: Predict, noise: Tensor, scheduler: Any, **arguments: Any) -> Tensor:
    """The steps of a diffusers scheduler whose model predicts noise; arguments: of each step."""
    x = noise * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        eps = predict(scheduler.scale_model_input(x, timestep), timestep)
        x = scheduler.step(eps, timestep, x, **arguments).prev_sample
    return x


def own_scheduler(pipeline: Any, steps: int) -> Any:
    """A new one of the checkpoint's own kind and settings, which takes noise for predictions.

    A model that predicts velocities has them turned into noise before. Schedulers of one step do
    the same with both; those of several mix noise of several steps here, velocities in diffusers.
    """
    kind, config = type(pipeline.scheduler), pipeline.scheduler.config
    scheduler = kind.from_config(config, prediction_type="epsilon")
    scheduler.set_timesteps(steps)
    return scheduler


def sized(images: Tensor, side: int) -> Tensor:
    """Pictures uint8 [N, H, W, 3] as squares of that side, bicubic."""
    if images.shape[1:3] == (side, side):
        return images
    frame = torch.empty(side, side, 3, dtype=torch.uint8)
    return torch.stack([brought(image.numpy(), frame) for image in images])
