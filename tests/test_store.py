"""Artifacts are whole or missing, whatever is torn, full, damaged or done by two at once."""

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from piebench_masks import store
from piebench_masks.store import Artifacts, Folder, Stamp, StoreError, artifact_key

PARAMETERS = {"model": "tiny", "strength": 0.5, "methods": ["a", "b"]}
TENSORS = {"map": torch.arange(6.0).reshape(2, 3), "nan": torch.tensor(float("nan"))}
WRITER = {"device": "cpu", "commit": "abc"}
OTHER = WRITER | {"device": "cuda:0"}
IMAGE = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Artifacts(tmp_path, WRITER).folder("masks", PARAMETERS)


def files(folder: Folder) -> set[str]:
    return {path.name for path in folder.path.rglob("*") if path.is_file()}


def write_tensors(folder: Folder) -> Stamp:
    return folder.write_tensors("item", TENSORS)


def write_image(folder: Folder) -> Stamp:
    return folder.write_image("item", IMAGE)


def test_a_key_follows_the_values_and_not_the_order_of_the_parameters() -> None:
    assert artifact_key(PARAMETERS) == artifact_key(dict(reversed(PARAMETERS.items())))
    assert artifact_key(PARAMETERS) != artifact_key({**PARAMETERS, "strength": 0.25})
    assert len(bytes.fromhex(artifact_key({}))) == 6


def test_a_key_stays_the_same_between_versions_of_the_program() -> None:
    assert artifact_key({"b": [1, 0.5, None], "a": "ä"}) == "895647da2fba"


def test_a_folders_description_is_its_parameters_and_no_process(
    tmp_path: Path, folder: Folder
) -> None:
    again = Artifacts(tmp_path, OTHER).folder("masks", PARAMETERS)
    assert again == folder
    assert again.path == tmp_path / "masks" / artifact_key(PARAMETERS)
    assert json.loads((again.path / "stage.json").read_text()) == {"parameters": PARAMETERS}


def test_every_item_tells_the_process_that_made_it(tmp_path: Path, folder: Folder) -> None:
    other = Artifacts(tmp_path, OTHER).folder("masks", PARAMETERS)
    for name, writer in (("ours", folder), ("others", other)):
        writer.write_tensors(f"{name}.safetensors", TENSORS)
        writer.write_image(f"{name}/edit.png", IMAGE)
        writer.append_rows([{"sample": name, "dice": 0.5}])
    unknown = Folder(folder.path)
    unknown.write_tensors("old", TENSORS)
    unknown.write_image("old.png", IMAGE)
    unknown.append_rows([{"sample": "old", "dice": 0.5}])
    for _ in range(2):
        rows = unknown.rows(["sample"], origin=True).set_index("sample")["provenance"]
        for name, process in (("ours", WRITER), ("others", OTHER)):
            ids = {unknown.made_by(f"{name}.safetensors"), unknown.made_by(f"{name}/edit.png")}
            assert ids == {rows[name]} == {artifact_key(process)}
            assert unknown.provenance(rows[name]) == process
        assert pd.isna(rows["old"])
        folder.compact(["sample"])
    assert unknown.made_by("old") is None and unknown.made_by("old.png") is None
    assert unknown.made_by("missing") is None
    assert "provenance" not in unknown.rows(["sample"])
    assert len(list(folder.path.glob("provenance/*.json"))) == 2


def test_rows_that_nobody_signed_have_no_known_origin(folder: Folder) -> None:
    Folder(folder.path).append_rows([{"sample": "old", "dice": 0.5}])
    assert folder.rows(["sample"], origin=True)["provenance"].isna().all()


def test_a_damaged_provenance_is_written_again(tmp_path: Path, folder: Folder) -> None:
    folder.write_image("item", IMAGE)
    [file] = folder.path.glob("provenance/*.json")
    file.write_text(file.read_text().replace("cpu", "gpu"))
    assert folder.provenance(file.stem) is None
    Artifacts(tmp_path, WRITER).folder("masks", PARAMETERS).write_image("item", IMAGE)
    assert folder.provenance(file.stem) == WRITER
    assert folder.provenance("../stage") is None


def test_looking_for_a_folder_makes_none(tmp_path: Path) -> None:
    looked_at = Artifacts(tmp_path / "new").at("masks", PARAMETERS)
    assert not looked_at.has("item")
    assert looked_at.rows(["sample"]).empty
    looked_at.compact(["sample"])
    assert not (tmp_path / "new").exists()


def test_a_folder_of_other_parameters_under_the_same_key_is_refused(
    tmp_path: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_bytes("stage.json", b'{"parameters": {"model": "other"}}')
    monkeypatch.setattr("piebench_masks.store.artifact_key", lambda parameters: folder.key)
    with pytest.raises(StoreError, match=r"stage\.json holds other parameters .* remove"):
        Artifacts(tmp_path).folder("masks", PARAMETERS)


@pytest.mark.parametrize("torn", [b'{"para', b'{"parameters": {"model": "tinx"}}', b"\0" * 40])
def test_a_damaged_description_is_written_again(
    tmp_path: Path, folder: Folder, torn: bytes
) -> None:
    folder.write_bytes("stage.json", torn)
    Artifacts(tmp_path).folder("masks", PARAMETERS)
    assert json.loads((folder.path / "stage.json").read_text())["parameters"] == PARAMETERS


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a", "a/../../b", "/etc/passwd", "a//b", "a/", "~a", "a\n", "a\0"]
)
def test_a_name_cannot_leave_the_folder(folder: Folder, name: str) -> None:
    with pytest.raises(ValueError, match="is no name of an artifact"):
        folder.write_bytes(name, b"")


def test_tensors_come_back_bit_for_bit(folder: Folder) -> None:
    rows = torch.arange(8.0).reshape(2, 4)
    written = {**TENSORS, "row": rows[1], "turned": rows.T, "none": torch.empty(0, 3)}
    folder.write_tensors("sample/maps.safetensors", written)
    read = folder.read_tensors("sample/maps.safetensors")
    assert read is not None
    assert read.keys() == written.keys()
    for name, tensor in written.items():
        assert torch.equal(read[name].view(torch.int32), tensor.contiguous().view(torch.int32))


def test_images_come_back_unchanged(folder: Folder) -> None:
    folder.write_image("sample/mask-0f.png", IMAGE)
    assert np.array_equal(folder.read_image("sample/mask-0f.png"), IMAGE)


def test_what_is_not_there_is_none(folder: Folder) -> None:
    assert folder.read_tensors("item") is None
    assert folder.read_image("item") is None
    assert not folder.has("item")


@pytest.mark.parametrize("write", [write_tensors, write_image])
def test_a_file_cut_anywhere_counts_as_missing(
    folder: Folder, write: Callable[[Folder], Stamp]
) -> None:
    write(folder)
    whole = folder.path_of("item").read_bytes()
    for length in range(0, len(whole) - 12, 3):  # a PNG ends with 12 bytes that hold no pixel
        folder.path_of("item").write_bytes(whole[:length])
        assert folder.read_tensors("item") is None
        assert folder.read_image("item") is None


@pytest.mark.parametrize("write", [write_tensors, write_image])
def test_a_flipped_bit_never_changes_what_is_read(
    folder: Folder, write: Callable[[Folder], Stamp]
) -> None:
    write(folder)
    whole = folder.path_of("item").read_bytes()
    refused = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        folder.path_of("item").write_bytes(damaged)
        tensors, image = folder.read_tensors("item"), folder.read_image("item")
        refused += tensors is None and image is None
        assert tensors is None or torch.equal(tensors["map"], TENSORS["map"])
        assert image is None or np.array_equal(image, IMAGE)
    assert refused > 0.9 * len(whole)


def test_what_is_damaged_is_logged_once_with_its_reason(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    for name, write in (("a", write_tensors), ("b", write_image)):
        write(folder)
        whole = folder.path_of("item").read_bytes()
        folder.path_of(name).write_bytes(whole[: len(whole) // 2])
    folder.append_rows([{"sample": "a"}])
    folder.compact(["sample"])
    folder.path_of("rows.parquet").write_bytes(b"torn")
    folder.append_rows([{"sample": "b"}])
    [part] = folder.path.glob("parts/*")
    part.write_bytes(b"torn")
    caplog.clear()
    for _ in range(2):
        assert folder.read_tensors("a") is None and not folder.is_whole("a")
        assert folder.read_image("b") is None and not folder.is_whole("b")
        assert folder.rows(["sample"]).empty
        assert folder.read_image("missing") is None
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 4
    for path in (folder.path_of("a"), folder.path_of("b"), folder.path_of("rows.parquet"), part):
        [line] = [line for line in caplog.messages if f"{path} is damaged (" in line]
        assert "recomputed" in line
    folder.write_tensors("a", TENSORS)
    folder.path_of("a").write_bytes(b"torn again")
    assert folder.read_tensors("a") is None and len(caplog.records) == 5


@pytest.fixture
def nobody(folder: Folder) -> Iterator[None]:
    """This process as a user who may do little: nothing is forbidden to root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)
    folder.path.chmod(0o700)


@pytest.mark.parametrize(
    "read",
    [
        lambda folder: folder.read_tensors("item"),
        lambda folder: folder.read_image("item"),
        lambda folder: folder.rows(["sample"]),
        lambda folder: folder.has("item"),
        lambda folder: folder.is_whole("item"),
        lambda folder: folder.made_by("item"),
    ],
)
def test_what_may_not_be_read_is_an_error_and_not_missing(
    folder: Folder, read: Callable[[Folder], object], request: pytest.FixtureRequest
) -> None:
    folder.write_image("item", IMAGE)
    folder.append_rows([{"sample": "a"}])
    folder.path.chmod(0o000)
    request.getfixturevalue("nobody")
    with pytest.raises(StoreError, match=rf"{folder.path}.* cannot be read .*[Pp]ermission.* run"):
        read(folder)


def test_a_folder_in_the_place_of_a_file_is_an_error_and_not_missing(folder: Folder) -> None:
    folder.path_of("item").mkdir()
    with pytest.raises(StoreError, match="item cannot be read"):
        folder.read_tensors("item")


def test_a_folder_that_cannot_be_written_is_one_clear_error(
    folder: Folder, request: pytest.FixtureRequest
) -> None:
    folder.path.chmod(0o500)
    request.getfixturevalue("nobody")
    with pytest.raises(StoreError, match=r"item cannot be written .* run again"):
        folder.write_bytes("item", b"new")


def test_reading_writes_and_removes_nothing(folder: Folder) -> None:
    folder.write_image("item", IMAGE)
    folder.append_rows([{"sample": "a"}])
    folder.path_of("item").write_bytes(b"torn")
    before = {path: path.stat() for path in folder.path.rglob("*")}
    assert folder.read_image("item") is None and folder.read_tensors("item") is None
    assert folder.rows(["sample"]).shape == (1, 1) and folder.made_by("item") is None
    assert {path: path.stat() for path in folder.path.rglob("*")} == before
    folder.remove("item")
    folder.remove("item")
    assert not folder.has("item")


@pytest.mark.parametrize("write", [write_tensors, write_image])
def test_a_file_with_its_stamp_is_whole_and_is_not_read(
    folder: Folder, write: Callable[[Folder], Stamp], monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = write(folder)
    path = folder.path_of("item")
    assert stamp == (path.stat().st_size, path.stat().st_mtime_ns)
    assert not folder.is_whole("missing", *stamp)
    column = pd.Series([*stamp, None], dtype=float)  # as rows without a stamp make it
    reads = []
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path))
    assert folder.is_whole("item", *stamp) and folder.is_whole("item", column[0], column[1])
    assert not reads
    monkeypatch.undo()
    os.utime(path)  # copied, perhaps
    assert folder.is_whole("item", *stamp) and folder.is_whole("item", *stamp[:1], float("nan"))
    path.write_bytes(path.read_bytes()[:-20] + bytes(20))
    assert not folder.is_whole("item", *stamp) and not folder.is_whole("item")


def test_several_images_have_a_stamp_each(folder: Folder) -> None:
    stamps = folder.write_images({"a/1.png": IMAGE, "a/2.png": IMAGE[:2]})
    assert all(folder.is_whole(name, *stamp) for name, stamp in stamps.items())
    assert [*stamps] == ["a/1.png", "a/2.png"]


def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(folder: Folder) -> None:
    folder.write_bytes("item", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # the system cuts files off there
    try:
        with pytest.raises(StoreError, match=r"item cannot be written .* free space"):
            folder.write_bytes("item", bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert folder.path_of("item").read_bytes() == b"old"
    assert files(folder) == {"item", "stage.json"}


def test_an_interruption_leaves_nothing_half_written(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        folder.write_bytes("item", b"new")
    assert files(folder) == {"stage.json"}


def test_a_file_in_the_place_of_a_folder_is_one_clear_error(folder: Folder) -> None:
    folder.write_bytes("sample", b"")
    with pytest.raises(StoreError, match="cannot be written"):
        folder.write_bytes("sample/item", b"")


def test_of_rows_with_equal_keys_the_last_written_stays(folder: Folder) -> None:
    nan = float("nan")
    folder.append_rows([{"sample": "01", "threshold": nan, "dice": 0.1}])
    folder.append_rows([{"sample": "02", "threshold": 0.5, "dice": nan}])
    folder.compact(["sample", "threshold"])
    folder.append_rows([{"sample": "01", "threshold": nan, "dice": 1 / 3}])
    folder.append_rows([])
    for _ in range(2):
        rows = folder.rows(["sample", "threshold"]).sort_values("sample")
        assert rows["sample"].tolist() == ["01", "02"]
        assert rows["dice"].tolist() == [1 / 3, pytest.approx(nan, nan_ok=True)]
        folder.compact(["sample", "threshold"])
    assert not list(folder.path.glob("parts/*"))


def test_a_damaged_part_is_left_out(folder: Folder) -> None:
    folder.append_rows([{"sample": "a", "dice": 0.1}, {"sample": "b", "dice": 0.2}])
    [part] = folder.path.glob("parts/*.jsonl")
    part.write_bytes(part.read_bytes().splitlines(keepends=True)[0])
    folder.append_rows([{"sample": "c", "dice": 0.3}])
    assert folder.rows(["sample"])["sample"].tolist() == ["c"]


def test_a_damaged_table_counts_as_missing(folder: Folder) -> None:
    scores = [number / 7 for number in range(50)]
    folder.append_rows([{"sample": f"s{i}", "dice": score} for i, score in enumerate(scores)])
    folder.compact(["sample"])
    table = folder.path / "rows.parquet"
    whole = table.read_bytes()
    folder.append_rows([{"sample": "new", "dice": 0.5}])
    table.write_bytes(whole[:-20])
    assert folder.rows(["sample"])["dice"].tolist() == [0.5]
    first, last = whole.index(np.float64(1 / 7).tobytes()), whole.index(np.float64(7).tobytes())
    for position in range(first, last, 9):
        table.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert folder.rows(["sample"])["dice"].tolist() == [0.5]


def test_one_compaction_waits_for_the_other(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged, may_write = threading.Event(), threading.Event()
    packed = store.pack_rows

    def slow_at_first(table: pd.DataFrame) -> bytes:
        if not merged.is_set():
            merged.set()
            may_write.wait(60)
        return packed(table)

    monkeypatch.setattr(store, "pack_rows", slow_at_first)
    compactions = [threading.Thread(target=folder.compact, args=[["sample"]]) for _ in range(2)]
    folder.append_rows([{"sample": "a"}])
    compactions[0].start()
    assert merged.wait(60)
    folder.append_rows([{"sample": "b"}])
    compactions[1].start()
    compactions[1].join(0.3)  # without a lock it would finish and be overwritten
    may_write.set()
    for compaction in compactions:
        compaction.join()
    assert set(folder.rows(["sample"])["sample"]) == {"a", "b"}


WORKER = """
import sys
from pathlib import Path
from piebench_masks.store import Artifacts
folder = Artifacts(Path(sys.argv[1]), {"worker": sys.argv[2]}).folder("score", {})
for number in range(30):
    folder.append_rows([{"sample": f"{sys.argv[2]}-{number}", "dice": number / 7}])
    folder.append_rows([{"sample": f"shared-{number}", "dice": number / 7}])
    assert len(folder.rows(["sample"])) >= 2 * number + 2
    if number % 3 == 0:
        folder.compact(["sample"])
"""


def test_two_processes_lose_no_row(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), name]) for name in "ab"
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    folder = Artifacts(tmp_path).folder("score", {})
    folder.compact(["sample"])
    rows = folder.rows(["sample"])
    expected = {f"{name}-{number}" for name in ("a", "b", "shared") for number in range(30)}
    assert sorted(rows["sample"]) == sorted(expected)
    assert folder.rows(["sample"], origin=True)["provenance"].nunique() == 2
    expected = {"stage.json", "rows.parquet", "~lock"}
    assert files(folder) <= expected | {path.name for path in folder.path.glob("provenance/*")}
