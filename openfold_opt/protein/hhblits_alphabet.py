"""The alphabet of stored alignments: one uint8 token per letter, in the order of HHblits.

Tokens 0-19 are the twenty amino acids in alphabetical order of their letters, 20 is unknown (X) and
21 is a gap. B, Z and U map to the amino acids D, E and C; J and O map to unknown.
`residue_constants.hhblits_to_model_order` maps these tokens to the model's residue types.
"""

from __future__ import annotations

import numpy as np

LETTERS = "ACDEFGHIKLMNPQRSTVWYX-"
NUM_TOKENS = len(LETTERS)
UNKNOWN_TOKEN = 20
GAP_TOKEN = 21

INSERTION_CODE = 254
"""Value of lower-case letters in `byte_to_token`: insertions, which have no token."""
ILLEGAL_CODE = 255
"""Value in `byte_to_token` of bytes that are not allowed in an alignment."""


def _byte_table() -> np.ndarray:
    table = np.full(256, ILLEGAL_CODE, dtype=np.uint8)
    for token, letter in enumerate(LETTERS):
        table[ord(letter)] = token
    for letter, same_as in {"B": "D", "Z": "E", "U": "C", "J": "X", "O": "X"}.items():
        table[ord(letter)] = LETTERS.index(same_as)
    table[ord("a") : ord("z") + 1] = INSERTION_CODE
    table.setflags(write=False)
    return table


byte_to_token = _byte_table()
"""uint8 [256]: token of each byte, or INSERTION_CODE, or ILLEGAL_CODE."""


def sequence_to_tokens(sequence: str) -> np.ndarray:
    """Return the tokens of a sequence of upper-case letters: uint8 [N_res].

    Raises:
        ValueError: The sequence has a character without a token.
    """
    tokens = byte_to_token[np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)]
    if np.any(tokens >= NUM_TOKENS):
        position = int(np.argmax(tokens >= NUM_TOKENS))
        raise ValueError(
            f"sequence has {sequence[position]!r} at position {position + 1}; "
            "expected upper-case letters only"
        )
    return tokens
