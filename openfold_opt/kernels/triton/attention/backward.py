"""Backward pass of gated attention from the inputs, the gated output and the softmax statistics.

With s = sigmoid(gate), P the softmax, O = P v and out = O * s, a gradient d(out) gives

    d(gate) = d(out) * out * (1 - s),   dO = d(out) * s,
    delta = sum over channels of d(out) * out = sum over channels of dO * O,
    dP = dO v^T,   dS = P * (dP - delta),
    dq = scale * dS k,   dk = scale * dS^T q,   dv = P^T dO,   dbias = sum over groups of dS,

so the output before the gate is not needed. Each of the three kernels recomputes P and dS by tiles:
query_gradient_kernel for a block of queries (d(gate), delta, dq), key_gradient_kernel for a block
of keys (dk, dv), bias_gradient_kernel for a tile of the bias, with a loop over groups.
query_gradient_kernel runs first, because the others read delta.
"""

import triton
import triton.language as tl

from openfold_opt.kernels.triton.attention.forward import (
    head_start,
    head_tile,
    load_head,
    masked_logits,
    out_offsets,
)


@triton.jit
def _weights(logits, maximum_ptr, total_ptr, row, in_queries):
    """Return the softmax weights [queries, keys] from logits and saved statistics."""
    maximum = tl.load(maximum_ptr + row, mask=in_queries, other=0.0)
    total = tl.load(total_ptr + row, mask=in_queries, other=1.0)
    return tl.exp(logits - maximum[:, None]) / total[:, None]


@triton.jit
def query_gradient_kernel(
    q_ptr,  # as in forward_kernel, down to bias_ptr
    k_ptr,
    v_ptr,
    gate_ptr,
    mask_ptr,
    bias_ptr,
    maximum_ptr,
    total_ptr,
    out_ptr,  # [batch, groups, N_q, num_heads * c] contiguous
    dout_ptr,  # as out
    dq_ptr,  # out: shape of q, strides below
    dgate_ptr,  # out: as dq
    delta_ptr,  # out: [batch, groups, num_heads, N_q] float32
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
    d_stride_batch,  # of dq and dgate
    d_stride_group,
    d_stride_element,
    scale,
    mask_inf,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradients of q and gate, and delta, for a block of queries of one head."""
    head, batch_group = tl.program_id(1), tl.program_id(2)
    batch, group = batch_group // num_groups, batch_group % num_groups
    queries = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    in_channels = tl.arange(0, BLOCK_C) < C
    in_queries = (queries < num_q)[:, None] & in_channels[None, :]
    channel = head * C
    q_start = head_start(q_ptr, batch, group, q_stride_batch, q_stride_group, channel)
    q = load_head(q_start, queries, num_q, q_stride_element, C, BLOCK_C)
    gate_start = head_start(gate_ptr, batch, group, q_stride_batch, q_stride_group, channel)
    gate = load_head(gate_start, queries, num_q, q_stride_element, C, BLOCK_C)
    out_tile = out_offsets(batch_group, queries, num_q, num_heads, channel, C, BLOCK_C)
    out = tl.load(out_ptr + out_tile, mask=in_queries, other=0.0).to(tl.float32)
    dout = tl.load(dout_ptr + out_tile, mask=in_queries, other=0.0).to(tl.float32)
    sigmoid_gate = tl.sigmoid(gate.to(tl.float32))
    dgate = dout * out * (1.0 - sigmoid_gate)
    dgate_start = head_start(dgate_ptr, batch, group, d_stride_batch, d_stride_group, channel)
    dgate_tile = head_tile(dgate_start, queries, d_stride_element, BLOCK_C)
    tl.store(dgate_tile, dgate.to(dgate_ptr.dtype.element_ty), mask=in_queries)
    delta = tl.sum(dout * out, axis=1)
    row = (batch_group.to(tl.int64) * num_heads + head) * num_q + queries
    tl.store(delta_ptr + row, delta, mask=queries < num_q)
    do = (dout * sigmoid_gate).to(q.dtype)

    mask_row = mask_ptr + batch_group.to(tl.int64) * num_k
    bias_plane = bias_ptr + (batch * num_heads + head).to(tl.int64) * num_q * num_k
    dq = tl.zeros([BLOCK_Q, BLOCK_C], dtype=tl.float32)
    for first in range(0, num_k, BLOCK_K):
        keys = first + tl.arange(0, BLOCK_K)
        k_start = head_start(k_ptr, batch, group, k_stride_batch, k_stride_group, channel)
        k = load_head(k_start, keys, num_k, k_stride_element, C, BLOCK_C)
        v_start = head_start(v_ptr, batch, group, k_stride_batch, k_stride_group, channel)
        v = load_head(v_start, keys, num_k, k_stride_element, C, BLOCK_C)
        logits = masked_logits(
            q,
            k,
            keys,
            queries,
            mask_row,
            bias_plane,
            num_q,
            num_k,
            scale,
            mask_inf,
            HAS_BIAS,
            PRECISION,
        )
        weights = _weights(logits, maximum_ptr, total_ptr, row, queries < num_q)
        dweights = tl.dot(do, tl.trans(v), input_precision=PRECISION)
        dlogits = weights * (dweights - delta[:, None])
        dq += tl.dot(dlogits.to(k.dtype), k, input_precision=PRECISION)
    dq_start = head_start(dq_ptr, batch, group, d_stride_batch, d_stride_group, channel)
    dq_tile = head_tile(dq_start, queries, d_stride_element, BLOCK_C)
    tl.store(dq_tile, (dq * scale).to(dq_ptr.dtype.element_ty), mask=in_queries)


@triton.jit
def key_gradient_kernel(
    q_ptr,  # as in query_gradient_kernel
    k_ptr,
    v_ptr,
    gate_ptr,
    mask_ptr,
    bias_ptr,
    maximum_ptr,
    total_ptr,
    dout_ptr,
    delta_ptr,
    dk_ptr,  # out: shape of k, strides below
    dv_ptr,  # out: as dk
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
    d_stride_batch,  # of dk and dv
    d_stride_group,
    d_stride_element,
    scale,
    mask_inf,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradients of k and v for a block of keys of one head."""
    head, batch_group = tl.program_id(1), tl.program_id(2)
    batch, group = batch_group // num_groups, batch_group % num_groups
    keys = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    in_channels = tl.arange(0, BLOCK_C) < C
    in_keys = (keys < num_k)[:, None] & in_channels[None, :]
    channel = head * C
    k_start = head_start(k_ptr, batch, group, k_stride_batch, k_stride_group, channel)
    k = load_head(k_start, keys, num_k, k_stride_element, C, BLOCK_C)
    v_start = head_start(v_ptr, batch, group, k_stride_batch, k_stride_group, channel)
    v = load_head(v_start, keys, num_k, k_stride_element, C, BLOCK_C)
    mask_row = mask_ptr + batch_group.to(tl.int64) * num_k
    bias_plane = bias_ptr + (batch * num_heads + head).to(tl.int64) * num_q * num_k
    dk = tl.zeros([BLOCK_K, BLOCK_C], dtype=tl.float32)
    dv = tl.zeros([BLOCK_K, BLOCK_C], dtype=tl.float32)
    for first in range(0, num_q, BLOCK_Q):
        queries = first + tl.arange(0, BLOCK_Q)
        in_queries = (queries < num_q)[:, None] & in_channels[None, :]
        q_start = head_start(q_ptr, batch, group, q_stride_batch, q_stride_group, channel)
        q = load_head(q_start, queries, num_q, q_stride_element, C, BLOCK_C)
        gate_start = head_start(gate_ptr, batch, group, q_stride_batch, q_stride_group, channel)
        gate = load_head(gate_start, queries, num_q, q_stride_element, C, BLOCK_C)
        out_tile = out_offsets(batch_group, queries, num_q, num_heads, channel, C, BLOCK_C)
        dout = tl.load(dout_ptr + out_tile, mask=in_queries, other=0.0).to(tl.float32)
        do = (dout * tl.sigmoid(gate.to(tl.float32))).to(q.dtype)
        row = (batch_group.to(tl.int64) * num_heads + head) * num_q + queries
        delta = tl.load(delta_ptr + row, mask=queries < num_q, other=0.0)
        logits = masked_logits(
            q,
            k,
            keys,
            queries,
            mask_row,
            bias_plane,
            num_q,
            num_k,
            scale,
            mask_inf,
            HAS_BIAS,
            PRECISION,
        )
        weights = _weights(logits, maximum_ptr, total_ptr, row, queries < num_q)
        dv += tl.dot(tl.trans(weights.to(do.dtype)), do, input_precision=PRECISION)
        dweights = tl.dot(do, tl.trans(v), input_precision=PRECISION)
        dlogits = weights * (dweights - delta[:, None])
        dk += tl.dot(tl.trans(dlogits.to(q.dtype)), q, input_precision=PRECISION)
    dk_start = head_start(dk_ptr, batch, group, d_stride_batch, d_stride_group, channel)
    dk_tile = head_tile(dk_start, keys, d_stride_element, BLOCK_C)
    dv_start = head_start(dv_ptr, batch, group, d_stride_batch, d_stride_group, channel)
    dv_tile = head_tile(dv_start, keys, d_stride_element, BLOCK_C)
    tl.store(dk_tile, (dk * scale).to(dk_ptr.dtype.element_ty), mask=in_keys)
    tl.store(dv_tile, dv.to(dv_ptr.dtype.element_ty), mask=in_keys)


@triton.jit
def bias_gradient_kernel(
    q_ptr,  # as in key_gradient_kernel
    k_ptr,
    v_ptr,
    gate_ptr,
    mask_ptr,
    bias_ptr,
    maximum_ptr,
    total_ptr,
    dout_ptr,
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
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute a tile of the bias gradient, summed over a part of the groups."""
    head, program = tl.program_id(1), tl.program_id(2)
    batch, split = program % num_batch, program // num_batch
    num_splits = tl.num_programs(2) // num_batch
    num_key_blocks = tl.cdiv(num_k, BLOCK_K)
    queries = (tl.program_id(0) // num_key_blocks) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    keys = (tl.program_id(0) % num_key_blocks) * BLOCK_K + tl.arange(0, BLOCK_K)
    in_channels = tl.arange(0, BLOCK_C) < C
    in_queries = (queries < num_q)[:, None] & in_channels[None, :]
    channel = head * C
    bias_plane = bias_ptr + (batch * num_heads + head).to(tl.int64) * num_q * num_k
    dbias = tl.zeros([BLOCK_Q, BLOCK_K], dtype=tl.float32)
    for step in range(tl.cdiv(num_groups - split, num_splits)):
        group = split + step * num_splits
        q_start = head_start(q_ptr, batch, group, q_stride_batch, q_stride_group, channel)
        q = load_head(q_start, queries, num_q, q_stride_element, C, BLOCK_C)
        gate_start = head_start(gate_ptr, batch, group, q_stride_batch, q_stride_group, channel)
        gate = load_head(gate_start, queries, num_q, q_stride_element, C, BLOCK_C)
        k_start = head_start(k_ptr, batch, group, k_stride_batch, k_stride_group, channel)
        k = load_head(k_start, keys, num_k, k_stride_element, C, BLOCK_C)
        v_start = head_start(v_ptr, batch, group, k_stride_batch, k_stride_group, channel)
        v = load_head(v_start, keys, num_k, k_stride_element, C, BLOCK_C)
        batch_group = batch.to(tl.int64) * num_groups + group
        out_tile = out_offsets(batch_group, queries, num_q, num_heads, channel, C, BLOCK_C)
        dout = tl.load(dout_ptr + out_tile, mask=in_queries, other=0.0).to(tl.float32)
        do = (dout * tl.sigmoid(gate.to(tl.float32))).to(q.dtype)
        row = (batch_group * num_heads + head) * num_q + queries
        delta = tl.load(delta_ptr + row, mask=queries < num_q, other=0.0)
        logits = masked_logits(
            q,
            k,
            keys,
            queries,
            mask_ptr + batch_group * num_k,
            bias_plane,
            num_q,
            num_k,
            scale,
            mask_inf,
            True,
            PRECISION,
        )
        weights = _weights(logits, maximum_ptr, total_ptr, row, queries < num_q)
        dweights = tl.dot(do, tl.trans(v), input_precision=PRECISION)
        dbias += weights * (dweights - delta[:, None])
    plane = (program.to(tl.int64) * num_heads + head) * num_q * num_k
    inside = (queries < num_q)[:, None] & (keys < num_k)[None, :]
    tl.store(dbias_ptr + plane + queries[:, None] * num_k + keys[None, :], dbias, mask=inside)
