#!/usr/bin/env bash
# What word-level distillation costs: fairseq-train with and without it, the teacher live and stored.
#
#   recipes/bench_word_kd.sh [options] [DATA_BIN TEACHER]
#
#   DATA_BIN TEACHER   default: ./quickstart/bin and ./quickstart/teacher/checkpoint_last.pt
#   --rounds N         every contender runs so many times, in turn (default: 5)
#   --updates N        updates of a run that are timed, after as many to warm up as there are between two log lines (default: 60)
#   --topk K           symbols of the store (default: 8)
#   --max-tokens N     target tokens of a batch (default: 1024)
#   --help
#
# One thread each. Whole runs of fairseq-train with the same batches, timed between two of its log lines. Leave the machine
# alone meanwhile. Medians go to ./bench_word_kd.json and, as a table, to the terminal.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=recipes/lib.sh
. "$ROOT/recipes/lib.sh"
case "${1:-}" in -h | --help) usage; exit ;; esac
need_environment "$ROOT/.venv" ''
exec python "$ROOT/recipes/bench_word_kd.py" "$@"
