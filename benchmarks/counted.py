"""What recordings of attention hold at a U-Net's real size, counted without allocating any of it.

The package's own recorder runs on tensors that have a shape and no values, over the layers that the
U-Net's configuration makes. Knows no single method and no clock.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from random_sdxl import TEXT
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from piebench_masks.batching import Blocks
from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.attention import AttentionControl, Layer, Projections
from piebench_masks.diffusion.backbone import Backbone, Conditioning, Posterior
from piebench_masks.diffusion.unet import parts
from piebench_masks.masks import MapMethod
from piebench_masks.masks.rows import Answers, Cell, cells
from piebench_masks.masks.texts import SceneTexts


@dataclass(frozen=True)
class Counted:
    """Bytes that the recordings of one U-Net call hold, beside what the U-Net itself does.

    rows: of the call; recorded: those whose attention is recorded. kept: until the methods have
    read it; row_kept: by the row that keeps the most. temporary: the most that the recording of a
    layer takes while a block of rows runs, beside what is kept: the block's queries and keys, and
    attention; attention: the latter alone, a value for each query, key and head; of_block: a
    layer's attention of a whole block once, for the largest layer that is recorded.
    attention_rows, self_attention_rows: the most rows whose attention, or self-attention, is held
    before it is reduced.
    """

    rows: int
    recorded: int
    kept: int
    row_kept: int
    temporary: int
    attention: int
    of_block: int
    attention_rows: int
    self_attention_rows: int


class Seen(NamedTuple):
    """What one layer took while it was recorded for one block: see ``Counted``."""

    layer: Layer
    temporary: int
    attention: int
    attention_rows: int
    of_block: int


def counted(
    unet: Any,
    words: Backbone,
    scenes: Sequence[Scene],
    methods: Sequence[MapMethod],
    *,
    rows: int,
    map_size: int,
) -> Counted:
    """The maps of these methods, one call for all scenes, in blocks of ``rows`` rows.

    unet: on torch's device ``meta``; words: the model that tells prompts apart.
    """
    blocks, single = (ShapesOnly(unet, words, size, map_size) for size in (rows, 1))
    count = blocks.ask(scenes, methods)
    single.ask(scenes, methods)
    kept_by_row = [b - a for a, b in pairwise([0, *single.kept])]
    if sum(kept_by_row) != blocks.kept[-1]:
        raise RuntimeError(f"{sum(kept_by_row)} bytes row by row, {blocks.kept[-1]} in blocks")
    recorded = [seen for seen in blocks.seen if seen.attention]
    return Counted(
        rows=count,
        recorded=sum(kept > 0 for kept in kept_by_row),
        kept=blocks.kept[-1],
        row_kept=max(kept_by_row),
        temporary=max(seen.temporary for seen in blocks.seen),
        attention=max((seen.attention for seen in recorded), default=0),
        of_block=max((seen.of_block for seen in recorded), default=0),
        attention_rows=max((seen.attention_rows for seen in recorded), default=0),
        self_attention_rows=max(
            (seen.attention_rows for seen in recorded if not seen.layer.is_cross), default=0
        ),
    )


class ShapesOnly:
    """A U-Net without values: it shows a control every attention layer, and predicts zeros.

    All else is what ``words`` has. kept: bytes after each block; seen: every layer of every block.
    """

    def __init__(self, unet: Any, words: Backbone, rows: int, map_size: int) -> None:
        self._unet, self._words, self._rows = unet, words, rows
        self.layers, _ = parts(unet)
        self.device, self.latent_size = torch.device("cpu"), unet.config.sample_size
        self.map_size, self.max_tokens = map_size, TEXT["max_position_embeddings"]
        self.kept: list[int] = []
        self.seen: list[Seen] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._words, name)

    @torch.no_grad()
    def ask(self, scenes: Sequence[Scene], methods: Sequence[MapMethod]) -> int:
        """One call for all that the methods need of the scenes; the number of its rows."""
        backbone: Any = self
        request = [cell for method in methods for cell in planned(backbone, scenes, method)]
        nothing = torch.zeros(len(scenes), 4, self.latent_size, self.latent_size)
        answers = Answers(
            backbone,
            Posterior(nothing, nothing),
            request,
            sample_mode="argmax",
            seed=0,
            noise_dtype=torch.float32,
        )
        return len(answers)

    def encode_prompts(self, prompts: Sequence[str], ablate: object = None) -> Conditioning:
        width = self._unet.config.cross_attention_dim
        hidden = torch.empty(len(prompts), self.max_tokens, width, device="meta")
        return Conditioning(hidden, hidden[:, 0])

    def predict_noise(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        control: AttentionControl,
    ) -> Tensor:
        held = Held()

        def predict(rows: Tensor) -> Tensor:
            control.select(rows)
            for name, layer in self.layers.items():
                attention = self._unet.get_submodule(name.removesuffix(".processor"))
                places = (len(rows), layer.grid**2, attention.to_q.in_features)
                hidden = torch.empty(places, device="meta")
                text = conditioning.hidden[rows] if layer.is_cross else None
                self.seen.append(recorded_layer(held, control, layer, attention, hidden, text))
            self.kept.append(held.now)
            return latents[rows]

        return Blocks(self._rows).map(predict, torch.arange(len(latents)))


def planned(backbone: Backbone, scenes: Sequence[Scene], method: MapMethod) -> list[Cell]:
    """The rows that a method and its post-processors ask for, one draw where they leave it open."""
    texts = [SceneTexts(backbone, scene.as_known(method.knows), "exact") for scene in scenes]
    return [
        cell
        for needs in method.all_needs
        for i, each in enumerate(texts)
        for cell in cells(needs, each, i, num_repeat=1, strength=0.5)
    ]


def recorded_layer(
    held: "Held",
    control: AttentionControl,
    layer: Layer,
    attention: Any,
    hidden: Tensor,
    text: Tensor | None,
) -> Seen:
    """One layer of one block as the U-Net would show it."""
    rows, queries = hidden.shape[:2]
    keys = queries if text is None else text.shape[1]
    held.start(queries, keys, attention.heads)
    with held:
        control.attend(layer, Projections(attention, hidden, text))
    return Seen(
        layer,
        held.most - held.now,
        held.most_attention,
        held.attention_rows,
        4 * rows * attention.heads * queries * keys,
    )


class Held(TorchDispatchMode):
    """Bytes of the tensors without values that are made inside of it and are still alive.

    now: all of them; most, most_attention: the most since ``start``, and of it what has a value for
    each query, key and head; attention_rows: the most rows of one such tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = self.most_attention = self.attention_rows = 0
        self._attention, self._places, self._row = 0, (0, 0), 1

    def start(self, queries: int, keys: int, heads: int) -> None:
        """A layer begins, whose attention has these sizes."""
        self._places, self._row = (queries, keys), queries * keys * heads
        self.most, self.most_attention, self.attention_rows = self.now, self._attention, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {tensor.untyped_storage()._cdata for tensor in _without_values((args, kwargs))}
        for tensor in _without_values(result):
            if tensor.untyped_storage()._cdata not in known:  # a view holds nothing
                self._made(tensor)
        return result

    def _made(self, tensor: Tensor) -> None:
        storage, rows = tensor.untyped_storage(), tensor.numel() // self._row
        is_attention = rows > 0 and tuple(tensor.shape[-2:]) == self._places
        size, of_attention = storage.nbytes(), storage.nbytes() * is_attention
        self.now += size
        self._attention += of_attention
        self.most = max(self.most, self.now)
        self.most_attention = max(self.most_attention, self._attention)
        self.attention_rows = max(self.attention_rows, rows * is_attention)
        weakref.finalize(storage, self._gone, size, of_attention)

    def _gone(self, size: int, of_attention: int) -> None:
        self.now -= size
        self._attention -= of_attention


def _without_values(tree: Any) -> list[Tensor]:
    leaves = tree_leaves(tree)
    return [each for each in leaves if isinstance(each, Tensor) and each.is_meta]
