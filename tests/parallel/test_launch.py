"""Reading of the launch from the environment of torchrun and srun."""

import pytest

from openfold_opt.parallel.launch import LaunchInfo, read_launch_info

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29400",
}
SRUN = {
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_NNODES": "2",
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_ID": "123",
    "SLURM_STEP_NODELIST": "node7,node8",
}


def test_an_empty_environment_is_one_process():
    assert read_launch_info({}) == LaunchInfo()


def test_torchrun_environment_is_read():
    info = read_launch_info(TORCHRUN)
    assert (info.rank, info.world_size, info.local_rank, info.ranks_per_node) == (5, 8, 1, 4)
    assert (info.master_address, info.master_port, info.number_of_nodes) == ("node1", 29400, 2)


def test_srun_environment_is_read():
    info = read_launch_info(SRUN)
    assert (info.rank, info.world_size, info.local_rank, info.ranks_per_node) == (3, 4, 1, 2)
    assert (info.master_address, info.number_of_nodes) == ("node7", 2)
    assert 20000 <= info.master_port < 50000
    assert read_launch_info(SRUN | {"SLURM_JOB_ID": "124"}).master_port != info.master_port


def test_an_allocation_without_srun_is_one_process():
    assert (
        read_launch_info({name: value for name, value in SRUN.items() if name != "SLURM_STEP_ID"})
        == LaunchInfo()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"RANK": "x"}, "RANK='x'; expected an integer"),
        ({"RANK": "8"}, "rank 8 of 8"),
        ({"LOCAL_RANK": "4"}, "local rank 4 of 4"),
        ({"MASTER_PORT": "ssh"}, "MASTER_PORT='ssh'; expected an integer"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT=0; expected 1 to 65535"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT=70000; expected 1 to 65535"),
        (
            {"MASTER_ADDR": ""},
            "2 nodes and does not name the host of the first rank; set MASTER_ADDR",
        ),
        ({"LOCAL_WORLD_SIZE": "9"}, "9 ranks on a node, 8 in all"),
    ],
)
def test_an_invalid_environment_is_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        read_launch_info(TORCHRUN | change)


def test_a_missing_variable_is_named():
    with pytest.raises(ValueError, match="lacks LOCAL_RANK"):
        read_launch_info({"RANK": "0", "WORLD_SIZE": "1"})


def test_uneven_nodes_are_an_error():
    with pytest.raises(ValueError, match="5 tasks on 2 nodes"):
        read_launch_info(SRUN | {"SLURM_NTASKS": "5"})


@pytest.mark.parametrize("names", ["", None])
def test_several_nodes_without_a_host_list_ask_for_the_address(names):
    """Each node would wait for itself."""
    env = {name: value for name, value in SRUN.items() if name != "SLURM_STEP_NODELIST"}
    env |= {} if names is None else {"SLURM_STEP_NODELIST": names}
    with pytest.raises(
        ValueError, match="2 nodes and does not name the host of the first rank; set MASTER_ADDR"
    ):
        read_launch_info(env)
    assert read_launch_info(env | {"SLURM_NNODES": "1"}).master_address == "127.0.0.1"
    assert read_launch_info(env | {"MASTER_ADDR": "node7"}).master_address == "node7"


def test_one_node_needs_no_address():
    env = {name: value for name, value in TORCHRUN.items() if name != "MASTER_ADDR"}
    assert read_launch_info(env | {"LOCAL_WORLD_SIZE": "8"}).master_address == "127.0.0.1"
    with pytest.raises(ValueError, match="set MASTER_ADDR"):
        read_launch_info(env)


def test_srun_environment_is_read_without_scontrol(monkeypatch):
    """Containers may not contain scontrol, so the package expands the host list itself."""
    monkeypatch.setenv("PATH", "")
    info = read_launch_info(SRUN | {"SLURM_STEP_NODELIST": "node[01-02]"})
    assert info.master_address == "node01"


def test_the_error_of_an_invalid_host_list_names_master_addr():
    with pytest.raises(ValueError, match=r"000x133.*set MASTER_ADDR"):
        read_launch_info(SRUN | {"SLURM_STEP_NODELIST": "bp[000x133]"})
    assert (
        read_launch_info(
            SRUN | {"SLURM_STEP_NODELIST": "bp[000x133]", "MASTER_ADDR": "bp0"}
        ).master_address
        == "bp0"
    )
