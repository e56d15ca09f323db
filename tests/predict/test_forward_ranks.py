"""A chain that is sharded over ranks has the prediction of one rank."""

import numpy as np
import pytest

from openfold_opt.parallel.context import ParallelContext
from openfold_opt.predict.forward import RowSinks, predict_chain
from tests.support.gloo_ranks import run_on_ranks
from tests.support.prediction import prediction_plan, random_chain, random_model

NUM_RES = 11


def predict(dap, rows, channel_groups, kernels):
    """Predict a chain with templates and aligned errors: values by name."""
    pae = np.full((NUM_RES, NUM_RES), np.nan, np.float32)
    distogram = np.full((NUM_RES, NUM_RES, 64), np.nan, np.float32)
    model = random_model()
    pair = np.full((NUM_RES, NUM_RES, model.config.c_z), np.nan, np.float32)
    single = np.full((NUM_RES, model.config.c_s), np.nan, np.float32)

    def fill(array):
        def write(start, values):
            array[start : start + len(values)] = values

        return write

    found = predict_chain(
        model,
        random_chain(NUM_RES),
        prediction_plan(rows=rows, dap=dap, channel_groups=channel_groups, kernels=kernels),
        num_recycling_iterations=1,
        sinks=RowSinks(
            pae=fill(pae), distogram=fill(distogram), single=fill(single), pair=fill(pair)
        ),
    )
    return {
        "positions": found.positions,
        "plddt": found.plddt,
        "ptm": found.ptm,
        "changes": found.recycling_changes,
        "pae": pae,
        "distogram": distogram,
        "single": single,
        "pair": pair,
    }


def predict_on_ranks(context: ParallelContext, *options):
    return predict(context.dap, *options)


@pytest.mark.parametrize(
    ("num_ranks", "rows", "channel_groups", "kernels"),
    [
        (2, None, 1, "reference"),
        (3, 1, 2, "reference"),
        (4, 2, 3, "reference"),
        pytest.param(2, 2, 2, "cpu", marks=pytest.mark.compiler),
    ],
)
def test_equals_one_rank(num_ranks, rows, channel_groups, kernels):
    expected = predict(None, None, 1, "reference")
    ranks = run_on_ranks(
        predict_on_ranks, num_ranks, rows, channel_groups, kernels, dap_size=num_ranks
    )
    for rank, found in enumerate(ranks):
        for name, value in expected.items():
            if rank > 0 and name in ("pae", "distogram", "single", "pair"):
                assert np.isnan(found[name]).all()
                continue
            error = np.linalg.norm(np.subtract(found[name], value)) / np.linalg.norm(value)
            assert error < 1e-5, (rank, name, error)
