"""What every editor of this package says of itself, and takes."""

import inspect
import json
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

import piebench_masks.editing
from piebench_masks.diffusion.backbone import Capability
from piebench_masks.diffusion.loading import backbone_class
from piebench_masks.editing.editor import READABLE, Editor, check_needs
from piebench_masks.editing.inversion import Invert, ddim, direct, null_text
from piebench_masks.editing.prompt_to_prompt import PromptToPrompt
from piebench_masks.editing.turbo_edit import TurboEdit
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import part_identity
from piebench_masks.weights import packaged


def editors() -> list[type]:
    """Every editor class of the package."""
    folder = Path(piebench_masks.editing.__file__ or "").parent
    modules = [import_module(f"piebench_masks.editing.{path.stem}") for path in folder.glob("*.py")]
    classes = (value for module in modules for value in vars(module).values())
    found = {c for c in classes if inspect.isclass(c) and Editor in c.__mro__ and c is not Editor}
    return sorted(found, key=lambda each: each.__name__)


def test_there_are_sixteen_editors_and_a_bound() -> None:
    assert len(editors()) == 16 + 1


@pytest.mark.parametrize("editor", editors(), ids=lambda each: each.__name__)
def test_what_it_says_of_itself(editor: type[Editor]) -> None:
    assert {"version", "needs", "reads"} <= vars(editor).keys()
    assert type(editor.version) is int and editor.version >= 1
    if not isinstance(editor.reads, property):  # what a pipeline reads is among its settings
        assert set(editor.reads) <= set(READABLE)
    assert set(editor.needs or ()) <= set(get_args(Capability))
    for function in ("invert", "edit"):
        taken, asked = (inspect.signature(getattr(c, function)) for c in (editor, Editor))
        assert list(taken.parameters) == list(asked.parameters)


def test_an_editor_with_another_inversion_is_another_one() -> None:
    def known(inversion: Invert) -> str:
        return json.dumps(part_identity(PromptToPrompt(inversion)), sort_keys=True)

    inversions = (ddim, direct, partial(null_text, inner_steps=2), partial(null_text))
    assert len({known(each) for each in inversions}) == 4
    assert known(partial(null_text, inner_steps=2)) == known(inversions[2])


def test_few_steps_is_a_property_of_the_model_that_its_configuration_tells() -> None:
    folder = Path(packaged("shapes_turbo"))

    def provided(few_steps: bool) -> frozenset[Capability]:
        return backbone_class(folder).describe(folder, few_steps=few_steps)[2]

    check_needs(TurboEdit(), provided(True))
    with pytest.raises(BenchmarkError, match=r"TurboEdit needs few_steps.*model\.few_steps=true"):
        check_needs(TurboEdit(), provided(False))
    every = {"few_steps", "self_attention", "residuals"}
    assert provided(True) == every
