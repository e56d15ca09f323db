"""Host crossings are detected on the fake device, and device-only work has none."""

import numpy as np
import pytest
import torch

from tests.support.fake_device import FakeDeviceProcess
from tests.support.host_crossings import find_host_crossings

CROSSINGS = {
    "list index": lambda x: x[..., [0, 1]],
    "list index of an assignment": lambda x: x.__setitem__(([0, 1],), x[:2].clone()),
    "numpy index": lambda x: x[..., np.array([0, 1])],
    "host tensor index": lambda x: x[torch.tensor([0, 1])],
    "new_tensor": lambda x: x.new_tensor([1.0, 2.0]),
    "torch.tensor(device=)": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "torch.as_tensor(device=)": lambda x: torch.as_tensor(3, device=x.device),
    ".item()": lambda x: x.sum().item(),
    "float(tensor)": lambda x: float(x.sum()),
    "int(tensor)": lambda x: int(x.sum()),
    "nonzero": lambda x: x.nonzero(),
    "unique": lambda x: x.unique(),
    "masked_select": lambda x: x.masked_select(x > 0),
    "boolean mask": lambda x: x[x > 0],
    "assignment to a boolean mask": lambda x: x.__setitem__(x > 0, x.new_zeros(1)),
    "bool(tensor)": lambda x: bool((x > 0).all()),
    "if": lambda x: 1 if (x > 0).all() else 2,
    "torch.equal": lambda x: torch.equal(x, x + 1),
    "host scalar in where": lambda x: torch.where(x > 0, x, torch.tensor(0.0)),
    ".cpu()": lambda x: x.cpu(),
    ".tolist()": lambda x: x.tolist(),
    ".numpy()": lambda x: x.numpy(),
    "printing a tensor": lambda x: print(x),
    "formatting a tensor": lambda x: f"{x}",
    "formatting a scalar": lambda x: f"{x.sum():.3f}",
    "unpinned .to": lambda x: torch.zeros(2).to(x.device),
    "unpinned non-blocking .to": lambda x: torch.zeros(2).to(x.device, non_blocking=True),
    "blocking .to of pinned memory": lambda x: torch.zeros(2).pin_memory().to(x.device),
    "unpinned scalar .to": lambda x: torch.tensor(2.0).to(x.device),
    "copy_ from the host": lambda x: x.copy_(torch.zeros(4, 4)),
    "copy_ to the host": lambda x: torch.zeros(4, 4).copy_(x),
    "assignment of a number to one element": lambda x: x.__setitem__((0, 0), 1.0),
    "assignment of a host tensor": lambda x: x.__setitem__(0, torch.zeros(4)),
}

DEVICE_ONLY = {
    "arithmetic": lambda x: (2.0 * x + 1.0).clamp(max=3.0) ** 2,
    "integer and slice index": lambda x: x[..., 0] + x[1:2, None, 3],
    "device tensor index": lambda x: x[torch.arange(2, device=x.device)],
    "where with a number": lambda x: torch.where(x > 0, x, 0.0),
    "masked_fill": lambda x: x.masked_fill(x > 0, float("nan")),
    "assignment of a number to a slice": lambda x: x.__setitem__((..., 0), 1.0),
    "fill_": lambda x: x[0, 0].fill_(1.0),
    "factories": lambda x: x.new_zeros(2) + torch.full((2,), 3.0, device=x.device),
    "host scalar as an argument of a kernel": lambda x: x * torch.tensor(2.0),
    "host tensors only": lambda x: torch.zeros(2)[[0, 1]] + torch.tensor([1.0, 2.0]),
    "shapes": lambda x: (x.shape, x.dtype, x.is_contiguous(), x.numel(), len(x)),
    "pinned non-blocking .to": lambda x: (
        torch.zeros(2).pin_memory().to(x.device, non_blocking=True)
    ),
    "non-blocking copy to pinned memory": lambda x: torch.empty(4, 4, pin_memory=True).copy_(
        x, non_blocking=True
    ),
}


@pytest.fixture(scope="module")
def process():
    with FakeDeviceProcess() as process:
        yield process


def crossings_of(device, work):
    x = torch.zeros(4, 4, device=device)
    return [(crossing.what, crossing.where) for crossing in find_host_crossings(lambda: work(x))]


def crossings_of_case(device, kind):
    return crossings_of(device, CROSSINGS[kind])


def crossings_of_device_work(device, kind):
    return crossings_of(device, DEVICE_ONLY[kind])


def crossings_of_backward(device):
    class Reads(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, grad):
            of_host = grad.cpu()
            return of_host.to(grad.device)

    x = torch.zeros(2, device=device, requires_grad=True)
    return [
        str(crossing) for crossing in find_host_crossings(lambda: Reads.apply(x).sum().backward())
    ]


def crossings_with_another_error(device):
    find_host_crossings(lambda: torch.ones(2, device=device).cpu() @ torch.ones(3))


@pytest.mark.parametrize("kind", CROSSINGS)
def test_crossing_is_found(process, kind):
    crossings = process.run(crossings_of_case, kind)
    assert crossings
    assert all(where.startswith("tests/support/test_host_crossings.py:") for _, where in crossings)


@pytest.mark.parametrize("kind", DEVICE_ONLY)
def test_device_only_work_has_no_crossings(process, kind):
    assert process.run(crossings_of_device_work, kind) == []


def test_crossings_of_a_backward_pass_are_found(process):
    crossings = process.run(crossings_of_backward)
    what = "aten::_to_copy between host and device"
    assert [crossing.startswith(what) for crossing in crossings] == [True, True]


def test_other_errors_are_raised(process):
    with pytest.raises(RuntimeError, match="mat1|size|shape"):
        process.run(crossings_with_another_error)
