"""Augmented views, against torchvision's own transforms and its global generator."""

import pytest
import torch
from torch import Generator, Tensor
from torchvision.transforms import (
    ColorJitter,
    Compose,
    InterpolationMode,
    RandomAffine,
    RandomApply,
    RandomCrop,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomPerspective,
    Resize,
)

from piebench_masks.regions.views import COUNT, views

SIDE = 48


@pytest.fixture
def image(picture: Tensor) -> Tensor:
    return picture.movedim(-1, 0) / 255


def drawn_by_torchvision(image: Tensor) -> Tensor:
    """Each view as transforms with draws of their own."""
    bilinear = InterpolationMode.BILINEAR
    transform = Compose(
        [
            RandomHorizontalFlip(0.5),
            RandomApply(
                [RandomAffine(15, (0.1, 0.1), interpolation=bilinear, fill=1.0)],
                p=0.8,
            ),
            RandomPerspective(0.4, 0.5, bilinear, fill=1.0),
            RandomApply([ColorJitter(0.1, 0.1, 0.1, 0.1)], p=0.7),
            RandomGrayscale(0.15),
        ]
    )
    resize = Resize((SIDE, SIDE), antialias=True)
    found = []
    for number in range(COUNT):
        part = image
        if number:
            share = torch.empty(1).uniform_(0.6, 1.0).item()
            part = RandomCrop(int(image.shape[-1] * share))(image)
        found.append(transform(resize(part)))
    return torch.stack(found)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_views_are_torchvisions_with_the_same_draws(image: Tensor, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expected = drawn_by_torchvision(image)
        state = torch.get_rng_state()
    generator = Generator().manual_seed(seed)
    found = views(image, SIDE, generator, antialias=True)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert torch.randint(1000, (3,), generator=generator).equal(
        torch.randint(1000, (3,), generator=Generator().set_state(state))
    )


def test_draws_do_not_depend_on_pixels_and_nobody_elses_generator_moves(image: Tensor) -> None:
    before = torch.get_rng_state()
    states = []
    for one in (image, 255 * image):
        generator = Generator().manual_seed(4)
        views(one, SIDE, generator, antialias=False)
        states.append(generator.get_state())
    assert states[0].equal(states[1])
    assert torch.get_rng_state().equal(before)


def test_jittered_colours_of_pixels_up_to_255_end_at_1(image: Tensor) -> None:
    found = views(255 * image, SIDE, Generator().manual_seed(5), antialias=False)
    highest = found.amax(dim=(1, 2, 3))
    assert 4 <= (highest <= 1).sum() < COUNT
    assert (highest > 200).any()
