"""Forward pass of gated attention, one block of queries per program.

The result is softmax(q k^T / sqrt(c) + (mask - 1) mask_inf + bias) v * sigmoid(gate). The softmax
is computed online (Milakov and Gimelshein 2018; Dao et al. 2022): no [N, N] tensor is written to
memory. The maximum of the logits and the sum of the exponentials are saved for the backward pass.
"""

import triton
import triton.language as tl

from openfold_opt.kernels.triton.attention.tiles import (
    LOG2_E,
    head_start,
    is_any_key_unmasked,
    key_terms,
    load_bias,
    load_keys,
    load_rows,
    out_start,
    row_heads,
    row_queries,
    sigmoid,
    store_rows,
    store_statistic,
)


@triton.jit
def forward_kernel(
    q_ptr,  # [batch, groups, N_q, num_heads * c]; here and below, the last dim is contiguous
    k_ptr,  # [batch, groups, N_k, num_heads * c], strides shared with v
    v_ptr,  # [batch, groups, N_k, num_heads * c]
    gate_ptr,  # strides of q
    mask_ptr,  # [batch, groups, N_k] contiguous
    bias_ptr,  # [batch, num_heads, N_q, N_k] contiguous
    out_ptr,  # out: [batch, groups, N_q, num_heads * c] contiguous
    maximum_ptr,  # out: [batch, groups, num_heads, N_q] float32, maximum of the logits * log2(e)
    total_ptr,  # out: as maximum, sum of exp2(logits * log2(e) - maximum)
    num_groups,
    num_heads,
    num_q,
    num_k,
    q_stride_batch,
    q_stride_group,
    q_stride_element,
    k_stride_batch,
    k_stride_group,
    k_stride_element,
    scale,
    mask_inf,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute gated output and softmax statistics of a block of queries of HEADS heads."""
    head, batch_group = tl.program_id(1) * HEADS, tl.program_id(2)
    batch, group = batch_group // num_groups, batch_group % num_groups
    queries = row_queries(tl.program_id(0) * BLOCK_Q, BLOCK_Q, HEADS)
    heads = row_heads(BLOCK_Q, HEADS)
    channel = head * C
    q_start = head_start(q_ptr, batch, group, q_stride_batch, q_stride_group, channel)
    q = load_rows(q_start, queries, num_q, q_stride_element, C, BLOCK_C, BLOCK_Q, HEADS, EVEN)
    k_start = head_start(k_ptr, batch, group, k_stride_batch, k_stride_group, channel)
    v_start = head_start(v_ptr, batch, group, k_stride_batch, k_stride_group, channel)
    mask_row = mask_ptr + batch_group.to(tl.int64) * num_k
    bias_plane = bias_ptr + (batch * num_heads + head).to(tl.int64) * num_q * num_k
    bias_rows = bias_plane + ((heads * num_q + queries) * num_k)[:, None]
    is_any_unmasked = is_any_key_unmasked(mask_row, num_k, BLOCK_K, EVEN)
    factor = tl.where(is_any_unmasked, scale * LOG2_E, 0.0)

    # Finite, as the factor may be 0.
    maximum = tl.full([HEADS * BLOCK_Q], -1e38, dtype=tl.float32)
    total = tl.zeros([HEADS * BLOCK_Q], dtype=tl.float32)
    accumulator = tl.zeros([HEADS * BLOCK_Q, BLOCK_C], dtype=tl.float32)
    for first in range(0, num_k, BLOCK_K):
        keys = first + tl.arange(0, BLOCK_K)
        k = load_keys(k_start, keys, num_k, k_stride_element, C, BLOCK_C, HEADS, EVEN)
        v = load_keys(v_start, keys, num_k, k_stride_element, C, BLOCK_C, HEADS, EVEN)
        terms = key_terms(mask_row, keys, num_k, -mask_inf / scale, EVEN)[None, :]
        if HAS_BIAS:
            tile = bias_rows + keys[None, :]
            bias = load_bias(tile, queries[:, None], num_q, keys[None, :], num_k, EVEN)
            logits = bias * (1.0 / scale) + terms
        else:
            logits = tl.broadcast_to(terms, [HEADS * BLOCK_Q, BLOCK_K])
        logits = tl.dot(q, tl.trans(k), logits, input_precision=PRECISION)
        new_maximum = tl.maximum(maximum, tl.max(logits, axis=1))
        weights = tl.exp2(logits * factor - (new_maximum * factor)[:, None])
        if not EVEN:
            weights = tl.where((keys < num_k)[None, :], weights, 0.0)
        rescale = tl.exp2((maximum - new_maximum) * factor)
        total = total * rescale + tl.sum(weights, axis=1)
        accumulator = tl.dot(
            weights.to(v.dtype), v, accumulator * rescale[:, None], input_precision=PRECISION
        )
        maximum = new_maximum

    gate_start = head_start(gate_ptr, batch, group, q_stride_batch, q_stride_group, channel)
    gate = load_rows(gate_start, queries, num_q, q_stride_element, C, BLOCK_C, BLOCK_Q, HEADS, EVEN)
    out = accumulator * (1.0 / total)[:, None] * sigmoid(gate)
    start = out_start(out_ptr, batch_group, num_q, num_heads, channel, C)
    width = num_heads * C
    store_rows(start, out, queries, num_q, width, C, BLOCK_C, BLOCK_Q, HEADS, EVEN)
    row = (batch_group.to(tl.int64) * num_heads + head + heads) * num_q + queries
    maximum = tl.where(is_any_unmasked, maximum * factor, float("-inf"))
    store_statistic(maximum_ptr + row, maximum, queries, num_q, EVEN)
    store_statistic(total_ptr + row, total, queries, num_q, EVEN)
