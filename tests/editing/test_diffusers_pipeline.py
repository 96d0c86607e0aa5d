"""Pipelines of diffusers as editors: tiny random ones of four kinds, loaded as real ones are."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import laws
import numpy as np
import pandas as pd
import pytest
import tiny_pipelines
import torch
from hydra import compose, initialize_config_dir
from instructed_model import save_model
from PIL import Image
from rich.console import Console

from piebench_masks.cli import CONF
from piebench_masks.data.scene import Scene
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.editing.diffusers_pipeline import DiffusersPipeline, laid_over
from piebench_masks.editing.editor import Edited, Sources, paint
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import part_identity
from piebench_masks.pipeline import run_pipeline

STEPS = 2
SMALL_KONTEXT = {"max_area": 32 * 32, "_auto_resize": False, "max_sequence_length": 16}
KINDS: dict[str, tuple[Callable[[Path], Path], str, dict[str, Any], int]] = {
    "instruct": (
        lambda folder: save_model(folder, 8),
        "diffusers.StableDiffusionInstructPix2PixPipeline",
        {},
        3,
    ),
    "inpainting": (
        tiny_pipelines.save_inpainting,
        "diffusers.StableDiffusionInpaintPipeline",
        {"guidance_scale": 3.0},
        2,
    ),
    "kontext": (
        tiny_pipelines.save_kontext,
        "diffusers.FluxKontextPipeline",
        SMALL_KONTEXT,
        1,
    ),
    "qwen": (
        tiny_pipelines.save_qwen,
        "diffusers.QwenImageEditPipeline",
        {"height": 64, "width": 64, "negative_prompt": " "},
        2,
    ),
}
"""What saves each, its class, arguments of its call, and its network's rows a step."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], DiffusersPipeline]:
    """The editor of a kind, whose folder is written and loaded once."""
    editors: dict[str, DiffusersPipeline] = {}

    def editor(kind: str) -> DiffusersPipeline:
        if kind not in editors:
            save, path, more, _ = KINDS[kind]
            folder = save(tmp_path_factory.mktemp(kind))
            arguments = {"num_inference_steps": STEPS, **more}
            editors[kind] = DiffusersPipeline(path, str(folder), arguments)
        return editors[kind]

    return editor


def two_samples() -> Sources:
    """As in ``laws``, without a model."""
    noise = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    images = (noise * 255).to(torch.uint8)
    texts = "a red circle on grass", "a blue circle on grass"
    return Sources(
        [
            Scene("0", images[0], *texts, instruction="a blue circle"),
            Scene("1", images[1], "a big circle", "a big square and a circle"),
        ],
        None,
    )


def edits(editor: DiffusersPipeline, sources: Sources, masks: Any, owner: Any) -> Edited:
    return paint(None, editor, sources, masks, owner)[0]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "qwen")) for kind in KINDS]
)
def test_edits_are_pictures_at_the_benchmarks_size_and_rows_are_counted(
    kind: str, made: Callable[[str], DiffusersPipeline]
) -> None:
    editor, sources = made(kind), two_samples()
    rows_a_step = KINDS[kind][-1]
    before = editor.counts["unet_rows"]
    inverted = editor.invert(None, sources)
    shared = editor.counts["unet_rows"] - before
    edited = editor.edit(None, sources, inverted, laws.MASKS, laws.OWNER)
    assert edited.images.shape == (4, 64, 64, 3) and edited.images.dtype == torch.uint8
    assert edited.finite.all()
    assert not torch.equal(edited.images[0], sources.images[0])
    assert torch.equal(edited.images[1], sources.images[1])  # under the empty mask
    assert inverted.nfe.sum() == shared
    assert edited.nfe.sum() == editor.counts["unet_rows"] - before - shared
    one = STEPS * rows_a_step
    if kind == "inpainting":
        assert inverted.nfe.tolist() == [0, 0] and edited.nfe.tolist() == [one, 0, one, one]
        assert editor.masking == "its own mask_image"
    else:
        assert inverted.nfe.tolist() == [one, one] and edited.nfe.tolist() == [0] * 4
        assert editor.masking == "laid over, hard"
        right = (~laws.LEFT).repeat_interleave(4, 0).repeat_interleave(4, 1)
        assert torch.equal(edited.images[2][right], sources.images[1][right])
        assert torch.equal(edited.images[2][~right], inverted.images[1][~right])


@pytest.mark.parametrize("kind", ["inpainting", "kontext"])
def test_neither_other_edits_nor_earlier_ones_change_anything(
    kind: str, made: Callable[[str], DiffusersPipeline]
) -> None:
    editor, sources = made(kind), two_samples()
    together = edits(editor, sources, laws.MASKS, laws.OWNER)
    own = Sources(sources.scenes[1:], None)
    alone = edits(editor, own, laws.MASKS[2:3], torch.tensor([0]))
    assert torch.equal(alone.images[0], together.images[2])
    other = edits(replace(editor, seed=1), own, laws.MASKS[2:3], torch.tensor([0]))
    assert not torch.equal(other.images, alone.images)


def test_a_mask_goes_in_as_the_pipelines_own(made: Callable[[str], DiffusersPipeline]) -> None:
    editor, sources = made("inpainting"), two_samples()
    seen: list[Any] = []
    kind = type(editor._pipeline)

    class Watched(kind):  # type: ignore[misc, valid-type]
        def __call__(self, **arguments: Any) -> Any:
            seen.append(arguments)
            return super().__call__(**arguments)

    editor._pipeline.__class__ = Watched
    edits(editor, sources, laws.MASKS[[2]], torch.tensor([0]))
    editor._pipeline.__class__ = kind
    [arguments] = seen
    mask = np.asarray(arguments["mask_image"])
    assert mask.shape == (64, 64) and (mask[:, :32] == 255).all() and (mask[:, 32:] == 0).all()
    assert np.array_equal(np.asarray(arguments["image"]), sources.images[0].numpy())
    assert arguments["prompt"] == "a blue circle" and arguments["guidance_scale"] == 3.0


@pytest.mark.parametrize("kind", ["instruct"])
def test_it_is_told_the_instruction_or_the_target_prompt(
    kind: str, made: Callable[[str], DiffusersPipeline]
) -> None:
    by_instruction = made(kind)
    by_target = replace(by_instruction, prompt="target")
    assert by_instruction.reads == ("image", "prompts", "instruction")
    assert by_target.reads == ("image", "prompts")
    sources = two_samples()
    told = laws.changed(sources, instruction=["a blue circle on grass", " "])
    first, second = (editor.invert(None, told).images for editor in (by_instruction, by_target))
    assert torch.equal(first, second)  # where there is no instruction it is the target prompt, too
    assert not torch.equal(by_instruction.invert(None, sources).images[0], first[0])


def test_edges_are_hard_or_feathered() -> None:
    sources = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    white = torch.full_like(sources, 255)
    masks = torch.stack([laws.LEFT, laws.EVERYTHING])
    hard = laid_over(sources, white, masks, 0)
    assert (hard[0, :, :32] == 255).all() and (hard[0, :, 32:] == 0).all()
    soft = laid_over(sources, white, masks, 2.0)
    assert (soft[1] == 255).all()
    row = soft[0, 20, :, 0].int()
    assert (row.diff() <= 0).all() and row[0] == 255 and row[-1] == 0
    assert 0 < row[34] < row[32] < 128 < row[31] < row[29] < 255
    assert (soft[0] == soft[0, :1]).all()


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_a_black_picture_and_one_that_is_not_finite_are_failures(
    made: Callable[[str], DiffusersPipeline], value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor, sources = made("instruct"), two_samples()
    decoder = editor._pipeline.vae.decoder
    spoil = torch.full((1, 3, 64, 64), value if value != 0 else -1.0)
    monkeypatch.setattr(decoder, "forward", lambda *args, **more: spoil)
    edited = edits(editor, sources, laws.MASKS, laws.OWNER)
    assert not edited.finite.any()


def test_a_pipelines_own_kind_of_picture_is_taken(
    made: Callable[[str], DiffusersPipeline],
) -> None:
    editor = made("instruct")
    other = replace(editor, arguments={**editor.arguments, "output_type": "pil"})
    own = Sources(two_samples().scenes[:1], None)
    assert torch.equal(other.invert(None, own).images, editor.invert(None, own).images)
    latents = replace(editor, arguments={**editor.arguments, "output_type": "latent"})
    with pytest.raises(BenchmarkError, match="output_type"):
        latents.invert(None, own)


def test_the_identity_is_the_class_and_the_content_of_the_model(
    made: Callable[[str], DiffusersPipeline], tmp_path: Path
) -> None:
    editor = made("kontext")
    same, other = (Path(shutil.copytree(editor.id, tmp_path / n)) for n in ("same", "other"))
    moved = replace(editor, id=str(same), cache_dir=str(tmp_path), offload="model", device="cuda")
    assert part_identity(moved) == part_identity(editor)
    assert "diffusers==" in json.dumps(part_identity(editor))
    assert part_identity(replace(editor, arguments={})) != part_identity(editor)
    file = other / "tokenizer_2" / "tokenizer.json"
    file.write_text(file.read_text() + " ")
    assert replace(editor, id=str(other)).identity() != editor.identity()


def test_files_of_processors_are_part_of_the_identity(
    made: Callable[[str], DiffusersPipeline], tmp_path: Path
) -> None:
    editor = made("qwen")
    other = Path(shutil.copytree(editor.id, tmp_path / "other"))
    file = next((other / "processor").glob("*processor_config.json"))
    file.write_text(file.read_text() + " ")
    assert replace(editor, id=str(other)).identity() != editor.identity()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pipeline": "diffusers.FluxContextPipeline"}, r"editor\.pipeline\.pipeline=.*no class"),
        ({"pipeline": "StableDiffusionPipeline"}, r"is no class of diffusers"),
        ({"pipeline": "diffusers.StableDiffusionPipeline"}, "takes no image"),
        ({"arguments": {"num_inference_step": 4}}, r"did you mean .*num_inference_steps\?"),
        ({"arguments": {"prompt": "a"}}, "which the benchmark gives"),
        ({"id": "no/such/folder"}, r"no/such/folder does not exist.*editor\.pipeline\.id"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_loaded(
    made: Callable[[str], DiffusersPipeline], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(BenchmarkError, match=message):
        replace(made("instruct"), **change).identity()


def test_a_folder_of_another_pipeline(
    made: Callable[[str], DiffusersPipeline],
) -> None:
    with pytest.raises(BenchmarkError, match=r"does not load.*FluxKontextPipeline"):
        replace(made("kontext"), id=made("instruct").id).load()


def test_offloading_is_the_pipelines_own(
    made: Callable[[str], DiffusersPipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    editor, asked = made("instruct"), []
    for name in ("model", "sequential"):
        monkeypatch.setattr(
            type(editor._pipeline),
            f"enable_{name}_cpu_offload",
            lambda self, device, name=name: asked.append((name, device)),
        )
        replace(editor, offload=name, device="cuda:1").load()
    assert asked == [("model", "cuda:1"), ("sequential", "cuda:1")]
    monkeypatch.undo()

    def refused(self: Any, device: str) -> None:
        raise ImportError("requires accelerate")

    monkeypatch.setattr(type(editor._pipeline), "enable_model_cpu_offload", refused)
    with pytest.raises(BenchmarkError, match=r"offload=model \(requires accelerate\)"):
        replace(editor, offload="model").load()


def test_a_picture_of_another_size_is_brought_to_the_benchmarks(
    made: Callable[[str], DiffusersPipeline],
) -> None:
    editor = made("kontext")
    scene = Scene("0", torch.zeros(48, 48, 3, dtype=torch.uint8) + 9, "a circle", "a square")
    edited = editor.invert(None, Sources([scene], None))
    assert edited.images.shape == (1, 48, 48, 3)
    assert Image.fromarray(edited.images[0].numpy()).size == (48, 48)


def test_a_run_of_pipelines_alone_loads_no_other_model_and_says_how_it_masks(
    made: Callable[[str], DiffusersPipeline], tmp_path: Path
) -> None:
    write_shapes(tmp_path / "shapes", per_type=1)
    target = f"{DiffusersPipeline.__module__}.DiffusersPipeline"
    editor = made("instruct")
    node = f"_target_: {target}, pipeline: {editor.pipeline}, id: '{editor.id}'"
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose(
            "config",
            [
                *("limit=1", "threads=1", "tracker=none", "name=run", "mask=[]"),
                *("baselines=[oracle]", "editor=[]", f"dataset.root={tmp_path}/shapes"),
                *(f"artifacts_dir={tmp_path}/artifacts", f"results_dir={tmp_path}/results"),
                f"+editor.hard={{{node}, arguments: {{num_inference_steps: 1}}}}",
                f"+editor.soft={{{node}, arguments: {{num_inference_steps: 1}}, feather: 2.0}}",
            ],
        )
    console = Console(file=io.StringIO(), record=True, width=220)
    assert run_pipeline(cfg, cfg.stages, console) == 0
    assert "6 U-Net rows, 0 VAE encodes" in console.export_text()
    table = pd.read_csv(tmp_path / "results/run/tables/editing.csv", keep_default_na=False)
    masking = table.set_index(["editor", "method"])["masking"]
    assert masking["hard", "oracle"] == "laid over, hard"
    assert masking["soft", "oracle"] == "laid over, feathered by 2 px"
    assert masking["hard", "none"] == masking["identity", "identity"] == ""
    assert "reconstruction" not in set(table["method"])
