#!/usr/bin/env bash
# Runs the tests: recipes/test.sh [arguments of pytest]
#
# Makes its own virtual environment in .venv where none is active, and needs nothing else than Python 3.11 or 3.12.
# Two processes side by side; about a quarter of an hour on two cores.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=recipes/lib.sh
. "$ROOT/recipes/lib.sh"
case "${1:-}" in -h | --help) usage; exit ;; esac

cd "$ROOT"
need_environment "$ROOT/.venv" test pytest ruff
ruff check .
python -m pytest -n 2 --dist worksteal "$@"
