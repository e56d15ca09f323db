"""Expansion of Slurm host lists, such as node[01-04,7],gpu[1-2]r[3-4]-ib.

`scontrol` also expands them, but is not available in every container.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_MAX_RANGE = 65_536
"""Largest number of hosts in a range; a typing error must not fill the memory."""


def unpack_host_list(packed: str) -> Iterator[str]:
    """Yield the host names in the order in which Slurm numbers the nodes.

    Entries are separated by commas. An entry contains any number of bracketed groups of numbers and
    ranges, with text before, between and after them. Several groups give all combinations; the last
    group varies fastest. Numbers keep their leading zeros.

    Raises:
        ValueError: `packed` does not have this form.
    """
    for entry in _split_entries(packed):
        parts = re.split(r"\[([^\[\]]*)\]", entry)
        if any("[" in text or "]" in text for text in parts[::2]):
            raise ValueError(f"host list {packed!r}: the brackets of {entry!r} do not match")
        texts = [[text] for text in parts[::2]]
        groups = [_numbers(group, packed) for group in parts[1::2]]
        # Texts and groups alternate. The first and the last item is a text.
        columns = [
            column
            for pair in itertools.zip_longest(texts, groups)
            for column in pair
            if column is not None
        ]
        for names in itertools.product(*columns):
            yield "".join(names)


def _split_entries(packed: str) -> list[str]:
    """Split at the commas outside brackets."""
    entries = re.split(r",(?![^\[]*\])", packed.strip())
    if not all(entry and not re.search(r"\s", entry) for entry in entries):
        raise ValueError(
            f"host list {packed!r} has an empty entry or a space; expected node[01-04,7],other"
        )
    return entries


def _numbers(group: str, packed: str) -> list[str]:
    """Return the numbers of a group: "01-03,7" gives 01, 02, 03, 7."""
    numbers: list[str] = []
    for item in group.split(","):
        match = _RANGE.fullmatch(item)
        if match is None:
            raise ValueError(
                f"host list {packed!r}: {item!r} in brackets is neither a number nor a range"
            )
        first, last = match[1], match[2] or match[1]
        if int(last) < int(first):
            raise ValueError(f"host list {packed!r}: the range {item!r} runs backwards")
        if int(last) - int(first) >= _MAX_RANGE:
            raise ValueError(
                f"host list {packed!r}: the range {item!r} has more than {_MAX_RANGE:,} hosts"
            )
        numbers += [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    return numbers
