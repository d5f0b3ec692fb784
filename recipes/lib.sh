# shellcheck shell=bash
# What the recipes share: an environment, stages that are skipped when their result is there, and two jobs side by side.
# Sourced, not run. A recipe sets WORK first.

export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 # two processes of one thread beat one of two threads

# The rows of Table 1 and the names of their runs.
# shellcheck disable=SC2034
ROWS=("Student:student" "Word-KD:word_kd" "Seq-KD:seq_kd" "Student + Seq-Inter:student_inter" "Word-KD + Seq-Inter:word_kd_inter"
    "Seq-KD + Seq-Inter:seq_inter" "Seq-KD + Word-KD:seq_word" "Seq-KD + Seq-Inter + Word-KD:seq_inter_word")

die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# Prints the comment at the head of the script: its help text.
usage() {
    sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"
}

# Refuses seeds that are no list of numbers, or name one twice.
check_seeds() {
    local number='(0|[1-9][0-9]*)'
    [[ $SEEDS =~ ^$number(,$number)*$ ]] || die "--seeds is '$SEEDS', it must be numbers separated by commas, without leading zeros"
    [ -z "$(tr , '\n' <<<"$SEEDS" | sort | uniq -d)" ] || die "--seeds is '$SEEDS', it names a seed twice"
}

# Makes the folder WORK, or goes on in it. It belongs to one set of settings, since results of others would be taken for this
# one's, and to one run at a time. Argument: the settings, a line.
begin_work() {
    mkdir -p "$WORK" || die "cannot make the folder $WORK"
    WORK=$(cd "$WORK" && pwd)
    exec 9>"$WORK/.lock" # held by every process that is started here, too
    local code=0
    flock -n -E 75 9 || code=$?
    [ "$code" != 75 ] || die "another run works in $WORK; wait for it, or stop it with all that it started"
    [ "$code" = 0 ] || echo "$WORK is on a file system without locks: see to it that no other run works in it" >&2
    if [ ! -e "$WORK/settings" ]; then
        { echo "$1" >"$WORK/settings.new" && mv "$WORK/settings.new" "$WORK/settings"; } || die "cannot write to $WORK"
    elif [ "$(cat "$WORK/settings")" != "$1" ]; then
        die "$WORK was begun with other options, or by another version of this script; use those again, or name another folder with --work"
    fi
    rm -rf "$WORK/failed" # what failed in a run before
    trap 'stop_all interrupted' INT TERM HUP
    keep_memory
    # A recipe is a job of one node. fairseq would take a training on several GPUs for a part of the whole job of SLURM, and count on
    # processes that nobody starts.
    unset SLURM_JOB_NODELIST SLURM_STEP_NODELIST
}

# Training then takes five sixths of the time on CPUs: glibc gives no large matrix back to the kernel, to ask for it again at the
# next update.
keep_memory() { export MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000; }

# Whether CTranslate2 can search on a GPU here, or a sentence that says why not. torch is imported for the libraries that it brings.
fast_engine_on_gpu() {
    python -c 'import torch
from fairseq_seqkd.engines.ctranslate2_support import check_installed
check_installed("float16", on_gpu=True)'
}

# Puts this package and what it needs into the active virtual environment, or into one of its own where none is active.
# Arguments: folder for an environment of its own, extras of the package, commands that must be there then.
need_environment() {
    local folder=$1 extras=${2:+[$2]} command missing=''
    shift 2
    if [ -z "${VIRTUAL_ENV:-}" ]; then
        if [ ! -x "$folder/bin/python" ] || [ ! -x "$folder/bin/pip" ] || [ ! -e "$folder/bin/activate" ]; then # half of one
            local python
            python=$(find_python) || die "Python 3.11 or 3.12 with venv is needed, as python3.11, python3.12 or python3: install it" \
                "with its package of venv where your distribution has one (apt-get install python3 python3-venv), else by pyenv or uv"
            echo "making a virtual environment in $folder"
            make_environment "$python" "$folder" || die "cannot make a virtual environment: apt-get install python3-venv"
        fi
        # shellcheck disable=SC1091
        . "$folder/bin/activate"
    fi
    for command in fairseq-train seqkd "$@"; do
        [ -x "$VIRTUAL_ENV/bin/$command" ] || missing=$command
    done
    # What the extras bring, for an environment that was made without them.
    # shellcheck disable=SC2046
    python -c 'import sys; from importlib.util import find_spec; sys.exit(not all(map(find_spec, sys.argv[1:])))' \
        $(modules_of "$extras") || missing=$extras
    if [ -n "$missing" ] || [ "$ROOT/pyproject.toml" -nt "$VIRTUAL_ENV/bin/seqkd" ]; then
        echo "installing fairseq, torch and this package; it takes a minute or two, longer where torch is a CUDA build of gigabytes"
        { python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r "$ROOT/recipes/fairseq.txt" &&
            python -m pip install -q --disable-pip-version-check -c "$ROOT/recipes/constraints.txt" -e "$ROOT$extras"; } ||
            die "the installation failed; see above"
    fi
}

# Arguments: python, folder. Debian keeps what gives an environment its pip in a package of its own, python3-venv; where that is not
# installed, which takes root, the pip is taken out of another package.
make_environment() {
    local python=$1 folder=$2 beside=$2/package wheel
    "$python" -m venv --clear "$folder" >/dev/null 2>&1 && return
    "$python" -m venv --clear --without-pip "$folder" && mkdir "$beside" &&
        fetch_package "$beside" python3-pip-whl && dpkg-deb -x "$beside"/python3-pip-whl_*.deb "$beside" || return
    for wheel in "$beside"/usr/share/python-wheels/pip-*.whl; do
        "$folder/bin/python" "$wheel/pip" install -q --no-index --disable-pip-version-check "$wheel" || return
    done
    rm -rf "$beside"
}

# apt with lists and a cache of our own, in a folder: it needs no root then, and leaves the machine's alone.
own_apt() {
    mkdir -p "$1/lists/partial"
    apt-get -o "Dir::State::Lists=$1/lists" -o "Dir::Cache=$1" "${@:2}"
}

# Downloads a package of the distribution into a folder, with the machine's lists of packages or, where it has none, with our own; in
# a folder beside first, since apt gives the beginning of a file its whole name.
fetch_package() {
    local folder
    folder=$(cd "$1" && pwd) && rm -rf "$folder/download" && mkdir "$folder/download" || return
    (cd "$folder/download" && { apt-get download "$2" || { own_apt "$folder" update && own_apt "$folder" download "$2"; }; }) &&
        mv "$folder/download/$2"_*.deb "$folder/"
}

# The modules that extras of the package bring. Argument: such as [ctranslate2,report].
modules_of() {
    case "$1" in *ctranslate2* | *test*) echo ctranslate2 ;; esac
    case "$1" in *report* | *test*) echo matplotlib ;; esac
    case "$1" in *test*) echo mypy tensorboard tensorboardX ;; esac
    case "$1" in *browser*) echo selenium ;; esac
    case "$1" in *benchmarks* | *test*) echo sacremoses subword_nmt ;; esac
}

# Installs packages of the distribution, for root on Debian or Ubuntu.
install_packages() {
    echo "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -qq -y --no-install-recommends "$@" >/dev/null ||
        { apt-get -qq update && apt-get install -qq -y --no-install-recommends "$@" >/dev/null; } ||
        die "cannot install $*; see above"
}

find_python() {
    local candidate
    for candidate in python3.11 python3.12 python3; do
        if "$candidate" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# Runs a command as a named stage: skipped when done before, its output in a log, a line when it ends, its seconds in its mark.
stage() {
    local name=$1 begun=$SECONDS code
    shift
    mkdir -p "$WORK/logs" "$WORK/done"
    if [ -e "$WORK/done/$name" ]; then
        echo "  $name: there"
        return
    fi
    # The recipe itself only waits, as for stages side by side: bash heeds no signal before a command in the foreground ends.
    if [ "$BASHPID" = $$ ]; then
        as_a_job "$name" "$@"
        wait_for_all "$name"
        return
    fi
    # In a shell of its own and in no condition, or bash would go on behind a command that fails.
    set +e
    (
        set -e
        "$@"
    ) >>"$WORK/logs/$name.log" 2>&1
    code=$?
    set -e
    if [ "$code" -ne 0 ]; then
        echo "  $name: FAILED, the end of $WORK/logs/$name.log is:" >&2
        tail -n 15 "$WORK/logs/$name.log" >&2
        mkdir -p "$WORK/failed" && touch "$WORK/failed/$name" # for those that wait for it
        return 1
    fi
    echo "$((SECONDS - begun))" >"$WORK/done/$name"
    echo "  $name: $((SECONDS - begun)) s"
}

# Runs stages, JOBS at a time, beginning in the order given. Arguments: names; the command of stage X is `do_X`, with
# "@" and what follows it as its argument (seq_kd@2 runs `do_seq_kd 2`).
side_by_side() {
    local name
    for name in "$@"; do
        while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait_for_one; done
        as_a_job "$name" "do_${name%@*}" "${name#*@}"
    done
    wait_for_all "$@"
}

# Starts a stage in a process group of its own, so that it can be stopped with all that it started.
as_a_job() {
    set -m
    stage "$@" &
    set +m
}

# Waits until one of the jobs ends. bash may have forgotten jobs that end at once; then it says 127, and their marks tell.
wait_for_one() {
    local code=0
    wait -n || code=$?
    [ "$code" = 0 ] || [ "$code" = 127 ] || stop_all "a stage failed"
}

# Arguments: stages. Waits for every job, since one that ends may be an earlier one, then stops unless these stages are done.
wait_for_all() {
    local name
    while [ -n "$(jobs -rp)" ]; do wait_for_one; done
    for name in "$@"; do [ -e "$WORK/done/$name" ] || stop_all "a stage failed"; done
}

stop_all() {
    local job
    trap - INT TERM HUP
    for job in $(jobs -p); do kill -TERM -- "-$job" 2>/dev/null; done
    wait
    die "$1; run the same command again, it continues"
}

# Waits for a stage that runs at the same time or before. One that failed is not waited for: bash may have lost its code.
after() {
    while [ ! -e "$WORK/done/$1" ]; do
        [ ! -e "$WORK/failed/$1" ] || {
            echo "$1, which this stage waits for, has failed"
            return 1
        }
        sleep 1
    done
}

# Options of fairseq-train with which an update has so many tokens, however many GPUs there are: no more of them than have 1,024
# tokens each, or long sentences would not fit; half precision on them. Arguments: tokens, how many a device takes at a time.
batch_of() {
    local devices=$((GPUS ? GPUS : 1)) most=$(($1 < 1024 ? 1 : $1 / 1024)) times
    devices=$((devices < most ? devices : most))
    times=$((($1 + devices * $2 - 1) / (devices * $2)))
    echo --max-tokens $((($1 + devices * times - 1) / (devices * times))) --update-freq "$times" \
        --distributed-world-size "$devices"
    # Else the first process sends the others its checkpoint in a form that torch refuses.
    [ "$GPUS" = 0 ] || echo --fp16 --load-checkpoint-on-all-dp-ranks
}

# fairseq copies a checkpoint to its further names, and a kill can cut that short: then the newest whole one, of which it was to be a
# copy, takes that place, so that training can go on. Argument: folder of the run.
mend_checkpoints() {
    python - "$1" <<'PYTHON'
import os
import shutil
import sys
from pathlib import Path
from zipfile import is_zipfile

there = sorted(Path(sys.argv[1]).glob("checkpoint*.pt"), key=lambda file: file.stat().st_mtime)
whole = [file for file in there if is_zipfile(file)]
for file in set(there) - set(whole):
    print(f"{file} was cut short; {whole[-1].name if whole else 'nothing'} takes its place")
    if whole:
        beside = f"{file}.{os.getpid()}"  # two processes of one training may both see to it
        shutil.copyfile(whole[-1], beside)
        os.replace(beside, file)
    else:
        file.unlink(missing_ok=True)
PYTHON
}

# Trains with two processes of half the batch each, where two processors do the work; else with one that adds two batches up, the
# same thing. Arguments: folder of the run, then a command that takes further options of fairseq-train at its end.
on_both_cores() {
    local folder=$1 meet rank pids=()
    shift
    if [ "$JOBS" -lt 2 ] || python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
        "$@" --update-freq 2
        return
    fi
    mkdir -p "$folder"
    meet=$(mktemp -u "$folder/meet.XXXXXX") # a new one each time: a leftover would call up processes that are gone
    for rank in 0 1; do
        (
            # shellcheck disable=SC2329 # "$@" below calls it
            fairseq-train() { exec "$(type -P fairseq-train)" "$@"; } # in place of this shell, so that what is killed below is it
            "$@" --distributed-world-size 2 --distributed-rank "$rank" --distributed-init-method "file://$meet" \
                --distributed-no-spawn --distributed-backend gloo --ddp-backend legacy_ddp --load-checkpoint-on-all-dp-ranks --cpu
        ) &
        pids+=($!)
    done
    for rank in 0 1; do
        if ! wait -n; then # alone, the other one would wait for long
            kill "${pids[@]}" 2>/dev/null || true
            wait
            return 1
        fi
    done
    rm -f "$meet"
}

# Writes WORK/run.json, which names what `seqkd report WORK` puts together. Paths in WORK are written relative to it, so that it can
# be moved. A training is named only if its log is there. Arguments: what is named, each after its kind:
#   results FILE | speeds FILE | training NAME[@SEED] LOG | distilled DIR | data DIR
write_index() {
    python - "$WORK" "$@" <<'PYTHON'
import json
import os
import sys
from pathlib import Path

work, *words = sys.argv[1:]
index = {"results": [], "speeds": [], "trainings": {}, "distilled": [], "data": []}


def relative(path):
    path = os.path.abspath(path)
    return os.path.relpath(path, work) if path.startswith(os.path.join(work, "")) else path


while words:
    kind = words.pop(0)
    if kind == "training":
        name, log = words.pop(0), words.pop(0)
        if os.path.exists(log):
            index["trainings"][name] = relative(log)
    else:
        index[kind].append(relative(words.pop(0)))
new = Path(work, "run.json.new")
new.write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
new.replace(Path(work, "run.json"))
PYTHON
}
