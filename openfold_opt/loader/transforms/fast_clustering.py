"""Nearest-neighbor clustering for all recycling passes at once, on stored tokens; the same results as transforms.clustering.

The whole alignment is read once, in place and in its own order. What would be a one-hot matrix is a table of bits: a word holds one
bit for each of 64 cluster centers, set where the center has that token in that column. Agreements are counted in all clusters of all
passes together by full adders on such words, which leaves the counts as binary digits, one word per digit; the largest count, and the
first cluster that has it, are found digit by digit. A column costs some six logic operations per word, that is per 64 clusters.
"""

import numba
import numpy as np

from openfold_opt.loader.compiled import compiled
from openfold_opt.loader.transforms.clustering import NUM_AGREEING_CLASSES
from openfold_opt.protein.hhblits_alphabet import NUM_TOKENS

WORD_BITS = 64
COLUMNS_AT_ONCE = 8
CLASS_BYTES = 3
"""Bytes with a bit for each of 23 classes."""

_TOKENS = numba.types.Array(numba.uint8, 2, "C", readonly=True)
_COLUMNS = numba.types.Array(numba.uint8, 2, "A", readonly=True)
"""Whole rows, and a range of columns; both may be views into a shard, which cannot be written."""
_WORD = np.uint64


def assign_rows(msa: np.ndarray, centers: np.ndarray, class_of_token: np.ndarray) -> np.ndarray:
    """The center that each row of the alignment agrees with at the most columns, in each pass; the first on ties.

    Args:
        msa: uint8 [N_seq, N_res], tokens 0..21.
        centers: uint8 [num_passes, N_clust, N_res], classes 0..22 (masked); gaps (21) and masks (22) agree with nothing.
        class_of_token: uint8 [22].

    Returns:
        int64 [num_passes, N_seq], 0 .. N_clust - 1; rows that are centers have a value too, without meaning.
    """
    num_passes, num_clusters, num_res = centers.shape
    num_columns = -(-num_res // COLUMNS_AT_ONCE) * COLUMNS_AT_ONCE
    words = -(-num_clusters // WORD_BITS)
    table = np.zeros((num_columns, NUM_TOKENS, num_passes * words), np.uint64)
    token_of_class = np.argsort(class_of_token)
    _fill_table(np.ascontiguousarray(centers), token_of_class, words, table)
    candidates = np.full(words, ~np.uint64(0))
    candidates[-1] >>= np.uint64(words * WORD_BITS - num_clusters)
    assignment = np.empty((num_passes, len(msa)), np.int64)
    _assign(np.ascontiguousarray(msa), table, candidates, num_res.bit_length(), assignment)
    return assignment


def count_members(
    msa: np.ndarray,
    assignment: np.ndarray,
    *,
    num_clusters: int,
    crop: slice,
    class_of_token: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Which classes occur among the members of each cluster, and how often: what a cluster's profile is made from.

    Args:
        msa: uint8 [N_seq, N_res], tokens 0..21.
        assignment: int64 [N_seq], the cluster of each row; -1: a center, which is not counted.
        num_clusters: N_clust.
        crop: columns wanted.
        class_of_token: uint8 [22].

    Returns:
        uint8 [N_clust, stop - start, 3]: bit c % 8 of byte c // 8 is set where class c occurs;
        int32 [num_counts]: the counts, for the bits that are set in their order.
    """
    num_columns = crop.stop - crop.start
    num_members = int(np.count_nonzero(assignment >= 0))
    flags = np.zeros((num_clusters, num_columns, CLASS_BYTES), np.uint8)
    counts = np.empty(num_columns * min(num_members, num_clusters * NUM_TOKENS), np.int32)
    token_of_class = np.argsort(class_of_token)
    num_counts = _count(msa[:, crop], assignment, token_of_class, flags, counts)
    return flags, counts[:num_counts]


@numba.njit(inline="always")
def _add(a, b, c):
    """Full adder of three words, bit by bit: the low digit and the carry."""
    either = a ^ b
    return either ^ c, (a & b) | (either & c)


@numba.njit(inline="always")
def _lowest_bit(word):
    """Number of the lowest bit that is set in a word that is not 0."""
    number = 0
    for step in (32, 16, 8, 4, 2, 1):
        if word & ((_WORD(1) << _WORD(step)) - _WORD(1)) == _WORD(0):
            word >>= _WORD(step)
            number += step
    return number


@numba.njit(inline="always")
def _first_of_largest(digits, num_digits, offset, candidates):
    """The first cluster with the largest count; `candidates` are the words of all clusters, and are overwritten."""
    for digit in range(num_digits - 1, -1, -1):
        found = _WORD(0)
        for word in range(len(candidates)):
            found |= candidates[word] & digits[digit, offset + word]
        if found != _WORD(0):
            for word in range(len(candidates)):
                candidates[word] &= digits[digit, offset + word]
    word = 0
    while candidates[word] == _WORD(0):
        word += 1
    return WORD_BITS * word + _lowest_bit(candidates[word])


@compiled(
    numba.void(numba.uint8[:, :, ::1], numba.int64[::1], numba.int64, numba.uint64[:, :, ::1])
)
def _fill_table(centers, token_of_class, words, table):
    num_passes, num_clusters, num_res = centers.shape
    for number in range(num_passes):
        for cluster in range(num_clusters):
            bit = _WORD(1) << _WORD(cluster % WORD_BITS)
            word = number * words + cluster // WORD_BITS
            for column in range(num_res):
                found = centers[number, cluster, column]
                if found < NUM_AGREEING_CLASSES:
                    table[column, token_of_class[found], word] |= bit


@compiled(
    numba.void(
        _TOKENS, numba.uint64[:, :, ::1], numba.uint64[::1], numba.int64, numba.int64[:, ::1]
    )
)
def _assign(msa, table, first_candidates, num_digits, assignment):
    num_rows, num_res = msa.shape
    num_columns, _, num_words = table.shape
    words = len(first_candidates)
    # Three digits at least, which the adders of eight columns fill.
    digits = np.zeros((max(num_digits, 3), num_words), np.uint64)
    tokens = np.zeros(num_columns, np.uint8)
    candidates = np.empty(words, np.uint64)
    carries = np.empty(num_words, np.uint64)
    for row in range(num_rows):
        tokens[:num_res] = msa[row]
        digits[:] = _WORD(0)
        for start in range(0, num_columns, 8):
            t0, t1, t2, t3, t4, t5, t6, t7 = (
                table[start, tokens[start]],
                table[start + 1, tokens[start + 1]],
                table[start + 2, tokens[start + 2]],
                table[start + 3, tokens[start + 3]],
                table[start + 4, tokens[start + 4]],
                table[start + 5, tokens[start + 5]],
                table[start + 6, tokens[start + 6]],
                table[start + 7, tokens[start + 7]],
            )
            for word in range(num_words):
                ones, twos_a = _add(digits[0, word], t0[word], t1[word])
                ones, twos_b = _add(ones, t2[word], t3[word])
                twos, fours_a = _add(digits[1, word], twos_a, twos_b)
                ones, twos_a = _add(ones, t4[word], t5[word])
                ones, twos_b = _add(ones, t6[word], t7[word])
                twos, fours_b = _add(twos, twos_a, twos_b)
                fours, carry = _add(digits[2, word], fours_a, fours_b)
                digits[0, word], digits[1, word], digits[2, word] = ones, twos, fours
                carries[word] = carry
            for digit in range(3, num_digits):
                for word in range(num_words):
                    higher = digits[digit, word]
                    digits[digit, word] = higher ^ carries[word]
                    carries[word] &= higher
        for number in range(len(assignment)):
            candidates[:] = first_candidates
            assignment[number, row] = _first_of_largest(
                digits, num_digits, number * words, candidates
            )


@compiled(
    numba.int64(
        _COLUMNS, numba.int64[::1], numba.int64[::1], numba.uint8[:, :, ::1], numba.int32[::1]
    )
)
def _count(msa, assignment, token_of_class, flags, counts):
    num_clusters, num_columns, _ = flags.shape
    # Rows sorted by cluster, so that one cluster's counts stay in the nearest cache.
    end = np.zeros(num_clusters + 1, np.int64)
    for cluster in assignment:
        end[cluster + 1] += 1
    for cluster in range(num_clusters):
        end[cluster + 1] += end[cluster]
    begin = end[:-1].copy()
    rows = np.empty(len(assignment), np.int64)
    for row, cluster in enumerate(assignment):
        if cluster >= 0:
            rows[begin[cluster] - end[0]] = row
            begin[cluster] += 1
    of_cluster = np.empty((num_columns, NUM_TOKENS), np.int32)
    num_counts = 0
    for cluster in range(num_clusters):
        of_cluster[:] = 0
        members = rows[end[cluster] - end[0] : end[cluster + 1] - end[0]]
        for row in members:
            for column in range(num_columns):
                of_cluster[column, msa[row, column]] += 1
        for column in range(num_columns if len(members) else 0):
            for kind in range(NUM_TOKENS):
                count = of_cluster[column, token_of_class[kind]]
                if count:
                    counts[num_counts] = count
                    num_counts += 1
                    flags[cluster, column, kind >> 3] |= np.uint8(1 << (kind & 7))
    return num_counts
