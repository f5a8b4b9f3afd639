#!/usr/bin/env bash
# A Ray cluster of plain processes on this machine, with the topology of compose.yaml: a head that
# runs no trials, and nodes that do, with token authentication.
#
#   docker/local_cluster.sh up N    start a head and N nodes, and print how to use them
#   docker/local_cluster.sh status  name the processes; exit 1 if one has ended
#   docker/local_cluster.sh down    end all of them, and remove the folder
#
# Variables: CLUSTER_FOLDER (of the cluster, default /tmp/mmlab-cluster-USER; a short path, since Ray
# puts sockets into it), NODE_CPUS (1), NODE_GPUS (0), RAY_PORT (default: a free one), RAY (ray).
set -euo pipefail
umask 077

folder=${CLUSTER_FOLDER:-/tmp/mmlab-cluster-$(id -un)}
read -r -a ray <<<"${RAY:-ray}"
# A busy machine takes longer than the 30 seconds for which Ray waits.
export RAY_raylet_start_wait_time_s=${RAY_raylet_start_wait_time_s:-120}
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$folder/token RAY_USAGE_STATS_ENABLED=0
unset RAY_AUTH_TOKEN RAY_ADDRESS

fail() {
    echo "Error: $1" >&2
    exit 2
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# start NAME OPTION...: one `ray start` in a process group of its own, whose id is in NAME.pid.
start() {
    local name=$1
    shift
    : >"$folder/$name.log"
    setsid "${ray[@]}" start --block --node-ip-address=127.0.0.1 --node-name="$name" \
        --dashboard-agent-listen-port="$(free_port)" --dashboard-agent-grpc-port="$(free_port)" \
        --metrics-export-port="$(free_port)" --runtime-env-agent-port="$(free_port)" \
        "$@" >"$folder/$name.log" 2>&1 </dev/null &
    echo $! >"$folder/$name.pid"
}

# wait_for NAME: until `ray start` says that Ray runs.
wait_for() {
    for _ in $(seq 240); do
        if grep -q "Ray runtime started" "$folder/$1.log"; then return; fi
        kill -0 "$(<"$folder/$1.pid")" 2>/dev/null || break
        sleep 0.5
    done
    tail -n 20 "$folder/$1.log" >&2
    stop
    fail "$1 did not start; its last lines are above, all logs in $folder until local_cluster.sh down."
}

up() {
    [[ ${1:-} =~ ^[1-9][0-9]*$ ]] || fail "how many nodes? local_cluster.sh up N"
    command -v "${ray[0]}" >/dev/null || fail "'${ray[*]}' is not a command; set RAY to the path of ray."
    mkdir "$folder" 2>/dev/null || fail "$folder exists: run local_cluster.sh down first."
    openssl rand -hex 32 >"$folder/token"
    local address
    address=127.0.0.1:${RAY_PORT:-$(free_port)}
    echo "$address" >"$folder/address"
    start head --head --port="${address#*:}" --num-cpus=0 --num-gpus=0 --temp-dir="$folder/ray" \
        --include-dashboard=false
    wait_for head
    # One after the other: two that start at once would give their sockets the same name.
    for number in $(seq "$1"); do
        start "node$number" --address="$address" --num-cpus="${NODE_CPUS:-1}" \
            --num-gpus="${NODE_GPUS:-0}"
        wait_for "node$number"
    done
    echo "a cluster of $1 nodes runs; use it with"
    echo "RAY_AUTH_TOKEN_PATH=$folder/token mmlab tune --dataset zeisel --trials 8 --address $address"
}

# Processes of a `ray start`, which Ray gives groups of their own.
descendants() {
    local child
    for child in $(pgrep -P "$1" || true); do
        echo "$child"
        descendants "$child"
    done
}

# End all processes, nodes before the head, which would otherwise look lost to them.
stop() {
    local all=() pid
    for file in "$folder"/node*.pid "$folder"/head.pid; do
        [ -e "$file" ] || continue
        pid=$(<"$file")
        mapfile -t -O "${#all[@]}" all < <(descendants "$pid")
        all+=("$pid")
        kill -TERM "$pid" 2>/dev/null || true
    done
    for _ in $(seq 20); do
        kill -0 "${all[@]}" 2>/dev/null || break
        sleep 0.5
    done
    kill -KILL "${all[@]}" 2>/dev/null || true
    rm -f "$folder"/*.pid
}

down() {
    [ -d "$folder" ] || fail "there is no cluster in $folder."
    stop
    rm -rf "$folder"
}

status() {
    [ -d "$folder" ] || fail "there is no cluster in $folder."
    local ended=0 state
    for file in "$folder"/*.pid; do
        [ -e "$file" ] || fail "no process runs; local_cluster.sh down removes $folder."
        state=runs
        kill -0 "$(<"$file")" 2>/dev/null || { state=ended; ended=1; }
        echo "$(basename "$file" .pid): $state (process $(<"$file"), log ${file%.pid}.log)"
    done
    echo "address: $(<"$folder/address")"
    return "$ended"
}

case "${1:-}" in
up | down | status) "$@" ;;
*) fail "local_cluster.sh up N, status or down." ;;
esac
