"""Expansion of Slurm host lists."""

import pytest

from openfold_opt.parallel.hostlist import unpack_host_list


@pytest.mark.parametrize(
    ("packed", "hosts"),
    [
        ("node1", "node1"),
        ("node7,node8", "node7 node8"),
        ("node[01-02]", "node01 node02"),
        ("node[01-04,7]", "node01 node02 node03 node04 node7"),
        ("node[8-11]", "node8 node9 node10 node11"),
        ("node[098-101]", "node098 node099 node100 node101"),
        ("node[5]", "node5"),
        ("a[1-2]b[3-4]", "a1b3 a1b4 a2b3 a2b4"),
        ("gpu[1-2]-ib0", "gpu1-ib0 gpu2-ib0"),
        (
            "login,c[1,3]n[08-09].cluster.org,x9",
            "login c1n08.cluster.org c1n09.cluster.org c3n08.cluster.org c3n09.cluster.org x9",
        ),
        ("nid[000012-000013,000020],nid000100", "nid000012 nid000013 nid000020 nid000100"),
        ("[10-11]", "10 11"),
        ("r[1-2][3-4]", "r13 r14 r23 r24"),
        ("127.0.0.1", "127.0.0.1"),
        ("node[01-02]\n", "node01 node02"),
    ],
)
def test_host_lists_are_expanded(packed, hosts):
    assert list(unpack_host_list(packed)) == hosts.split()


def test_the_first_host_of_a_huge_list_is_returned_immediately():
    assert next(unpack_host_list("a[0001-9999]b[0001-9999]")) == "a0001b0001"


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        ("n[1-99999999999]", "has more than 65,536 hosts"),
        ("", "empty entry"),
        ("node1,,node2", "empty entry"),
        ("node1, node2", "a space"),
        ("node[1-2", "do not match"),
        ("node1-2]", "do not match"),
        ("node[[1-2]]", "do not match"),
        ("node[]", "neither a number nor a range"),
        ("node[1-]", "neither a number nor a range"),
        ("node[a-c]", "neither a number nor a range"),
        ("bp[000x133]", "neither a number nor a range"),
        ("node[4-2]", "runs backwards"),
    ],
)
def test_an_invalid_host_list_is_an_error(packed, message):
    with pytest.raises(ValueError, match=message):
        list(unpack_host_list(packed))
