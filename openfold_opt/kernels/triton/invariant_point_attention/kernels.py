"""Invariant point attention, one program for each residue i: all heads at once, so that z[i, :, :] is read a single time.

The point term of the logits is a sum over points in registers; no [N, N, heads, points, 3] tensor exists. The backward kernel
owns a residue i as well and gives whatever belongs to it (q, bias, z, point weights). It leaves the softmax weights and the
gradient of the logits [heads, N, N], of which plain matrix products make the gradients of keys and values.
"""

import triton
import triton.language as tl


@triton.jit
def load_heads(
    ptr, residues, num_res, heads, HEADS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr
):
    """[residues, heads, BLOCK] of a tensor [N_res, HEADS, SIZE], float32; zero where there is nothing."""
    channels = tl.arange(0, BLOCK)
    inside = (
        (residues < num_res)[:, None, None]
        & (heads < HEADS)[None, :, None]
        & (channels < SIZE)[None, None, :]
    )
    places = (
        residues[:, None, None] * (HEADS * SIZE)
        + heads[None, :, None] * SIZE
        + channels[None, None, :]
    )
    return tl.load(ptr + places, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def load_own(ptr, residue, heads, HEADS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """[heads, BLOCK] of one residue of a tensor [N_res, HEADS, SIZE], float32."""
    channels = tl.arange(0, BLOCK)
    inside = (heads < HEADS)[:, None] & (channels < SIZE)[None, :]
    places = residue * (HEADS * SIZE) + heads[:, None] * SIZE + channels[None, :]
    return tl.load(ptr + places, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def pair_channels(
    ptr, row, heads, first, HEADS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr
):
    """[heads, BLOCK] from channel `first` on, of one residue of a tensor [N_res, HEADS, SIZE], float32."""
    channels = first + tl.arange(0, BLOCK)
    inside = (heads < HEADS)[:, None] & (channels < SIZE)[None, :]
    places = row * (HEADS * SIZE) + heads[:, None] * SIZE + channels[None, :]
    return tl.load(ptr + places, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def store_own(
    ptr, value, residue, heads, HEADS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr
):
    """Counterpart of load_own."""
    channels = tl.arange(0, BLOCK)
    inside = (heads < HEADS)[:, None] & (channels < SIZE)[None, :]
    places = residue * (HEADS * SIZE) + heads[:, None] * SIZE + channels[None, :]
    tl.store(ptr + places, value.to(ptr.dtype.element_ty), mask=inside)


@triton.jit
def pair_logits(
    q,
    k,
    q_points,
    k_points,
    bias_ptr,
    point_weights,
    mask_ptr,
    own_mask,
    row,
    residues,
    heads,
    num_res,
    scalar_scale,
    point_scale,
    bias_scale,
    mask_inf,
    HEADS: tl.constexpr,
):
    """Logits [residues, heads] and squared point distances of the same shape; -inf beyond the last residue."""
    exists = residues < num_res
    separation = q_points[None, :, :] - k_points
    squared = tl.sum(separation * separation, axis=2)
    places = (row * num_res + residues)[:, None] * HEADS + heads[None, :]
    bias = tl.load(
        bias_ptr + places, mask=exists[:, None] & (heads < HEADS)[None, :], other=0.0
    ).to(tl.float32)
    mask = tl.load(mask_ptr + residues, mask=exists, other=0.0).to(tl.float32) * own_mask
    logits = tl.sum(q[None, :, :] * k, axis=2) * scalar_scale + bias * bias_scale
    logits = (
        logits
        - 0.5 * point_scale * point_weights[None, :] * squared
        + ((mask - 1.0) * mask_inf)[:, None]
    )
    return tl.where(exists[:, None], logits, float("-inf")), squared


@triton.jit
def forward_kernel(
    q_ptr,  # [batch, N, HEADS, C]
    k_ptr,  # the same
    v_ptr,  # the same
    q_points_ptr,  # [batch, N, HEADS, QK]: points times three coordinates
    k_points_ptr,  # the same
    v_points_ptr,  # [batch, N, HEADS, VP]
    bias_ptr,  # [batch, N, N, HEADS]
    z_ptr,  # [batch, N, N, CZ]
    point_weights_ptr,  # [HEADS]
    mask_ptr,  # [batch, N]
    scalars_ptr,  # [batch, N, HEADS, C]
    points_ptr,  # [batch, N, HEADS, VP]
    pairs_ptr,  # [batch, N, HEADS, CZ]
    maximum_ptr,  # [batch, N, HEADS] float32: maximum of the logits
    total_ptr,  # the same: sum of exp(logits - maximum)
    num_res,
    scalar_scale,
    point_scale,
    bias_scale,
    mask_inf,
    HEADS: tl.constexpr,
    C: tl.constexpr,
    QK: tl.constexpr,
    VP: tl.constexpr,
    CZ: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_QK: tl.constexpr,
    BLOCK_VP: tl.constexpr,
    BLOCK_CZ: tl.constexpr,
    BLOCK_J: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Results and softmax statistics of residue i."""
    i, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    first = batch * num_res
    row = first + i
    heads = tl.arange(0, BLOCK_HEADS)
    q = load_own(q_ptr, row, heads, HEADS, C, BLOCK_C)
    q_points = load_own(q_points_ptr, row, heads, HEADS, QK, BLOCK_QK)
    point_weights = tl.load(point_weights_ptr + heads, mask=heads < HEADS, other=0.0).to(tl.float32)
    own_mask = tl.load(mask_ptr + row).to(tl.float32)
    channels_z = tl.arange(0, BLOCK_CZ)
    maximum = tl.full([BLOCK_HEADS], float("-inf"), dtype=tl.float32)
    total = tl.zeros([BLOCK_HEADS], dtype=tl.float32)
    scalars = tl.zeros([BLOCK_HEADS, BLOCK_C], dtype=tl.float32)
    points = tl.zeros([BLOCK_HEADS, BLOCK_VP], dtype=tl.float32)
    pairs = tl.zeros([BLOCK_HEADS, BLOCK_CZ], dtype=tl.float32)
    for first_j in range(0, num_res, BLOCK_J):
        residues = first_j + tl.arange(0, BLOCK_J)
        k = load_heads(k_ptr + first * HEADS * C, residues, num_res, heads, HEADS, C, BLOCK_C)
        k_points = load_heads(
            k_points_ptr + first * HEADS * QK, residues, num_res, heads, HEADS, QK, BLOCK_QK
        )
        logits, squared = pair_logits(
            q,
            k,
            q_points,
            k_points,
            bias_ptr,
            point_weights,
            mask_ptr + first,
            own_mask,
            row,
            residues,
            heads,
            num_res,
            scalar_scale,
            point_scale,
            bias_scale,
            mask_inf,
            HEADS,
        )
        new_maximum = tl.maximum(maximum, tl.max(logits, axis=0))
        weights = tl.exp(logits - new_maximum[None, :])
        shrink = tl.exp(maximum - new_maximum)
        maximum = new_maximum
        total = total * shrink + tl.sum(weights, axis=0)
        v = load_heads(v_ptr + first * HEADS * C, residues, num_res, heads, HEADS, C, BLOCK_C)
        v_points = load_heads(
            v_points_ptr + first * HEADS * VP, residues, num_res, heads, HEADS, VP, BLOCK_VP
        )
        z_offsets = (row * num_res + residues)[:, None] * CZ + channels_z[None, :]
        z = tl.load(
            z_ptr + z_offsets,
            mask=(residues < num_res)[:, None] & (channels_z < CZ)[None, :],
            other=0.0,
        ).to(tl.float32)
        scalars = scalars * shrink[:, None] + tl.sum(weights[:, :, None] * v, axis=0)
        points = points * shrink[:, None] + tl.sum(weights[:, :, None] * v_points, axis=0)
        pairs = pairs * shrink[:, None] + tl.dot(tl.trans(weights), z, input_precision=PRECISION)
    store_own(scalars_ptr, scalars / total[:, None], row, heads, HEADS, C, BLOCK_C)
    store_own(points_ptr, points / total[:, None], row, heads, HEADS, VP, BLOCK_VP)
    store_own(pairs_ptr, pairs / total[:, None], row, heads, HEADS, CZ, BLOCK_CZ)
    tl.store(maximum_ptr + row * HEADS + heads, maximum, mask=heads < HEADS)
    tl.store(total_ptr + row * HEADS + heads, total, mask=heads < HEADS)


@triton.jit
def backward_kernel(
    q_ptr,  # as in forward_kernel, down to total_ptr
    k_ptr,
    v_ptr,
    q_points_ptr,
    k_points_ptr,
    v_points_ptr,
    bias_ptr,
    z_ptr,
    point_weights_ptr,
    mask_ptr,
    scalars_ptr,
    points_ptr,
    pairs_ptr,
    maximum_ptr,
    total_ptr,
    dscalars_ptr,  # as scalars, and so on
    dpoints_ptr,
    dpairs_ptr,
    dq_ptr,
    dq_points_ptr,
    dbias_ptr,
    dz_ptr,
    dpoint_weights_ptr,  # [batch, N, HEADS] float32, to be summed over residues
    weights_ptr,  # [batch, HEADS, N, N] float32: softmax weights
    dlogits_ptr,  # [batch, HEADS, N, N] float32
    num_res,
    scalar_scale,
    point_scale,
    bias_scale,
    mask_inf,
    HEADS: tl.constexpr,
    C: tl.constexpr,
    QK: tl.constexpr,
    VP: tl.constexpr,
    CZ: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_QK: tl.constexpr,
    BLOCK_VP: tl.constexpr,
    BLOCK_CZ: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    """Gradients of what belongs to residue i, its softmax weights and the gradient of its logits."""
    i, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    first = batch * num_res
    row = first + i
    heads = tl.arange(0, BLOCK_HEADS)
    is_head = heads < HEADS
    q = load_own(q_ptr, row, heads, HEADS, C, BLOCK_C)
    q_points = load_own(q_points_ptr, row, heads, HEADS, QK, BLOCK_QK)
    point_weights = tl.load(point_weights_ptr + heads, mask=is_head, other=0.0).to(tl.float32)
    own_mask = tl.load(mask_ptr + row).to(tl.float32)
    dscalars = load_own(dscalars_ptr, row, heads, HEADS, C, BLOCK_C)
    dpoints = load_own(dpoints_ptr, row, heads, HEADS, VP, BLOCK_VP)
    delta = tl.sum(dscalars * load_own(scalars_ptr, row, heads, HEADS, C, BLOCK_C), axis=1)
    delta += tl.sum(dpoints * load_own(points_ptr, row, heads, HEADS, VP, BLOCK_VP), axis=1)
    for first_z in range(0, CZ, BLOCK_CZ):
        pairs = pair_channels(pairs_ptr, row, heads, first_z, HEADS, CZ, BLOCK_CZ)
        delta += tl.sum(
            pair_channels(dpairs_ptr, row, heads, first_z, HEADS, CZ, BLOCK_CZ) * pairs, axis=1
        )
    maximum = tl.load(maximum_ptr + row * HEADS + heads, mask=is_head, other=0.0)
    total = tl.load(total_ptr + row * HEADS + heads, mask=is_head, other=1.0)
    dq = tl.zeros([BLOCK_HEADS, BLOCK_C], dtype=tl.float32)
    dq_points = tl.zeros([BLOCK_HEADS, BLOCK_QK], dtype=tl.float32)
    dpoint_weights = tl.zeros([BLOCK_HEADS], dtype=tl.float32)
    for first_j in range(0, num_res, BLOCK_J):
        residues = first_j + tl.arange(0, BLOCK_J)
        exists = residues < num_res
        k = load_heads(k_ptr + first * HEADS * C, residues, num_res, heads, HEADS, C, BLOCK_C)
        k_points = load_heads(
            k_points_ptr + first * HEADS * QK, residues, num_res, heads, HEADS, QK, BLOCK_QK
        )
        logits, squared = pair_logits(
            q,
            k,
            q_points,
            k_points,
            bias_ptr,
            point_weights,
            mask_ptr + first,
            own_mask,
            row,
            residues,
            heads,
            num_res,
            scalar_scale,
            point_scale,
            bias_scale,
            mask_inf,
            HEADS,
        )
        weights = tl.exp(logits - maximum[None, :]) / total[None, :]
        v = load_heads(v_ptr + first * HEADS * C, residues, num_res, heads, HEADS, C, BLOCK_C)
        v_points = load_heads(
            v_points_ptr + first * HEADS * VP, residues, num_res, heads, HEADS, VP, BLOCK_VP
        )
        dweights = tl.sum(v * dscalars[None, :, :], axis=2) + tl.sum(
            v_points * dpoints[None, :, :], axis=2
        )
        # a few channels at a time, as sums in registers: a float32 matrix product of these sizes would spill
        for first_z in range(0, CZ, BLOCK_CZ):
            channels_z = first_z + tl.arange(0, BLOCK_CZ)
            z_offsets = (row * num_res + residues)[:, None] * CZ + channels_z[None, :]
            in_z = exists[:, None] & (channels_z < CZ)[None, :]
            z = tl.load(z_ptr + z_offsets, mask=in_z, other=0.0).to(tl.float32)
            dpairs = pair_channels(dpairs_ptr, row, heads, first_z, HEADS, CZ, BLOCK_CZ)
            dweights += tl.sum(z[:, None, :] * dpairs[None, :, :], axis=2)
            dz = tl.sum(weights[:, :, None] * dpairs[None, :, :], axis=1)
            tl.store(dz_ptr + z_offsets, dz.to(dz_ptr.dtype.element_ty), mask=in_z)
        dlogits = weights * (dweights - delta[None, :])
        dq += tl.sum(dlogits[:, :, None] * k, axis=0) * scalar_scale
        pull = dlogits * point_scale * point_weights[None, :]
        dq_points -= tl.sum(pull[:, :, None] * (q_points[None, :, :] - k_points), axis=0)
        dpoint_weights -= tl.sum(dlogits * squared, axis=0) * 0.5 * point_scale
        in_pair = exists[:, None] & is_head[None, :]
        bias_offsets = (row * num_res + residues)[:, None] * HEADS + heads[None, :]
        tl.store(
            dbias_ptr + bias_offsets,
            (dlogits * bias_scale).to(dbias_ptr.dtype.element_ty),
            mask=in_pair,
        )
        plane = ((batch * HEADS + heads)[None, :] * num_res + i) * num_res + residues[:, None]
        tl.store(weights_ptr + plane, weights, mask=in_pair)
        tl.store(dlogits_ptr + plane, dlogits, mask=in_pair)
    store_own(dq_ptr, dq, row, heads, HEADS, C, BLOCK_C)
    store_own(dq_points_ptr, dq_points, row, heads, HEADS, QK, BLOCK_QK)
    tl.store(dpoint_weights_ptr + row * HEADS + heads, dpoint_weights, mask=is_head)
