"""Axial collectives: values and gradients on two gloo ranks equal those of one process."""

import pytest
import torch
from tests.parallel.gloo_ranks import run_on_ranks

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.collectives import (
    col_to_row,
    enter_sharded,
    gather,
    gather_for_shards,
    row_to_col,
    scatter,
    sum_over,
)

ROWS, COLS, CHANNELS = 4, 6, 3


def inputs():
    generator = torch.Generator().manual_seed(0)
    shape = (ROWS, COLS, CHANNELS)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)]


def axial_forward(x, weight, axis):
    """Work on rows, then on columns, then a sum over rows in which every rank has a part."""
    w = enter_sharded(weight, axis)
    rows = scatter(x, axis, dim=0)
    w_rows = scatter(weight, axis, dim=0)
    rows = torch.tanh(rows * w_rows) * rows.sum(1, keepdim=True)
    # every rank needs all rows for its own part of the columns
    everything = gather_for_shards(rows, axis, dim=0)
    cols = row_to_col(rows, axis, row_dim=0, col_dim=1)
    my_cols = scatter(torch.arange(COLS, dtype=torch.float64), axis, dim=0)
    cols = cols * cols.sum(0, keepdim=True) + (everything * w).sum() * my_cols[None, :, None]
    total = sum_over((cols**2).sum(), axis)
    rows = col_to_row(cols, axis, row_dim=0, col_dim=1)
    return total, gather(rows, axis, dim=0)


def loss_and_gradients(context):
    x, weight, target = inputs()
    x.requires_grad_()
    weight.requires_grad_()
    total, rows = axial_forward(x, weight, context)
    loss = total + (rows * target).sum()
    loss.backward()
    return loss.item(), x.grad.tolist(), weight.grad.tolist()


def on_rank(context):
    return loss_and_gradients(context.dap)


@pytest.fixture(scope="module")
def two_ranks():
    return run_on_ranks(on_rank, 2, dap_size=2)


def test_two_ranks_equal_one(two_ranks):
    expected = loss_and_gradients(AxisGroup.single("dap"))
    for found in two_ranks:
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(
                torch.tensor(ours, dtype=torch.float64), torch.tensor(theirs, dtype=torch.float64),
                rtol=1e-10, atol=1e-10,
            )


def test_an_axis_of_one_returns_its_argument():
    axis, x = AxisGroup.single("dap"), torch.ones(3, 5)
    assert scatter(x, axis, dim=0) is x
    assert gather(x, axis, dim=0) is x
    assert gather_for_shards(x, axis, dim=0) is x
    assert row_to_col(x, axis, row_dim=0, col_dim=1) is x
    assert col_to_row(x, axis, row_dim=0, col_dim=1) is x
    assert sum_over(x, axis) is x
    assert enter_sharded(x, axis) is x


def test_a_dim_that_does_not_divide_is_an_error():
    axis = AxisGroup(name="dap", rank=0, size=2, process_group=object())
    with pytest.raises(ValueError, match="not divisible by the 2 ranks of axis 'dap'"):
        scatter(torch.ones(3), axis, dim=0)


def test_an_axis_checks_itself():
    with pytest.raises(ValueError, match="rank 2 of size 2"):
        AxisGroup(name="data", rank=2, size=2, process_group=object())
    with pytest.raises(ValueError, match="no process group"):
        AxisGroup(name="data", rank=0, size=2)
