"""StyleDiffusion (Li et al., arXiv 2303.15649): a network learns what the text's values must be for
guided sampling to return to the picture; the edit attends as in Prompt-to-Prompt.

Knows nothing of files or of where a mask came from.
"""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from piebench_masks.diffusion.attention import AttentionControl, Layer, Projections
from piebench_masks.diffusion.backbone import Backbone, Capability, Conditioning
from piebench_masks.diffusion.ddim import ddim_step
from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.editing.branches import (
    AttentionLoss,
    SourceFeatures,
    Steering,
    StoredAttention,
    sample_edits,
)
from piebench_masks.editing.editor import Edited, Editor, Sampled, Sources, decoded
from piebench_masks.editing.inversion import Inversion, ddim, descend
from piebench_masks.editing.prompt_to_prompt import PromptToPrompt
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import NO_OUTPUT
from piebench_masks.metrics.clip import Clip

Network = list[Tensor]
"""The weights of `embedding`, of one sample."""


@dataclass(frozen=True)
class StyledInversion:
    """B sources at K + 1 levels; their branch is what guided sampling makes of the learnt values.

    style: [K, B, 2 L, D], at every step the scale of the L hidden states that values are made of,
    and then their shift.
    """

    inversion: Inversion
    style: Tensor

    @property
    def nfe(self) -> Tensor:
        return self.inversion.nfe


@dataclass(frozen=True)
class StyleDiffusion(Editor):
    """StyleDiffusion as an editor, with Prompt-to-Prompt's attention.

    inner_steps: of Adam at the first step; later steps take fewer. style_share: the share of the
    steps, from the first on, in which edits have the learnt values, too; cross_replace,
    self_replace: see `PromptToPrompt`. clip, pretrained: the picture's encoder, as in
    ``open_clip.create_model``; its tokens must be as wide as the text's hidden states.
    compat: reference does as PnP Inversion's code does. It learns from the attention of one step
    before, and matches word by word where the prompts have as many characters, not words.
    Raises BenchmarkError for an encoder of another width.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = ("self_attention",)
    reads: ClassVar[tuple[str, ...]] = ("image", "prompts")

    clip: str = field(default="ViT-B-16-quickgelu", metadata=NO_OUTPUT)
    pretrained: str | None = field(default="openai", metadata=NO_OUTPUT)
    steps: int = 50
    guidance: float = 7.5
    inner_steps: int = 100
    style_share: float = 0.5
    cross_replace: float = 0.6
    self_replace: float = 0.6
    compat: Compat = "exact"
    seed: int = 1234

    def identity(self) -> dict[str, Any]:
        """What stands for the picture's encoder in artifact keys."""
        return self.encoder.identity()

    def load(self) -> None:
        """Load the picture's encoder: WeightsError."""
        self.encoder.load()

    @cached_property
    def encoder(self) -> Clip:
        return Clip(model=self.clip, pretrained=self.pretrained)

    def features(self, backbone: Backbone, sources: Sources) -> Tensor:
        """The tokens of the sources, [B, T, D]."""
        return self.encoder.tokens(sources.images.numpy()).to(backbone.device)

    def invert(self, backbone: Backbone, sources: Sources) -> StyledInversion:
        source = backbone.encode_prompts(sources.source_prompts)
        features = self.features(backbone, sources)
        if features.shape[-1] != source.hidden.shape[-1]:
            raise BenchmarkError(
                f"editor.style_diffusion.clip={self.clip} has tokens of width "
                f"{features.shape[-1]}, but the model's text is {source.hidden.shape[-1]} wide: "
                "choose an encoder of that width"
            )
        x0 = sources.encoded.mean
        inverted = ddim(backbone, x0, source, steps=self.steps, guidance=self.guidance)
        tokens, length = features.shape[1], source.hidden.shape[1]
        networks = [[w.to(x0.device) for w in initial(tokens, length, self.seed)] for _ in x0]
        return self.learnt(backbone, inverted, source, features, networks)

    @torch.inference_mode()
    def learnt(
        self,
        backbone: Backbone,
        inverted: Inversion,
        source: Conditioning,
        features: Tensor,
        networks: list[Network],
    ) -> StyledInversion:
        """Train a network a sample, step by step, each from where the step before left it."""
        samples = torch.arange(len(source), device=features.device)
        y, nfe, styles = [inverted.x[0]], inverted.nfe.clone(), []
        for i, timestep in enumerate(inverted.timesteps):
            k = max(i - 1, 0) if self.compat == "reference" else i
            attention = SourceFeatures(len(source))
            stored = StoredAttention(attention, self.layers(backbone))
            noisier = torch.full((len(source),), inverted.timesteps[k])
            backbone.predict_noise(inverted.x[k + 1], noisier, source, stored)

            t = torch.full((len(source),), timestep)
            away = backbone.predict_noise(y[i], t, inverted.negative[i])
            evaluations = self.train(
                backbone, inverted, i, y[i], source, away, attention, features, networks
            )
            style = torch.stack([embedding(*pair) for pair in zip(networks, features, strict=True)])
            toward = backbone.predict_noise(y[i], t, source, StyledAttention(style))
            eps = away + self.guidance * (toward - away)
            y.append(inverted.step(i, y[i], eps, samples))
            styles.append(style)
            nfe += 3 + evaluations
        return StyledInversion(
            replace(inverted, trajectory=torch.stack(y), nfe=nfe), torch.stack(styles)
        )

    def train(
        self,
        backbone: Backbone,
        inverted: Inversion,
        i: int,
        y: Tensor,
        source: Conditioning,
        away: Tensor,
        attention: SourceFeatures,
        features: Tensor,
        networks: list[Network],
    ) -> Tensor:
        """Adjust the networks until step i leads to x, and evaluations [B] that it took.

        A forward pass with its gradient counts as one evaluation.
        """
        with torch.inference_mode(mode=False), torch.enable_grad():
            y, x_next, away = y.clone(), inverted.x[i + 1].clone(), away.clone()
            features, timestep = features.clone(), inverted.timesteps[i]
            for network in networks:
                for weight in network:
                    weight.requires_grad_()

            def losses(active: list[int]) -> Tensor:
                style = torch.stack([embedding(networks[b], features[b]) for b in active])
                rows = torch.tensor(active, device=y.device)
                maps = AttentionLoss(attention, rows, self.layers(backbone), mean=True)
                control, t = StyledAttention(style, maps), torch.full((len(rows),), timestep)
                toward = backbone.predict_noise(y[rows], t, source[rows], control)
                eps = away[rows] + self.guidance * (toward - away[rows])
                y_next = ddim_step(y[rows], eps, inverted.levels[i], inverted.levels[i + 1])
                return (y_next - x_next[rows]).square().flatten(1).mean(dim=1) + maps.losses

            return descend(
                networks,
                losses,
                rate=1e-2 * (1 - i / 100),
                iterations=math.ceil(self.inner_steps * math.exp(-0.1 * i)),
                tolerance=1e-5 + 2e-5 * i,
            )

    def layers(self, backbone: Backbone) -> set[Layer]:
        """Those whose attention to the text is learnt from."""
        every = backbone.layers.values()
        return {x for x in every if x.is_cross and x.grid == backbone.map_size and x.place != "mid"}

    def edit(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: StyledInversion,
        masks: Tensor,
        owner: Tensor,
    ) -> Edited:
        return decoded(backbone, self.sample(backbone, sources, inverted, masks, owner))

    def sample(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: StyledInversion,
        masks: Tensor,
        owner: Tensor,
    ) -> Sampled:
        return sample_edits(
            backbone,
            inverted.inversion,
            backbone.encode_prompts(sources.source_prompts),
            backbone.encode_prompts(sources.target_prompts),
            masks,
            owner,
            self.steering(backbone, sources, inverted.style, owner),
            guidance=self.guidance,
        )

    def steering(
        self, backbone: Backbone, sources: Sources, style: Tensor, owner: Tensor
    ) -> "StyledSteering":
        prompting = PromptToPrompt(
            ddim,
            steps=self.steps,
            alignment="replace",
            cross_replace=self.cross_replace,
            self_replace=self.self_replace,
            reweight=1.0,
            blend_threshold=None,
            compat=self.compat,
        )
        refining = replace(prompting, alignment="refine")
        plans = []
        for source, target in zip(sources.source_prompts, sources.target_prompts, strict=True):
            refines = self.compat == "reference" and len(source) != len(target)
            each = refining if refines else prompting
            prompts = each.parse(backbone, source), each.parse(backbone, target)
            plans.append(each.plan(*prompts, "", backbone.max_tokens))
        places = sources.encoded.mean[0, 0].numel()
        steering = prompting.steering(plans, owner, backbone.map_size, places)
        return StyledSteering(steering, style, int(self.style_share * self.steps))


class StyledSteering:
    """Another steering, under which the source has the learnt values, and edits in some steps."""

    def __init__(self, inner: Steering, style: Tensor, edit_steps: int) -> None:
        self.inner, self.style, self.edit_steps = inner, style, edit_steps

    def source(self, step: int) -> AttentionControl:
        return StyledAttention(self.style[step], self.inner.source(step))

    def edit(self, step: int, owner: Tensor, *, negative: bool) -> AttentionControl | None:
        control = self.inner.edit(step, owner, negative=negative)
        if negative or step >= self.edit_steps:
            return control
        return StyledAttention(self.style[step][owner], control)

    def blend(self, step: int, source: Tensor, y: Tensor) -> Tensor:
        return self.inner.blend(step, source, y)


class StyledAttention(AttentionControl):
    """Attention to the text whose values are made of hidden states that are scaled and shifted.

    style: [N, 2 L, D]; inner: sees and may replace what is left.
    """

    def __init__(self, style: Tensor, inner: AttentionControl | None = None) -> None:
        self.style, self.inner = style, inner or AttentionControl()
        self.differentiable = style.requires_grad

    def select(self, rows: Tensor) -> None:
        super().select(rows)
        self.inner.select(rows)

    def attend(self, layer: Layer, projections: Projections) -> Tensor | None:
        if not layer.is_cross:
            return self.inner.attend(layer, projections)
        text = projections.context
        scale, shift = self.style[self.rows].to(text.dtype).chunk(2, dim=1)
        projections.value = projections.value_of(text * scale + shift)
        answer = self.inner.attend(layer, projections)
        if answer is not None:
            return answer
        query, key, value = projections.query, projections.key, projections.value
        return F.scaled_dot_product_attention(query, key, value, scale=projections.scale)


def initial(tokens: int, length: int, seed: int) -> Network:
    """The weights of `embedding` before training, uniform as those of torch's convolutions.

    tokens: T, of a picture; length: L, of a text.
    """
    generator = torch.Generator().manual_seed(seed)

    def layer(inputs: int) -> Network:
        bound = 1 / math.sqrt(inputs)
        shapes = (2 * length, inputs), (2 * length,)
        return [torch.empty(shape).uniform_(-bound, bound, generator=generator) for shape in shapes]

    second, first, third = layer(2 * length), layer(tokens), layer(2 * length)
    return [*first, *second, torch.ones(2 * length), torch.zeros(2 * length), *third]


def embedding(network: Network, features: Tensor) -> Tensor:
    """A picture's tokens [T, D] -> scale and shift of a text's hidden states, [2 L, D].

    Three linear layers over the tokens. Behind the second, every output is normalised over D.
    """
    w1, b1, w2, b2, gain, bias, w3, b3 = (
        each.unsqueeze(-1) if each.ndim == 1 else each for each in network
    )
    hidden = w2 @ (w1 @ features + b1) + b2
    hidden = F.layer_norm(hidden, hidden.shape[-1:]) * gain + bias
    return w3 @ F.leaky_relu(hidden) + b3
