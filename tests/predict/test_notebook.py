"""docs/predict.ipynb: it runs from start to end, and is stored without outputs."""

import base64
import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.tiny_weights import tiny_run, tiny_weights

DOCS = Path(__file__).resolve().parents[2] / "docs"
NOTEBOOK = DOCS / "predict.ipynb"
nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_stored_without_outputs(stored):
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert code and all(cell.outputs == [] and cell.execution_count is None for cell in code)


def outputs_of(stored, tmp_path, monkeypatch):
    """Run the notebook in its folder, and return the text and the pictures of its cells."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    manager = AsyncKernelManager(kernel_name="python3")
    # The interpreter of the tests, whatever kernels the user has installed.
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager._kernel_spec = KernelSpec(argv=command, language="python")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(DOCS.parent), *sys.path]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    nbclient.NotebookClient(
        stored, km=manager, timeout=300, resources={"metadata": {"path": str(DOCS)}}
    ).execute()
    text, pictures = "", []
    for cell in stored.cells:
        for output in cell.get("outputs", []):
            text += output.get("text", "")
            pictures.append(output.get("data", {}).get("image/png"))
    return text, [base64.b64decode(picture) for picture in pictures if picture]


def test_the_notebook_runs(stored, tmp_path, monkeypatch):
    config, _ = tiny_weights()
    tiny_run(tmp_path / "run", config, {1: 0.5})
    monkeypatch.setenv("OPENFOLD_WEIGHTS", str(tmp_path / "run"))
    monkeypatch.setenv("OPENFOLD_PREDICTIONS", str(tmp_path / "out"))
    text, pictures = outputs_of(stored, tmp_path, monkeypatch)
    assert "141 residues: VLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSHGSAQVKGHGKK" in text
    assert "141 residues, " in text and "1 x h200: fits" in text
    (picture,) = pictures
    assert picture == (tmp_path / "out/2hhb_A.png").read_bytes()
    assert re.search(r"2hhb_A\.cif +[\d,]+ bytes", text) and "positions (141, 37, 3)" in text
    (lddt_ca,) = re.findall(r"chain [AC]: lDDT-Ca (\d\.\d{3})", text)
    assert 0.0 < float(lddt_ca) < 1.0
