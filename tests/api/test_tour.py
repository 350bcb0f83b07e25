"""examples/tour.ipynb runs from the first cell to the last, in a kernel of its own."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent.parent
TOUR = ROOT / "examples" / "tour.ipynb"


def outputs(notebook) -> list[dict]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def test_the_tour_is_kept_without_outputs():
    notebook = nbformat.read(TOUR, as_version=4)
    assert outputs(notebook) == []
    assert {cell.execution_count for cell in notebook.cells if cell.cell_type == "code"} == {None}


@pytest.mark.trains
@pytest.mark.processes
def test_the_tour_runs_and_shows_pictures_and_tables(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(TOUR, as_version=4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    html = "".join(output.data["text/html"] for output in outputs(notebook) if "text/html" in output.get("data", {}))
    assert html.count("<img") >= 2 * (1 + 5) and "<table" in html
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    texts = [output.data["text/plain"] for output in outputs(notebook) if "text/plain" in output.get("data", {})]
    assert any("slides resampled" in text for text in texts)
    assert (tmp_path / "tour" / "baseline" / "report.html").is_file()


@pytest.mark.processes
def test_a_bar_is_the_notebooks(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    code = "from pcam_ssl.terminal import progress\nwith progress('drawing', 2) as advance:\n    advance()"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in outputs(notebook))
