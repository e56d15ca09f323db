"""`controls`: what is shuffled and what is not, constant structures, and refusals."""

import json
import types

import numpy as np
import pytest
import torch

from benchmark.__main__ import main
from benchmark.run import controls
from openfold_opt.losses.lddt import lddt
from openfold_opt.protein.features import FEATURES, check_features

SIZES = {"batch": 1, "num_passes": 2, "N_res": 9, "N_clust": 3, "N_extra": 2, "N_templ": 1}


def numbered_features():
    """Features of a batch whose every element along N_res is the number of its residue."""
    features = {}
    for name, spec in FEATURES.items():
        dims = (*spec.leading_dims(batched=True), *spec.shape)
        shape = [SIZES.get(dim, dim) for dim in dims]
        values = torch.zeros(shape)
        if "N_res" in dims:
            place = dims.index("N_res")
            values += torch.arange(SIZES["N_res"]).reshape(
                [-1 if i == place else 1 for i in range(len(dims))]
            )
        features[name] = values.to(getattr(torch, spec.dtype.name))
    return features


def residue_numbers(name, value):
    """[N_res]: which residue lies where in a feature of numbered_features."""
    dims = (*FEATURES[name].leading_dims(batched=True), *FEATURES[name].shape)
    return value.movedim(dims.index("N_res"), 0).reshape(SIZES["N_res"], -1)[:, 0].long()


def test_inputs_share_one_permutation_and_the_truth_stays():
    features = numbered_features()
    shuffled = controls.shuffle_residues(features, seed=3)
    check_features(shuffled, batched=True)
    order = residue_numbers("aatype", shuffled["aatype"])
    assert sorted(order.tolist()) == list(range(SIZES["N_res"])) != order.tolist()
    for name in ("msa_feat", "extra_msa", "target_feat", "template_aatype", "template_pseudo_beta"):
        assert residue_numbers(name, shuffled[name]).equal(order), name
    for name in ("all_atom_positions", "all_atom_mask", "residue_index", "seq_length"):
        assert shuffled[name].equal(features[name]), name


def test_the_seed_decides_the_permutation():
    features = numbered_features()
    first, again, other = (
        controls.shuffle_residues(features, seed=seed)["aatype"] for seed in (1, 1, 2)
    )
    assert first.equal(again) and not first.equal(other)


def test_ideal_structures_have_the_distances_of_real_ones():
    helix, strand = controls.ideal_helix(12), controls.ideal_strand(12)
    # CA to CA of neighbors, and once around the helix
    np.testing.assert_allclose((helix[1:] - helix[:-1]).norm(dim=-1), 3.8, atol=0.1)
    np.testing.assert_allclose((helix[3:] - helix[:-3]).norm(dim=-1), 5.0, atol=0.2)
    np.testing.assert_allclose((strand[2:] - strand[:-2]).norm(dim=-1), 6.6, atol=0.1)


class Chains:
    """A reader of chains that have nothing but CA atoms."""

    def __init__(self, positions):
        self.positions = positions
        self.index = types.SimpleNamespace()

    def structure(self, chain_id):
        ca = self.positions[chain_id]
        atoms, mask = np.zeros((len(ca), 37, 3), np.float32), np.zeros((len(ca), 37), bool)
        atoms[:, 1], mask[:, 1] = ca, True
        return types.SimpleNamespace(all_atom_positions=atoms, all_atom_mask=mask)


def best_constant(monkeypatch, positions, *, training):
    chosen = [types.SimpleNamespace(chain_id=chain_id) for chain_id in training]
    monkeypatch.setattr(controls, "select_training", lambda index, selection: chosen)
    config = types.SimpleNamespace(selection=None)
    return controls.best_constant(Chains(positions), config, ["held_out"])


def test_best_constant_is_the_candidate_that_fits_best(monkeypatch):
    walk = np.cumsum(np.random.default_rng(0).normal(scale=2.2, size=(20, 3)), axis=0).astype(
        np.float32
    )
    positions = {
        "held_out": walk[:15],
        "same": walk,
        "line": np.arange(60.0).reshape(20, 3),
        "short": walk[:14],
    }
    truth = torch.from_numpy(walk[:15])
    ideal = [controls.ideal_helix(15), controls.ideal_strand(15)]
    expected = max(
        float(lddt(structure, truth, torch.ones(15), per_residue=False)) for structure in ideal
    )
    assert best_constant(monkeypatch, positions, training=["line"]) >= expected
    assert best_constant(monkeypatch, positions, training=["line", "same"]) == pytest.approx(1.0)
    # a chain that does not reach the end of the longest is no candidate
    assert best_constant(monkeypatch, positions, training=["short"]) == pytest.approx(expected)


def metrics(**changes):
    return {
        "logged": 0.81,
        "as they are": 0.81,
        "shuffled": 0.3,
        "best constant structure": 0.45,
    } | changes


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, None),
        ({"shuffled": 0.55}, "shuffled"),
        ({"best constant structure": 0.5}, "best constant structure"),
        ({"as they are": 0.8}, "as they are"),
    ],
)
def test_exit_code_is_0_if_all_scores_are_as_expected(
    monkeypatch, tmp_path, capsys, changes, failed
):
    monkeypatch.setattr(controls, "measure", lambda output_dir, data_dir: metrics(**changes))
    code = main(["controls", str(tmp_path), "--data-dir", str(tmp_path)])
    assert code == (0 if failed is None else 1)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "FAILED" in line] == [
        line for line in lines if failed and line.startswith(failed)
    ]
    assert json.loads((tmp_path / "controls.json").read_text()) == metrics(**changes)


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main(["controls", str(tmp_path), "--data-dir", str(tmp_path)]) == 2
    assert "config.json does not exist" in capsys.readouterr().err


def test_a_run_that_never_evaluated_is_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"preset": "demo"}')
    (tmp_path / "evaluations.jsonl").write_text("")
    (tmp_path / "run.json").write_text('{"status": "running"}')
    assert main(["controls", str(tmp_path), "--data-dir", str(tmp_path)]) == 2
    assert "is not finished (running)" in capsys.readouterr().err
    (tmp_path / "run.json").write_text('{"status": "finished"}')
    assert main(["controls", str(tmp_path), "--data-dir", str(tmp_path)]) == 2
    assert "is empty" in capsys.readouterr().err
