#!/usr/bin/env bash
# What decode.sh submits: one worker. SLURM runs a copy of this file, so that all it needs is told.
# Arguments: virtual environment or '', folder of the package, directory that must be complete at the end or '',
# arguments of fairseq-generate.
set -euo pipefail
venv=$1 package=$2 must_be_complete=$3
shift 3
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
# shellcheck disable=SC1091
[ -z "$venv" ] || . "$venv/bin/activate"
fairseq-generate --user-dir "$package" "$@" --task teacher_decoding # a --user-dir of the user's own may register the plugin too

# A worker that finds the rest in other hands ends well; whoever waits for the last job wants to know more.
if [ -n "$must_be_complete" ] && ! grep -q '"complete": true' "$must_be_complete/manifest.json"; then
    echo "$must_be_complete is not complete: other workers have the rest; submit again when they have ended" >&2
    exit 1
fi
