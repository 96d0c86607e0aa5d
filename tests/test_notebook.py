"""The notebook runs from top to bottom on a fresh run, and is committed with small outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from process import command

from piebench_masks.data.shapes.write import write_shapes

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "explore_results.ipynb"


def outputs(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    """Contents of this MIME type of all cells; printed text counts as ``text/plain``."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            content = output.get("data", {}) | {"text/plain": output.get("text", "")}
            found.append(str(content.get(kind, "")))
    return [content for content in found if content]


@pytest.mark.slow
def test_the_notebook_runs_on_a_small_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shapes(tmp_path / "data" / "shapes", per_type=1)
    done = command(tmp_path, "mask=[ours]", "thresholds=[0.3,0.6]", "limit=4", "tracker=none")
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.delenv("RUN", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, kernel_name="python3", resources={"metadata": {"path": tmp_path}}, timeout=300
    )
    client.execute()
    assert len(outputs(notebook, "image/png")) == 4
    assert any("4 samples of shapes" in text for text in outputs(notebook, "text/plain"))


def test_it_is_committed_with_small_outputs_and_no_paths() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    pictures = outputs(notebook, "image/png")
    assert len(pictures) == 4 and sum(map(len, pictures)) < 400_000  # base64 of 300 kB
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    for word in ("/home/", "/tmp", "/root/", "/work/", "/usr/", "Traceback", "Warning"):
        assert word not in text
