"""Outer product mean without its [N_res, N_res, c, c] tensor in memory.

A program works on a tile of residues i times a tile of residues j, for a few channels of a at a
time (SHARE_C). The outer products o[i, j, c, d] = sum over s of a[s, i, c] b[s, j, d] of these
channels stay in registers and are multiplied by their part of the projection W[z, (c, d)].

Backward, with g = dz / norm, the weight gradient is computed in the same way:

    dW = sum over i, j of g o.

The gradients of a and b are matrix products (outer_product_mean.py).
"""

import triton
import triton.language as tl


@triton.jit
def side_tile(
    ptr, sequences, residues, channels, num_seq, num_res, num_channels, stride_seq, stride_res
):
    """Load [sequences, n] of a or b: column k has channel channels[k] of residue residues[k]."""
    inside = (sequences < num_seq)[:, None] & ((residues < num_res) & (channels < num_channels))[
        None, :
    ]
    offsets = (
        sequences.to(tl.int64)[:, None] * stride_seq + (residues * stride_res + channels)[None, :]
    )
    return tl.load(ptr + offsets, mask=inside, other=0.0)


@triton.jit
def outer_products(
    a_ptr,
    b_ptr,
    first_i,
    first_j,
    first_c,
    num_seq,
    num_i,
    num_j,
    a_seq,  # strides, down to b_res
    a_res,
    b_seq,
    b_res,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    SHARE_C: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_S: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return o [BLOCK_I * BLOCK_J, SHARE_C * BLOCK_C] float32: residue pairs, channel pairs."""
    left = tl.arange(0, BLOCK_I * SHARE_C)
    right = tl.arange(0, BLOCK_J * BLOCK_C)
    o = tl.zeros([BLOCK_I * SHARE_C, BLOCK_J * BLOCK_C], dtype=tl.float32)
    for first in range(0, num_seq, BLOCK_S):
        sequences = first + tl.arange(0, BLOCK_S)
        a = side_tile(
            a_ptr,
            sequences,
            first_i + left // SHARE_C,
            first_c + left % SHARE_C,
            num_seq,
            num_i,
            C,
            a_seq,
            a_res,
        )
        b = side_tile(
            b_ptr,
            sequences,
            first_j + right // BLOCK_C,
            right % BLOCK_C,
            num_seq,
            num_j,
            C,
            b_seq,
            b_res,
        )
        o += tl.dot(tl.trans(a), b, input_precision=PRECISION)
    o = tl.permute(tl.reshape(o, [BLOCK_I, SHARE_C, BLOCK_J, BLOCK_C]), [0, 2, 1, 3])
    return tl.reshape(o, [BLOCK_I * BLOCK_J, SHARE_C * BLOCK_C])


@triton.jit
def weight_tile(
    weight_ptr,
    outputs,
    first_c,
    num_outputs,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    SHARE_C: tl.constexpr,
):
    """Load W [outputs, SHARE_C * BLOCK_C] for a few channels c."""
    pairs = tl.arange(0, SHARE_C * BLOCK_C)
    c, d = first_c + pairs // BLOCK_C, pairs % BLOCK_C
    inside = (outputs < num_outputs)[:, None] & ((c < C) & (d < C))[None, :]
    return tl.load(
        weight_ptr + outputs[:, None] * (C * C) + (c * C + d)[None, :], mask=inside, other=0.0
    )


@triton.jit
def forward_kernel(
    z_ptr,  # [batch, N_i, N_j, c_z] contiguous
    a_ptr,  # [batch, N_seq, N_i, c] with strides, channels contiguous
    b_ptr,  # [batch, N_seq, N_j, c] with strides, channels contiguous
    weight_ptr,  # [c_z, c * c] in the dtype of a
    bias_ptr,  # [c_z]
    norm_ptr,  # [batch, N_i, N_j]
    out_ptr,  # out: as z
    num_seq,
    num_i,
    num_j,
    c_z,
    a_batch,  # strides, down to b_res
    a_seq,
    a_res,
    b_batch,
    b_seq,
    b_res,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    SHARE_C: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_Z: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the updated pair representation for a tile of residues i and j."""
    blocks_j = tl.cdiv(num_j, BLOCK_J)
    first_i, first_j = (
        (tl.program_id(0) // blocks_j) * BLOCK_I,
        (tl.program_id(0) % blocks_j) * BLOCK_J,
    )
    outputs = tl.program_id(1) * BLOCK_Z + tl.arange(0, BLOCK_Z)
    batch = tl.program_id(2).to(tl.int64)
    a_ptr += batch * a_batch
    b_ptr += batch * b_batch
    result = tl.zeros([BLOCK_I * BLOCK_J, BLOCK_Z], dtype=tl.float32)
    for first_c in range(0, C, SHARE_C):
        o = outer_products(
            a_ptr,
            b_ptr,
            first_i,
            first_j,
            first_c,
            num_seq,
            num_i,
            num_j,
            a_seq,
            a_res,
            b_seq,
            b_res,
            C,
            BLOCK_C,
            SHARE_C,
            BLOCK_I,
            BLOCK_J,
            BLOCK_S,
            PRECISION,
        )
        weight = weight_tile(weight_ptr, outputs, first_c, c_z, C, BLOCK_C, SHARE_C)
        result += tl.dot(o.to(weight.dtype), tl.trans(weight), input_precision=PRECISION)
    pairs = tl.arange(0, BLOCK_I * BLOCK_J)
    i, j = first_i + pairs // BLOCK_J, first_j + pairs % BLOCK_J
    is_pair, is_output = (i < num_i) & (j < num_j), outputs < c_z
    pair = batch * num_i * num_j + i * num_j + j
    bias = tl.load(bias_ptr + outputs, mask=is_output, other=0.0).to(tl.float32)
    norm = tl.load(norm_ptr + pair, mask=is_pair, other=1.0).to(tl.float32)
    offsets = pair[:, None] * c_z + outputs[None, :]
    inside = is_pair[:, None] & is_output[None, :]
    z = tl.load(z_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    out = z + (result + bias[None, :]) / norm[:, None]
    tl.store(out_ptr + offsets, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def weight_gradient_kernel(
    g_ptr,  # [batch, N_i, N_j, c_z] contiguous
    a_ptr,  # as in forward_kernel
    b_ptr,
    gradient_ptr,  # out: [splits, c_z, c * c] float32
    num_batch,
    num_seq,
    num_i,
    num_j,
    c_z,
    a_batch,  # strides, down to b_res
    a_seq,
    a_res,
    b_batch,
    b_seq,
    b_res,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    SHARE_C: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_Z: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the weight gradient for a few channels c, summed over a part of the pair tiles."""
    first_c = tl.program_id(0) * SHARE_C
    outputs = tl.program_id(1) * BLOCK_Z + tl.arange(0, BLOCK_Z)
    split, num_splits = tl.program_id(2), tl.num_programs(2)
    blocks_i, blocks_j = tl.cdiv(num_i, BLOCK_I), tl.cdiv(num_j, BLOCK_J)
    pairs = tl.arange(0, BLOCK_I * BLOCK_J)
    gradient = tl.zeros([BLOCK_Z, SHARE_C * BLOCK_C], dtype=tl.float32)
    for step in range(tl.cdiv(num_batch * blocks_i * blocks_j - split, num_splits)):
        tile = split + step * num_splits
        batch = (tile // (blocks_i * blocks_j)).to(tl.int64)
        first_i, first_j = (tile // blocks_j) % blocks_i * BLOCK_I, tile % blocks_j * BLOCK_J
        i, j = first_i + pairs // BLOCK_J, first_j + pairs % BLOCK_J
        inside = ((i < num_i) & (j < num_j))[:, None] & (outputs < c_z)[None, :]
        pair = batch * num_i * num_j + i * num_j + j
        g = tl.load(g_ptr + pair[:, None] * c_z + outputs[None, :], mask=inside, other=0.0)
        o = outer_products(
            a_ptr + batch * a_batch,
            b_ptr + batch * b_batch,
            first_i,
            first_j,
            first_c,
            num_seq,
            num_i,
            num_j,
            a_seq,
            a_res,
            b_seq,
            b_res,
            C,
            BLOCK_C,
            SHARE_C,
            BLOCK_I,
            BLOCK_J,
            BLOCK_S,
            PRECISION,
        )
        gradient += tl.dot(tl.trans(g), o.to(g.dtype), input_precision=PRECISION)
    pairs = tl.arange(0, SHARE_C * BLOCK_C)
    c, d = first_c + pairs // BLOCK_C, pairs % BLOCK_C
    inside = (outputs < c_z)[:, None] & ((c < C) & (d < C))[None, :]
    offsets = (split.to(tl.int64) * c_z + outputs)[:, None] * (C * C) + (c * C + d)[None, :]
    tl.store(gradient_ptr + offsets, gradient, mask=inside)
