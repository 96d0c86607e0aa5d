"""Writes the shapes benchmark in PIE-Bench's folder form, with the true edited images.

Knows the format and the seeds of the evaluation; the ordinary PIE-Bench reader reads the result.
"""

import json
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
from PIL import Image

from piebench_masks.data.pie_bench import EDIT_TYPES
from piebench_masks.data.rle import encode_runs
from piebench_masks.data.shapes.grammar import Edit, sample_edit
from piebench_masks.data.shapes.render import render_edit
from piebench_masks.data.whole import whole_folder

EVALUATION_SEED = 2**32
"""Evaluation samples use the seeds from here on, training scenes only those below."""


def evaluation_edits(per_type: int) -> list[tuple[str, int, Edit]]:
    """(sample id, edit type 0..9, edit) of every evaluation sample, ``per_type`` of each type."""
    edits = []
    for edit_type in range(len(EDIT_TYPES)):
        for index in range(per_type):
            rng = np.random.default_rng(EVALUATION_SEED + edit_type * 10**6 + index)
            edits.append((f"{edit_type}{index:011d}", edit_type, sample_edit(rng, edit_type)))
    return edits


def write_shapes(root: Path, *, per_type: int = 20) -> None:
    """Write ``annotation_images/`` and ``mapping_file.json``; the same bytes on every call.

    As in PIE-Bench (methods.md, section 1): brackets around changed words, masks as row-major runs.
    Beside each 64x64 image lies the true edited one, named by ``target_image_path``.
    """
    with whole_folder(root) as folder:
        _write(folder, per_type)


def _write(root: Path, per_type: int) -> None:
    images = root / "annotation_images"
    mapping = {}
    for sample_id, edit_type, edit in evaluation_edits(per_type):
        name = EDIT_TYPES[edit_type].lower().replace(" ", "_")
        folder = f"{edit_type}_{name}_{per_type}"
        (images / folder).mkdir(parents=True, exist_ok=True)
        source, target, mask = render_edit(edit)
        paths = f"{folder}/{sample_id}.png", f"{folder}/{sample_id}_target.png"
        for path, pixels in zip(paths, (source, target), strict=True):
            Image.fromarray(pixels).save(images / path)
        mapping[sample_id] = {
            "image_path": paths[0],
            "target_image_path": paths[1],
            **_texts(edit),
            "editing_type_id": str(edit_type),
            "mask": encode_runs(mask),
        }
    (root / "mapping_file.json").write_text(json.dumps(mapping, indent=1), encoding="utf-8")


def _texts(edit: Edit) -> dict[str, str]:
    """The prompts with brackets around the changed words, the instruction, the blended words."""
    source_words, target_words = edit.source.prompt().split(), edit.target.prompt().split()
    prompts: tuple[list[str], list[str]] = ([], [])
    instructions = []
    for change, i, j, k, m in SequenceMatcher(None, source_words, target_words).get_opcodes():
        old, new = " ".join(source_words[i:j]), " ".join(target_words[k:m])
        for prompt, words in zip(prompts, (old, new), strict=True):
            if words:
                prompt.append(words if change == "equal" else f"[{words}]")
        if change != "equal":
            instruction = {"replace": f"change {old} to {new}", "insert": f"add {new}"}
            instructions.append(instruction.get(change, f"remove {old}"))
    return {
        "original_prompt": " ".join(prompts[0]),
        "editing_prompt": " ".join(prompts[1]),
        "editing_instruction": ", ".join(instructions),
        "blended_word": blended_words(edit),
    }


def blended_words(edit: Edit) -> str:
    """The nouns that the edit is about, in the source and in the target, as PIE-Bench has them.

    An object where an attribute of it changes, too; none where the source shows nothing of them.
    """
    if edit.kind == 8:
        nouns = edit.source.background, edit.target.background
    elif edit.kind == 9:
        nouns = edit.source.style or "", edit.target.style or ""
    else:
        (index,) = edit.changed_things()
        source, target = (scene.things[index : index + 1] for scene in (edit.source, edit.target))
        nouns = "".join(t.shape for t in source), "".join(t.shape for t in target)
    return " ".join(nouns).strip() if nouns[0] else ""
