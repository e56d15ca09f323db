"""Records of a single chain, without conversion."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.convert.single_chain import check_query, find_templates, read_alignment
from data_prep.convert.template_files import TemplateFiles
from data_prep.errors import BrokenFile, DataPrepError

QUERY = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEV"


def test_record_without_files_is_the_sequence():
    read = read_alignment((), chain_id="q", sequence="ACU", max_rows=9)
    assert read.record.msa.tolist() == [[0, 1, 1]] and read.notes == ()
    assert read.record.token_counts.sum() == 3 and len(read.record.deletion_count) == 0


def test_rows_of_several_files(tmp_path):
    first, second, third = (tmp_path / name for name in ("a.a3m", "b.sto", "c.a3m"))
    first.write_text(f">q\n{QUERY}\n>r\nx{'A' * 32}\n")
    second.write_text(f"# STOCKHOLM 1.0\nq {QUERY}\ns {'C' * 32}\n//\n")
    third.write_text(f">q\n{QUERY}\n>t\n{'D' * 32}\n")
    read = read_alignment([first, second, third], chain_id="q", sequence=QUERY, max_rows=99)
    assert read.record.msa[1:, 0].tolist() == [0, 1, 2] and read.notes == ()
    assert read.record.dense_deletions()[1].tolist() == [1] + [0] * 31
    cut = read_alignment([first, second, third], chain_id="q", sequence=QUERY, max_rows=3)
    assert cut.record.num_sequences == 2, "the third row is the query again"
    assert cut.notes == (
        f"{second}: the alignment has more than 3 rows; the first 3 are used",
        f"{third}: the alignment has more than 3 rows; the first 3 are used",
    )


def test_the_queries_of_all_blocks_are_compared(tmp_path):
    path = tmp_path / "x.a3m"
    path.write_text(f">1\n{'W' * 32}\n\0>2\n{QUERY}\n")
    assert check_query(path, chain_id="q", sequence=QUERY) is None
    with pytest.raises(BrokenFile, match="its query has 32 residues, but chain q has 3"):
        check_query(path, chain_id="q", sequence="ACD")


def test_template_files(tmp_path):
    with pytest.raises(DataPrepError, match="but it does not exist; expected a folder with"):
        TemplateFiles(tmp_path / "nowhere")
    (tmp_path / "1abc.cif").write_text("data_1ABC\n_entry.id 9XYZ\n")
    files = TemplateFiles(tmp_path)
    assert files.release_date("1abc") is None and files.sequences("1abc") == {}
    assert "_entry.id is 9xyz, but the file is named 1abc.cif" in files.problems["1abc"]
    options = {"structures": files, "is_allowed": bool, "max_templates": 0}
    assert find_templates([tmp_path / "not read"], QUERY, **options) == []
    assert np.shape(files.obsolete) == ()
