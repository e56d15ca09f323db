"""Correct bfloat16 arithmetic for Triton's interpreter.

The interpreter stores bfloat16 as uint16, truncates in casts, and multiplies the bits as integers.
"""

import numpy as np
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle


def to_float32(bits: np.ndarray) -> np.ndarray:
    """Convert bfloat16 bits (uint16) to float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Convert float32 to bfloat16 bits (uint16): round to nearest, ties to even; keep NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def fix_bfloat16() -> None:
    """Replace the casts and matrix products of the interpreter; a second call does nothing."""
    if getattr(InterpreterBuilder, "has_correct_bfloat16", False):
        return
    cast, dot, fp_to_fp = (
        InterpreterBuilder.cast_impl,
        InterpreterBuilder.create_dot,
        InterpreterBuilder.create_fp_to_fp,
    )

    def correct_cast(self, src, dst_type):
        kinds = src.dtype.scalar, dst_type.scalar
        if kinds == (tl.float32, tl.bfloat16):
            return TensorHandle(to_bfloat16(src.data), tl.bfloat16)
        if kinds == (tl.bfloat16, tl.float32):
            return TensorHandle(to_float32(src.data), tl.float32)
        return cast(self, src, dst_type)

    def correct_fp_to_fp(self, src, dst_type, rounding_mode):
        if tl.bfloat16 in (src.dtype.scalar, dst_type.scalar):
            return correct_cast(self, src, dst_type)
        return fp_to_fp(self, src, dst_type, rounding_mode)

    def correct_dot(self, a, b, d, input_precision, max_num_imprecise_acc):
        if a.dtype.scalar == tl.bfloat16:
            a, b = (TensorHandle(to_float32(x.data), tl.float32) for x in (a, b))
        return dot(self, a, b, d, input_precision, max_num_imprecise_acc)

    InterpreterBuilder.cast_impl = correct_cast
    InterpreterBuilder.create_fp_to_fp = correct_fp_to_fp
    InterpreterBuilder.create_dot = correct_dot
    InterpreterBuilder.has_correct_bfloat16 = True
