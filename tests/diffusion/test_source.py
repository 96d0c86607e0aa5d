"""A model is what is loaded of it: the files of one variant, and nothing that lies beside them."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from piebench_masks.diffusion.source import loaded_files, resolve_model
from piebench_masks.errors import BenchmarkError

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def identity(folder: Path, variant: str | None = None) -> str:
    _, found = resolve_model(str(folder), revision=None, variant=variant, cache_dir=None)
    return found


def test_only_what_is_loaded_is_part_of_it(folder: Path) -> None:
    before = identity(folder)
    beside = {
        "README.md": b"text",
        ".cache/huggingface/x.metadata": b"1763745600.5",
        "unet/.cache/huggingface/y.metadata": b"1763745600.5",
        "unet/diffusion_pytorch_model.fp16.safetensors": b"another variant",
        "unet/diffusion_pytorch_model.bin": b"another format",
        "text_encoder/model.onnx": b"another format",
        "big.safetensors": bytes(10**6),
        "vae_decoder/model.safetensors": b"another part",
        "safety_checker/model.safetensors": b"not looked at",
    }
    for name, content in beside.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assert identity(folder) == before


def test_where_it_lies_is_not_part_of_it(folder: Path, tmp_path: Path) -> None:
    assert identity(Path(shutil.copytree(folder, tmp_path / "other"))) == identity(folder)


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        UNET,
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder_2/model.safetensors",
        "unet/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "tokenizer_2/merges.txt",
    ],
)
def test_whatever_is_loaded_is_part_of_it(folder: Path, name: str) -> None:
    before, path = identity(folder), folder / name
    path.write_bytes(path.read_bytes() + b"\n")
    assert identity(folder) != before


def test_a_variant_is_its_own_files_and_plain_ones_where_it_has_none(folder: Path) -> None:
    other = (folder / UNET).with_name("diffusion_pytorch_model.fp16.safetensors")
    other.write_bytes((folder / UNET).read_bytes() + b"\n")
    plain, half = identity(folder), identity(folder, "fp16")
    assert plain != half
    (folder / UNET).write_bytes(b"unused by the variant")
    assert identity(folder, "fp16") == half
    assert identity(folder) != plain
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    vae.write_bytes(vae.read_bytes() + b"\n")
    assert identity(folder, "fp16") != half


def test_weights_in_several_files_are_all_part_of_it(folder: Path) -> None:
    weights = folder / UNET
    names = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    tensors = load_file(weights)
    table = {name: names[i % 2] for i, name in enumerate(tensors)}
    for name in names:
        part = {key: tensors[key] for key, file in table.items() if file == name}
        save_file(part, weights.with_name(name))
    index = weights.with_name("diffusion_pytorch_model.safetensors.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": table}))
    weights.unlink()
    before = identity(folder)
    shard = weights.with_name(names[1])
    shard.write_bytes(shard.read_bytes() + b"\n")
    assert identity(folder) != before
    assert {path.name for path in loaded_files(folder, None)} >= {*names, index.name}


def test_a_model_of_a_kind_of_its_own_is_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "Mine"}')
    (tmp_path / "mine.pt").write_bytes(b"1")
    before = identity(tmp_path)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "mine.metadata").write_bytes(b"1")
    assert identity(tmp_path) == before
    (tmp_path / "mine.pt").write_bytes(b"2")
    assert identity(tmp_path) != before


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_folder_without_a_readable_index(tmp_path: Path, text: str) -> None:
    with pytest.raises(BenchmarkError, match=r"model_index\.json.*hf download"):
        identity(tmp_path)
    (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(BenchmarkError, match=r"model_index\.json.*replace it"):
        identity(tmp_path)
