"""What one benchmark item is. Knows no file format and no model."""

from dataclasses import dataclass
from typing import TypedDict

EDIT_TYPES: tuple[str, ...] = (
    "Random",
    "Change Object",
    "Add Object",
    "Delete Object",
    "Change Attribute Content",
    "Change Attribute Pose",
    "Change Attribute Color",
    "Change Attribute Material",
    "Change Background",
    "Change Style",
)
"""Table labels of PIE-Bench's edit types, by ``editing_type_id`` (METHODS.md, section 1)."""


class CocoRLE(TypedDict):
    """A mask as pycocotools stores it: column-major, compressed counts."""

    size: list[int]
    """[height, width]"""
    counts: str


@dataclass(frozen=True)
class Sample:
    """One image with the edit that is asked for.

    Prompts are without the brackets that mark changed words. ``image_path`` and
    ``target_image_path`` (the true edited image, where a benchmark has one) are relative to the
    data set's image folder. ``mask`` is the annotated part to edit, None where there is none.
    ``digest`` is the sha256 of everything that can change a result: image bytes, texts, mask.
    """

    id: str
    image_path: str
    source_prompt: str
    target_prompt: str
    instruction: str
    edit_type: int
    blended_word: str
    mask: CocoRLE | None
    target_image_path: str | None
    digest: str
