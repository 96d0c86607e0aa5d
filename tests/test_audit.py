"""What the audit finds in samples, one quirk at a time."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image
from rich.console import Console

from piebench_masks.audit import (
    QUIRKS,
    audit,
    audit_command,
    load_tokenizers,
    touched_samples,
)
from piebench_masks.cli import CONF
from piebench_masks.data.rle import to_coco
from piebench_masks.data.sample import Sample
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.errors import BenchmarkError
from piebench_masks.report.contents import (
    COUNTS,
    contents_table,
    difference_table,
    shared_samples,
)
from piebench_masks.settings import typed

MAX_TOKENS = 6
Found = Callable[..., set[str]]


def tokenize(prompt: str) -> list[int]:
    """A word an id, between BOS and EOS."""
    return [1, *(10 + sum(map(ord, word)) for word in prompt.split()), 2]


def tokenize_2(prompt: str) -> list[int]:
    """Reads '!' as padding, and '!?' as two tokens."""
    return tokenize(prompt.replace("!?", "! ?").replace("!", "\0"))


@pytest.fixture
def found(tmp_path: Path) -> Found:
    def quirks(
        source: str,
        target: str,
        mode: str = "RGB",
        size: tuple[int, int] = (4, 4),
        mask: np.ndarray | None = np.eye(4, dtype=bool),  # noqa: B008
    ) -> set[str]:
        Image.new(mode, size).save(tmp_path / "image.png")
        rle = None if mask is None else to_coco(mask)
        sample = Sample("s1", "image.png", source, target, "", "Random", "", rle, None, "")
        picture = tmp_path / "image.png"
        touched = touched_samples([sample], lambda _: picture, tokenize, tokenize_2, MAX_TOKENS)
        table = audit(touched, 1)
        assert list(table.frame["n"]) == [len(ids.split()) for ids in table.frame["samples"]]
        return {name for name, n in zip(QUIRKS, table.frame["n"], strict=True) if n}

    return quirks


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("a cat", "a dog", set()),
        ("a cat", "a big cat", {"inserts"}),
        ("a cat on b", "dog on the b", {"mixed"}),
        ("x cat b c", "y cat", {"twice"}),
        ("a cat", "a cat", {"identical"}),
        ("", "a cat", {"empty", "inserts"}),
        ("a b c d e", "a b c d f", {"long"}),
        ("a b c d e f", "a b c d e g", {"long", "unseen"}),
        ("a b c d e f", "x b c d e g", {"long", "partly_unseen"}),
        ("a cat a", "cat a", {"elsewhere"}),
        ("a cat !", "a dog !", {"tokenizer_2"}),
        ("a cat !?", "a dog !?", {"tokenizer_2", "shifted"}),
    ],
)
def test_quirks_of_prompts(found: Found, source: str, target: str, expected: set[str]) -> None:
    assert found(source, target) == expected


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"size": (5, 4)}, {"not_square"}),
        ({"mode": "RGBA"}, {"not_rgb"}),
        ({"mode": "L"}, {"not_rgb"}),
        ({"mask": None}, {"no_mask"}),
        ({"mask": np.ones((4, 4), bool)}, {"full_mask"}),
        ({"mask": np.zeros((4, 4), bool)}, {"empty_mask"}),
    ],
)
def test_quirks_of_images_and_masks(found: Found, properties: dict, expected: set[str]) -> None:
    assert found("a cat", "a dog", **properties) == expected


def test_the_command_prints_and_writes_the_audit_of_the_configured_data_set(tmp_path: Path) -> None:
    write_shapes(tmp_path / "shapes", per_type=2)
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose(
            "config",
            [
                f"dataset.root={tmp_path / 'shapes'}",
                f"artifacts_dir={tmp_path / 'artifacts'}",
                f"results_dir={tmp_path / 'results'}",
                "name=audit",
            ],
        )
    console = Console(file=io.StringIO(), record=True, width=160)
    assert audit_command(typed(cfg), console) == 0
    assert "Quirks of the reference in 20 samples" in console.export_text()
    written = pd.read_csv(tmp_path / "results" / "audit" / "audit.csv")
    assert list(written["quirk"]) == [quirk.label for quirk in QUIRKS.values()]
    assert written["n"].between(0, 20).all()
    assert written["n"].sum() > 0


def test_a_model_without_tokenizers_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"tokenizers of .* do not load.*model\.id"):
        load_tokenizers(tmp_path)


def test_what_a_data_set_holds_is_counted_by_edit_type() -> None:
    full, empty, tiny = np.ones((20, 20), bool), np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    tiny[0, :3] = True
    masks = {"a": full, "b": empty, "c": tiny, "d": None}
    samples = [
        Sample(
            name,
            "x.png",
            "a cat",
            "a dog",
            "",
            "Random" if name == "a" else "Change Object",
            "cat dog" if name == "b" else " ",
            None if mask is None else to_coco(mask),
            None,
            "",
            source_text="a [cat]" if name == "c" else None,
        )
        for name, mask in masks.items()
    ]
    table = contents_table("mine", samples, ("Change Object", "Random", "Other"), ["b", "z"])
    found = table.frame.set_index("edit_type")
    assert list(found.index) == ["Change Object", "Random", "Overall"]
    wanted = [4, 1, 1, 1, 1, 1, 1, 3]
    assert list(found.loc["Overall", list(COUNTS)]) == wanted
    assert found.loc["Overall", "area"] == pytest.approx((1 + 0 + 3 / 400) / 3)
    assert list(found.loc["Random", list(COUNTS)]) == [1, 0, 1, 0, 0, 0, 0, 1]
    other = contents_table("theirs", samples[1:], ("Change Object",), [])
    difference = difference_table(("mine", "theirs"), (table, other)).frame
    assert list(difference.loc[difference["what"] == "n", "first"]) == [1, 4]
    assert "picture of 0" in shared_samples(samples, samples[1:])
    assert shared_samples(samples[:1], samples[1:]) == "They have no sample id in common."


def test_two_data_sets_are_held_against_each_other(tmp_path: Path) -> None:
    for name, count in (("one", 1), ("two", 2)):
        write_shapes(tmp_path / name, per_type=count)
    settings = [f"{place}_dir={tmp_path}/{place}" for place in ("results", "artifacts")]
    settings += [f"dataset.root={tmp_path}/one", "dataset@against=shapes", "tracker=none"]
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = typed(compose("config", [*settings, f"against.root={tmp_path}/two"]))
    console = Console(file=io.StringIO(), record=True, width=120)
    assert audit_command(cfg, console) == 0
    assert "Of 10 samples with the same id differ: picture of 0" in " ".join(
        console.export_text().split()
    )
    tables = {path.stem for path in (tmp_path / "results").rglob("audit*.csv")}
    assert tables == {
        *("audit", "audit_contents", "audit_against", "audit_against_contents"),
        "audit_difference",
    }
