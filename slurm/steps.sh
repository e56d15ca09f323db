# shellcheck shell=bash
# run.sub sources this file to start commands on the nodes of an instance, with or without a
# container, and to wait for them.

# hosts_of INSTANCE: print the nodes of an instance, separated by commas
hosts_of() {
    local share=$((NODES / INSTANCES))
    scontrol show hostnames "$SLURM_JOB_NODELIST" |
        awk -v first=$((($1 - 1) * share + 1)) -v last=$(($1 * share)) 'NR >= first && NR <= last' | paste -s -d ,
}

# set_container: set container_srun (options of srun) and container_command (prefix of a command)
set_container() {
    local mounts path
    container_srun=() container_command=()
    mounts="$LOGDIR:$LOGDIR,$JOB_DIR:$JOB_DIR"
    [ "$CODE_DIR" != "$OPENFOLD_ROOT" ] || mounts+=",$OPENFOLD_ROOT:$OPENFOLD_ROOT"
    for path in "$DATADIR" "${DISTILLATION_DATADIR:-}" "$INIT_CHECKPOINT"; do [ -z "$path" ] || mounts+=",$path:$path:ro"; done
    [ -z "${CONTAINER_MOUNTS:-}" ] || mounts+=",$CONTAINER_MOUNTS"
    case "$CONTAINER" in
    none) container_srun=("--chdir=$CODE_DIR") ;;
    pyxis)
        # The name makes pyxis unpack the container once for all steps of the job.
        container_srun=("--container-image=$CONTAINER_IMAGE" "--container-name=openfold-$SLURM_JOB_ID"
            "--container-mounts=$mounts" "--container-workdir=$CODE_DIR")
        ;;
    apptainer)
        container_command=(apptainer exec --bind "$mounts" --pwd "$CODE_DIR")
        [ "$GPUS_PER_NODE" -eq 0 ] || container_command+=(--nv)
        container_command+=("$CONTAINER_IMAGE")
        ;;
    *) refuse "CONTAINER is '$CONTAINER'; expected none, pyxis or apptainer" ;;
    esac
    [ "$CONTAINER" = none ] || [ -n "$CONTAINER_IMAGE" ] ||
        refuse "CONTAINER is $CONTAINER, but CONTAINER_IMAGE is empty; name the image"
}

# start_step INSTANCE LOG COMMAND...: start a command in the background on every rank of an
# instance; its process is $!
start_step() {
    local instance="$1" log="$2" share=$((NODES / INSTANCES)) hosts options
    shift 2
    hosts="$(hosts_of "$instance")"
    options=("--nodes=$share" "--ntasks=$((share * RANKS_PER_NODE))"
        "--ntasks-per-node=$RANKS_PER_NODE" "--nodelist=$hosts")
    [ -z "$CPUS_PER_RANK" ] || options+=("--cpus-per-task=$CPUS_PER_RANK")
    # Jobs and instances that share a node need different ports, two for each.
    MASTER_ADDR="${hosts%%,*}" MASTER_PORT=$((20000 + (8 * SLURM_JOB_ID + 2 * instance) % 30000)) \
        _srun "$log" "${options[@]}" -- "$@" &
}

# start_alone LOG COMMAND...: start a command in the background as one process on the first node
start_alone() {
    local log="$1" hosts
    shift
    hosts="$(hosts_of 1)"
    _srun "$log" --nodes=1 --ntasks=1 --ntasks-per-node=1 "--nodelist=${hosts%%,*}" -- "$@" &
}

# _srun LOG OPTION... -- COMMAND...: run a command by srun
_srun() {
    local log="$1" options=()
    shift
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    # Tasks may use all processors of the node; bind.sh divides them.
    [ "$BIND" = none ] || options+=(--cpu-bind=none)
    # Ranks that lose another rank end with a message; --wait ends those that hang.
    exec srun --mpi=none --kill-on-bad-exit=0 --wait=180 "${options[@]}" "${container_srun[@]}" \
        "${container_command[@]}" "$@" >>"$log" 2>&1
}

# wait_for PROCESS: wait for a process, even if a signal interrupts it, and return its exit code
wait_for() {
    local status
    while :; do
        interrupted=0
        wait "$1" && status=0 || status=$?
        [ "$interrupted" -eq 1 ] || return "$status"
    done
}
