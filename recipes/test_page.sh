#!/usr/bin/env bash
# Tests the report's page in a browser without a screen.
#
#   recipes/test_page.sh [arguments of pytest]
#
# As root on Debian or Ubuntu it installs chromium and chromium-driver where they are missing; where they are there it needs
# no root. SEQKD_SCREENSHOTS=DIR keeps pictures of the page: a telephone's width and a desk's, light and dark.
# Exit code 77: skipped, because there is no browser here and nobody may install it.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=recipes/lib.sh
. "$ROOT/recipes/lib.sh"
case "${1:-}" in -h | --help) usage; exit ;; esac

for command in chromium chromedriver; do
    command -v "$command" >/dev/null && continue
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "skipped: there is no $command on this machine, and only root on Debian or Ubuntu can install chromium"
        exit 77
    fi
    install_packages chromium chromium-driver
done
need_environment "$ROOT/.venv" test,browser pytest
cd "$ROOT"
python -m pytest tests/commands/test_page.py "$@"
