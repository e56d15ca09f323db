"""Comparison of a CPU kernel with the reference."""

from functools import partial

from openfold_opt.kernels.operations import OPERATIONS
from tests.support.kernel_agreement import assert_bfloat16_rule, assert_same

CPU = {name: operation.for_cpu() for name, operation in OPERATIONS.items()}
REFERENCE = {name: operation.reference for name, operation in OPERATIONS.items()}


def compare(name, call, leaves, is_low=None):
    """Compare an operation with its reference; call(operation, *leaves) runs both.

    is_low: which leaves are bfloat16 in the test of the bfloat16 rule; None: no such test.
    """
    cpu, reference = partial(call, CPU[name]), partial(call, REFERENCE[name])
    assert_same(cpu, reference, leaves)
    if is_low is not None:
        assert_bfloat16_rule(cpu, reference, leaves, is_low)
