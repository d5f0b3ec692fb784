#!/usr/bin/env bash
# Decodes a training set on a SLURM cluster: an array of workers that share one directory, and a job that finishes it.
#
#   recipes/slurm/decode.sh --workers N [options] -- ARGUMENTS OF fairseq-generate
#   recipes/slurm/decode.sh --workers 8 --sbatch "--partition=gpu --gres=gpu:1 --time=4:00:00" -- \
#       data-bin --path teacher.pt --gen-subset train --beam 5 --nbest 5 --distill-dir distilled
#
#   --workers N      tasks of the array; they share the work as they come, so it does not matter how many run at a time
#   --sbatch "..."   options of sbatch, separated by spaces, for both jobs; those for the array (--dependency) too
#   --logs DIR       where the jobs write (default: ./slurm-logs)
#   --venv DIR       virtual environment for the jobs (default: the active one, or else what PATH finds)
#   --help
#
# Each task runs `fairseq-generate ARGUMENTS --task teacher_decoding` with this package, on one CPU thread; SLURM's
# variables say where it begins. The second job waits until the array has ended, however it ended, and runs the same
# command once more: it decodes what killed workers left and finishes the directory. Where nothing is left it says so.
# It fails if the directory is not complete then, so a training can wait for it with --dependency=afterok:ID.
#
# At a time limit SLURM sends SIGTERM and then SIGKILL, and scancel does the same. Nothing is lost but the part at hand
# (--part-size sentences): another worker takes it, or the second job. Tasks that a failing node or a preemption ends are
# put back into the queue (--requeue) and continue. If the second job reaches its own limit, give the same command again;
# for a corpus that needs several rounds, queue them in advance with --sbatch "... --dependency=afterany:ID".
#
# Everything named must be on a file system that the nodes share. Workers share it out by locks of files (flock); where a
# file system has none, or only within a node (some NFS), workers may do the same part twice, with the same bytes: time is
# lost, and nothing else.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
# shellcheck source=recipes/lib.sh
. "$ROOT/recipes/lib.sh"

WORKERS='' SBATCH='' LOGS=slurm-logs VENV=${VIRTUAL_ENV:-}

while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help) usage; exit ;;
        --) break ;;
    esac
    [ $# -ge 2 ] || die "option $1 needs a value; see --help"
    case "$1" in
        --workers) WORKERS=$2 ;;
        --sbatch) SBATCH=$2 ;;
        --logs) LOGS=$2 ;;
        --venv) VENV=$2 ;;
        *) die "unknown option $1; fairseq-generate's go behind --, see --help" ;;
    esac
    shift 2
done
[ $# -ge 2 ] || die "no arguments of fairseq-generate; they go behind --, see --help"
shift

[ -n "$WORKERS" ] || die "--workers is missing: it says how many tasks the array has"
[[ $WORKERS =~ ^[1-9][0-9]*$ ]] || die "--workers is '$WORKERS', it must be a positive number"

# The last one counts, as it does for fairseq.
DISTILLED='' previous=''
for argument in "$@"; do
    [[ $argument != --distill-dir=* ]] || DISTILLED=${argument#*=}
    [ "$previous" != --distill-dir ] || DISTILLED=$argument
    previous=$argument
done
[ -n "$DISTILLED" ] || die "--distill-dir is missing among the arguments of fairseq-generate: it says where the result goes"

if [ -n "$VENV" ]; then
    [ -x "$VENV/bin/fairseq-generate" ] || die "there is no fairseq-generate in the virtual environment $VENV"
    VENV=$(cd "$VENV" && pwd)
else
    command -v fairseq-generate >/dev/null || die "there is no fairseq-generate; activate its environment, or name it with --venv"
fi
command -v sbatch >/dev/null || die "there is no sbatch on this machine; submit from a login node of a SLURM cluster"
mkdir -p "$LOGS" || die "cannot make the folder $LOGS"
LOGS=$(cd "$LOGS" && pwd)

read -r -a MORE <<<"$SBATCH"
OPTIONS=(--parsable --nodes=1 --ntasks=1 --cpus-per-task=1 --requeue --open-mode=append ${MORE[@]+"${MORE[@]}"})

# Arguments: name, its logs, what the job needs besides, what must be complete when it ends. Prints the job's id. What is
# ours comes behind the user's, because sbatch takes the last of two; a % in a folder's name is no pattern.
submit() {
    sbatch "${OPTIONS[@]}" "$3" --job-name="$1" --output="${LOGS//\%/%%}/$2" "$HERE/job.sh" "$VENV" "$ROOT/fairseq_seqkd" \
        "$4" "${@:5}" | cut -d ';' -f 1
}

array=$(submit seqkd-decode decode-%A_%a.log "--array=0-$((WORKERS - 1))" '' "$@") || die "sbatch refused the array; see above"
finish=$(submit seqkd-finish finish-%j.log "--dependency=afterany:$array" "$DISTILLED" "$@") ||
    die "the array is submitted (job $array), the finishing job was refused: when the array has ended, give this command again"
echo "array of $WORKERS workers: job $array | logs: $LOGS/decode-${array}_*.log"
echo "finishes $DISTILLED behind them: job $finish | log: $LOGS/finish-$finish.log"
echo "to stop both: scancel $finish $array"
