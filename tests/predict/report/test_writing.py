"""write_report and its command: one file or many, wrong directories, and what they leave behind."""

import base64
import gzip
import json
import os
import re

import pytest

from openfold_opt.predict.report import viewer, write_report, writing
from openfold_opt.predict.report.__main__ import main
from tests.support.fake_prediction import predict, write_fasta
from tests.support.report_results import record, write_chain, write_results


@pytest.fixture
def results(tmp_path):
    """Three finished chains and a failed one."""
    folder = tmp_path / "out"
    folder.mkdir()
    chains = [
        write_chain(folder, f"chain {k}", f"chain_{k}", number=k, num_residues=20) for k in range(3)
    ]
    failed = record("bad", "bad", error={"kind": "features", "message": "no alignment"})
    return write_results(folder, [*chains, failed])


@pytest.fixture(autouse=True)
def small_viewer(monkeypatch):
    """A viewer of a few bytes in place of Mol*."""
    small = viewer.Viewer(script=b"export default {}", style=".x{}")
    monkeypatch.setattr(writing, "read_viewer", lambda: small)


def data_of(page: str, name: str) -> dict:
    """Return the data of a chain in a page or in a file next to it."""
    pattern = rf'<script id="chain-{name}"[^>]*>([^<]*)<|receiveChain\("{name}", "([^"]*)"'
    match = re.search(pattern, page)
    return json.loads(gzip.decompress(base64.b64decode(match[1] or match[2])))


def test_one_file_with_all_data(results):
    path = write_report(results)
    assert path == results / "report.html"
    page = path.read_text()
    data = data_of(page, "chain_1")
    assert data["record"] == json.loads((results / "chain_1.json").read_text())
    assert data["structures"]["chain_1.cif"] == (results / "chain_1.cif").read_text()
    assert data_of(page, "bad")["record"]["error"]["message"] == "no alignment"
    assert not list(results.glob("*.tmp")) and not (results / "report_files").exists()


def test_the_same_results_give_the_same_page(results):
    first = write_report(results).read_bytes()
    assert write_report(results).read_bytes() == first


def test_many_chains_have_files_next_to_the_page(results, monkeypatch):
    write_report(results)
    monkeypatch.setattr(writing, "MAX_EMBEDDED_CHARACTERS", 5_000)
    page = write_report(results).read_text()
    assert "chain-chain_1" not in page
    names = {path.name for path in (results / "report_files").iterdir()}
    assert names == {"chain_0.js", "chain_1.js", "chain_2.js", "bad.js"}
    text = (results / "report_files" / "chain_2.js").read_text()
    assert data_of(text, "chain_2")["record"]["name"] == "chain 2"


def test_files_of_an_earlier_report_are_removed(results, monkeypatch):
    monkeypatch.setattr(writing, "MAX_EMBEDDED_CHARACTERS", 0)
    write_report(results)
    (results / "report_files" / "old_chain.js").write_text("")
    write_report(results)
    assert not (results / "report_files" / "old_chain.js").exists()
    monkeypatch.undo()
    monkeypatch.setattr(writing, "read_viewer", lambda: None)
    write_report(results)
    assert not (results / "report_files").exists()


def test_text_of_the_user_ends_no_script(tmp_path):
    name = '</script><img src=x onerror="alert(1)">&amp; “é”'
    chain = record(name, "x", sequence="AC", error={"kind": "other", "message": "<!-- <script>"})
    page = write_report(write_results(tmp_path, [chain])).read_text(encoding="utf-8")
    assert "onerror" in page and "<img src=x" not in page and "<!-- <script>" not in page
    text = re.search(r'<script id="run-data"[^>]*>(.*?)</script>', page)[1]
    (row,) = json.loads(text)["rows"]
    assert row["name"] == name and row["error"] == "other: <!-- <script>"


def test_files_that_were_removed_are_named(results):
    (results / "chain_0_pae.npz").unlink()
    data = data_of(write_report(results).read_text(), "chain_0")
    assert data["missing"] == ["chain_0_pae.npz"] and data["pae"] == {}


def test_scores_are_part_of_the_report(results):
    scores = {"lddt_ca": 0.5, "tm_score": 0.25, "picture": "chain_0.png", "truth": "t.cif"}
    failures = {"chain_1": "no chain of the structure has this sequence"}
    content = {"schema_version": 1, "chains": {"chain_0": scores}, "failures": failures}
    (results / "scores.json").write_text(json.dumps(content))
    page = write_report(results).read_text()
    assert data_of(page, "chain_0")["scores"] == scores
    assert data_of(page, "chain_1")["score_failure"] == failures["chain_1"]
    rows = json.loads(re.search(r'<script id="run-data"[^>]*>(.*?)</script>', page)[1])["rows"]
    assert [row["tm_score"] for row in rows] == [0.25, None, None, None]


def replace(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


WRONG = {
    "no_summary": (lambda out: (out / "summary.json").unlink(), "has no summary.json"),
    "other_version": (
        lambda out: replace(out / "summary.json", schema_version=7),
        "has the schema version 7, and this version of the package reads",
    ),
    "no_chains": (lambda out: replace(out / "summary.json", chains=[]), "lists no chain"),
    "not_json": (lambda out: (out / "chain_1.json").write_text('{"na'), "chain_1.json is not JSON"),
    "not_text": (lambda out: (out / "chain_1.json").write_bytes(b"\xff"), "is not JSON"),
    "no_record": (lambda out: (out / "chain_1.json").unlink(), "chain_1.json is missing"),
    "other_content": (lambda out: (out / "chain_1.json").write_text("[1]"), "is not a file of a"),
    "no_models": (
        lambda out: (out / "chain_1.json").write_text('{"schema_version": 2, "name": "x"}'),
        "has no stem, sequence",
    ),
    "record_of_another_version": (
        lambda out: replace(out / "chain_1.json", schema_version=1),
        "chain_1.json has the schema version 1",
    ),
    "wrong_pae": (
        lambda out: (out / "chain_1_pae.npz").write_bytes(b"zip"),
        "chain_1_pae.npz is not the predicted aligned error of 20 residues",
    ),
    "wrong_scores": (lambda out: (out / "scores.json").write_text("{}"), "scores.json is not a"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_directory_is_refused(results, capsys, name):
    write_report(results)
    page = (results / "report.html").read_bytes()
    change, message = WRONG[name]
    change(results)
    assert main([str(results)]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert (results / "report.html").read_bytes() == page and not list(results.glob("*.tmp"))


def test_a_record_may_not_name_files_of_other_directories(results):
    content = json.loads((results / "chain_1.json").read_text())
    content["models"][0]["files"]["structure"] = "../secret.cif"
    (results / "chain_1.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"names the file '../secret\.cif'"):
        write_report(results)


def test_the_command_writes_to_another_place(results, tmp_path, capsys):
    out = tmp_path / "other" / "page.html"
    out.parent.mkdir()
    assert main([str(results), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert '"results_link": "../out"' in out.read_text()
    assert not (results / "report.html").exists()


def test_a_directory_that_cannot_be_written_is_an_error(results, tmp_path, capsys):
    assert main([str(results), "--out", str(tmp_path / "missing" / "page.html")]) == 2
    assert "No such file or directory" in capsys.readouterr().err
    assert main([str(results), "--out", str(tmp_path)]) == 2
    assert "is a directory; name the file of the report" in capsys.readouterr().err
    if os.geteuid() == 0:
        return  # Root may write everywhere.
    results.chmod(0o555)
    try:
        assert main([str(results)]) == 2
        assert "--out" in capsys.readouterr().err
        assert main([str(results), "--out", str(tmp_path / "page.html")]) == 0
    finally:
        results.chmod(0o755)


def test_without_the_viewer_the_page_says_so(results, monkeypatch):
    monkeypatch.setattr(writing, "read_viewer", viewer.read_viewer)
    monkeypatch.setattr(viewer.importlib.util, "find_spec", lambda name: None)
    page = write_report(results).read_text()
    assert 'id="viewer-script"' not in page and "pip install ipymolstar" in page


def test_another_version_of_the_viewer_is_an_error(tmp_path, monkeypatch):
    class Spec:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr(viewer.importlib.util, "find_spec", lambda name: Spec)
    with pytest.raises(ValueError, match="has no molviewspec.js"):
        viewer.read_viewer()


@pytest.fixture
def run_fake(tmp_path, capsys):
    """Predict two chains with options; return exit code, output, errors and the directory."""
    fasta = write_fasta(tmp_path / "in.fasta", {"a": "ACDEFGH", "b": "WWNANACD"})
    out = tmp_path / "predictions"

    def run(*options):
        arguments = (fasta, "--weights", "w_ptm", "--out", out, "--workers", 0, *options)
        code = predict(*arguments)
        text = capsys.readouterr()
        return code, text.out, text.err, out

    return run


def test_a_prediction_ends_with_the_report(run_fake):
    code, text, _, out = run_fake("--report")
    assert code == 1 and text.endswith(f"report: {out / 'report.html'}\n")
    page = (out / "report.html").read_text()
    assert data_of(page, "a")["pae"] and data_of(page, "b")["record"]["error"]


def test_no_report_on_request(run_fake):
    _, text, _, out = run_fake("--no-report")
    assert "report.html" not in text and not (out / "report.html").exists()


def test_a_report_that_fails_leaves_the_prediction(run_fake, monkeypatch):
    def fail():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "read_viewer", fail)
    code, _, error, out = run_fake("--report")
    assert code == 1 and "no report: OSError" in error and "No space left" in error
    assert (out / "a.cif").exists() and not (out / "report.html").exists()
