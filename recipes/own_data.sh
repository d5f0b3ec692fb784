#!/usr/bin/env bash
# Students of your own fairseq teacher: its translations, what learns from them, and what each student is worth.
#
#   recipes/own_data.sh --data-bin DIR --teacher FILES [options]
#
#   --data-bin DIR      of fairseq-preprocess, with the teacher's dictionaries, and with train, valid and what --split names
#   --teacher FILES     a checkpoint of fairseq's task `translation`; several, separated by colons, are an ensemble
#   --work DIR          where everything goes (default: ./students); run again, it continues where it was
#   --methods LIST      student, word_kd, seq_kd, seq_word (Seq-KD + Word-KD), student_inter (Student + Seq-Inter), seq_inter
#                       (Seq-KD + Seq-Inter), word_kd_inter (Word-KD + Seq-Inter), seq_inter_word (all three)
#                       (default: student,seq_kd,seq_inter)
#   --student "..."     what a student is, as fairseq-train takes it (default: --arch transformer with 6 layers that read and 2
#                       that write, 256 dimensions, and one matrix for all embeddings)
#   --training "..."    how it is trained, likewise (default: Adam, learning rate 1e-3, 4,000 updates of warm-up, dropout 0.1)
#   --updates N, --tuning-updates N   lengths of training, and of fine-tuning on Seq-Inter's data (default: 50000, 5000, which are
#                       for GPUs: one core of a CPU takes weeks for the default student)
#   --tuning-lr RATE    the learning rate of fine-tuning (default: 2e-4)
#   --batch N           tokens a batch, over all GPUs (default: 32000); --max-tokens N of them at a time on one (default: 4000)
#   --vocabulary N      a SentencePiece vocabulary of the students' own, for seq_kd and seq_inter; else they have the teacher's
#   --beam K            the teacher's beam, whose whole list is kept (default: 5); --lenpen P its length penalty (default: 1)
#   --engine NAME       fairseq or ctranslate2, which is faster for a Transformer (default: fairseq)
#   --text "..."        how text is made of the data-bin's tokens: --post-process, --bpe and --tokenizer with their options
#                       (default: subwords are joined as the dictionary shows)
#   --seeds LIST        seeds of the students (default: 1)
#   --split NAME        what the report is about (default: test)
#   --jobs N            students side by side, for machines without a GPU (default: 1)
#   --help
#
# GPUs are used where there are any: all of them for one training, in half precision, and one worker each for the teacher's search.
# On a cluster the recipe is a job of one node; preempted, it goes back into the queue and continues there, and when its time is over it
# continues where it is submitted again:
#   sbatch --gres=gpu:4 --cpus-per-task=8 --time=24:00:00 --requeue --open-mode=append --wrap "bash recipes/own_data.sh ..."
# and the search alone can be an array of jobs before it: recipes/slurm/decode.sh, into DIR/distilled, with --beam, --nbest and --lenpen
# as here, --max-len-a 1.2 --max-len-b 10, the --engine and --text that are named here, and on GPUs --fp16, with ctranslate2
# --compute-type float16.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=recipes/lib.sh
. "$ROOT/recipes/lib.sh"

BIN='' TEACHER='' WORK=students METHODS=student,seq_kd,seq_inter UPDATES=50000 TUNING_UPDATES=5000 TUNING_LR=2e-4 BATCH=32000 MAX_TOKENS=4000
VOCABULARY='' BEAM=5 LENPEN=1 ENGINE=fairseq HOW_TEXT='' SEEDS=1 SPLIT=test JOBS=1
STUDENT="--arch transformer --encoder-layers 6 --decoder-layers 2 --encoder-embed-dim 256 --decoder-embed-dim 256
    --encoder-ffn-embed-dim 1024 --decoder-ffn-embed-dim 1024 --encoder-attention-heads 4 --decoder-attention-heads 4
    --encoder-normalize-before --decoder-normalize-before --share-all-embeddings"
TRAINING="--optimizer adam --adam-betas (0.9,0.98) --clip-norm 1.0 --lr 1e-3 --warmup-updates 4000 --dropout 0.1"
while [ $# -gt 0 ]; do
    case "$1" in -h | --help) usage; exit ;; esac
    [ $# -ge 2 ] || die "option $1 needs a value; see --help"
    case "$1" in
        --data-bin) BIN=$2 ;;
        --teacher) TEACHER=$2 ;;
        --work) WORK=$2 ;;
        --methods) METHODS=$2 ;;
        --student) STUDENT=$2 ;;
        --training) TRAINING=$2 ;;
        --updates) UPDATES=$2 ;;
        --tuning-updates) TUNING_UPDATES=$2 ;;
        --tuning-lr) TUNING_LR=$2 ;;
        --jobs) JOBS=$2 ;;
        --batch) BATCH=$2 ;;
        --max-tokens) MAX_TOKENS=$2 ;;
        --vocabulary) VOCABULARY=$2 ;;
        --beam) BEAM=$2 ;;
        --lenpen) LENPEN=$2 ;;
        --engine) ENGINE=$2 ;;
        --text) HOW_TEXT=$2 ;;
        --seeds) SEEDS=$2 ;;
        --split) SPLIT=$2 ;;
        *) die "unknown option $1; see --help" ;;
    esac
    shift 2
done
[ -d "$BIN" ] || die "--data-bin is '$BIN', it must be a folder of fairseq-preprocess; see --help"
compgen -G "$BIN/$SPLIT.*.idx" >/dev/null || die "--split is '$SPLIT', and $BIN has no such split"
for name in train valid; do
    compgen -G "$BIN/$name.*.idx" >/dev/null || die "$BIN has no split '$name', which students need; run fairseq-preprocess with it"
done
[ -z "$VOCABULARY" ] || [[ $SPLIT == test || $SPLIT == valid ]] || die "--split is '$SPLIT', with --vocabulary it must be test or valid"
IFS=: read -r -a teachers <<<"$TEACHER"
for file in "${teachers[@]}"; do [ -f "$file" ] || die "--teacher names '$file', which is no file"; done
[ -n "$TEACHER" ] || die "--teacher is missing: it names the checkpoint that students learn from"
check_seeds
for number in "$UPDATES" "$TUNING_UPDATES" "$BATCH" "$MAX_TOKENS" "$BEAM" "$JOBS" "${VOCABULARY:-1}"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || die "'$number' is no positive number; see --help"
done
for number in "$TUNING_LR" "$LENPEN"; do
    [[ $number =~ ^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$ ]] || die "'$number' is no number; see --help"
done
[[ $ENGINE == fairseq || $ENGINE == ctranslate2 ]] || die "--engine is '$ENGINE', it must be fairseq or ctranslate2"
METHODS=${METHODS//[[:space:]]/}
[ -n "$METHODS" ] || die "--methods is empty; see --help"
TRAINING="--lr-scheduler inverse_sqrt $TRAINING" # unless it names another
# What a student learns by that has text and no teacher: fairseq's own criterion, smoothed where --training says so.
PLAIN=cross_entropy
[[ " $TRAINING " != *" --label-smoothing"[\ =]* ]] || PLAIN=label_smoothed_cross_entropy
TUNING="--lr $TUNING_LR --warmup-updates 100" # of fine-tuning, instead of --training's
for method in ${METHODS//,/ }; do
    [[ " ${ROWS[*]} " == *":$method "* ]] || die "--methods has '$method'; see --help"
    [ -z "$VOCABULARY" ] || [[ $method == seq_kd || $method == seq_inter ]] ||
        die "--methods has '$method', but with --vocabulary students learn from text: only seq_kd and seq_inter do"
    # Fine-tuning begins with another student.
    case "$method" in
        student_inter | word_kd_inter) needed=${method%_inter} ;;
        seq_inter) needed=seq_kd ;;
        seq_inter_word) needed=seq_word ;;
        *) continue ;;
    esac
    [[ ,$METHODS, == *,$needed,* ]] || die "--methods has '$method', which fine-tunes $needed: name that too"
done
if [ -z "$VOCABULARY" ] && [[ " $STUDENT " == *" --share-all-embeddings "* ]]; then
    dictionaries=("$BIN"/dict.*.txt)
    for file in "${dictionaries[@]:1}"; do
        cmp -s "${dictionaries[0]}" "$file" ||
            die "$BIN has a dictionary for each language, so students cannot have --share-all-embeddings: name others with --student"
    done
fi
BIN=$(realpath "$BIN")
paths=''
for file in "${teachers[@]}"; do paths+=:$(realpath "$file"); done
TEACHER=${paths#:}
begin_work "$BIN|$TEACHER|$STUDENT|$TRAINING|$UPDATES|$TUNING_UPDATES|$TUNING_LR|$BATCH|$VOCABULARY|$BEAM|$LENPEN|$ENGINE|$HOW_TEXT"
need_environment "$WORK/venv" ctranslate2,report
DISTILLED=$WORK/distilled SAYS=$WORK/distributions GPUS=$(python -c 'import torch; print(torch.cuda.device_count())')
if [ "$GPUS" != 0 ] && [ "$ENGINE" = ctranslate2 ] && ! fast_engine_on_gpu; then
    [ -d "$WORK/done" ] || rm -f "$WORK/settings"
    die "use --engine fairseq"
fi
read -r S T < <(python - "$BIN" <<'PYTHON'
import sys

from fairseq.data.data_utils import infer_language_pair

print(*infer_language_pair(sys.argv[1]))
PYTHON
)

# Options that fairseq does not take are said before the search begins, and the folder stays free for better ones.
need_understood() { # which command, in whose words, then its command line
    python - "$1" "${@:3}" <<'PYTHON' || {
import sys

from fairseq import options

parser = {"train": options.get_training_parser, "generate": options.get_generation_parser}[sys.argv[1]]()
options.parse_args_and_arch(parser, sys.argv[2:])
PYTHON
        [ -d "$WORK/done" ] || rm -f "$WORK/settings"
        die "fairseq-$1 does not take these options of $2; see above"
    }
}
# shellcheck disable=SC2086
{
    criterions=()
    [ -z "$VOCABULARY" ] && [[ ,$METHODS, != *,student,* ]] || criterions+=("$PLAIN")
    [ -n "$VOCABULARY" ] || [ "$METHODS" = student ] || criterions+=(seq_kd)
    for criterion in "${criterions[@]}"; do
        for further in "" "$TUNING"; do
            [ -z "$further" ] || [[ $METHODS == *inter* ]] || continue
            need_understood train "--student and --training" "$BIN" --user-dir "$ROOT/fairseq_seqkd" $STUDENT $TRAINING \
                --criterion "$criterion" $further
        done
    done
    need_understood generate --text "$BIN" --path "$TEACHER" $HOW_TEXT
}

# --- What the teacher says ------------------------------------------------------------------------------------------------

# A worker for each GPU or core. Arguments: data, directory, then what differs.
ask_teacher() {
    local precision=()
    [ "$GPUS" = 0 ] || precision=(--fp16)
    [ "$GPUS" = 0 ] || [ "$ENGINE" = fairseq ] || [[ " $* " == *" --score-reference "* ]] || precision=(--compute-type float16)
    # The languages by name, since fairseq cannot undo --tokenizer moses without.
    seqkd decode "$1" --source-lang "$S" --target-lang "$T" --path "$TEACHER" --gen-subset train --distill-dir "$2" \
        "${precision[@]}" "${@:3}"
}

# shellcheck disable=SC2086
do_decoded() {
    ask_teacher "$BIN" "$DISTILLED" --beam "$BEAM" --nbest "$BEAM" --lenpen "$LENPEN" --max-len-a 1.2 --max-len-b 10 \
        --engine "$ENGINE" $HOW_TEXT
}

do_scored() { # gold, seq_kd or seq_inter
    local data=$DISTILLED/$1
    [ "$1" != gold ] || data=$BIN
    ask_teacher "$data" "$SAYS/$1" --score-reference --topk 8
}

# --- Students ---------------------------------------------------------------------------------------------------------------

# Arguments: run@seed, data, updates, then what differs.
# shellcheck disable=SC2046,SC2086
train() {
    mend_checkpoints "$WORK/$1"
    fairseq-train "$2" --user-dir "$ROOT/fairseq_seqkd" --save-dir "$WORK/$1" $STUDENT $TRAINING $(batch_of "$BATCH" "$MAX_TOKENS") \
        --max-update "$3" --seed "${1#*@}" --required-batch-size-multiple 1 --no-epoch-checkpoints \
        --save-interval-updates 5000 --keep-interval-updates 1 --validate-interval-updates 5000 --skip-invalid-size-inputs-valid-test \
        --log-format json --log-interval 100 "${@:4}"
}

# Arguments: run@seed, the run to start from, then what differs.
# shellcheck disable=SC2086
fine_tune() {
    after "$2@${1#*@}"
    train "$1" "$(data_of seq_inter)" "$TUNING_UPDATES" --criterion "$(criterion_of seq_inter)" \
        --finetune-from-model "$WORK/$2@${1#*@}/checkpoint_last.pt" $TUNING "${@:3}"
}

data_of() { [ -n "$VOCABULARY" ] && echo "$WORK/own/$1/bin" || echo "$DISTILLED/$1"; }

# With a vocabulary of its own a student learns from text, and fairseq's own criterion is all it needs.
criterion_of() { [ -n "$VOCABULARY" ] && echo "$PLAIN" || echo "$1"; }

do_student() { train "student@$1" "$BIN" "$UPDATES" --criterion "$PLAIN"; }
do_word_kd() { train "word_kd@$1" "$BIN" "$UPDATES" --criterion word_kd --teacher-distributions "$SAYS/gold"; }
do_seq_kd() { train "seq_kd@$1" "$(data_of seq_kd)" "$UPDATES" --criterion "$(criterion_of seq_kd)"; }
do_seq_word() { train "seq_word@$1" "$DISTILLED/seq_kd" "$UPDATES" --criterion seq_kd --teacher-distributions "$SAYS/seq_kd"; }
do_student_inter() { fine_tune "student_inter@$1" student; }
do_word_kd_inter() { fine_tune "word_kd_inter@$1" word_kd; }
do_seq_inter() { fine_tune "seq_inter@$1" seq_kd; }
do_seq_inter_word() { fine_tune "seq_inter_word@$1" seq_word --teacher-distributions "$SAYS/seq_inter"; }

# The view as text, cut by a SentencePiece model of the students' own, which is trained on Seq-KD's text.
# shellcheck disable=SC2086
do_own_text() {
    local text=$WORK/own/$1 split splits=(train valid) model=() dictionary=() test=()
    mkdir -p "$text"
    if compgen -G "$BIN/test.*.idx" >/dev/null; then splits+=(test) test=(--testpref "$text/test.spm"); fi
    for split in "${splits[@]}"; do
        seqkd text "$DISTILLED" --view "$1" --split "$split" -o "$text/$split" --force $HOW_TEXT
    done
    [ "$1" = seq_kd ] || model=(--model "$WORK/own/seq_kd/spm.model") dictionary=(--srcdict "$WORK/own/seq_kd/bin/dict.$S.txt")
    python "$ROOT/recipes/subwords.py" "$text" --langs "$S" "$T" --vocabulary "$VOCABULARY" --splits "${splits[@]}" "${model[@]}"
    rm -rf "${text:?}/bin"
    fairseq-preprocess --source-lang "$S" --target-lang "$T" --joined-dictionary "${dictionary[@]}" --destdir "$text/bin" \
        --workers 1 --trainpref "$text/train.spm" --validpref "$text/valid.spm" "${test[@]}"
}

# --- Measuring --------------------------------------------------------------------------------------------------------------

# shellcheck disable=SC2086
do_evaluate() {
    local row seed students=() teachers=() data=$BIN how=$HOW_TEXT index=(data "$BIN" distilled "$DISTILLED" results "$TABLE.results.json")
    [ -z "$VOCABULARY" ] || data=$WORK/own/seq_kd/bin how='' # whose pieces are of text already
    [[ $TEACHER == *:* ]] || teachers=("Teacher=$TEACHER")
    for row in "${ROWS[@]}"; do
        [[ ,$METHODS, == *,${row#*:},* ]] || continue
        for seed in ${SEEDS//,/ }; do
            students+=("${row%:*}@$seed=$WORK/${row#*:}@$seed/checkpoint_last.pt")
            index+=(training "${row%:*}@$seed" "$WORK/logs/${row#*:}@$seed.log")
        done
    done
    if [ -n "$VOCABULARY" ] && [ ${#teachers[@]} -gt 0 ]; then # other tokens, so a table of its own
        seqkd evaluate "${teachers[@]}" --data "$BIN" --split "$SPLIT" --cache "$WORK/cache" -o "$WORK/teacher.$SPLIT.json" $HOW_TEXT
        teachers=()
    fi
    seqkd evaluate "${teachers[@]}" "${students[@]}" --data "$data" --split "$SPLIT" --cache "$WORK/cache" -o "$TABLE.results.json" $how
    seqkd report "$TABLE.results.json" -o "$TABLE.md" -o "$TABLE.json"
    write_index "${index[@]}"
    seqkd report "$WORK" -o "$TABLE.html"
}

echo "the teacher's beam search over the training set"
stage decoded do_decoded
for targets in gold seq_kd seq_inter; do
    case "$targets" in gold) method=word_kd ;; seq_kd) method=seq_word ;; seq_inter) method=seq_inter_word ;; esac
    [[ ,$METHODS, != *,$method,* ]] || stage "scored@$targets" do_scored "$targets"
done
if [ -n "$VOCABULARY" ]; then
    for view in seq_kd seq_inter; do [[ ,$METHODS, != *,$view,* ]] || stage "text@$view" do_own_text "$view"; done
fi
echo "students"
stages=()
for seed in ${SEEDS//,/ }; do
    for method in student word_kd seq_kd seq_word student_inter word_kd_inter seq_inter seq_inter_word; do
        [[ ,$METHODS, != *,$method,* ]] || stages+=("$method@$seed")
    done
done
side_by_side "${stages[@]}"
echo "evaluation"
TABLE=$WORK/$SPLIT.$SEEDS.$METHODS # a table of its own for each question; the last one's is report.*
stage "evaluate-$SPLIT-$SEEDS-$METHODS" do_evaluate
for kind in md json html; do cp "$TABLE.$kind" "$WORK/report.$kind"; done
cat "$WORK/report.md"
