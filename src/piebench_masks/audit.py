"""What a data set holds, and how many samples each quirk of the reference touches (methods.md, 2).

Reads prompts, tokenizers, image headers and annotated masks; runs no model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from PIL import Image
from rich.console import Console

from piebench_masks.console import print_table
from piebench_masks.data.images import FORMATS, ImageError
from piebench_masks.data.rle import from_coco
from piebench_masks.data.sample import Sample
from piebench_masks.diffusion.prompt_diff import PromptError, prompt_diff
from piebench_masks.errors import BenchmarkError
from piebench_masks.report.contents import contents_table, difference_table, shared_samples
from piebench_masks.report.table import Format, Table
from piebench_masks.run import Run
from piebench_masks.settings import Settings
from piebench_masks.stages.latents import image_file
from piebench_masks.stages.parse import parse

Tokenize = Callable[[str], list[int]]
"""A prompt's token ids with BOS and EOS, neither padded nor truncated."""


class Quirk(NamedTuple):
    """What a sample has about it, and what the two ways of working make of that."""

    label: str
    reference: str
    exact: str


QUIRKS: dict[str, Quirk] = {
    "mixed": Quirk(
        "Inserts beside deletes or replaces",
        "adds target columns and ids",
        "those of the source alone",
    ),
    "inserts": Quirk("Inserts alone", "target prompt is the probe", "the same"),
    "identical": Quirk("No token differs", "no map; noise_based: full mask", "empty masks"),
    "empty": Quirk("Empty prompt", "NaN in its CSV: crash", "a prompt without words"),
    "long": Quirk("Prompt longer than the model sees", "cut after comparing", "cut before"),
    "unseen": Quirk("Change wholly beyond the last token", "no map (NaN)", "empty masks"),
    "partly_unseen": Quirk("Change partly beyond it", "the visible part", "the visible part"),
    "elsewhere": Quirk(
        "Zeroed id also elsewhere in the prompt", "zeroed there too (ours)", "the same"
    ),
    "twice": Quirk("Deleted ids beside replaced ones", "ids twice: no effect", "ids once"),
    "tokenizer_2": Quirk(
        "'!' and other ids differ in tokenizer 2", "ids by tokenizer 1", "the same"
    ),
    "shifted": Quirk("Tokenizer 2 shifts the positions", "columns by tokenizer 1", "the same"),
    "not_square": Quirk("Image not square", "map transposed", "map of the image's shape"),
    "not_rgb": Quirk("Image with alpha or without colour", "crash", "laid on white, made RGB"),
    "no_mask": Quirk("No annotated mask", "not scored", "edits: whole image"),
    "full_mask": Quirk("Annotated mask is full", "no background scores", "the same (missing)"),
    "empty_mask": Quirk("Annotated mask is empty", "no score of the edit", "the same (missing)"),
}
"""methods.md's others touch every sample alike, or cannot be known without a model's map."""


def touched_samples(
    samples: Sequence[Sample],
    image: Callable[[Sample], Path],
    tokenize: Tokenize,
    tokenize_2: Tokenize,
    max_tokens: int,
) -> dict[str, list[str]]:
    """By each of ``QUIRKS`` the ids of the samples that it touches.

    image: a sample's image file, of which the header is read; max_tokens: what the text encoders
    see. Whether a mask's run was cut at the end of the image is not known to a parsed sample.
    """
    touched: dict[str, list[str]] = {name: [] for name in QUIRKS}
    for sample in samples:
        prompt_quirks = _prompt_quirks(sample, tokenize, tokenize_2, max_tokens)
        for name in (*prompt_quirks, *_image_quirks(image(sample)), *_mask_quirks(sample)):
            touched[name].append(sample.id)
    return touched


def audit(touched: Mapping[str, Sequence[str]], count: int) -> Table:
    """A row for each of ``QUIRKS`` with the number, share and ids of the samples it touches.

    touched: as ``touched_samples`` finds them among ``count`` samples.
    """
    rows = [
        (*quirk, len(touched[name]), len(touched[name]) / count, " ".join(touched[name]))
        for name, quirk in QUIRKS.items()
    ]
    return Table(
        title=f"Quirks of the reference in {count} samples",
        frame=pd.DataFrame(rows, columns=["quirk", *Quirk._fields[1:], "n", "share", "samples"]),
        formats={
            "quirk": Format("Quirk"),
            "n": Format("Samples", digits=0),
            "share": Format("%", digits=1, scale=100),
            "reference": Format("compat: reference"),
            "exact": Format("compat: exact"),
        },
        notes=("audit.csv, in the run's results folder, lists the samples' ids.",),
    )


def load_tokenizers(
    model: str | Path, *, revision: str | None = None, cache_dir: str | None = None
) -> tuple[Tokenize, Tokenize, int]:
    """Both tokenizers of a diffusers folder or hub model, and how many tokens the model sees.

    Raises BenchmarkError where they cannot be loaded.
    """
    from transformers import CLIPTokenizer

    try:
        tokenizer, tokenizer_2 = (
            CLIPTokenizer.from_pretrained(
                str(Path(model).expanduser()),
                subfolder=name,
                revision=revision,
                cache_dir=cache_dir,
            )
            for name in ("tokenizer", "tokenizer_2")
        )
        # An empty folder gives a tokenizer of BOS and EOS alone.
        if min(len(tokenizer), len(tokenizer_2)) <= 2:
            raise ValueError("they have no vocabulary")
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise BenchmarkError(
            f"the tokenizers of {model} do not load ({error}): set model.id to a diffusers folder "
            "with tokenizer/ and tokenizer_2/, or to the hub name of one"
        ) from error
    return (
        lambda prompt: tokenizer(prompt, verbose=False).input_ids,
        lambda prompt: tokenizer_2(prompt, verbose=False).input_ids,
        tokenizer.model_max_length,
    )


def audit_command(cfg: Settings, console: Console) -> int:
    """``piebench-masks audit``: print and write what the configured data set holds, what it has of
    the reference's quirks, and where it differs from the one ``against`` which it is held.
    """
    run = Run(cfg)
    model = run.cfg.model
    tokenizers = load_tokenizers(model.id, revision=model.revision, cache_dir=model.cache_dir)
    tables: dict[str, Table] = {}
    names: list[str] = []
    held: list[Sequence[Sample]] = []
    for stem, one in {"audit": run, "audit_against": _against(cfg)}.items():
        if one is not None:
            samples = parse(one, console).samples
            touched = touched_samples(samples, _files(one), *tokenizers)
            name = one.cfg.dataset.name
            contents = contents_table(name, samples, one.edit_types, touched["long"])
            tables |= {f"{stem}_contents": contents, stem: audit(touched, len(samples))}
            names.append(name)
            held.append(samples)
    if len(held) == 2:
        both = tables["audit_contents"], tables["audit_against_contents"]
        difference = difference_table((names[0], names[1]), both)
        tables["audit_difference"] = difference.noted(shared_samples(*held))
    for stem, table in tables.items():
        print_table(console, table.to_rich())
        table.write(run.results, stem)
    return 0


def _files(run: Run) -> Callable[[Sample], Path]:
    return lambda sample: image_file(run, sample.image_path)


def _against(cfg: Settings) -> Run | None:
    """A run of the same settings on the data set that the configured one is held against."""
    return None if cfg.against is None else Run(replace(cfg, dataset=cfg.against, against=None))


def _prompt_quirks(
    sample: Sample, tokenize: Tokenize, tokenize_2: Tokenize, max_tokens: int
) -> Iterator[str]:
    prompts = sample.source_prompt, sample.target_prompt
    source, target = map(tokenize, prompts)
    ids_2 = list(map(tokenize_2, prompts))
    if not all(prompt.strip() for prompt in prompts):
        yield "empty"
    if max(len(source), len(target)) > max_tokens:
        yield "long"
    if ids_2 != [source, target]:
        yield "tokenizer_2"
    if any(len(one) != len(two) for one, two in zip((source, target), ids_2, strict=True)):
        yield "shifted"
    tags = {tag for tag, *_ in SequenceMatcher(None, source, target).get_opcodes()} - {"equal"}
    if tags == {"insert"}:
        yield "inserts"
    elif "insert" in tags:
        yield "mixed"
    if tags >= {"delete", "replace"}:
        yield "twice"
    try:
        diff = prompt_diff(source, target, max_tokens=max_tokens, compat="reference")
    except PromptError:
        yield "identical"
        return
    unseen = [column >= max_tokens for column in diff.columns]
    if any(unseen):
        yield "unseen" if all(unseen) else "partly_unseen"
    probe = source if diff.probe == "source" else target
    if any(
        token in diff.ablated and column not in diff.columns
        for column, token in enumerate(probe[:max_tokens])
    ):
        yield "elsewhere"


def _image_quirks(path: Path) -> Iterator[str]:
    try:
        with Image.open(path, formats=FORMATS) as image:
            size, mode = image.size, image.mode
    except Exception as error:  # as in load_image
        raise ImageError(f"{path} cannot be read as an image ({error}): put it back") from error
    if size[0] != size[1]:
        yield "not_square"
    if mode != "RGB":
        yield "not_rgb"


def _mask_quirks(sample: Sample) -> Iterator[str]:
    if sample.mask is None:
        yield "no_mask"
        return
    mask = from_coco(sample.mask)
    if mask.all():
        yield "full_mask"
    elif not mask.any():
        yield "empty_mask"
