"""`perf step`: our side on a small preset, tables with and without a peer, what is refused; the reference's view of a batch."""

import json

import numpy as np
import torch

from benchmark.__main__ import main
from benchmark.perf.reference_step import read_batch
from benchmark.perf.step import report


def test_our_side(tmp_path, capsys):
    record = tmp_path / "step.json"
    options = ["--preset", "demo", "--passes", "0", "1", "--repeats", "2", "--rounds", "1", "--json", str(record)]
    assert main(["perf", "step", *options]) == 0
    text = capsys.readouterr().out
    assert "step of demo with auto kernels in fp32" in text and "0 ours" in text and "1 ours" in text
    passes = json.loads(record.read_text())["figures"]["passes"]
    assert [len(passes[k]["ours"]["seconds"]) for k in ("0", "1")] == [2, 2]
    assert passes["0"]["ours"]["peak_memory_bytes"][0] > 10**8


def test_ratios_beside_a_peer():
    sides = {
        "ours": {"seconds": [1.0, 2.0, 3.0], "peak_memory_bytes": [2**30]},
        "reference": {"seconds": [4.0, 4.0, 4.0], "peak_memory_bytes": [2**31]},
    }
    text = report({"preset": "middle", "kernels": "reference", "precision": "fp32", "threads": 1, "passes": {"0": sides}})
    assert "0.50 (0.25 to 0.75)" in text and text.splitlines()[-1].endswith("0.50")


def test_what_cannot_be_measured_is_refused(tmp_path, capsys):
    assert main(["perf", "step", "--repeats", "0"]) == 2
    assert "must be at least 1" in capsys.readouterr().err
    assert main(["perf", "step", "--reference", str(tmp_path)]) == 2
    assert "has no scripts/preprocess_pdb_mmcif.py" in capsys.readouterr().err


def test_the_reference_has_the_passes_last(tmp_path):
    arrays = {"aatype": np.arange(6).reshape(2, 3), "msa_mask": np.arange(24.0).reshape(2, 2, 3, 2)}
    np.savez(tmp_path / "features.npz", **arrays)
    batch = read_batch(tmp_path / "features.npz", per_pass=["msa_mask"], num_passes=2)
    assert batch["aatype"].shape == (2, 3, 2) and torch.equal(batch["aatype"][..., 1], torch.from_numpy(arrays["aatype"]))
    assert torch.equal(batch["msa_mask"][..., 1], torch.from_numpy(arrays["msa_mask"][:, 1]))
