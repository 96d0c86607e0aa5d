"""What one benchmark item is. Knows no file format and no model."""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict

SAMPLE_FIELDS: tuple[str, ...] = (
    "image",
    "target_image",
    "prompts",
    "instruction",
    "blended_word",
    "mask",
    "annotation",
    "texts",
)
"""What results can depend on. Prompts are both of them, with the words that are marked in them;
annotation and texts are mask and prompts as the data set's file has them."""


class CocoRLE(TypedDict):
    """A mask as pycocotools stores it: column-major, compressed counts."""

    size: list[int]
    """[height, width]"""
    counts: str


@dataclass(frozen=True)
class Sample:
    """One image with the edit that is asked for.

    Prompts are without the brackets that mark changed words; ``source_marked`` and
    ``target_marked`` are the words and phrases that stood in brackets, in their order.
    ``image_path`` and ``target_image_path`` (the true edited image, where a benchmark has one) are
    relative to the data set's image folder; ``image_digest`` and ``target_digest`` are the sha256
    of these files' bytes in hex. ``mask`` is the annotated part to edit, None where there is none.
    ``edit_type`` is one of the data set's labels.
    ``annotated`` is the mask before its outermost ``border`` pixels were set; ``source_text`` and
    ``target_text`` are the prompts with their brackets; None: as ``mask`` and the prompts are.
    ``caption`` is no part of the data set: where there is one, masks and editors are shown it in
    the place of the source prompt. Nor are ``source_captions`` and ``target_captions``, written
    about what is to be exchanged, and for what.
    """

    id: str
    image_path: str
    source_prompt: str
    target_prompt: str
    instruction: str
    edit_type: str
    blended_word: str
    mask: CocoRLE | None
    target_image_path: str | None
    image_digest: str
    target_digest: str | None = None
    source_marked: tuple[str, ...] = ()
    target_marked: tuple[str, ...] = ()
    annotated: CocoRLE | None = None
    border: int = 0
    source_text: str | None = None
    target_text: str | None = None
    caption: str = ""
    source_captions: tuple[str, ...] = ()
    target_captions: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, str]:
        """Both prompts with their brackets."""
        return self.source_text or self.source_prompt, self.target_text or self.target_prompt

    def fingerprint(self, fields: Collection[str]) -> str:
        """12 hex digits that change when the content of one of these fields does.

        fields: some of ``SAMPLE_FIELDS``, in any order; ValueError for any other. The id and the
        edit type are no part of it, as no result depends on them.
        """
        key = frozenset(fields)
        if key not in self._fingerprints:
            if unknown := key - {*SAMPLE_FIELDS}:
                raise ValueError(
                    f"{', '.join(sorted(unknown))}: no field of a sample; there are "
                    f"{', '.join(SAMPLE_FIELDS)}"
                )
            content = {name: self._content(name) for name in key}
            text = json.dumps(content, sort_keys=True, separators=(",", ":"))
            self._fingerprints[key] = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self._fingerprints[key]

    @cached_property
    def _fingerprints(self) -> dict[frozenset[str], str]:
        return {}

    def _content(self, field: str) -> Any:
        match field:
            case "image":
                return self.image_digest
            case "target_image":
                return self.target_digest
            case "prompts":
                prompts = self.source_prompt, self.target_prompt
                written = self.caption, self.source_captions, self.target_captions
                more = [written] if any(written) else []
                return [*prompts, self.source_marked, self.target_marked, *more]
            case "annotation":
                return [self.annotated or self.mask, self.border]
            case _:
                return getattr(self, field)


def item_name(sample: Sample, fields: Collection[str]) -> str:
    """The name of a sample's artifacts that depend on these of ``SAMPLE_FIELDS``."""
    return f"{sample.id}-{sample.fingerprint(fields)}"
