"""Backward pass of gated attention from the inputs, the gated output and the softmax statistics.

With s = sigmoid(gate), P the softmax, O = P v and out = O * s, a gradient d(out) gives

    d(gate) = d(out) * out * (1 - s),   dO = d(out) * s,
    delta = sum over channels of d(out) * out = sum over channels of dO * O,
    dP = dO v^T,   dS = P * (dP - delta),
    dq = scale * dS k,   dk = scale * dS^T q,   dv = P^T dO,   dbias = sum over groups of dS,

so the output before the gate is not needed. P is E / total, with E the exponentials of the forward
pass. The kernels use dO / total and delta / total: then dS = E * (dP - delta), dv = E^T dO, and no
weight is divided.

input_gradient_kernel forms each logit once for dq, dk and dv: a program has all queries of a group
(or a range of them, see attention.py), accumulates dq over blocks of keys, and completes dk and dv
of a block. It saves dO / total and delta / total for bias_gradient_kernel, which forms the logits
again, as the sum over groups needs another order: a program has a tile of the bias.
"""

import triton
import triton.language as tl

from openfold_opt.kernels.triton.attention.tiles import (
    LOG2_E,
    head_start,
    key_terms,
    load_bias,
    load_keys,
    load_rows,
    load_statistic,
    out_start,
    row_heads,
    row_queries,
    sigmoid,
    store_keys,
    store_rows,
    store_statistic,
)


@triton.jit
def _bias_and_mask(
    tile, terms, queries, num_q, keys, num_k, scale, EVEN: tl.constexpr, HAS_BIAS: tl.constexpr
):
    """Return (bias + mask) / scale [rows, keys].

    tile: addresses of the bias; terms: of key_terms.
    """
    if HAS_BIAS:
        bias = load_bias(tile, queries[:, None], num_q, keys[None, :], num_k, EVEN)
        return bias * (1.0 / scale) + terms[None, :]
    return tl.broadcast_to(terms[None, :], tile.shape)


@triton.jit
def _exponentials(logits, maximum, scale, keys, num_k, EVEN: tl.constexpr):
    """Return E [rows, keys] from logits / scale and the saved maximum of each row."""
    is_any_unmasked = maximum > float("-inf")
    factor = tl.where(is_any_unmasked, scale * LOG2_E, 0.0)
    maximum = tl.where(is_any_unmasked, maximum, 0.0)
    weights = tl.exp2(logits * factor[:, None] - maximum[:, None])
    if EVEN:
        return weights
    return tl.where((keys < num_k)[None, :], weights, 0.0)


@triton.jit
def _output_gradient(
    gate_start,  # of the head and group, as all below
    out_start_,
    dout_start,
    dgate_start,  # out
    do_start,  # out: dO / total, if HAS_BIAS
    total_rows,  # addresses of the sums of the exponentials of the rows
    delta_rows,  # out: addresses of delta / total of the rows
    queries,
    num_q,
    q_stride_element,
    width,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    EVEN: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """Store d(gate) and delta / total of a block of queries, and return dO / total."""
    gate = load_rows(gate_start, queries, num_q, q_stride_element, C, BLOCK_C, BLOCK_Q, HEADS, EVEN)
    out = load_rows(out_start_, queries, num_q, width, C, BLOCK_C, BLOCK_Q, HEADS, EVEN)
    dout = load_rows(dout_start, queries, num_q, width, C, BLOCK_C, BLOCK_Q, HEADS, EVEN)
    sigmoid_gate = sigmoid(gate)
    product = dout.to(tl.float32) * out.to(tl.float32)
    dgate = product * (1.0 - sigmoid_gate)
    store_rows(dgate_start, dgate, queries, num_q, 4 * width, C, BLOCK_C, BLOCK_Q, HEADS, EVEN)
    if EVEN:
        inverse_total = 1.0 / tl.load(total_rows)
    else:
        inverse_total = 1.0 / tl.load(total_rows, mask=queries < num_q, other=1.0)
    do = (dout.to(tl.float32) * sigmoid_gate * inverse_total[:, None]).to(gate.dtype)
    # From the rounded dO, so that the rows of dS sum to zero as closely as the output allows.
    ungated = out.to(tl.float32) / tl.maximum(sigmoid_gate, 1e-30)
    delta = tl.sum(do.to(tl.float32) * ungated, axis=1)
    store_statistic(delta_rows, delta, queries, num_q, EVEN)
    if HAS_BIAS:
        store_rows(do_start, do, queries, num_q, width, C, BLOCK_C, BLOCK_Q, HEADS, EVEN)
    return do


@triton.jit
def input_gradient_kernel(
    q_ptr,  # as in forward_kernel, down to total_ptr
    k_ptr,
    v_ptr,
    gate_ptr,
    mask_ptr,
    bias_ptr,
    maximum_ptr,
    total_ptr,
    out_ptr,  # [batch, groups, N_q, num_heads * c] contiguous
    dout_ptr,  # as out
    dq_ptr,  # out: shape of q, a quarter of contiguous rows of num_heads * c * 4 channels
    dgate_ptr,  # out: as dq
    dk_ptr,  # out: [ranges of queries, batch, groups, N_k, num_heads * c], strides below
    dv_ptr,  # out: as dk
    do_ptr,  # out: as out, dO / total, if HAS_BIAS
    delta_ptr,  # out: [batch, groups, num_heads, N_q] float32, delta / total
    num_groups,
    num_heads,
    num_q,
    num_k,
    q_stride_batch,  # of q, k, v and gate
    q_stride_group,
    q_stride_element,
    dk_stride_range,  # of dk and dv
    dk_stride_element,
    scale,
    mask_inf,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    TILES: tl.constexpr,  # blocks of queries of a range
    EVEN: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradients of q, k, v and gate of HEADS heads, for a range of queries."""
    head, batch_group = tl.program_id(1) * HEADS, tl.program_id(2)
    batch, group = batch_group // num_groups, batch_group % num_groups
    channel, width = head * C, num_heads * C
    heads = row_heads(BLOCK_Q, HEADS)
    first_query = tl.program_id(0) * (TILES * BLOCK_Q)
    first_row = (batch_group.to(tl.int64) * num_heads + head + heads) * num_q
    q_start = head_start(q_ptr, batch, group, q_stride_batch, q_stride_group, channel)
    dq_start = out_start(dq_ptr, batch_group, num_q, 4 * num_heads, channel, C)
    q, do, dq = (), (), ()
    for tile in tl.static_range(TILES):
        queries = row_queries(first_query + tile * BLOCK_Q, BLOCK_Q, HEADS)
        tile_do = _output_gradient(
            head_start(gate_ptr, batch, group, q_stride_batch, q_stride_group, channel),
            out_start(out_ptr, batch_group, num_q, num_heads, channel, C),
            out_start(dout_ptr, batch_group, num_q, num_heads, channel, C),
            out_start(dgate_ptr, batch_group, num_q, 4 * num_heads, channel, C),
            out_start(do_ptr, batch_group, num_q, num_heads, channel, C),
            total_ptr + first_row + queries,
            delta_ptr + first_row + queries,
            queries,
            num_q,
            q_stride_element,
            width,
            C,
            BLOCK_C,
            HEADS,
            BLOCK_Q,
            EVEN,
            HAS_BIAS,
        )
        do += (tile_do,)
        q += (
            load_rows(q_start, queries, num_q, q_stride_element, C, BLOCK_C, BLOCK_Q, HEADS, EVEN),
        )
        dq += (tl.zeros([HEADS * BLOCK_Q, BLOCK_C], dtype=tl.float32),)
    # Statistics are read where they are used, to save registers; other threads have written delta.
    tl.debug_barrier()

    k_start = head_start(k_ptr, batch, group, q_stride_batch, q_stride_group, channel)
    v_start = head_start(v_ptr, batch, group, q_stride_batch, q_stride_group, channel)
    first_key = batch_group.to(tl.int64) * num_k * dk_stride_element
    dk_offset = tl.program_id(0).to(tl.int64) * dk_stride_range + first_key + channel
    mask_row = mask_ptr + batch_group.to(tl.int64) * num_k
    bias_plane = bias_ptr + (batch * num_heads + head).to(tl.int64) * num_q * num_k
    # All blocks have the same offsets, so that few addresses are in registers.
    maximum_rows = maximum_ptr + first_row + row_queries(first_query, BLOCK_Q, HEADS)
    delta_rows = delta_ptr + first_row + row_queries(first_query, BLOCK_Q, HEADS)
    bias_rows = (heads * num_q + row_queries(0, BLOCK_Q, HEADS)) * num_k
    bias_tile = bias_rows[:, None] + tl.arange(0, BLOCK_K)[None, :]
    for first in range(0, num_k, BLOCK_K):
        keys = first + tl.arange(0, BLOCK_K)
        k = load_keys(k_start, keys, num_k, q_stride_element, C, BLOCK_C, HEADS, EVEN)
        v = load_keys(v_start, keys, num_k, q_stride_element, C, BLOCK_C, HEADS, EVEN)
        terms = key_terms(mask_row, keys, num_k, -mask_inf / scale, EVEN)
        dk = tl.zeros([BLOCK_K, BLOCK_C], dtype=tl.float32)
        dv = tl.zeros([BLOCK_K, BLOCK_C], dtype=tl.float32)
        new_dq = ()
        for tile in tl.static_range(TILES):
            first_of_tile = first_query + tile * BLOCK_Q
            queries = row_queries(first_of_tile, BLOCK_Q, HEADS)
            bias = bias_plane + (first_of_tile * num_k + first) + bias_tile
            logits = _bias_and_mask(bias, terms, queries, num_q, keys, num_k, scale, EVEN, HAS_BIAS)
            logits = tl.dot(q[tile], tl.trans(k), logits, input_precision=PRECISION)
            maximum = load_statistic(maximum_rows + tile * BLOCK_Q, queries, num_q, EVEN)
            weights = _exponentials(logits, maximum, scale, keys, num_k, EVEN)
            dv = tl.dot(tl.trans(weights.to(v.dtype)), do[tile], dv, input_precision=PRECISION)
            dweights = tl.dot(do[tile], tl.trans(v), input_precision=PRECISION)
            delta = load_statistic(delta_rows + tile * BLOCK_Q, queries, num_q, EVEN)
            dlogits = (weights * (dweights - delta[:, None])).to(k.dtype)
            dk = tl.dot(tl.trans(dlogits), q[tile], dk, input_precision=PRECISION)
            new_dq += (tl.dot(dlogits, k, dq[tile], input_precision=PRECISION),)
        dq = new_dq
        store_keys(
            dk_ptr + dk_offset, dk * scale, keys, num_k, dk_stride_element, C, BLOCK_C, HEADS, EVEN
        )
        store_keys(dv_ptr + dk_offset, dv, keys, num_k, dk_stride_element, C, BLOCK_C, HEADS, EVEN)
    for tile in tl.static_range(TILES):
        queries = row_queries(first_query + tile * BLOCK_Q, BLOCK_Q, HEADS)
        x = dq[tile] * scale
        store_rows(dq_start, x, queries, num_q, 4 * width, C, BLOCK_C, BLOCK_Q, HEADS, EVEN)


@triton.jit
def bias_gradient_kernel(
    q_ptr,  # as in input_gradient_kernel
    k_ptr,
    v_ptr,
    mask_ptr,
    bias_ptr,
    maximum_ptr,
    do_ptr,
    delta_ptr,
    dbias_ptr,  # out: [splits, batch, num_heads, N_q, N_k] float32, sums over a part of the groups
    num_batch,
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
    PRECISION: tl.constexpr,
):
    """Compute a tile of the bias gradient of HEADS heads, summed over a part of the groups."""
    head, program = tl.program_id(1) * HEADS, tl.program_id(2)
    batch, split = program % num_batch, program // num_batch
    num_splits = tl.num_programs(2) // num_batch
    num_key_blocks = tl.cdiv(num_k, BLOCK_K)
    queries = row_queries((tl.program_id(0) // num_key_blocks) * BLOCK_Q, BLOCK_Q, HEADS)
    keys = (tl.program_id(0) % num_key_blocks) * BLOCK_K + tl.arange(0, BLOCK_K)
    heads = row_heads(BLOCK_Q, HEADS)
    channel, width = head * C, num_heads * C
    offsets = ((heads * num_q + queries) * num_k)[:, None] + keys[None, :]
    bias_plane = bias_ptr + (batch * num_heads + head).to(tl.int64) * num_q * num_k
    in_queries, in_keys = queries[:, None], keys[None, :]
    # All groups have the same bias.
    bias = load_bias(bias_plane + offsets, in_queries, num_q, in_keys, num_k, EVEN) * (1.0 / scale)
    dbias = tl.zeros([HEADS * BLOCK_Q, BLOCK_K], dtype=tl.float32)
    for step in range(tl.cdiv(num_groups - split, num_splits)):
        group = split + step * num_splits
        batch_group = batch.to(tl.int64) * num_groups + group
        q_start = head_start(q_ptr, batch, group, q_stride_batch, q_stride_group, channel)
        q = load_rows(q_start, queries, num_q, q_stride_element, C, BLOCK_C, BLOCK_Q, HEADS, EVEN)
        do_start = out_start(do_ptr, batch_group, num_q, num_heads, channel, C)
        do = load_rows(do_start, queries, num_q, width, C, BLOCK_C, BLOCK_Q, HEADS, EVEN)
        k_start = head_start(k_ptr, batch, group, k_stride_batch, k_stride_group, channel)
        k = load_keys(k_start, keys, num_k, k_stride_element, C, BLOCK_C, HEADS, EVEN)
        v_start = head_start(v_ptr, batch, group, k_stride_batch, k_stride_group, channel)
        v = load_keys(v_start, keys, num_k, k_stride_element, C, BLOCK_C, HEADS, EVEN)
        row = (batch_group * num_heads + head + heads) * num_q + queries
        maximum = load_statistic(maximum_ptr + row, queries, num_q, EVEN)
        delta = load_statistic(delta_ptr + row, queries, num_q, EVEN)
        terms = key_terms(mask_ptr + batch_group * num_k, keys, num_k, -mask_inf / scale, EVEN)
        logits = tl.dot(q, tl.trans(k), bias + terms[None, :], input_precision=PRECISION)
        weights = _exponentials(logits, maximum, scale, keys, num_k, EVEN)
        dweights = tl.dot(do, tl.trans(v), input_precision=PRECISION)
        dbias += weights * (dweights - delta[:, None])
    plane = (program.to(tl.int64) * num_heads + head) * num_q * num_k
    if EVEN:
        tl.store(dbias_ptr + plane + offsets, dbias)
    else:
        inside = (in_queries < num_q) & (in_keys < num_k)
        tl.store(dbias_ptr + plane + offsets, dbias, mask=inside)
