"""Axial collectives: values and gradients on gloo ranks equal those of one process.

The lengths include some that are not divisible by the number of ranks.
"""

import dataclasses

import pytest
import torch

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.broadcast import gather_objects
from openfold_opt.parallel.collectives import (
    col_to_row,
    gather,
    row_to_col,
    scatter,
    start_col_to_row,
    start_gather,
    start_row_to_col,
)
from openfold_opt.parallel.transfers import AllGather, AllToAll, ReduceScatter
from tests.support.gloo_ranks import run_on_ranks

SIZES = [(4, 6, 3), (5, 7, 3), (1, 3, 2)]
"""Rows, columns, channels: divisible by 2, not divisible, and fewer rows than ranks."""


def inputs(sizes):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(sizes, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(2)
    ]


def axial_forward(x, weight, axis):
    """Work on rows, then on columns, and on gathered rows; all operations use the weight."""
    num_rows, num_cols, _ = x.shape
    rows = scatter(x, axis, dim=0)
    rows = torch.tanh(rows * scatter(weight, axis, dim=0)) * rows.sum(1, keepdim=True)
    gathered = start_gather(rows * weight[:1], axis, dim=0, length=num_rows, what="x")
    cols = row_to_col(rows, axis, row_dim=0, col_dim=1, num_rows=num_rows, what="x")
    local_cols = scatter(torch.arange(1.0, num_cols + 1, dtype=torch.float64), axis, dim=0)
    cols = (
        cols * cols.sum(0, keepdim=True)
        + (gathered.wait() * weight).sum() * local_cols[None, :, None]
    )
    rows = col_to_row(cols, axis, row_dim=0, col_dim=1, num_cols=num_cols, what="x")
    return gather(rows, axis, dim=0, length=num_rows, what="x") * weight


def loss_and_gradients(axis, sizes):
    x, weight = inputs(sizes)
    loss = (
        axial_forward(x, weight, axis)
        * torch.linspace(-1, 1, x.numel(), dtype=torch.float64).view(sizes)
    ).sum()
    loss.backward()
    return loss.item(), x.grad.tolist(), weight.grad.tolist()


def on_rank(context):
    """Return loss and mean gradients over the ranks for each size, with and without overlap."""
    results = []
    for axis in (context.dap, dataclasses.replace(context.dap, overlaps=False)):
        for sizes in SIZES:
            loss, *gradients = loss_and_gradients(axis, sizes)
            all_gradients = gather_objects(gradients, axis)
            means = [
                torch.tensor(per_rank, dtype=torch.float64).mean(0).tolist()
                for per_rank in zip(*all_gradients)
            ]
            results.append((loss, *means))
    return results


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ranks_match_one_process_and_overlap_is_bit_identical(num_ranks):
    expected = [loss_and_gradients(AxisGroup.single("dap"), sizes) for sizes in SIZES]
    for results in run_on_ranks(on_rank, num_ranks, dap_size=num_ranks):
        overlapped, not_overlapped = results[: len(SIZES)], results[len(SIZES) :]
        assert overlapped == not_overlapped
        for result, expected_result in zip(overlapped, expected, strict=True):
            for actual, reference in zip(result, expected_result, strict=True):
                torch.testing.assert_close(
                    torch.tensor(actual, dtype=torch.float64),
                    torch.tensor(reference, dtype=torch.float64),
                    rtol=1e-10,
                    atol=1e-10,
                )


def test_collectives_on_an_axis_of_size_one_return_their_argument():
    axis, x = AxisGroup.single("dap"), torch.ones(3, 5)
    assert scatter(x, axis, dim=0) is x
    assert gather(x, axis, dim=0, length=3, what="x") is x
    assert row_to_col(x, axis, row_dim=0, col_dim=1, num_rows=3, what="x") is x
    assert col_to_row(x, axis, row_dim=0, col_dim=1, num_cols=5, what="x") is x
    assert start_gather(x, axis, dim=0, length=3, what="x").wait() is x
    assert start_row_to_col(x, axis, row_dim=0, col_dim=1, num_rows=3, what="x").wait() is x
    assert start_col_to_row(x, axis, row_dim=0, col_dim=1, num_cols=5, what="x").wait() is x


def test_adjoints_restore_the_input_shape():
    axis = AxisGroup.fake("dap", size=4)
    x = torch.empty(2, 3, 7, device="meta")
    for transfer, input_shape, output_shape in (
        (AllGather(axis=axis, dim=1, length=10), (2, 3, 7), (2, 10, 7)),
        (ReduceScatter(axis=axis, dim=2, length=7), (2, 3, 7), (2, 3, 2)),
        (AllToAll(axis=axis, split_dim=2, join_dim=1, join_length=11), (2, 3, 7), (2, 11, 2)),
    ):
        received = transfer.launch(x).wait()
        assert received.shape == output_shape
        assert transfer.adjoint(x.shape).launch(received).wait().shape == input_shape


def test_an_inconsistent_axis_is_an_error():
    with pytest.raises(ValueError, match="rank 2 of size 2"):
        AxisGroup(name="data", rank=2, size=2, process_group=object())
    with pytest.raises(ValueError, match="no process group"):
        AxisGroup(name="data", rank=0, size=2)
