"""The written benchmark: a genuine PIE-Bench folder, always the same, never seen in training."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from piebench_masks.data.pie_bench import EDIT_TYPES, load_pie_bench
from piebench_masks.data.rle import from_coco
from piebench_masks.data.shapes.render import render_edit
from piebench_masks.data.shapes.write import evaluation_edits, write_shapes
from piebench_masks.training.scenes import TRAINING_SEEDS, draw_pool


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    write_shapes(root, per_type=4)
    return root


def test_the_pie_bench_reader_takes_every_sample(folder: Path) -> None:
    parsed = load_pie_bench(folder, mask_size=64, border=0, on_error="raise")
    assert not parsed.rejections
    assert parsed.edit_types == EDIT_TYPES
    assert Counter(s.edit_type for s in parsed.samples) == dict.fromkeys(EDIT_TYPES, 4)


def test_images_masks_and_prompts_are_those_of_the_edits(folder: Path) -> None:
    samples = load_pie_bench(folder, mask_size=64, border=0, on_error="raise").samples
    for sample, (sample_id, edit_type, edit) in zip(samples, evaluation_edits(4), strict=True):
        source, target, mask = render_edit(edit)
        assert (sample.id, sample.edit_type) == (sample_id, EDIT_TYPES[edit_type])
        assert (sample.source_prompt, sample.target_prompt) == (
            edit.source.prompt(),
            edit.target.prompt(),
        )
        assert sample.mask is not None
        assert sample.target_image_path is not None
        assert (from_coco(sample.mask) == mask).all()
        images = folder / "annotation_images"
        assert (np.array(Image.open(images / sample.image_path)) == source).all()
        assert (np.array(Image.open(images / sample.target_image_path)) == target).all()


def test_brackets_stand_around_what_the_other_prompt_lacks(folder: Path) -> None:
    mapping = json.loads((folder / "mapping_file.json").read_text())
    for entry in mapping.values():
        before, after = entry["original_prompt"], entry["editing_prompt"]
        assert "[" in before + after
        unchanged = [" ".join(outside_brackets(prompt)) for prompt in (before, after)]
        assert unchanged[0] == unchanged[1]


def outside_brackets(prompt: str) -> list[str]:
    for part in prompt.split("[")[1:]:
        prompt = prompt.replace(f"[{part.split(']')[0]}]", "")
    return prompt.split()


def test_writing_again_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path, per_type=4)
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*.*"))
    assert paths == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert all((folder / p).read_bytes() == (tmp_path / p).read_bytes() for p in paths)


def test_more_samples_leave_the_first_ones_as_they_are() -> None:
    assert set(evaluation_edits(2)) <= set(evaluation_edits(3))


def test_no_evaluation_scene_occurs_in_training() -> None:
    edits = [edit for _, _, edit in evaluation_edits(20)]
    evaluated = {scene for edit in edits for scene in (edit.source, edit.target)}
    trained = {*draw_pool(1000).scenes, *draw_pool(1000, TRAINING_SEEDS.stop - 1000).scenes}
    assert len(trained) == 2000
    assert not evaluated & trained
