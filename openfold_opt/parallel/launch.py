"""Rank and world size of this process, read from the environment of torchrun or srun."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from openfold_opt.parallel.hostlist import unpack_host_list

MAX_PORT = 65535
OWN_ADDRESS = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class LaunchInfo:
    """Ranks of a process in the world and on its node, and the rendezvous address."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Rank on the node, which is also the index of the GPU."""
    ranks_per_node: int = 1
    master_address: str = OWN_ADDRESS
    master_port: int = 29500
    has_store: bool = False
    """Whether the launcher (torchrun) hosts a store at this address, so that no rank has to."""
    attempt: int = 0
    """Number of times that the launcher has restarted the ranks (torchrun --max-restarts)."""

    @property
    def number_of_nodes(self) -> int:
        """Number of nodes; all have the same number of ranks."""
        return -(-self.world_size // self.ranks_per_node)


def read_launch_info(environment: Mapping[str, str] | None = None) -> LaunchInfo:
    """Read the launch from the variables of torchrun (RANK, ...), else of srun (SLURM_*).

    Without either, return the launch of a single process.

    Args:
        environment: variables by name; None uses those of this process.

    Raises:
        ValueError: the environment is incomplete or inconsistent.
    """
    env = os.environ if environment is None else environment
    if "RANK" in env or "WORLD_SIZE" in env:
        info = _from_torchrun(env)
    elif "SLURM_PROCID" in env and "SLURM_STEP_ID" in env and "SLURM_NTASKS" in env:
        info = _from_slurm(env)
    else:
        info = LaunchInfo()
    if not (0 <= info.rank < info.world_size and 0 <= info.local_rank < info.ranks_per_node):
        raise ValueError(
            f"launch environment is inconsistent: rank {info.rank} of {info.world_size}, local "
            f"rank {info.local_rank} of {info.ranks_per_node}; start all ranks with torchrun or "
            "srun"
        )
    if info.ranks_per_node > info.world_size:
        raise ValueError(
            f"launch environment is inconsistent: {info.ranks_per_node} ranks on a node, "
            f"{info.world_size} in all; start all ranks with torchrun or srun"
        )
    if not info.master_address:
        if info.number_of_nodes > 1:
            raise ValueError(
                f"launch environment has {info.number_of_nodes} nodes and does not name the host "
                "of the first rank; set MASTER_ADDR to it"
            )
        info = replace(info, master_address=OWN_ADDRESS)
    if not 1 <= info.master_port <= MAX_PORT:
        raise ValueError(
            f"launch environment has MASTER_PORT={info.master_port}; expected 1 to {MAX_PORT}"
        )
    return info


def _from_torchrun(env: Mapping[str, str]) -> LaunchInfo:
    world_size = _integer(env, "WORLD_SIZE")
    return LaunchInfo(
        rank=_integer(env, "RANK"),
        world_size=world_size,
        local_rank=_integer(env, "LOCAL_RANK"),
        ranks_per_node=_integer(env, "LOCAL_WORLD_SIZE", default=world_size),
        master_address=env.get("MASTER_ADDR", ""),
        master_port=_integer(env, "MASTER_PORT", default=29500),
        has_store=env.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=_integer(env, "TORCHELASTIC_RESTART_COUNT", default=0),
    )


def _from_slurm(env: Mapping[str, str]) -> LaunchInfo:
    world_size = _integer(env, "SLURM_NTASKS")
    num_nodes = _integer(env, "SLURM_NNODES", default=1)
    if world_size % num_nodes:
        raise ValueError(
            f"srun started {world_size} tasks on {num_nodes} nodes; expected the same number on "
            "each node (set --ntasks-per-node)"
        )
    # Jobs that share a node must use different ports.
    port = 20000 + _integer(env, "SLURM_JOB_ID", default=0) % 30000
    return LaunchInfo(
        rank=_integer(env, "SLURM_PROCID"),
        world_size=world_size,
        local_rank=_integer(env, "SLURM_LOCALID"),
        ranks_per_node=world_size // num_nodes,
        master_address=env.get("MASTER_ADDR") or _first_host(env),
        master_port=_integer(env, "MASTER_PORT", default=port),
    )


def _first_host(env: Mapping[str, str]) -> str:
    """Return the first host name of the job step; empty if Slurm gives no host list."""
    packed = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST")
    if not packed:
        return ""
    try:
        return next(unpack_host_list(packed))
    except ValueError as error:
        raise ValueError(f"{error}; set MASTER_ADDR to the host of the first rank") from error


def _integer(env: Mapping[str, str], name: str, *, default: int | None = None) -> int:
    text = env.get(name)
    if text is None:
        if default is None:
            raise ValueError(
                f"launch environment lacks {name}; start all ranks with torchrun or srun"
            )
        return default
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"launch environment has {name}={text!r}; expected an integer") from None
