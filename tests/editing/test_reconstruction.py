"""No edit: the source through the autoencoder, or inverted and sampled back."""

import laws
import torch

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.editor import paint
from piebench_masks.editing.inversion import ddim, direct
from piebench_masks.editing.reconstruction import Reconstruction


def test_it_is_the_source_encoded_and_decoded(tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    edited, costs = paint(tiny, Reconstruction(), sources, laws.MASKS, laws.OWNER)
    pictures = tiny.decode(sources.encoded.mean)
    assert torch.equal(edited.images, pictures[laws.OWNER]) and edited.finite.all()
    assert {cost[:2] for cost in costs} == {(0, 0)}


def test_the_way_back_is_exact_with_direct_inversion_and_drifts_under_guidance(
    tiny: Backbone,
) -> None:
    sources = laws.two_samples(tiny)

    def latents(editor: Reconstruction) -> tuple[torch.Tensor, torch.Tensor]:
        return editor.sampled(tiny, sources, editor.invert(tiny, sources))

    x0 = sources.encoded.mean
    exact, nothing = latents(Reconstruction(direct, steps=4))
    assert torch.equal(exact, x0) and nothing.tolist() == [0, 0]
    drifted, guided = latents(Reconstruction(ddim, steps=4))
    straight, once = latents(Reconstruction(ddim, steps=4, guidance=1.0))
    assert (guided.tolist(), once.tolist()) == ([8, 8], [4, 4])
    assert 0 < (straight - x0).norm() < (drifted - x0).norm()
