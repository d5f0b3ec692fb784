#!/usr/bin/env bash
# Runs the end-to-end tests in every set-up that the package admits: other Pythons, the oldest and the newest libraries.
#
#   recipes/compat.sh [--work DIR] [SETUP...]
#
#   py311    Python 3.11, the fairseq build of fairseq.txt, and the versions of constraints.txt
#   py312    the same on Python 3.12
#   oldest   Python 3.11 with the oldest torch (a CUDA build, 6 GB), NumPy, sacrebleu, sentencepiece, safetensors, ctranslate2,
#            matplotlib, jinja2, msgspec, tabulate and tqdm that pyproject.toml admits
#   newest   Python 3.11 with the newest ones, torch as in constraints.txt
#   py310    Python 3.10 with the official fairseq 0.12.2 and torch 1.12.1: students train there on what was distilled elsewhere,
#            and a teacher's checkpoint is refused with a sentence, because that torch cannot load with weights only
#   (default: all of them)
#   --work DIR   where the environments go, one each (default: ./compat); they are used again
#   --help
#
# Needs the Pythons on PATH, and a network. Ends with a line for every set-up, and fails if one fails.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=recipes/lib.sh
. "$ROOT/recipes/lib.sh"

WORK=compat SETUPS=()
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help) usage; exit ;;
        --work) [ $# -ge 2 ] || die "--work needs a folder"; WORK=$2; shift ;;
        py311 | py312 | oldest | newest | py310) SETUPS+=("$1") ;;
        *) die "unknown set-up or option $1; see --help" ;;
    esac
    shift
done
[ ${#SETUPS[@]} -gt 0 ] || SETUPS=(py311 py312 oldest newest py310)
mkdir -p "$WORK"
WORK=$(cd "$WORK" && pwd)

# The commands from end to end, and what stands on the libraries that have bounds. Not the recipes, which make environments.
TESTS=(tests/commands/test_{decoding,select,distributions,deployment,engines,students,text_command,setups}.py
    tests/commands/test_{evaluate,significance,sacrebleu,report,page,training_logs}.py tests/unit/{evaluation,selection,report})

# What pyproject.toml bounds from below, at that bound.
OLDEST=(torch==2.6.0 torchaudio==2.6.0 numpy==1.26.0 sacrebleu==2.4.0 sentencepiece==0.2.0 safetensors==0.4.3 ctranslate2==4.8.2
    matplotlib==3.9.0 jinja2==3.0.0 msgspec==0.19.0 tabulate==0.9.0 tqdm==4.62.0)

environment() { # set-up, Python
    local python
    python=$(command -v "$2") || die "$1 needs $2 on PATH"
    [ -x "$WORK/$1/bin/python" ] || "$python" -m venv "$WORK/$1"
    VIRTUAL_ENV=$WORK/$1 PATH=$WORK/$1/bin:$PATH
    export VIRTUAL_ENV PATH
}

install() { python -m pip install -q --disable-pip-version-check "$@"; }

end_to_end() { (cd "$ROOT" && python -m pytest -n 2 --dist worksteal "${TESTS[@]}"); }

pinned() { # set-up, Python
    environment "$1" "$2"
    install --no-deps --require-hashes -r "$ROOT/recipes/fairseq.txt"
    install -c "$ROOT/recipes/constraints.txt" -e "${ROOT}[test,report]"
}

do_py311() {
    pinned py311 python3.11
    end_to_end
}
do_py312() {
    pinned py312 python3.12
    end_to_end
}
do_oldest() {
    environment oldest python3.11
    install --no-deps --require-hashes -r "$ROOT/recipes/fairseq.txt"
    install "${OLDEST[@]}" -e "${ROOT}[test,report]"
    end_to_end
}
do_newest() {
    pinned newest python3.11
    install --upgrade "sacrebleu<3" "sentencepiece<0.3" "safetensors<1" "ctranslate2<5" "matplotlib<4" "jinja2<4" "numpy<3" \
        "msgspec<1" "tabulate<1" "tqdm<5"
    end_to_end
}

# pip 24.1 and later refuse the metadata of omegaconf 2.0.6, which fairseq 0.12.2 needs.
do_py310() {
    [ -d "$WORK/toy/distilled" ] || toy
    environment py310 python3.10
    install "pip<24.1"
    install "torch==1.12.1" "numpy<1.24" pytest
    install -e "$ROOT"
    SEQKD_TOY=$WORK/toy python -m pytest -q "$ROOT/tests/support/old_fairseq.py"
}

# A distilled directory, stored distributions and a teacher, from an environment that can make them.
toy() {
    (
        pinned py311 python3.11
        cd "$ROOT/tests/support" && python -c '
import pathlib, subprocess, sys, toys
out = pathlib.Path(sys.argv[1])
subprocess.run([sys.executable, "../data/make_tiny.py", out / "text"], check=True)
toys.binarise(out / "text", out / "bin")
toys.train(out / "bin", out / "teacher", toys.TEACHER)
teacher = out / "teacher" / "checkpoint_last.pt"
toys.decode(out / "bin", teacher, out / "distilled")
toys.score(out / "distilled" / "seq_kd", teacher, out / "distributions")
' "$WORK/toy"
    )
}

failed=0
for setup in "${SETUPS[@]}"; do
    begun=$SECONDS ends=works
    set +e # in a shell of its own and in no condition, or bash would go on behind a command that fails
    (
        set -e
        case "$setup" in
            py311) do_py311 ;;
            py312) do_py312 ;;
            oldest) do_oldest ;;
            newest) do_newest ;;
            py310) do_py310 ;;
        esac
    ) >"$WORK/$setup.log" 2>&1
    code=$?
    set -e
    [ "$code" -eq 0 ] || ends=FAILS failed=1
    echo "$setup: $ends, $((SECONDS - begun)) s, $(grep -E ' passed| failed' "$WORK/$setup.log" | tail -n 1) ($WORK/$setup.log)"
done
exit "$failed"
