#!/usr/bin/env bash
# slurm/bind.sh COMMAND...: the command, on the processors and memory nearest to this rank's GPU.
#
# Ranks whose GPUs hang on the same NUMA node share its cores evenly; without GPUs the ranks share all. A core stays whole: its
# hardware threads go to one rank. Only processors that Slurm has given to this task are used. NCCL is told the network adapters
# nearest to the node's GPUs, all of them on every rank, so that it leaves out those for storage and management; which of them a
# GPU uses NCCL finds by itself. NCCL_IB_HCA and BIND=none overrule it.
#
# BIND_SYSFS stands for /sys.
set -euo pipefail

sysfs="${BIND_SYSFS:-/sys}"

# numbers LIST: 0-2,5 as 0 1 2 5, one a line
numbers() {
    local part
    for part in ${1//,/ }; do seq "${part%-*}" "${part#*-}"; done
}

# pci_path ADDRESS: the bridges down to a device, by which near and far are told
pci_path() { readlink -f "$sysfs/bus/pci/devices/$1"; }

# gpu_addresses: PCI addresses of the GPUs that this task may use, in the order in which CUDA counts them
gpu_addresses() {
    command -v nvidia-smi >/dev/null || return 0
    local all visible number
    all="$(nvidia-smi --query-gpu=index,pci.bus_id --format=csv,noheader 2>/dev/null | tr 'A-F' 'a-f' | tr -d ' ')" || return 0
    visible="${CUDA_VISIBLE_DEVICES:-$(cut -d , -f 1 <<<"$all" | paste -s -d ,)}"
    for number in ${visible//,/ }; do
        # nvidia-smi writes eight digits of the domain, sysfs four
        awk -F , -v number="$number" '$1 == number { print substr($2, length($2) - 11) }' <<<"$all"
    done
}

# numa_node ADDRESS: -1 where the machine does not tell
numa_node() { cat "$sysfs/bus/pci/devices/$1/numa_node" 2>/dev/null || echo -1; }

# cores LIST: one line for each core that has processors in the list: these processors
cores() {
    local cpu
    for cpu in $(numbers "$1"); do
        echo "$(cat "$sysfs/devices/system/cpu/cpu$cpu/topology/thread_siblings_list" 2>/dev/null || echo "$cpu") $cpu"
    done | awk '{ if (!($1 in cpus)) order[++count] = $1; cpus[$1] = cpus[$1] (cpus[$1] == "" ? "" : ",") $2 }
                END { for (i = 1; i <= count; i++) print cpus[order[i]] }'
}

# share LIST PLACE SHARERS: the PLACEth (from 0) of equal parts of the cores
share() {
    local all count
    mapfile -t all < <(cores "$1")
    count=${#all[@]}
    # more ranks than cores: several on one
    if [ "$count" -lt "$3" ]; then
        echo "${all[$(($2 % count))]}"
        return
    fi
    printf '%s\n' "${all[@]:$((count * $2 / $3)):$((count * ($2 + 1) / $3 - count * $2 / $3))}" | paste -s -d ,
}

# both LIST LIST: what is in both, by number
both() { comm -12 <(numbers "$1" | sort) <(numbers "$2" | sort) | sort -n | paste -s -d ,; }

# nearness PATH PATH: how many bridges two devices have in common
nearness() {
    local first second count=0
    IFS=/ read -r -a first <<<"$1"
    IFS=/ read -r -a second <<<"$2"
    while [ "$count" -lt "${#first[@]}" ] && [ "${first[$count]}" = "${second[$count]:-}" ]; do count=$((count + 1)); done
    echo "$count"
}

# near_adapters ADDRESS...: active InfiniBand and RoCE adapters of which no other is nearer to one of these GPUs
near_adapters() {
    local adapter address near best
    for address in "$@"; do
        best=0
        for adapter in "$sysfs"/class/infiniband/*; do
            grep -qs ACTIVE "$adapter"/ports/*/state || continue
            near="$(nearness "$(pci_path "$address")" "$(readlink -f "$adapter/device")")"
            echo "$near ${adapter##*/}"
        done | sort -rn | while read -r near adapter; do
            [ "$near" -ge "$best" ] || break
            best="$near"
            echo "$adapter"
        done
    done | sort -uV | paste -s -d ,
}

case "${BIND:-topology}" in
topology) ;;
none) exec "$@" ;;
*)
    echo "bind.sh: BIND is '$BIND'; expected topology or none" >&2
    exit 2
    ;;
esac

place="${SLURM_LOCALID:-0}"
sharers="${RANKS_PER_NODE:-1}"
# BIND_ALLOWED stands for what the kernel says
allowed="${BIND_ALLOWED:-$(awk '$1 == "Cpus_allowed_list:" { print $2 }' /proc/self/status)}"
memory=-1
mapfile -t gpus < <(gpu_addresses)
if [ "${#gpus[@]}" -gt 0 ]; then
    # as nvidia-smi counts
    export CUDA_DEVICE_ORDER=PCI_BUS_ID
    own="${gpus[$((place % ${#gpus[@]}))]}"
    memory="$(numa_node "$own")"
    if [ "$memory" -ge 0 ]; then
        near="$(both "$allowed" "$(cat "$sysfs/devices/system/node/node$memory/cpulist")")"
        if [ -n "$near" ]; then
            allowed="$near"
            # of the ranks on this NUMA node, how many come before this one, and how many there are
            before=0 count=0
            for ((rank = 0; rank < sharers; rank++)); do
                [ "$(numa_node "${gpus[$((rank % ${#gpus[@]}))]}")" = "$memory" ] || continue
                [ "$rank" -ge "$place" ] || before=$((before + 1))
                count=$((count + 1))
            done
            place="$before" sharers="$count"
        fi
    fi
    if [ -z "${NCCL_IB_HCA:-}" ]; then
        adapters="$(near_adapters "${gpus[@]}")"
        # "=" wants the whole name: mlx5_1 is not mlx5_10
        [ -z "$adapters" ] || export NCCL_IB_HCA="=$adapters"
    fi
fi
cpus="$(share "$allowed" "$place" "$sharers")"
binding=(taskset --cpu-list "$cpus")
if [ "$memory" -ge 0 ] && command -v numactl >/dev/null; then
    binding=(numactl "--physcpubind=$cpus" "--preferred=$memory")
fi
echo "[bind] $(hostname) task ${SLURM_LOCALID:-0}: processors $cpus, memory node $memory, adapters ${NCCL_IB_HCA:-as NCCL chooses}" >&2
exec "${binding[@]}" "$@"
