"""`instant`: the words that attend to what the start token leaves out, against the other words
(InstDiffEdit, Zou et al., arXiv 2401.07709).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from piebench_masks.masks.attention import OUTSIDE_MID, word_attention
from piebench_masks.masks.binarize import rescale
from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.needs import Needs
from piebench_masks.masks.postprocess import blurred
from piebench_masks.masks.record import Record

BINOMIAL = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16


@dataclass(frozen=True)
class Instant(MapMethod):
    """relu(norm(mean of the like) - norm(mean of the unlike)), twice blurred, rescaled.

    Of the probe's words, the reference is the one whose rescaled attention has the largest cosine
    with that of the start token turned round. Like it are words of cosine ``like`` and more with
    the reference, unlike it those of ``unlike`` and less. Which words change does not matter, as
    long as any do. draws: None for the run's ``num_repeat``.
    """

    threshold: float = 0.2
    binarizer: str = "above"
    like: float = 0.9
    unlike: float = 0.6
    draws: int | None = None

    @property
    def needs(self) -> Needs:
        return Needs(conditions=("probe",), cross_attention=("map",), draws=self.draws)

    def __call__(self, record: Record) -> Tensor:
        """[h, w]."""
        probe = record.at("probe")
        assert probe.latents is not None
        side = probe.latents.shape[-1]
        if not probe.changed or len(probe.tokens) < 3:
            return torch.zeros(side, side)
        attention = word_attention(probe, record.map_size, places=OUTSIDE_MID)
        start, words = attention[:1], attention[1 : len(probe.tokens) - 1]
        inverted = torch.stack([rescale(1 - m) for m in _grown(start, side)])
        maps = torch.stack([rescale(m) for m in _grown(words, side)])
        reference = maps[_cosines(maps, inverted[0]).argmax()]
        alike = _cosines(maps, reference)
        found = rescale(maps[alike >= self.like].mean(dim=0))
        if (unlike := maps[alike <= self.unlike]).numel():
            found = (found - rescale(unlike.mean(dim=0))).clamp(min=0)
        return rescale(blurred(blurred(found, BINOMIAL), BINOMIAL))


def _grown(attention: Tensor, side: int) -> Tensor:
    """Each [g, g] divided by its maximum, bilinear: [W, side, side]."""
    shares = attention / attention.amax(dim=(1, 2), keepdim=True)
    return F.interpolate(shares[None], (side, side), mode="bilinear")[0]


def _cosines(maps: Tensor, other: Tensor) -> Tensor:
    return F.cosine_similarity(maps.flatten(1), other.flatten()[None], dim=1)
