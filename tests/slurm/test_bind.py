"""bind.sh on fake machines: a folder in place of /sys, and a program in place of nvidia-smi."""

import os
import pathlib
import subprocess

import pytest

BIND = pathlib.Path(__file__).resolve().parents[2] / "slurm/bind.sh"


class Machine:
    """A machine of two sockets with eight cores of two hardware threads each."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.sys, self.bin = folder / "sys", folder / "bin"
        self.bin.mkdir()
        self.gpus: list[str] = []
        for cpu in range(32):
            topology = self.sys / f"devices/system/cpu/cpu{cpu}/topology"
            topology.mkdir(parents=True)
            (topology / "thread_siblings_list").write_text(f"{cpu % 16},{cpu % 16 + 16}\n")
        for node, cpus in enumerate(("0-7,16-23", "8-15,24-31")):
            folder = self.sys / f"devices/system/node/node{node}"
            folder.mkdir(parents=True)
            (folder / "cpulist").write_text(cpus + "\n")
        (self.sys / "bus/pci/devices").mkdir(parents=True)
        (self.sys / "class/infiniband").mkdir(parents=True)
        # They replace the real programs, so that the test does not depend on this machine.
        for name in ("taskset", "numactl"):
            self._program(name, f'echo "{name} $*"; echo "$NCCL_IB_HCA"')

    def _program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def _device(self, bridges: str, address: str, node: int) -> pathlib.Path:
        folder = self.sys / "devices" / bridges / address
        folder.mkdir(parents=True)
        (folder / "numa_node").write_text(f"{node}\n")
        (self.sys / "bus/pci/devices" / address).symlink_to(folder)
        return folder

    def add_gpu(self, bridges: str, address: str, node: int) -> None:
        self._device(bridges, address, node)
        self.gpus.append(f"{len(self.gpus)}, 0000{address.upper()}")
        self._program("nvidia-smi", "cat <<END\n" + "\n".join(self.gpus) + "\nEND")

    def add_adapter(
        self, name: str, bridges: str, address: str, *, state: str = "4: ACTIVE"
    ) -> None:
        folder = self.sys / "class/infiniband" / name
        (folder / "ports/1").mkdir(parents=True)
        (folder / "ports/1/state").write_text(state + "\n")
        (folder / "device").symlink_to(self._device(bridges, address, 0))

    def bind(self, index: int, ranks: int, **environment: str) -> list[str]:
        """Return the command line of the binding, and the value of NCCL_IB_HCA."""
        environment = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "BIND_SYSFS": str(self.sys),
            "BIND_ALLOWED": "0-31",
            "SLURM_LOCALID": str(index),
            "RANKS_PER_NODE": str(ranks),
        } | environment
        shown = subprocess.run([BIND, "true"], env=environment, capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        return shown.stdout.splitlines()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.fixture
def gpu_machine(machine):
    for number in range(4):
        socket = number // 2
        machine.add_gpu(
            f"pci0000:0{socket}/0000:0{socket}:0{number}.0", f"0000:{number + 1}b:00.0", socket
        )
    return machine


def test_ranks_without_gpus_share_whole_cores(machine):
    assert machine.bind(0, 4)[0] == "taskset --cpu-list 0,16,1,17,2,18,3,19 true"
    assert machine.bind(3, 4)[0] == "taskset --cpu-list 12,28,13,29,14,30,15,31 true"


def test_uneven_shares_use_all_cores(machine):
    cpus = [machine.bind(index, 3)[0].split()[2].split(",") for index in range(3)]
    assert sorted(int(cpu) for share in cpus for cpu in share) == list(range(32))


def test_more_ranks_than_cores_share_them(machine):
    assert machine.bind(2, 3, BIND_ALLOWED="5,21")[0] == "taskset --cpu-list 5,21 true"


def test_ranks_stay_on_the_socket_of_their_gpu(gpu_machine):
    expected = [
        "0,16,1,17,2,18,3,19",
        "4,20,5,21,6,22,7,23",
        "8,24,9,25,10,26,11,27",
        "12,28,13,29,14,30,15,31",
    ]
    for index, cpus in enumerate(expected):
        assert (
            gpu_machine.bind(index, 4)[0]
            == f"numactl --physcpubind={cpus} --preferred={index // 2} true"
        )


def test_only_processors_of_the_task_are_used(gpu_machine):
    assert (
        gpu_machine.bind(2, 4, BIND_ALLOWED="8-11")[0]
        == "numactl --physcpubind=8,9 --preferred=1 true"
    )


def test_visible_devices_decide_which_gpu_a_rank_has(gpu_machine):
    assert "--preferred=1" in gpu_machine.bind(0, 2, CUDA_VISIBLE_DEVICES="3,0")[0]
    assert "--preferred=0" in gpu_machine.bind(1, 2, CUDA_VISIBLE_DEVICES="3,0")[0]


def test_only_the_adapters_nearest_to_the_gpus_are_named(gpu_machine):
    for number in range(4):
        gpu_machine.add_adapter(
            f"mlx5_{number}",
            f"pci0000:0{number // 2}/0000:0{number // 2}:0{number}.0",
            f"0000:{number + 1}c:00.0",
        )
    gpu_machine.add_adapter("mlx5_10", "pci0000:07", "0000:7c:00.0")
    assert [gpu_machine.bind(index, 4)[1] for index in range(4)] == [
        "=mlx5_0,mlx5_1,mlx5_2,mlx5_3"
    ] * 4


def test_adapter_that_is_down_is_skipped(gpu_machine):
    gpu_machine.add_adapter("mlx5_0", "pci0000:00/0000:00:00.0", "0000:1c:00.0", state="1: DOWN")
    gpu_machine.add_adapter("mlx5_1", "pci0000:07", "0000:7c:00.0")
    assert gpu_machine.bind(0, 4)[1] == "=mlx5_1"


def test_a_given_ib_hca_is_kept(gpu_machine):
    gpu_machine.add_adapter("mlx5_0", "pci0000:00/0000:00:00.0", "0000:1c:00.0")
    assert gpu_machine.bind(0, 4, NCCL_IB_HCA="bond0")[1] == "bond0"


def test_machine_without_memory_nodes(machine):
    machine.add_gpu("pci0000:00", "0000:1b:00.0", -1)
    assert machine.bind(1, 2)[0].startswith("taskset --cpu-list 8,24")


def test_binding_can_be_switched_off_and_a_wrong_value_is_refused(machine):
    environment = {"PATH": os.environ["PATH"]}
    shown = subprocess.run(
        [BIND, "echo", "done"], env=environment | {"BIND": "none"}, capture_output=True, text=True
    )
    assert (shown.stdout, shown.stderr) == ("done\n", "")
    shown = subprocess.run(
        [BIND, "true"], env=environment | {"BIND": "gpu"}, capture_output=True, text=True
    )
    assert shown.returncode == 2 and "expected topology or none" in shown.stderr
