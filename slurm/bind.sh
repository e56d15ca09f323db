#!/usr/bin/env bash
# slurm/bind.sh COMMAND...: run a command on the processors and memory nearest to the GPU of this
# rank.
#
# Ranks whose GPUs are attached to the same NUMA node share its cores evenly; without GPUs the ranks
# share all cores. All hardware threads of a core go to the same rank. Only processors that Slurm
# assigned to this task are used. NCCL_IB_HCA is set to the network adapters nearest to the GPUs of
# the node, the same on every rank, so that NCCL does not use those for storage and management; NCCL
# chooses the adapter of each GPU. NCCL_IB_HCA and BIND=none take precedence.
#
# BIND_SYSFS replaces /sys in tests.
set -euo pipefail

sysfs="${BIND_SYSFS:-/sys}"

# numbers LIST: expand 0-2,5 to 0 1 2 5, one per line
numbers() {
    local part
    for part in ${1//,/ }; do seq "${part%-*}" "${part#*-}"; done
}

# pci_path ADDRESS: print the path of bridges to a device, which determines distances
pci_path() { readlink -f "$sysfs/bus/pci/devices/$1"; }

# gpu_addresses: print the PCI addresses of the GPUs of this task in the order of CUDA
gpu_addresses() {
    command -v nvidia-smi >/dev/null || return 0
    local all visible number
    all="$(nvidia-smi --query-gpu=index,pci.bus_id --format=csv,noheader 2>/dev/null |
        tr 'A-F' 'a-f' | tr -d ' ')" || return 0
    visible="${CUDA_VISIBLE_DEVICES:-$(cut -d , -f 1 <<<"$all" | paste -s -d ,)}"
    for number in ${visible//,/ }; do
        # nvidia-smi prints eight digits of the domain, sysfs four.
        awk -F , -v number="$number" '$1 == number { print substr($2, length($2) - 11) }' <<<"$all"
    done
}

# numa_node ADDRESS: print the NUMA node of a device, or -1 if it is unknown
numa_node() { cat "$sysfs/bus/pci/devices/$1/numa_node" 2>/dev/null || echo -1; }

# cores LIST: print a line per core with its processors that are in the list
cores() {
    local cpu
    for cpu in $(numbers "$1"); do
        echo "$(cat "$sysfs/devices/system/cpu/cpu$cpu/topology/thread_siblings_list" 2>/dev/null ||
            echo "$cpu") $cpu"
    done | awk '{ if (!($1 in cpus)) order[++count] = $1
                  cpus[$1] = cpus[$1] (cpus[$1] == "" ? "" : ",") $2 }
                END { for (i = 1; i <= count; i++) print cpus[order[i]] }'
}

# share LIST INDEX NUMBER: divide the cores into NUMBER equal parts, and print part INDEX (from 0)
share() {
    local all count
    mapfile -t all < <(cores "$1")
    count=${#all[@]}
    # With more ranks than cores, several ranks share a core.
    if [ "$count" -lt "$3" ]; then
        echo "${all[$(($2 % count))]}"
        return
    fi
    printf '%s\n' "${all[@]:$((count * $2 / $3)):$((count * ($2 + 1) / $3 - count * $2 / $3))}" |
        paste -s -d ,
}

# both LIST LIST: print the common numbers of two lists, sorted
both() { comm -12 <(numbers "$1" | sort) <(numbers "$2" | sort) | sort -n | paste -s -d ,; }

# nearness PATH PATH: print the number of bridges that two devices have in common
nearness() {
    local first second count=0
    IFS=/ read -r -a first <<<"$1"
    IFS=/ read -r -a second <<<"$2"
    while [ "$count" -lt "${#first[@]}" ] && [ "${first[$count]}" = "${second[$count]:-}" ]; do
        count=$((count + 1))
    done
    echo "$count"
}

# near_adapters ADDRESS...: print the active InfiniBand and RoCE adapters that are nearest to any of
# these GPUs
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

index="${SLURM_LOCALID:-0}"
num_ranks="${RANKS_PER_NODE:-1}"
# BIND_ALLOWED replaces the list of the kernel in tests.
allowed="${BIND_ALLOWED:-$(awk '$1 == "Cpus_allowed_list:" { print $2 }' /proc/self/status)}"
memory=-1
mapfile -t gpus < <(gpu_addresses)
if [ "${#gpus[@]}" -gt 0 ]; then
    # The order of nvidia-smi.
    export CUDA_DEVICE_ORDER=PCI_BUS_ID
    own="${gpus[$((index % ${#gpus[@]}))]}"
    memory="$(numa_node "$own")"
    if [ "$memory" -ge 0 ]; then
        near="$(both "$allowed" "$(cat "$sysfs/devices/system/node/node$memory/cpulist")")"
        if [ -n "$near" ]; then
            allowed="$near"
            # Count the ranks on this NUMA node, and those of them before this rank.
            before=0 count=0
            for ((rank = 0; rank < num_ranks; rank++)); do
                [ "$(numa_node "${gpus[$((rank % ${#gpus[@]}))]}")" = "$memory" ] || continue
                [ "$rank" -ge "$index" ] || before=$((before + 1))
                count=$((count + 1))
            done
            index="$before" num_ranks="$count"
        fi
    fi
    if [ -z "${NCCL_IB_HCA:-}" ]; then
        adapters="$(near_adapters "${gpus[@]}")"
        # "=" requires the whole name: mlx5_1 does not match mlx5_10.
        [ -z "$adapters" ] || export NCCL_IB_HCA="=$adapters"
    fi
fi
cpus="$(share "$allowed" "$index" "$num_ranks")"
binding=(taskset --cpu-list "$cpus")
if [ "$memory" -ge 0 ] && command -v numactl >/dev/null; then
    binding=(numactl "--physcpubind=$cpus" "--preferred=$memory")
fi
echo "[bind] $(hostname) task ${SLURM_LOCALID:-0}: processors $cpus, memory node $memory," \
    "adapters ${NCCL_IB_HCA:-as NCCL chooses}" >&2
exec "${binding[@]}" "$@"
