"""Synthetic chains as raw files and as converted shards."""

from __future__ import annotations

import pytest

from tests.support.prediction_inputs import SyntheticData, write_synthetic_data


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory) -> SyntheticData:
    return write_synthetic_data(tmp_path_factory.mktemp("synthetic"))


@pytest.fixture
def run(tmp_path, capsys):
    """Predict a dict of sequences in tmp_path/out; return exit code, output and errors."""

    # Tests on a GPU share this file and need no packages of the command.
    from tests.support.fake_prediction import predict, write_fasta

    def predict_chains(sequences, *options, weights=("w_ptm",)):
        fasta = write_fasta(tmp_path / "in.fasta", sequences)
        out = tmp_path / "out"
        code = predict(fasta, "--weights", *weights, "--out", out, "--workers", 0, *options)
        text = capsys.readouterr()
        return code, text.out, text.err

    return predict_chains
