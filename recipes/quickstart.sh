#!/usr/bin/env bash
# From real text to the paper's Table 1: a teacher, students distilled from it by every method, and what each is worth.
#
#   recipes/quickstart.sh [options]
#
#   --work DIR       where everything goes (default: ./quickstart); run again, it continues where it was
#   --text KIND      descriptions: of the distribution's packages (the default), or help: LibreOffice's
#   --pair SRC-TGT   languages to translate between (default: da-en; fr-en, de-en, en-da, ... where there are translations)
#   --src FILE --tgt FILE   your own parallel text instead, a sentence a line; --pair then names its languages
#   --seeds LIST     seeds of the students, such as 1,2,3 (default: 1); the report gives mean and deviation
#   --vocabulary N   SentencePiece BPE pieces for both languages together (default: 3000)
#   --teacher-updates N, --student-updates N, --tuning-updates N   lengths of training (default: 5000, 6000, 800)
#   --beam K         beam of the teacher, whose whole K-best list is kept for Seq-Inter (default: 5)
#   --split NAME     what the report is about: test (default), or valid, on which the settings were tuned
#   --jobs N         trainings side by side, one thread each (default: 2)
#   --help
#
# No argument is needed on a Debian or Ubuntu machine with Python 3.11: the text is fetched from the distribution's
# archive, without root. Stages leave a log in DIR/logs and a mark in DIR/done; remove a mark to run a stage again, a
# training's folder with it, since fairseq goes on where that ended, and the marks of what is made from it: evaluate* at least.
# The table goes to DIR/report.md and, as {"rows": [...]}, to DIR/report.json; with figures, to the page DIR/report.html.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=recipes/lib.sh
. "$ROOT/recipes/lib.sh"

WORK=quickstart TEXT=descriptions PAIR=da-en SRC_FILE='' TGT_FILE='' SEEDS=1 SPLIT=test VOCABULARY=3000 BEAM=5 LENPEN=1 TOPK=8 JOBS=2
TEACHER_UPDATES=5000 STUDENT_UPDATES=6000 TUNING_UPDATES=800

while [ $# -gt 0 ]; do
    case "$1" in -h | --help) usage; exit ;; esac
    [ $# -ge 2 ] || die "option $1 needs a value; see --help"
    case "$1" in
        --work) WORK=$2 ;;
        --text) TEXT=$2 ;;
        --pair) PAIR=$2 ;;
        --src) SRC_FILE=$2 ;;
        --tgt) TGT_FILE=$2 ;;
        --seeds) SEEDS=$2 ;;
        --vocabulary) VOCABULARY=$2 ;;
        --teacher-updates) TEACHER_UPDATES=$2 ;;
        --student-updates) STUDENT_UPDATES=$2 ;;
        --tuning-updates) TUNING_UPDATES=$2 ;;
        --beam) BEAM=$2 ;;
        --split) SPLIT=$2 ;;
        --jobs) JOBS=$2 ;;
        *) die "unknown option $1; see --help" ;;
    esac
    shift 2
done

S=${PAIR%%-*} T=${PAIR#*-}
[[ $PAIR == *-* && -n $S && -n $T && $S != "$T" ]] || die "--pair is '$PAIR', it must name two languages, such as da-en"
[[ $TEXT == descriptions || $TEXT == help ]] || die "--text is '$TEXT', it must be descriptions or help"
[[ $SPLIT == test || $SPLIT == valid ]] || die "--split is '$SPLIT', it must be test or valid"
check_seeds
for number in "$VOCABULARY" "$TEACHER_UPDATES" "$STUDENT_UPDATES" "$TUNING_UPDATES" "$BEAM" "$JOBS"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || die "'$number' is no positive number; see --help"
done
if [ -n "$SRC_FILE$TGT_FILE" ]; then
    for file in "$SRC_FILE" "$TGT_FILE"; do
        [ -f "$file" ] || die "--src and --tgt go together and name files; '$file' is none"
    done
    SRC_FILE=$(realpath "$SRC_FILE") TGT_FILE=$(realpath "$TGT_FILE")
fi
begin_work "$TEXT|$PAIR|$SRC_FILE|$TGT_FILE|$VOCABULARY|$TEACHER_UPDATES|$STUDENT_UPDATES|$TUNING_UPDATES|$BEAM|$LENPEN|$TOPK"
need_environment "$WORK/venv" ctranslate2,report

case "$TEXT" in descriptions) TITLE='package descriptions' ;; help) TITLE='LibreOffice help' ;; esac
[ -z "$SRC_FILE" ] || TITLE=$(basename "$SRC_FILE")
BIN=$WORK/bin DISTILLED=$WORK/distilled SAYS=$WORK/distributions TEACHER=$WORK/teacher/checkpoint_last.pt

# --- Text ---------------------------------------------------------------------------------------------------------------

do_text() {
    if [ -n "$SRC_FILE" ]; then
        python "$ROOT/recipes/parallel_text.py" files --src-file "$SRC_FILE" --tgt-file "$TGT_FILE" --src "$S" --tgt "$T" \
            -o "$WORK/text"
        return
    fi
    mkdir -p "$WORK/packages" && cd "$WORK/packages"
    "text_of_$TEXT"
}

# The lists of translated descriptions are fetched alone: 12 MB for Danish. What is not there, parallel_text.py says.
text_of_descriptions() {
    own_apt "$WORK/packages" -o "Acquire::Languages=$S,$T" -o Acquire::GzipIndexes=false \
        -o Acquire::IndexTargets::deb::Packages::DefaultEnabled=false update ||
        echo "apt-get could not fetch all lists; see above"
    python "$ROOT/recipes/parallel_text.py" descriptions --lists "$WORK/packages/lists" --src "$S" --tgt "$T" -o "$WORK/text"
}

help_folder() { # the help's name of a language
    case "$1" in en) echo en-US ;; pt) echo pt-BR ;; zh) echo zh-CN ;; *) echo "$1" ;; esac
}

text_of_help() {
    local lang package
    for lang in "$S" "$T"; do
        package=libreoffice-help-$(help_folder "$lang" | tr '[:upper:]' '[:lower:]')
        ls "${package}"_*.deb >/dev/null 2>&1 || fetch_package "$WORK/packages" "$package" || {
            echo "cannot fetch $package: is there such a language, and a network? Or give --src and --tgt"
            return 1
        }
        dpkg-deb -x "${package}"_*.deb "$WORK/packages/unpacked"
    done
    python "$ROOT/recipes/parallel_text.py" help --help-dir "$WORK/packages/unpacked/usr/share/libreoffice/help" \
        --src "$(help_folder "$S")" --tgt "$(help_folder "$T")" -o "$WORK/text"
}

do_subwords() { python "$ROOT/recipes/subwords.py" "$WORK/text" --langs "$S" "$T" --vocabulary "$VOCABULARY"; }

do_binarise() {
    rm -rf "$BIN"
    fairseq-preprocess --source-lang "$S" --target-lang "$T" --joined-dictionary --destdir "$BIN" --workers 1 \
        --trainpref "$WORK/text/train.spm" --validpref "$WORK/text/valid.spm" --testpref "$WORK/text/test.spm"
}

# --- Training -----------------------------------------------------------------------------------------------------------

# Arguments: data, folder of the run, updates, learning rate, tokens a batch, then what differs. Validation is for the curves of the
# report. The last checkpoint counts: the best one by loss on gold would be the wrong one, since sequence-level distillation makes
# that loss worse. On one GPU, where there are some: these models are too small for more.
train() {
    local data=$1 run=$2 updates=$3 lr=$4 tokens=$5
    shift 5
    mend_checkpoints "$WORK/$run"
    fairseq-train "$data" --user-dir "$ROOT/fairseq_seqkd" --save-dir "$WORK/$run" --arch transformer \
        --share-all-embeddings --encoder-normalize-before --decoder-normalize-before \
        --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 1.0 \
        --lr "$lr" --lr-scheduler polynomial_decay --end-learning-rate 1e-5 --total-num-update "$updates" \
        --max-update "$updates" --max-tokens "$tokens" --required-batch-size-multiple 1 --num-workers 0 --distributed-world-size 1 \
        --max-tokens-valid 4096 --skip-invalid-size-inputs-valid-test --no-epoch-checkpoints --save-interval 2 \
        --validate-interval 100000 --validate-interval-updates "$((updates > 6 ? updates / 6 : 1))" --log-format json --log-interval 100 "$@"
}

layers() { # layers on each side, dimensions, feed-forward, heads
    echo --encoder-layers "$1" --decoder-layers "$1" --encoder-embed-dim "$2" --decoder-embed-dim "$2" \
        --encoder-ffn-embed-dim "$3" --decoder-ffn-embed-dim "$3" \
        --encoder-attention-heads "$4" --decoder-attention-heads "$4"
}

do_teacher() { on_both_cores "$WORK/teacher" teacher; }

teacher() {
    # shellcheck disable=SC2046
    train "$BIN" teacher "$TEACHER_UPDATES" 2.5e-3 480 --warmup-updates 300 --criterion cross_entropy --dropout 0.25 --seed 1 \
        $(layers 2 128 384 4) "$@"
}

# Arguments: run, data, updates, learning rate, warm-up, then criterion and teacher.
student() {
    local run=$1 data=$2 updates=$3 lr=$4 warmup=$5
    shift 5
    # shellcheck disable=SC2046
    train "$data" "$run" "$updates" "$lr" 1280 --warmup-updates "$warmup" --dropout 0 --seed "${run#*@}" $(layers 2 34 68 2) "$@"
}

from_scratch() { student "$1" "$2" "$STUDENT_UPDATES" 1e-2 300 "${@:3}"; }

# Arguments: run, the run to start from, then what differs. Seq-Inter is fine-tuning with a smaller learning rate.
fine_tune() {
    after "$2"
    student "$1" "$DISTILLED/seq_inter" "$TUNING_UPDATES" 1.5e-3 50 --finetune-from-model "$WORK/$2/checkpoint_last.pt" \
        --criterion seq_inter "${@:3}"
}

do_student() { from_scratch "student@$1" "$BIN" --criterion cross_entropy; }
do_word_kd() { from_scratch "word_kd@$1" "$BIN" --criterion word_kd --teacher-distributions "$SAYS/gold"; }
do_seq_kd() { from_scratch "seq_kd@$1" "$DISTILLED/seq_kd" --criterion seq_kd; }
do_seq_word() { from_scratch "seq_word@$1" "$DISTILLED/seq_kd" --criterion seq_kd --teacher-distributions "$SAYS/seq_kd"; }
do_student_inter() { fine_tune "student_inter@$1" "student@$1"; }
do_seq_inter() { fine_tune "seq_inter@$1" "seq_kd@$1"; }
do_seq_inter_word() { fine_tune "seq_inter_word@$1" "seq_word@$1" --teacher-distributions "$SAYS/seq_inter"; }

# --- What the teacher says ------------------------------------------------------------------------------------------------

# Arguments: data, directory, then what differs.
ask_teacher() {
    local data=$1 out=$2
    shift 2
    fairseq-generate "$data" --user-dir "$ROOT/fairseq_seqkd" --task teacher_decoding --path "$TEACHER" --gen-subset train \
        --distill-dir "$out" "$@"
}

do_decode() { # a worker; any number of them share the directory
    ask_teacher "$BIN" "$DISTILLED" --beam "$BEAM" --nbest "$BEAM" --lenpen "$LENPEN" --max-len-a 1.2 --max-len-b 10 \
        --cpu --engine ctranslate2 --post-process sentencepiece --distributed-world-size "$JOBS" --distributed-rank "$(($1 - 1))"
}

# Its most probable symbols at every token of gold and of both views: word-level distillation then needs no teacher.
do_score() {
    local data=$DISTILLED/$1
    [ "$1" != gold ] || data=$BIN
    ask_teacher "$data" "$SAYS/$1" --score-reference --topk "$TOPK" --max-tokens 2000
}

# --- Measuring ------------------------------------------------------------------------------------------------------------

rows() { # NAME@SEED=CHECKPOINT of every system, in the order of the table
    echo "Teacher=$TEACHER"
    local seed run
    for run in "${ROWS[@]}"; do
        [ "${run#*:}" != word_kd_inter ] || continue # the only row that is not trained here
        for seed in ${SEEDS//,/ }; do echo "${run%:*}@$seed=$WORK/${run#*:}@$seed/checkpoint_last.pt"; done
    done
}

do_evaluate() { # alone on the machine, because it measures speed too
    local systems
    mapfile -t systems < <(rows)
    local results=$WORK/$SPLIT.$SEEDS.results.json title="Table 1 of Kim & Rush (2016), $PAIR, $TITLE, $SPLIT split"
    seqkd evaluate "${systems[@]}" --data "$BIN" --split "$SPLIT" --cache "$WORK/cache" -o "$results"
    seqkd report "$results" --title "$title" -o "$WORK/$SPLIT.$SEEDS.md" -o "$WORK/$SPLIT.$SEEDS.json"
    local index=(results "$results" distilled "$DISTILLED" data "$BIN" training Teacher "$WORK/logs/teacher.log") run seed
    for run in "${ROWS[@]}"; do
        for seed in ${SEEDS//,/ }; do index+=(training "${run%:*}@$seed" "$WORK/logs/${run#*:}@$seed.log"); done
    done
    write_index "${index[@]}"
    seqkd report "$WORK" --title "$title" -o "$WORK/$SPLIT.$SEEDS.html"
}

each_seed() { # names of stages -> names with every seed
    local name seed
    for seed in ${SEEDS//,/ }; do for name in "$@"; do echo "$name@$seed"; done; done
}

begun=$SECONDS
echo "text and subwords ($PAIR)"
for name in text subwords binarise; do stage "$name" "do_$name"; done
echo "teacher"
side_by_side teacher
echo "the teacher's beam search over the training set, and its distributions"
# shellcheck disable=SC2046
side_by_side $(seq -f 'decode@%g' "$JOBS")
stage decoded do_decode 1 # finishes what a worker left that was killed
side_by_side score@gold score@seq_kd score@seq_inter
echo "students"
# shellcheck disable=SC2046
side_by_side $(each_seed seq_word word_kd seq_kd student seq_inter_word seq_inter student_inter)
echo "evaluation"
stage "evaluate-$SPLIT-$SEEDS" do_evaluate
for kind in md json html; do cp "$WORK/$SPLIT.$SEEDS.$kind" "$WORK/report.$kind"; done
echo
cat "$WORK/report.md"
echo
echo "$(((SECONDS - begun + 59) / 60)) minutes | $WORK/report.md | $WORK/report.json | $WORK/report.html | logs: $WORK/logs"
