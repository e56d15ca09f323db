"""The prediction forward equals the evaluation forward and the golden results."""

import dataclasses

import numpy as np
import pytest
import torch

from benchmark.parity.golden_directory import load_golden_directory
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.published_weights import build_model, read_weights, write_weights
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.predict.forward import RowSinks, pad_residues, predict_chain, run_passes
from openfold_opt.predict.memory_plan import plan_memory
from tests.support.prediction import (
    evaluation_outputs,
    prediction_plan,
    random_chain,
    random_model,
    relative_error,
)

TOLERANCE = 1e-5


def load_model(golden):
    model = AlphaFold(golden.model_config, seed=None).eval()
    model.load_state_dict(golden.weights)
    return model


def assert_golden(golden, last):
    """Compare the outputs over the residues that exist."""
    expected, mask = golden.arrays("outputs.npz"), golden.batch.seq_mask
    rows = expected["pair"].shape[1]
    pair_mask = (mask[:, :rows, None] * mask[:, None, :])[..., None]
    found = {
        "pair": (last.trunk.z[:, :rows], pair_mask),
        "single": (last.trunk.s, mask[..., None]),
        "final_atom_positions": (last.positions, mask[..., None, None]),
    }
    for name, (value, value_mask) in found.items():
        error = relative_error(value * value_mask, expected[name] * value_mask)
        assert error < 1e-4, (name, error)


@pytest.mark.parametrize("name", ["model_tiny", "model_quirks"])
@pytest.mark.parametrize("rows", [None, 3])
@pytest.mark.parametrize("kernels", ["reference", pytest.param("cpu", marks=pytest.mark.compiler)])
def test_golden_outputs(shared, name, rows, kernels):
    golden = load_golden_directory(shared / "golden" / name)
    last = run_passes(
        load_model(golden),
        golden.batch,
        prediction_plan(kernels=kernels, rows=rows),
        num_recycling_iterations=golden.batch.num_passes - 1,
    )
    assert_golden(golden, last)


@pytest.mark.compiler
def test_golden_outputs_at_the_sizes_of_the_benchmark(shared, tmp_path):
    """Weights from a file, and the memory plan of the chain."""
    golden = load_golden_directory(shared / "golden" / "model_full")
    file = tmp_path / "weights.pt"
    with file.open("wb") as stream:
        write_weights(stream, golden.weights, golden.model_config, form="openfold")
    weights = read_weights(file)
    batch, num_templates = golden.batch, golden.batch.template_mask.shape[1]
    memory = plan_memory(
        config=weights.config,
        num_residues=batch.aatype.shape[1],
        max_msa_clusters=batch.msa_feat.shape[2] + num_templates,
        max_extra_msa=batch.extra_msa.shape[2],
        num_templates=num_templates,
        num_passes=batch.num_passes,
        dtype="fp32",
        device="cpu",
    )
    plan = memory.prediction_plan(
        kernels=prediction_plan(kernels="cpu").kernels, dap=AxisGroup.single("dap")
    )
    last = run_passes(
        build_model(weights), batch, plan, num_recycling_iterations=batch.num_passes - 1
    )
    assert_golden(golden, last)


@pytest.mark.parametrize("rows", [None, 1, 2])
@pytest.mark.parametrize("num_templates", [1, 2])
def test_equals_the_evaluation(rows, num_templates):
    model, batch = random_model(), random_chain(9, num_templates=num_templates)
    expected = evaluation_outputs(model, batch, 2)
    pae = np.full((9, 9), np.nan, np.float32)
    distogram = np.full((9, 9, 64), np.nan, np.float32)

    def fill(array):
        def write(start, values):
            array[start : start + len(values)] = values

        return write

    found = predict_chain(
        model,
        batch,
        prediction_plan(rows=rows),
        num_recycling_iterations=2,
        sinks=RowSinks(pae=fill(pae), distogram=fill(distogram)),
    )
    values = {
        "final_atom_positions": found.positions,
        "plddt": found.plddt,
        "predicted_aligned_error": pae,
        "distogram_logits": distogram,
        "predicted_tm_score": np.float32(found.ptm),
        "final_atom_mask": found.atom_mask,
        "max_predicted_aligned_error": np.float32(found.max_pae),
    }
    for name, value in values.items():
        reference = getattr(expected, name)
        reference = reference if reference.ndim == 0 else reference[0]
        error = relative_error(torch.as_tensor(value).float(), reference)
        assert error < TOLERANCE, (name, error)
    assert len(found.recycling_changes) == found.num_recycling_iterations == 2


@pytest.mark.parametrize("multiple_of", [1, 13])
def test_embeddings_are_those_of_the_last_pass(multiple_of):
    model, batch, plan = random_model(), random_chain(9), prediction_plan(rows=2)
    trunk = run_passes(model, batch, plan, num_recycling_iterations=1).trunk
    pair = np.full(tuple(trunk.z.shape[1:]), np.nan, np.float32)
    single = []

    def fill(start, values):
        pair[start : start + len(values)] = values

    sinks = RowSinks(pair=fill, single=lambda start, values: single.append((start, values)))
    padded = pad_residues(batch, multiple_of=multiple_of)
    predict_chain(model, padded, plan, num_recycling_iterations=1, sinks=sinks)
    np.testing.assert_allclose(pair, trunk.z[0], atol=1e-4)
    ((start, values),) = single
    assert start == 0 and values.dtype == np.float32
    np.testing.assert_allclose(values, trunk.s[0], atol=1e-4)


def test_padding_changes_no_result():
    model, batch = random_model(), random_chain(9)
    plan = prediction_plan(rows=2)
    found, padded = (
        predict_chain(model, features, plan, num_recycling_iterations=1)
        for features in (batch, pad_residues(batch, multiple_of=13))
    )
    assert padded.positions.shape == (9, 37, 3)
    np.testing.assert_allclose(padded.positions, found.positions, atol=1e-4)
    np.testing.assert_allclose(padded.plddt, found.plddt, rtol=1e-5)
    assert padded.ptm == pytest.approx(found.ptm, rel=1e-5)


def test_recycling_stops_at_the_tolerance():
    model, batch, passes = random_model(), random_chain(9, num_passes=4), []
    found = predict_chain(
        model,
        batch,
        prediction_plan(),
        num_recycling_iterations=3,
        recycling_tolerance=1e6,
        on_pass=lambda index, change: passes.append((index, change)),
    )
    assert found.num_recycling_iterations == 1
    assert passes == [(0, None), (1, found.recycling_changes[0])]


def test_outputs_that_are_not_finite_are_an_error():
    model = random_model()
    with torch.no_grad():
        model.auxiliary_heads.plddt.linear_3.bias[0] = torch.nan
    with pytest.raises(FloatingPointError, match="9 of 9 values of the predicted pLDDT"):
        predict_chain(model, random_chain(9), prediction_plan(), num_recycling_iterations=0)


def test_aligned_errors_need_a_head():
    config = random_model().config
    heads = dataclasses.replace(config.auxiliary_heads, has_tm_score=False)
    model = random_model(dataclasses.replace(config, auxiliary_heads=heads))
    plan, batch = prediction_plan(), random_chain(5)
    assert predict_chain(model, batch, plan, num_recycling_iterations=0).ptm is None
    with pytest.raises(ValueError, match="has no TM-score head"):
        predict_chain(
            model,
            batch,
            plan,
            num_recycling_iterations=0,
            sinks=RowSinks(pae=lambda start, rows: None),
        )
