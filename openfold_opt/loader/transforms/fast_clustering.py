"""Nearest-neighbor clustering for all passes at once, on stored tokens.

The results equal those of loader.reference.clustering. The alignment is read once, in place and in
storage order. A table of bits replaces the one-hot matrix: each 64-bit word holds one bit for each
of 64 cluster centers, set if the center has that token in that column. Bitwise full adders on these
words count the agreements in all clusters of all passes together. The counts are bit-sliced: one
word holds the same binary digit of 64 counts. The largest count, and the first cluster that has it,
are found digit by digit. A column costs about six logic operations per word, that is per 64
clusters.
"""

from collections.abc import Callable

import numba
import numpy as np
from numba.core.typing import Signature

from openfold_opt.loader.transforms.msa_features import NUM_AGREEING_CLASSES
from openfold_opt.protein.hhblits_alphabet import NUM_TOKENS

WORD_BITS = 64
COLUMNS_PER_BLOCK = 8
"""Columns that `_assign` adds at a time; the table is padded with columns of zeros."""
CLASS_BYTES = 3
"""Bytes that hold one bit for each of 23 classes."""

_TOKENS = numba.types.Array(numba.uint8, 2, "C", readonly=True)
_COLUMNS = numba.types.Array(numba.uint8, 2, "A", readonly=True)
"""Types of whole rows and of a range of columns. Both may be read-only views into a shard."""
_WORD = np.uint64


def compiled(signature: Signature) -> Callable[[Callable], Callable]:
    """Return a decorator that compiles a function for the given argument types on import.

    Compilation thus happens before any timing starts, and forked workers inherit the result. numba
    caches the machine code next to the source file, or in the user's cache folder if that is not
    writable. If neither is writable, every process compiles again. Compiled code does not check
    indices: callers check their input.

    Args:
        signature: numba types, for example numba.void(numba.uint8[:, ::1]).
    """

    def compile_now(function: Callable) -> Callable:
        try:
            return numba.njit(signature, cache=True)(function)
        except (RuntimeError, OSError):
            # numba found no writable cache folder, or the one that it found is full.
            return numba.njit(signature)(function)

    return compile_now


def assign_rows(msa: np.ndarray, centers: np.ndarray, class_of_token: np.ndarray) -> np.ndarray:
    """Return, for each pass and row, the cluster center that agrees with it in the most columns.

    Ties go to the first center.

    Args:
        msa: uint8 [N_seq, N_res], tokens 0..21.
        centers: uint8 [num_passes, N_clust, N_res], classes 0..22 (masked); gaps (21) and masks
            (22) agree with nothing.
        class_of_token: uint8 [22].

    Returns:
        int64 [num_passes, N_seq], 0 .. N_clust - 1; the values of rows that are centers are
        meaningless.
    """
    num_passes, num_clusters, num_res = centers.shape
    num_columns = -(-num_res // COLUMNS_PER_BLOCK) * COLUMNS_PER_BLOCK
    words_per_pass = -(-num_clusters // WORD_BITS)
    table = np.zeros((num_columns, NUM_TOKENS, num_passes * words_per_pass), np.uint64)
    token_of_class = np.argsort(class_of_token)
    _fill_table(np.ascontiguousarray(centers), token_of_class, words_per_pass, table)
    # A bit for each cluster. The bits of the last word beyond the number of clusters stay 0.
    candidates = np.full(words_per_pass, ~np.uint64(0))
    candidates[-1] >>= np.uint64(words_per_pass * WORD_BITS - num_clusters)
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
    """Count the classes of the members of each cluster and column, as input to cluster profiles.

    Args:
        msa: uint8 [N_seq, N_res], tokens 0..21.
        assignment: int64 [N_seq], the cluster of each row; -1 marks a center, which is not counted.
        num_clusters: N_clust.
        crop: columns to count.
        class_of_token: uint8 [22].

    Returns:
        uint8 [N_clust, stop - start, 3]: bit c % 8 of byte c // 8 is set where class c occurs;
        int32 [num_counts]: the counts of the set bits, in their order.
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
    """Add three words with a bitwise full adder; return the sum bits and the carry bits."""
    half_sum = a ^ b
    return half_sum ^ c, (a & b) | (half_sum & c)


@numba.njit(inline="always")
def _lowest_bit(word):
    """Return the index of the lowest set bit of a nonzero word."""
    number = 0
    for step in (32, 16, 8, 4, 2, 1):
        if word & ((_WORD(1) << _WORD(step)) - _WORD(1)) == _WORD(0):
            word >>= _WORD(step)
            number += step
    return number


@numba.njit(inline="always")
def _first_of_largest(digits, num_digits, offset, candidates):
    """Return the first cluster with the largest count.

    `digits` [num_digits, words of all passes] are bit-sliced counts; `offset` is the first word of
    the pass. `candidates` has one bit for each cluster and is overwritten.
    """
    for digit in range(num_digits - 1, -1, -1):
        any_set = _WORD(0)
        for word in range(len(candidates)):
            any_set |= candidates[word] & digits[digit, offset + word]
        if any_set != _WORD(0):
            for word in range(len(candidates)):
                candidates[word] &= digits[digit, offset + word]
    word = 0
    while candidates[word] == _WORD(0):
        word += 1
    return WORD_BITS * word + _lowest_bit(candidates[word])


@compiled(
    numba.void(numba.uint8[:, :, ::1], numba.int64[::1], numba.int64, numba.uint64[:, :, ::1])
)
def _fill_table(centers, token_of_class, words_per_pass, table):
    """Set the bits of the output `table` [columns, tokens, words of all passes]."""
    num_passes, num_clusters, num_res = centers.shape
    for pass_index in range(num_passes):
        for cluster in range(num_clusters):
            bit = _WORD(1) << _WORD(cluster % WORD_BITS)
            word = pass_index * words_per_pass + cluster // WORD_BITS
            for column in range(num_res):
                residue_class = centers[pass_index, cluster, column]
                if residue_class < NUM_AGREEING_CLASSES:
                    table[column, token_of_class[residue_class], word] |= bit


@compiled(
    numba.void(
        _TOKENS, numba.uint64[:, :, ::1], numba.uint64[::1], numba.int64, numba.int64[:, ::1]
    )
)
def _assign(msa, table, all_clusters, num_digits, assignment):
    """Write the best cluster of each pass and row to the output `assignment`."""
    num_rows, num_res = msa.shape
    num_columns, _, num_words = table.shape
    words_per_pass = len(all_clusters)
    # The adders of a block of eight columns write three digits.
    digits = np.zeros((max(num_digits, 3), num_words), np.uint64)
    tokens = np.zeros(num_columns, np.uint8)
    candidates = np.empty(words_per_pass, np.uint64)
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
        for pass_index in range(len(assignment)):
            candidates[:] = all_clusters
            assignment[pass_index, row] = _first_of_largest(
                digits, num_digits, pass_index * words_per_pass, candidates
            )


@compiled(
    numba.int64(
        _COLUMNS, numba.int64[::1], numba.int64[::1], numba.uint8[:, :, ::1], numba.int32[::1]
    )
)
def _count(msa, assignment, token_of_class, flags, counts):
    """Fill the outputs `flags` and `counts` of count_members, and return the number of counts."""
    num_clusters, num_columns, _ = flags.shape
    # Rows are sorted by cluster, so that the counts of a cluster stay in the L1 cache. Centers have
    # the cluster -1 and are counted in end[0]. The rows of cluster c are end[c] to end[c + 1], both
    # minus end[0].
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
            for residue_class in range(NUM_TOKENS):
                count = of_cluster[column, token_of_class[residue_class]]
                if count:
                    counts[num_counts] = count
                    num_counts += 1
                    bit = np.uint8(1 << (residue_class & 7))
                    flags[cluster, column, residue_class >> 3] |= bit
    return num_counts
