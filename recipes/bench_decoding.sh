#!/usr/bin/env bash
# How fast a teacher decodes: fairseq-generate, this plugin with both engines, and CTranslate2 by itself.
#
#   recipes/bench_decoding.sh [options] [DATA_BIN TEACHER]
#
#   DATA_BIN TEACHER   default: ./quickstart/bin and ./quickstart/teacher/checkpoint_last.pt
#   --split NAME       whose first sentences are decoded (default: train)
#   --rounds N         every contender runs so many times, in turn (default: 3)
#   --seconds N        sentences are taken for about so long a run (default: 30)
#   --help
#
# One thread each, beam 5, 5-best. Every contender first looks for its best batch size. Timed from the first batch to the
# finished files; start-up is reported apart. Leave the machine alone meanwhile: it takes about half an hour on two cores.
# Medians go to ./bench_decoding.json and, as a table, to the terminal.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=recipes/lib.sh
. "$ROOT/recipes/lib.sh"
case "${1:-}" in -h | --help) usage; exit ;; esac
need_environment "$ROOT/.venv" ctranslate2
python -c 'import ctranslate2' 2>/dev/null || python -m pip install -q -c "$ROOT/recipes/constraints.txt" ctranslate2
exec python "$ROOT/recipes/bench_decoding.py" "$@"
