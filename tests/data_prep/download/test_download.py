"""Downloads from a local server: they are resumed and checked, and files are never partial."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import threading

import pytest

from data_prep.__main__ import main
from data_prep.download import transfer
from data_prep.download.addresses import DataSet, RemoteFile, RemoteFolder
from data_prep.download.command import MANIFEST_NAME, download
from data_prep.download.listing import list_folder
from data_prep.errors import DataPrepError

CONTENTS = bytes(range(256)) * 4000


class Handler(http.server.SimpleHTTPRequestHandler):
    """A server of files and folder pages that supports `Range: bytes=N-`.

    It can interrupt its first responses.
    """

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        name, _, query = self.path.partition("?")
        if query.startswith("list-type=2"):
            return self._send(200, self.server.bucket_pages["continuation-token" in query])
        path = self.server.root / name.strip("/")
        if not path.is_file():
            return super().do_GET()
        data, requested_range = path.read_bytes(), self.headers.get("Range")
        start = int(requested_range.removeprefix("bytes=").rstrip("-")) if requested_range else 0
        if start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self._send(206 if requested_range else 200, data[start:])

    def _send(self, status, data):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.server.break_offs > 0:
            self.server.break_offs -= 1
            data = data[: len(data) // 3]
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    root = tmp_path / "served"
    (root / "pdb_mmcif/processed/dicts").mkdir(parents=True)
    (root / "open_protein_set/processed").mkdir(parents=True)
    (root / "pdb_mmcif/processed/dicts/a b").write_bytes(CONTENTS)
    (root / "pdb_mmcif/processed/chains.csv").write_text("x\n")
    (root / "open_protein_set/processed/0.db").write_bytes(CONTENTS[:5])
    httpd = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(root))
    )
    httpd.root, httpd.requests, httpd.break_offs = root, [], 0
    httpd.address = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def one_file(server, sha256=None) -> DataSet:
    (server.root / "big").write_bytes(CONTENTS)
    return DataSet(
        description="",
        files=(RemoteFile(address=f"{server.address}/big", path="sub/big", sha256=sha256),),
    )


def test_command_fetches_folders_and_records_files(server, tmp_path, capsys):
    arguments = [
        "download",
        "--out",
        str(tmp_path / "out"),
        "--what",
        "processed",
        "--processed-root",
        server.address,
    ]
    assert main(arguments) == 0
    assert (tmp_path / "out/pdb_mmcif/processed/dicts/a b").read_bytes() == CONTENTS
    assert (tmp_path / "out/open_protein_set/processed/0.db").read_bytes() == CONTENTS[:5]
    recorded = [
        json.loads(line) for line in (tmp_path / "out" / MANIFEST_NAME).read_text().splitlines()
    ]
    assert {line["path"]: line["sha256"] for line in recorded}[
        "pdb_mmcif/processed/dicts/a b"
    ] == hashlib.sha256(CONTENTS).hexdigest()
    assert "3 files fetched" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "0 files fetched" in capsys.readouterr().out
    (tmp_path / "out/pdb_mmcif/processed/chains.csv").write_text("y\n")
    assert main(arguments) == 0 and main([*arguments, "--check"]) == 0
    assert "0 files fetched" in capsys.readouterr().out.splitlines()[0]
    assert (tmp_path / "out/pdb_mmcif/processed/chains.csv").read_text() == "x\n"


def test_broken_connections_are_resumed_not_restarted(server, tmp_path):
    server.break_offs = 2
    download(one_file(server), tmp_path / "out", name="x", check_contents=False)
    assert (tmp_path / "out/sub/big").read_bytes() == CONTENTS
    starts = [requested_range for path, requested_range in server.requests if path == "/big"]
    third = len(CONTENTS) // 3
    assert starts[0] is None and starts[1] == f"bytes={third}-" and len(starts) == 3


def test_partial_file_of_an_earlier_run_is_continued(server, tmp_path):
    (tmp_path / "out/sub").mkdir(parents=True)
    (tmp_path / "out/sub/big.part").write_bytes(CONTENTS[:1000])
    download(one_file(server), tmp_path / "out", name="x", check_contents=False)
    assert (tmp_path / "out/sub/big").read_bytes() == CONTENTS
    assert server.requests == [("/big", "bytes=1000-")]
    assert not (tmp_path / "out/sub/big.part").exists()


def test_complete_partial_file(server, tmp_path):
    (tmp_path / "out/sub").mkdir(parents=True)
    (tmp_path / "out/sub/big.part").write_bytes(CONTENTS)
    download(one_file(server), tmp_path / "out", name="x", check_contents=False)
    assert (tmp_path / "out/sub/big").read_bytes() == CONTENTS


def test_wrong_checksum_is_an_error_and_removes_the_file(server, tmp_path):
    with pytest.raises(DataPrepError, match="expected 0000"):
        download(
            one_file(server, sha256="0" * 64), tmp_path / "out", name="x", check_contents=False
        )
    assert not list((tmp_path / "out/sub").iterdir())
    download(
        one_file(server, sha256=hashlib.sha256(CONTENTS).hexdigest()),
        tmp_path / "out",
        name="x",
        check_contents=False,
    )
    assert (tmp_path / "out/sub/big").exists()


def test_missing_file_is_named(server, tmp_path, capsys):
    arguments = [
        "download",
        "--out",
        str(tmp_path / "out"),
        "--what",
        "checkpoint",
        "--processed-root",
        server.address,
    ]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "mlperf_hpc_openfold_resumable_checkpoint.pt" in error and "404" in error


def test_no_server(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    assert (
        main(
            [
                "download",
                "--out",
                str(tmp_path),
                "--what",
                "checkpoint",
                "--processed-root",
                "http://127.0.0.1:9",
            ]
        )
        == 1
    )
    assert "the same command resumes" in capsys.readouterr().err


def test_manifest_with_a_truncated_line(server, tmp_path):
    data_set = one_file(server)
    download(data_set, tmp_path / "out", name="x", check_contents=False)
    with open(tmp_path / "out" / MANIFEST_NAME, "a") as file:
        file.write('{"path": "sub/oth')
    assert download(data_set, tmp_path / "out", name="x", check_contents=False) == 0


def test_bucket_listing(server, tmp_path):
    page = '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{}</ListBucketResult>'
    keys = [
        "<Contents><Key>pdb/1abc_A/a3m/x y.a3m</Key></Contents>",
        "<Contents><Key>pdb/2abc_A/hhr/z.hhr</Key></Contents>",
    ]
    server.bucket_pages = [
        page.format(keys[0] + "<NextContinuationToken>t</NextContinuationToken>").encode(),
        page.format(keys[1]).encode(),
    ]
    folder = RemoteFolder(
        address=f"{server.address}/", path="open_protein_set", kind="s3", prefix="pdb/"
    )
    files = list(list_folder(folder))
    assert [file.path for file in files] == [
        "open_protein_set/pdb/1abc_A/a3m/x y.a3m",
        "open_protein_set/pdb/2abc_A/hhr/z.hhr",
    ]
    assert files[0].address == f"{server.address}/pdb/1abc_A/a3m/x%20y.a3m"
