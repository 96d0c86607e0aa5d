"""The autoencoder alone: the source encoded and decoded, whatever the prompts and the masks."""

import laws
import torch

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.editor import paint
from piebench_masks.editing.reconstruction import Reconstruction


def test_it_is_the_source_encoded_and_decoded(tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    edited, costs = paint(tiny, Reconstruction(), sources, laws.MASKS, laws.OWNER)
    pictures = tiny.decode(sources.encoded.mean)
    assert torch.equal(edited.images, pictures[laws.OWNER]) and edited.finite.all()
    assert {cost[:2] for cost in costs} == {(0, 0)}
