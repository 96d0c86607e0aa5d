"""The file of a fitted picture: all that was trained, and nothing that can run."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.errors import BenchmarkError
from piebench_masks.items.fitted import Fitted, load_fitted, save_fitted


def test_a_file_holds_what_a_fit_changed_and_no_more(fitted: Fitted, tmp_path: Path) -> None:
    path = tmp_path / "fits" / "one.safetensors"
    save_fitted(fitted, path)
    found = load_fitted(path, "tiny")
    assert found.images == fitted.images and found.settings == fitted.settings
    assert [items.names for items in found.items] == [items.names for items in fitted.items]
    for mine, theirs in zip(found.items, fitted.items, strict=True):
        assert torch.equal(mine.masks, theirs.masks)
    for group in ("parameters", "losses"):
        mine, theirs = getattr(found, group), getattr(fitted, group)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert all(map(torch.equal, found.rows, fitted.rows))
    assert asdict(found.settings) == asdict(fitted.settings)
    assert [*tmp_path.rglob("*~*")] == []


def flipped(data: bytes) -> bytes:
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: data[:40],
        lambda data: b"",
        lambda data: b"\x80\x04K\x01.",  # a pickle
        flipped,
        lambda data: data.replace(b"left", b"lost"),
        lambda data: data.replace(b"fitted items 1", b"fitted items 9"),
        lambda data: save({"rows/0": torch.zeros(1)}),
    ],
)
def test_a_malformed_file_is_refused(
    fitted: Fitted, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "one.safetensors"
    path.write_bytes(spoil(fitted.pack()))
    with pytest.raises(BenchmarkError, match=f"{path} cannot be read as a fitted picture"):
        load_fitted(path, "tiny")


def test_a_missing_file_and_one_of_another_model_are_refused(
    fitted: Fitted, tmp_path: Path
) -> None:
    path = tmp_path / "one.safetensors"
    with pytest.raises(BenchmarkError, match="there is none"):
        load_fitted(path, "tiny")
    save_fitted(fitted, path)
    with pytest.raises(BenchmarkError, match="fitted to the model tiny, not to other"):
        load_fitted(path, "other")


def test_weights_of_other_shapes_or_that_are_not_finite_are_refused(
    fitted: Fitted, model: StableDiffusion
) -> None:
    name = next(iter(fitted.parameters))
    for weight in (torch.zeros(2, 2), torch.full_like(fitted.parameters[name], torch.nan)):
        parameters = {**fitted.parameters, name: weight}
        with pytest.raises(BenchmarkError, match="is of the model tiny, not of this one"):
            replace(fitted, parameters=parameters).adapted(model)
    strange = {**fitted.parameters, "conv_nowhere.weight": torch.zeros(1)}
    with pytest.raises(BenchmarkError, match="conv_nowhere"):
        replace(fitted, parameters=strange).adapted(model)
    with pytest.raises(BenchmarkError, match="tokens are 3 wide"):
        replace(fitted, rows=[rows[:, :3] for rows in fitted.rows]).adapted(model)
