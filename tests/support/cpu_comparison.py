"""Comparison of a CPU kernel with the reference."""

from openfold_opt.kernels.select import CPU, REFERENCE
from tests.support.kernel_agreement import assert_bfloat16_rule, assert_same


def compare(name, call, leaves, is_low=None):
    """Compare an operation with its reference; call(operation) takes the leaves.

    is_low: which leaves are bfloat16 in the test of the bfloat16 rule; None: no such test.
    """
    assert_same(call(CPU[name]), call(REFERENCE[name]), leaves)
    if is_low is not None:
        assert_bfloat16_rule(call(CPU[name]), call(REFERENCE[name]), leaves, is_low)
