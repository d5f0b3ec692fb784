#!/usr/bin/env bash
# Tests the recipe against a real SLURM, which runs on this machine for as long as the test does.
#
#   recipes/slurm/test.sh [arguments of pytest]
#
# As root on Debian or Ubuntu it installs slurm-wlm and munge where they are missing, so a container is a good place.
# Where they are there it needs no root. It starts munged, slurmctld and slurmd by hand from a temporary folder, with
# sockets and ports of their own; at the end, however it ends, it stops them and removes the folder. About three minutes.
# Exit code 77: skipped, because there is no SLURM here and nobody may install it.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=recipes/lib.sh
. "$ROOT/recipes/lib.sh"
case "${1:-}" in -h | --help) usage; exit ;; esac

PATH=$PATH:/usr/sbin:/sbin
for command in munged slurmctld slurmd sbatch scontrol; do
    command -v "$command" >/dev/null && continue
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "skipped: there is no $command on this machine, and only root on Debian or Ubuntu can install slurm-wlm and munge"
        exit 77
    fi
    install_packages slurm-wlm munge
done
need_environment "$ROOT/.venv" test pytest

unset SLURM_CONF "${!SLURM_@}" "${!SBATCH_@}" # those of another cluster
WORK=$(mktemp -d)
chmod 755 "$WORK" # munge wants everybody to reach its socket
daemons=() tests=''
stop_cluster() {
    local code=$?
    trap - EXIT INT TERM
    set +e
    [ -z "$tests" ] || kill "$tests" 2>/dev/null
    if [ -n "${SLURM_CONF:-}" ]; then # jobs first: without the daemons nobody would end them
        scancel --quiet --user="$(id -un)" 2>/dev/null
        for _ in $(seq 100); do
            [ -n "$(squeue --noheader 2>/dev/null)" ] || break
            sleep 0.2
        done
    fi
    kill "${daemons[@]}" 2>/dev/null
    wait
    [ "$code" -eq 0 ] || [ "$code" -eq 130 ] || tail -n 20 "$WORK"/*.log >&2
    rm -rf "$WORK"
    exit "$code"
}
trap stop_cluster EXIT
trap 'exit 130' INT TERM

free_ports() {
    python - <<'PYTHON'
import socket

sockets = [socket.socket() for _ in range(2)]
for each in sockets:
    each.bind(("", 0))
print(*(each.getsockname()[1] for each in sockets))
PYTHON
}

start() { # name, command: a daemon in the foreground, with its log in the folder
    local name=$1
    shift
    "$@" >>"$WORK/$name.log" 2>&1 &
    daemons+=($!)
}

HOST=$(hostname -s)
ports=$(free_ports)
# Two places for jobs, whatever the machine has: the tests need two workers at a time and one that waits.
mkdir "$WORK/state" "$WORK/spool"
cat >"$WORK/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=${ports% *}
SlurmdPort=${ports#* }
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$WORK/munge.socket
StateSaveLocation=$WORK/state
SlurmdSpoolDir=$WORK/spool
SlurmctldPidFile=$WORK/slurmctld.pid
SlurmdPidFile=$WORK/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=5
MpiDefault=none
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES State=UP
CONF
export SLURM_CONF=$WORK/slurm.conf

head -c 1024 /dev/urandom >"$WORK/munge.key"
chmod 400 "$WORK/munge.key"
start munged munged --foreground --force --num-threads=1 --key-file="$WORK/munge.key" --socket="$WORK/munge.socket" \
    --pid-file="$WORK/munge.pid" --seed-file="$WORK/munge.seed" --log-file="$WORK/munged.file.log"
for _ in $(seq 50); do [ -S "$WORK/munge.socket" ] && break; sleep 0.1; done
start slurmctld slurmctld -D
start slurmd slurmd -D -N "$HOST"
for _ in $(seq 100); do
    [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && break
    sleep 0.2
done
[ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] || die "SLURM did not start; the ends of its logs follow"
echo "$(sinfo --version), one node with two places"

cd "$ROOT"
SEQKD_TEST_SLURM=1 python -m pytest -s -p no:cacheprovider tests/recipes/test_slurm.py "$@" &
tests=$! # in the background, so that a signal is heard at once
wait "$tests"
