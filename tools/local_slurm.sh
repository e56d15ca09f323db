#!/usr/bin/env bash
# Starts a real Slurm cluster of virtual nodes on this machine, to test sbatch and srun.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: tools/local_slurm.sh start DIR [NODES [CPUS_PER_NODE]]
       tools/local_slurm.sh stop DIR

start   creates DIR with the configuration, key, logs and state of the cluster, starts munged,
        slurmctld and one slurmd for each of NODES virtual nodes (default: 2) with CPUS_PER_NODE
        (default: 2), and waits until all are idle. Several clusters can run at once, each in its own DIR. Afterward:
            export SLURM_CONF=DIR/slurm.conf; sinfo
stop    cancels the jobs of the cluster and ends its daemons. DIR with its logs remains.

Needs root and the commands slurmctld, slurmd and munged (Debian: apt-get install slurm-wlm munge).
The nodes are node1, node2, ... Each has its own host name; they share the files, the network and
the processors of the machine.
TEXT
}

fail() {
    printf 'local_slurm.sh: %s\n' "$*" >&2
    exit 2
}

# wait_until SECONDS COMMAND...: repeat a command until it succeeds; false after that time.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.2
    done
}

# daemon NAME COMMAND...: start a command in the background without a terminal, and record it as
# "<pid> <start time> <name>".
daemon() {
    local name="$1"
    shift
    setsid "$@" >"$dir/$name.out" 2>&1 </dev/null &
    echo "$! $(start_time "$!") $name" >>"$daemons"
}

# start_time PID: start time of a process, which identifies it together with its reusable pid.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

is_alive() { [ -n "$2" ] && [ "$(start_time "$1")" = "$2" ]; }
is_gone() { ! is_alive "$@"; }

# choose_slot: choose a free range of ports by the name of DIR, so that clusters use different ones.
choose_slot() {
    local slot offset
    slot=$(($(printf '%s' "$dir" | cksum | cut -d ' ' -f 1) % SLOTS))
    for ((offset = 0; offset < SLOTS; offset++)); do
        port=$((FIRST_PORT + PORTS_PER_SLOT * ((slot + offset) % SLOTS)))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            # Jobs derive the port of the rendezvous from the job number.
            first_job=$((1 + JOBS_PER_SLOT * ((slot + offset) % SLOTS)))
            return
        fi
    done
    fail "all ports from $FIRST_PORT on are taken"
}

write_configuration() {
    local number
    cat >"$dir/slurm.conf" <<CONF
ClusterName=local
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
StateSaveLocation=$dir/state
SlurmctldPidFile=$dir/slurmctld.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdSpoolDir=$dir/spool-%n
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmdLogFile=$dir/slurmd-%n.log
SlurmdParameters=config_overrides
FirstJobId=$first_job
ReturnToService=2
KillWait=30
# No cgroups and no account database, because many containers have neither.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    for ((number = 1; number <= nodes; number++)); do
        echo "NodeName=node$number NodeHostname=node$number NodeAddr=127.0.0.1" \
            "Port=$((port + number)) CPUs=$cpus State=UNKNOWN"
    done >>"$dir/slurm.conf"
    echo "CgroupPlugin=cgroup/v1" >"$dir/cgroup.conf"
    {
        cat /etc/hosts
        for ((number = 1; number <= nodes; number++)); do echo "127.0.0.1 node$number"; done
    } >"$dir/hosts"
}

start_daemons() {
    local number
    install -d -m 755 "$dir/munge"
    install -d -m 700 "$dir/munge/private"
    if ! [ -s "$dir/munge/private/key" ]; then
        (umask 077 && head -c 256 /dev/urandom >"$dir/munge/private/key")
    fi
    # Run as root, because the user munge may have no access to DIR. --force accepts the permissions
    # of the parent folders of DIR.
    daemon munged munged --foreground --force --key-file "$dir/munge/private/key" \
        --socket "$dir/munge/socket" --pid-file "$dir/munge/pid" --log-file "$dir/munge/log" \
        --seed-file "$dir/munge/private/seed"
    wait_until 20 munge --no-input --socket "$dir/munge/socket" ||
        fail "munged does not answer; see $dir/munged.out and $dir/munge/log"
    daemon slurmctld slurmctld -D
    for ((number = 1; number <= nodes; number++)); do
        # shellcheck disable=SC2016  # expanded by the inner shell
        daemon "slurmd-node$number" unshare --uts --mount bash -c \
            'hostname "$1" && mount --bind "$2/hosts" /etc/hosts && exec slurmd -D -N "$1"' slurmd "node$number" "$dir"
    done
    wait_until 60 all_idle || fail "the nodes did not become idle; see $dir/*.log and $dir/*.out"
}

all_idle() { [ "$(sinfo --noheader --Node --states=idle --format=%N | sort -u | wc -l)" -eq "$nodes" ]; }
is_empty() { [ -z "$(squeue --noheader)" ]; }

start() {
    local command
    [ "$(id -u)" -eq 0 ] || fail "found user $(id -un); slurmd and the nodes' host names need root"
    for command in munged munge slurmctld slurmd unshare; do
        command -v "$command" >/dev/null || fail "$command is missing (Debian: apt-get install slurm-wlm munge)"
    done
    [ ! -e "$daemons" ] || fail "a cluster was started in $dir already; stop it first: $0 stop $dir"
    mkdir -p "$dir/state"
    choose_slot
    write_configuration
    trap give_up EXIT
    start_daemons
    trap - EXIT
    echo "export SLURM_CONF=$dir/slurm.conf"
}

give_up() {
    tail -n 3 "$dir"/*.log "$dir"/*.out >&2 || true
    stop
}

stop() {
    local pid started name
    [ -e "$daemons" ] || return 0
    if ! is_empty 2>/dev/null; then
        scancel --partition=main || true
        wait_until 30 is_empty || true
    fi
    while read -r pid started name; do
        if is_alive "$pid" "$started"; then
            kill -TERM "$pid"
            wait_until 20 is_gone "$pid" "$started" || {
                echo "local_slurm.sh: $name does not end by SIGTERM; ending it by SIGKILL" >&2
                kill -KILL "$pid" || true
            }
        fi
    done < <(tac "$daemons")
    rm -f "$daemons"
}

readonly SLOTS=50 FIRST_PORT=10000 PORTS_PER_SLOT=40 JOBS_PER_SLOT=70
case "${1:-}" in
start | stop) verb="$1" ;;
-h | --help)
    usage
    exit 0
    ;;
*)
    usage >&2
    exit 2
    ;;
esac
[ $# -ge 2 ] || fail "$verb needs a directory; see --help"
dir="$(realpath -m "$2")"
# slurm.conf cannot quote these characters.
[[ "$dir" != *[[:space:]#]* ]] ||
    fail "found a space or # in $dir; expected a directory without them, as slurm.conf cannot name it"
nodes="${3:-2}"
cpus="${4:-2}"
for number in "$nodes" "$cpus"; do
    [[ "$number" =~ ^[1-9][0-9]?$ ]] || fail "found $number; expected 1 to 99 nodes and processors"
done
[ "$nodes" -lt "$PORTS_PER_SLOT" ] || fail "at most $((PORTS_PER_SLOT - 1)) nodes"
daemons="$dir/daemons"
export SLURM_CONF="$dir/slurm.conf"
"$verb"
