#!/usr/bin/env bash
# Checks the style and the types, then runs the tests: recipes/test.sh [arguments of pytest]
#
# Makes its own virtual environment in .venv where none is active, and needs nothing else than Python 3.11 or 3.12.
# Two processes side by side; about a quarter of an hour on two cores.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=recipes/lib.sh
. "$ROOT/recipes/lib.sh"
case "${1:-}" in -h | --help) usage; exit ;; esac

cd "$ROOT"
need_environment "$ROOT/.venv" test pytest ruff mypy shellcheck
ruff check .
ruff format --check .
mypy
mapfile -t SCRIPTS < <(git ls-files '*.sh')
[ ${#SCRIPTS[@]} -eq 0 ] || shellcheck "${SCRIPTS[@]}" # none in a copy without git
python -m pytest -n 2 --dist worksteal "$@"
