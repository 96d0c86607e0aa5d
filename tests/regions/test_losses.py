"""CLIP's losses, in loops and in float64."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from piebench_masks.regions.losses import Encoders, encode_texts, losses
from piebench_masks.regions.views import resized, views

WEIGHTS = (1.0, 2.0, 0.5)


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def float64(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.double().numpy()


def test_losses_are_those_of_a_loop(encoders: Encoders, picture: Tensor) -> None:
    before = (picture.movedim(-1, 0) / 255)[None].expand(2, -1, -1, -1)
    after = torch.stack([before[0].flip(0), 0.5 * before[0]])
    text = encode_texts(encoders, "a circle", "a square")
    found = losses(encoders, before, after, text, Generator().manual_seed(6), antialias=True)

    side, generator = encoders.side, Generator().manual_seed(6)
    torch.randint(1, (1,), generator=generator)
    seen = [views(image, side, generator, antialias=True) for image in after]
    torch.randint(1, (1,), generator=generator)
    pairs = [
        (views(x, side, generator, antialias=True), views(y, side, generator, antialias=True))
        for x, y in zip(before, after, strict=True)
    ]
    target, source = (
        float64(encoders.texts([t])[0]) for t in ("a high quality image of a square.", "a circle")
    )
    for i in range(2):
        rows = [float64(row) for row in encoders.images(seen[i])]
        expected = np.mean([1 - cosine(row, target) for row in rows])
        assert abs(found.text[i].item() - expected) < 1e-6
        changes = [
            float64(y) - float64(x)
            for x, y in zip(*(encoders.images(one) for one in pairs[i]), strict=True)
        ]
        expected = np.mean([1 - cosine(change, target - source) for change in changes])
        assert abs(found.direction[i].item() - expected) < 1e-5
        small = resized(torch.stack([before[i], after[i]]), side, antialias=True)
        one, other = (float64(part) for part in encoders.self_similarity(small))
        assert abs(found.structure[i].item() - ((one - other) ** 2).mean()) < 1e-7
    total = sum(w * loss.double() for w, loss in zip(WEIGHTS, found, strict=True))
    torch.testing.assert_close(found.weighted(WEIGHTS).double(), total)


def test_similarities_are_of_the_tokens_that_enter_the_last_block(
    encoders: Encoders, picture: Tensor
) -> None:
    pixels = resized(picture.movedim(-1, 0)[None] / 255, encoders.side, antialias=True)
    found = encoders.self_similarity(pixels)[0]
    visual = encoders.network.visual
    mean, std = (torch.tensor(visual.preprocess_cfg[k])[:, None, None] for k in ("mean", "std"))
    with torch.no_grad():
        tokens = visual._embeds((pixels - mean) / std)
        for block in visual.transformer.resblocks[:-1]:
            tokens = block(tokens)
    assert found.shape == (17, 17)
    for i in range(17):
        for j in range(17):
            expected = cosine(float64(tokens[0, i]), float64(tokens[0, j]))
            assert abs(found[i, j].item() - expected) < 1e-5


def test_results_do_not_depend_on_the_size_of_blocks(encoders: Encoders, picture: Tensor) -> None:
    rows = resized(picture.movedim(-1, 0)[None] / 255, encoders.side, antialias=True)
    many = torch.cat([rows, 1 - rows, rows / 2])
    assert encoders.images(many)[0].equal(encoders.images(rows)[0])
    assert encoders.self_similarity(many)[2].equal(encoders.self_similarity(many[2:])[0])
