"""Features of real chains with rare cases: obsolete templates, realignment, three databases."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data_prep.communicator import SerialCommunicator
from data_prep.convert.pipeline import convert
from data_prep.convert.raw_source import RawSource
from openfold_opt.predict.inputs import chain_features, prepare_chain, read_chains
from openfold_opt.protein.features import FEATURES
from openfold_opt.protein.reader import ShardReader
from tests.support.prediction_inputs import (
    LABELS,
    evaluation_features,
    evaluation_settings,
    settings,
    write_fasta,
)


@pytest.fixture(scope="module")
def quirks(shared, tmp_path_factory) -> tuple[Path, ShardReader]:
    """Return the raw files and a reader of the shards of seven entries with rare cases."""
    raw, out = shared / "data" / "quirks", tmp_path_factory.mktemp("quirks")
    source = RawSource(
        pdb_mmcif=raw / "pdb_mmcif",
        open_protein_set=raw / "open_protein_set",
        missing_alignments="query",
    )
    convert(source, out, SerialCommunicator())
    return raw, ShardReader(out)


def read(quirks, folder):
    raw, reader = quirks
    sequences = {chain.chain_id: reader.sequence(chain.chain_id) for chain in reader.index.chains}
    chains, failures = read_chains(
        [write_fasta(folder / "x.fasta", sequences)],
        alignments=[raw / "open_protein_set"],
        template_structures=raw / "pdb_mmcif",
        single_sequence=True,
    )
    assert failures == []
    return chains


def test_features_equal_those_of_evaluation(quirks, tmp_path):
    _, reader = quirks
    num_templates = 0
    for chain in read(quirks, tmp_path):
        expected = evaluation_features(reader, chain.name)
        found = chain_features(chain, evaluation_settings(reader, chain.name))
        different = {n for n in FEATURES if not torch.equal(getattr(found, n), expected[n])}
        assert different <= LABELS, chain.name
        num_templates += int(found.template_mask.sum())
    assert num_templates > 0


def test_with_a_late_date_and_without_its_own_entry(quirks, tmp_path):
    """Evaluation never uses the chain's own entry; a prediction excludes it by name."""
    _, reader = quirks
    stored, _ = read_chains(data_dir=reader.data_dir)
    num_templates = 0
    for chain, from_shards in zip(read(quirks, tmp_path), stored, strict=True):
        own = frozenset({chain.name.split("_")[0]})
        chosen = settings(excluded_templates=own)
        found, expected = prepare_chain(chain, chosen), prepare_chain(from_shards, chosen)
        assert found.templates == expected.templates
        num_templates += len(found.templates)
        assert found.wire.keys() == expected.wire.keys()
        for name, array in found.wire.items():
            assert array.tobytes() == expected.wire[name].tobytes(), (chain.name, name)
    assert num_templates > 5
