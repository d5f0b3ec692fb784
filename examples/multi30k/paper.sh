#!/usr/bin/env bash
# Kim & Rush (2016) on Multi30k, German to English: Tables 1, 2 and 3, and what the settings change.
#
#   examples/multi30k/paper.sh --text DIR (--model DIR | --train-teacher) [options] [PART...]
#
#   PART             table1, table2, table3, sweeps (default: all four, in this order, or those that the pairs, students and seeds
#                    below allow: Table 2 is of seed 1, Table 3 prunes its medium Transformer, the sweeps have its small one);
#                    results makes the files anew
#   --text DIR       Multi30k, task 1, raw: {train,val,test_2016_flickr,test_2017_flickr}.{de,en}.gz
#   --model DIR      a Transformer teacher to start from: teacher.pt, spm.model, data-bin/dict.de.txt
#   --train-teacher  train one instead, and a SentencePiece model
#   --work DIR       where everything goes (default: ./multi30k-paper); run again, it continues where it was
#   --seeds LIST     seeds of the students (default: 1); more can be added later: --seeds 1,2,3
#   --pairs LIST     transformer,lstm (default: both)
#   --students LIST  small,medium (default: both)
#   --shorten N      divides every number of updates by N, to try the script (default: 1)
#   --jobs N         processes side by side, one thread each (default: 2)
#   --help
#
# Stages leave a log in DIR/logs and a mark in DIR/done; remove a mark to run a stage again, a training's folder with it, since
# fairseq goes on where that ended, and the marks of what is made from it: evaluate@* at least. The results are DIR/RESULTS.md and
# DIR/results.json; every number in them comes from a file that a command wrote to DIR/measured.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=recipes/lib.sh
. "$ROOT/recipes/lib.sh"

TEXT='' MODEL='' TRAIN_TEACHER='' WORK=multi30k-paper SEEDS=1 PAIRS=transformer,lstm STUDENTS=small,medium SHORTEN=1 JOBS=2 PARTS=()
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help) usage; exit ;;
        --train-teacher) TRAIN_TEACHER=yes; shift; continue ;;
        table1 | table2 | table3 | sweeps | results) PARTS+=("$1"); shift; continue ;;
    esac
    [ $# -ge 2 ] || die "option $1 needs a value, or is none; see --help"
    case "$1" in
        --text) TEXT=$2 ;;
        --model) MODEL=$2 ;;
        --work) WORK=$2 ;;
        --seeds) SEEDS=$2 ;;
        --pairs) PAIRS=$2 ;;
        --students) STUDENTS=$2 ;;
        --shorten) SHORTEN=$2 ;;
        --jobs) JOBS=$2 ;;
        *) die "unknown option $1; see --help" ;;
    esac
    shift 2
done
check_seeds
PAIRS=${PAIRS//[[:space:]]/} STUDENTS=${STUDENTS//[[:space:]]/}
[[ ${PAIRS//,/} && ${STUDENTS//,/} ]] || die "--pairs and --students take at least one name; see --help"
[[ $SHORTEN =~ ^[1-9][0-9]*$ && $JOBS =~ ^[1-9][0-9]*$ ]] || die "--shorten and --jobs take positive numbers"
for name in ${PAIRS//,/ }; do [[ $name == transformer || $name == lstm ]] || die "--pairs has '$name'; see --help"; done
for name in ${STUDENTS//,/ }; do [[ $name == small || $name == medium ]] || die "--students has '$name'; see --help"; done
# What is measured of seed 1 of a Transformer's student alone.
with() { [[ ,$PAIRS, == *,transformer,* && ,$STUDENTS, == *,$1,* && ,$SEEDS, == *,1,* ]]; }
if [ ${#PARTS[@]} -eq 0 ]; then
    PARTS=(table1)
    if [[ ,$SEEDS, == *,1,* ]]; then PARTS+=(table2); fi # of whose students it is
    if with medium; then PARTS+=(table3); fi
    if with small; then PARTS+=(sweeps); fi
fi
for name in {train,val,test_2016_flickr,test_2017_flickr}.{de,en}.gz; do
    [ -f "$TEXT/$name" ] || die "--text is '$TEXT', which has no $name; it is task 1, raw, of github.com/multi30k/dataset"
done
[ -n "$MODEL$TRAIN_TEACHER" ] || die "name a trained teacher with --model, or train one with --train-teacher"
[ -z "$MODEL" ] || [ -z "$TRAIN_TEACHER" ] || die "--model and --train-teacher exclude each other: use one of them"
[[ $(realpath -m "$WORK") != *,* ]] || die "--work is '$WORK': fairseq-preprocess cannot read files in a folder with a comma in its name"
for name in teacher.pt spm.model data-bin/dict.de.txt; do
    [ -n "$TRAIN_TEACHER" ] || [ -f "$MODEL/$name" ] || die "--model is '$MODEL', which has no $name; or use --train-teacher"
done
TEXT=$(realpath "$TEXT")
[ -n "$TRAIN_TEACHER" ] || MODEL=$(realpath "$MODEL")
USER_DIR=$ROOT/fairseq_seqkd BEAM=10

# --- Text ---------------------------------------------------------------------------------------------------------------

do_text() {
    mkdir -p "$WORK/text"
    local lang name
    for lang in de en; do
        for name in train:train val:valid test_2016_flickr:test test_2017_flickr:test1; do
            gunzip -c "$TEXT/${name%:*}.$lang.gz" >"$WORK/text/${name#*:}.$lang"
        done
    done
}

do_subwords() {
    local model=()
    [ -n "$TRAIN_TEACHER" ] || model=(--model "$MODEL/spm.model")
    python "$ROOT/recipes/subwords.py" "$WORK/text" --langs de en --vocabulary 6000 --splits train valid test test1 "${model[@]}"
}

do_binarise() {
    local dictionary=()
    [ -n "$TRAIN_TEACHER" ] || dictionary=(--srcdict "$MODEL/data-bin/dict.de.txt")
    rm -rf "${BIN:?}" # fairseq-preprocess does not go on in what an interrupted one left
    fairseq-preprocess --source-lang de --target-lang en --joined-dictionary "${dictionary[@]}" --destdir "$BIN" --workers 1 \
        --trainpref "$WORK/text/train.spm" --validpref "$WORK/text/valid.spm" --testpref "$WORK/text/test.spm,$WORK/text/test1.spm"
}

# --- Training -----------------------------------------------------------------------------------------------------------

# Arguments: data, folder of the run, updates, learning rate, tokens a batch, then what differs. On one GPU, where there are some.
train() {
    local data=$1 run=$2 updates=$(($3 / SHORTEN + 1)) lr=$4 tokens=$5
    shift 5
    mend_checkpoints "$WORK/$run"
    fairseq-train "$data" --user-dir "$USER_DIR" --save-dir "$WORK/$run" \
        --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 1.0 \
        --lr "$lr" --lr-scheduler polynomial_decay --end-learning-rate 1e-5 --total-num-update "$updates" \
        --max-update "$updates" --max-tokens "$tokens" --required-batch-size-multiple 1 --num-workers 0 --distributed-world-size 1 \
        --no-epoch-checkpoints --disable-validation --log-format json --log-interval 100 "$@"
}

# What a model is. Arguments: pair, size. With two layers the LSTM's students do not learn to attend in so few updates, and with one
# matrix for the embeddings of both languages some seeds do not.
architecture() {
    case "$1.$2" in
        transformer.teacher) transformer 3 192 768 4 ;;
        transformer.medium) transformer 1 128 256 4 --encoder-normalize-before --decoder-normalize-before ;;
        transformer.small) transformer 2 48 96 2 --encoder-normalize-before --decoder-normalize-before ;;
        lstm.teacher) lstm 2 192 --share-all-embeddings ;;
        lstm.medium) lstm 1 64 --share-decoder-input-output-embed ;;
        lstm.small) lstm 1 40 --share-decoder-input-output-embed ;;
    esac
}

transformer() { # layers on each side, dimensions, feed-forward, heads, then what differs
    echo --arch transformer --encoder-layers "$1" --decoder-layers "$1" --encoder-embed-dim "$2" --decoder-embed-dim "$2" \
        --encoder-ffn-embed-dim "$3" --decoder-ffn-embed-dim "$3" --encoder-attention-heads "$4" --decoder-attention-heads "$4" \
        --share-all-embeddings "${@:5}"
}

# With attention and input feeding, as in the paper, and encoders that read in both directions: layers on each side, dimensions, then
# what differs.
lstm() {
    echo --arch lstm --encoder-layers "$1" --decoder-layers "$1" --encoder-embed-dim "$2" --decoder-embed-dim "$2" \
        --encoder-hidden-size "$2" --decoder-hidden-size "$2" --decoder-out-embed-dim "$2" --encoder-bidirectional "${@:3}"
}

# shellcheck disable=SC2046
do_teacher() { # pair
    case "$1.$TRAIN_TEACHER" in
        # The teacher that is there was trained with label smoothing, which makes its translations short: two epochs without it.
        transformer.) train "$BIN" transformer/teacher 520 5e-4 2048 --warmup-updates 50 --criterion cross_entropy --dropout 0.3 \
            --seed 1 --end-learning-rate 0 --finetune-from-model "$MODEL/teacher.pt" $(architecture transformer teacher) ;;
        transformer.*) train "$BIN" transformer/teacher 8000 2e-3 1024 --warmup-updates 800 --criterion cross_entropy \
            --dropout 0.3 --seed 1 $(architecture transformer teacher) ;;
        lstm.*) train "$BIN" lstm/teacher 6500 4e-3 1024 --warmup-updates 400 --criterion cross_entropy --dropout 0.2 --seed 1 \
            $(architecture lstm teacher) ;;
    esac
}

do_teacher_inter() { # pair; the teacher, fine-tuned towards what it says itself
    after "distilled@$1"
    # shellcheck disable=SC2046
    train "$WORK/$1/distilled/seq_inter" "$1/teacher_inter" 500 3e-4 1024 --warmup-updates 50 --criterion seq_inter \
        --dropout 0.3 --seed 1 --finetune-from-model "$WORK/$1/teacher/checkpoint_last.pt" $(architecture "$1" teacher)
}

# Every student is pair.size.run.seed. Options of its own may follow, which the sweeps use.
do_train() {
    local pair size run seed
    IFS=. read -r pair size run seed <<<"$1"
    local views=$WORK/$pair/distilled says=$WORK/$pair/distributions
    case "$run" in
        student) from_scratch "$1" "$BIN" --criterion cross_entropy ;;
        word_kd) after "score@$pair.gold" && from_scratch "$1" "$BIN" --criterion word_kd --teacher-distributions "$says/gold" ;;
        seq_kd) after "distilled@$pair" && from_scratch "$1" "$views/seq_kd" --criterion seq_kd ;;
        seq_word) after "score@$pair.seq_kd" &&
            from_scratch "$1" "$views/seq_kd" --criterion seq_kd --teacher-distributions "$says/seq_kd" ;;
        student_inter) fine_tune "$1" "$pair.$size.student.$seed" ;;
        word_kd_inter) fine_tune "$1" "$pair.$size.word_kd.$seed" ;;
        seq_inter) fine_tune "$1" "$pair.$size.seq_kd.$seed" ;;
        seq_inter_word) after "score@$pair.seq_inter" &&
            fine_tune "$1" "$pair.$size.seq_word.$seed" --teacher-distributions "$says/seq_inter" ;;
    esac
}

model_of() { echo "$WORK/students/$1/checkpoint_last.pt"; }

# What a student is trained with from scratch: updates, peak learning rate, tokens a batch; and updates of its fine-tuning. The
# smaller a Transformer is, the longer it learns before it overfits; LSTMs learn to attend with many small steps.
schedule() {
    case "$1" in
        transformer.small) echo 6000 1e-2 1280 900 ;;
        transformer.medium) echo 5000 3e-3 1000 900 ;;
        lstm.*) echo 5000 1e-2 500 1200 ;;
    esac
}

from_scratch() { student scratch "$@"; } # student, data, then criterion and teacher

fine_tune() { # student, the one to start from, then what differs
    local pair=${1%%.*}
    after "distilled@$pair"
    after "train@$2"
    student tuning "$1" "${SEQ_INTER:-$WORK/$pair/distilled/seq_inter}" --criterion seq_inter \
        --finetune-from-model "$(model_of "$2")" "${@:3}"
}

# Arguments: scratch or tuning, which has a smaller learning rate; student, data, then what differs.
student() {
    local pair size run seed updates rate tokens tuning warm_up=400
    IFS=. read -r pair size run seed <<<"$2"
    read -r updates rate tokens tuning < <(schedule "$pair.$size")
    [ "$1" = scratch ] || updates=$tuning rate=1e-3 warm_up=50
    # shellcheck disable=SC2046
    train "$3" "students/$2" "$updates" "$rate" "$tokens" --warmup-updates "$warm_up" --dropout 0 --seed "$seed" \
        $(architecture "$pair" "$size") "${@:4}"
}

# --- What the teacher says ------------------------------------------------------------------------------------------------

# Arguments: data, directory, pair, then what differs.
ask_teacher() {
    fairseq-generate "$1" --user-dir "$USER_DIR" --task teacher_decoding --path "$WORK/$3/teacher/checkpoint_last.pt" \
        --gen-subset train --distill-dir "$2" "${@:4}"
}

# Pair, directory, beam. The length penalty is the best one on the validation split, of 1, 1.4, 1.8 and 2.2 for the Transformer; of
# 0.2, 0.6 and 1 for the LSTM, 0.6 is 0.2 BLEU better than what was kept of an earlier training of it.
# shellcheck disable=SC2086
search() {
    local engine=fairseq lenpen=0.2
    [ "$1" != transformer ] || engine="ctranslate2 --cpu" lenpen=1.8 # whose cuBLAS may not be a GPU's torch's
    ask_teacher "$BIN" "$2" "$1" --beam "$3" --nbest "$3" --lenpen "$lenpen" --max-len-a 1.2 --max-len-b 10 --engine $engine \
        --post-process sentencepiece
}

do_decode() { # pair.worker; any number of workers share the directory
    after "teacher@${1%.*}"
    search "${1%.*}" "$WORK/${1%.*}/distilled" "$BEAM"
}

do_distilled() { # pair; finishes what the workers have done
    local worker
    for worker in $(seq "$JOBS"); do after "decode@$1.$worker"; done
    search "$1" "$WORK/$1/distilled" "$BEAM"
}

do_score() { # pair.targets: its 8 most probable symbols at every target token, for word-level distillation
    local pair=${1%.*} data
    [ "${1#*.}" = gold ] && data=$BIN || data=$WORK/$pair/distilled/${1#*.}
    after "teacher@$pair"
    [ "$data" = "$BIN" ] || after "distilled@$pair"
    ask_teacher "$data" "$WORK/$pair/distributions/${1#*.}" "$pair" --score-reference --topk 8 --max-tokens 2000
}

# --- Measuring ------------------------------------------------------------------------------------------------------------

# pair.size.split.seeds: all rows of a table.
do_evaluate() {
    local pair size split seeds seed name systems=()
    IFS=. read -r pair size split seeds <<<"$1"
    systems+=("Teacher=$WORK/$pair/teacher/checkpoint_last.pt" "Teacher + Seq-Inter=$WORK/$pair/teacher_inter/checkpoint_last.pt")
    for name in "${ROWS[@]}"; do
        for seed in ${seeds//,/ }; do
            systems+=("${name%:*}@$seed=$(model_of "$pair.$size.${name#*:}.$seed")")
        done
    done
    measure "$pair.$size.$split" "$split" "${systems[@]}"
}

measure() { # name of the file, split, systems
    in_work "$1" evaluate "${@:3}" --data "$BIN" --split "$2" --cache "$WORK/cache"
}

# Measures from within the work folder, so that what is written names the checkpoints as they lie there, wherever it is.
in_work() { # name of the file, command of seqkd, its arguments
    local words=("${@:3}")
    mkdir -p "$WORK/measured"
    cd "$WORK" && seqkd "$2" "${words[@]/"=$WORK/"/=}" -o "measured/$1.json"
}

# --- Table 1 ---------------------------------------------------------------------------------------------------------------

# The stages of Table 1 in the order in which they begin: what shows most first, the LSTM's teacher beside the Transformer's
# students, further seeds at the end.
stages_of_table1() {
    local pair size seed name ready=' '
    for pair in lstm transformer; do [[ ,$PAIRS, != *,$pair,* ]] || echo "teacher@$pair"; done
    for seed in ${SEEDS//,/ }; do
        for size in small medium; do
            [[ ,$STUDENTS, == *,$size,* ]] || continue
            for pair in transformer lstm; do
                [[ ,$PAIRS, == *,$pair,* ]] || continue
                if [[ $ready != *" $pair "* ]]; then
                    # The baselines need no teacher: they learn beside it, rather than a process waiting for it.
                    for name in ${SEEDS//,/ }; do echo "train@$pair.$size.student.$name"; done
                    seq -f "decode@$pair.%g" "$JOBS"
                    echo "distilled@$pair" "score@$pair".{seq_kd,gold,seq_inter} "teacher_inter@$pair"
                    ready+="$pair "
                fi
                for name in seq_kd student seq_word word_kd seq_inter student_inter seq_inter_word word_kd_inter; do
                    echo "train@$pair.$size.$name.$seed"
                done
            done
        done
    done | awk '!seen[$0]++' # the baselines stood there already
}

evaluations_of_table1() {
    local pair size split
    for pair in ${PAIRS//,/ }; do
        for size in ${STUDENTS//,/ }; do
            for split in test test1 valid; do echo "evaluate@$pair.$size.$split.$SEEDS"; done
        done
    done
}

# shellcheck disable=SC2046
run_table1() {
    side_by_side $(stages_of_table1)
    side_by_side $(evaluations_of_table1)
}

# --- Table 2 ---------------------------------------------------------------------------------------------------------------

BEST="Seq-KD + Seq-Inter + Word-KD"

do_bench() { # pair.students; alone on the machine
    local pair=${1%.*} size systems
    systems=("Teacher=$WORK/$pair/teacher/checkpoint_last.pt")
    for size in medium small; do
        [[ ,${1#*.}, != *,$size,* ]] || systems+=("$BEST ($size)=$(model_of "$pair.$size.seq_inter_word.1")")
    done
    [ "$pair" != transformer ] || ! with medium || systems+=("$BEST (medium) 80% retrained=$WORK/pruned/80.seq_inter/checkpoint_last.pt")
    in_work "speed.$pair" bench "${systems[@]}" --data "$BIN"
}

run_table2() {
    local pair size name mark
    if with medium; then run_table3; fi # whose student is one of the contenders
    for pair in ${PAIRS//,/ }; do
        for size in ${STUDENTS//,/ }; do need_trained "$pair.$size.seq_inter_word.1"; done
        name="bench@$pair.$STUDENTS"
        if [ "$pair" = transformer ] && with medium; then name+=.pruned; fi
        # Of a pair there is one file, and it has the contenders of the last command: earlier ones are to be measured again.
        for mark in "$WORK/done/bench@$pair."*; do [ "$mark" = "$WORK/done/$name" ] || rm -f "$mark"; done
        stage "$name" do_bench "$pair.$STUDENTS"
    done
}

# Stops unless a student's training has ended: its checkpoint alone says little, fairseq writes one after every epoch.
need_trained() { # student
    [ -e "$WORK/done/train@$1" ] || die "$1 is not there or has not finished its training: run table1 with it first"
}

# --- Table 3 ---------------------------------------------------------------------------------------------------------------

# The medium Transformer, pruned step by step; after each step it learns Seq-KD's data and then Seq-Inter's, as in the paper.
# A stage each, since fairseq adds an update to a finished training that is run again, and what follows is made from its checkpoint.
do_prune() { # percentage, the checkpoint that is pruned
    local out=$WORK/pruned/$1
    mkdir -p "$out"
    seqkd prune "$2" --sparsity "0.$1" -o "$out/pruned.pt"
}

do_retrain() { # percentage
    on_both_cores "$WORK/pruned/$1.seq_kd" retrain "$1.seq_kd" 2400 2e-3 "$WORK/pruned/$1/pruned.pt"
}

do_retune() { # percentage
    on_both_cores "$WORK/pruned/$1.seq_inter" retrain "$1.seq_inter" 600 1e-3 "$WORK/pruned/$1.seq_kd/checkpoint_last.pt"
}

retrain() { # run, updates, learning rate, the checkpoint to start from, then what differs; half a batch for each of two processes
    local view=${1#*.}
    # shellcheck disable=SC2046
    train "$WORK/transformer/distilled/$view" "pruned/$1" "$2" "$3" 500 --warmup-updates 100 --dropout 0 --seed 1 \
        --criterion "$view" --teacher-distributions "$WORK/transformer/distributions/$view" --freeze-zeros \
        --finetune-from-model "$4" $(architecture transformer medium) "${@:5}"
}

do_evaluate_pruned() { # split
    local share systems=("Teacher=$WORK/transformer/teacher/checkpoint_last.pt")
    systems+=("Seq-KD=$(model_of transformer.medium.seq_kd.1)" "$BEST=$(model_of transformer.medium.seq_inter_word.1)")
    for share in 50 80 85 90; do
        systems+=("$BEST $share%=$WORK/pruned/$share/pruned.pt" "$BEST $share% retrained=$WORK/pruned/$share.seq_inter/checkpoint_last.pt")
    done
    measure "pruned.$1" "$1" "${systems[@]}"
}

run_table3() {
    local share from name
    for share in seq_inter_word seq_kd; do need_trained "transformer.medium.$share.1"; done
    from=$(model_of transformer.medium.seq_inter_word.1)
    for share in 50 80 85 90; do
        stage "prune@$share" do_prune "$share" "$from"
        for name in retrain retune; do stage "$name@$share" "do_$name" "$share"; done
        from=$WORK/pruned/$share.seq_inter/checkpoint_last.pt
    done
    side_by_side evaluate_pruned@test evaluate_pruned@test1
}

# --- What the settings change -----------------------------------------------------------------------------------------------

# All with the small Transformer, seed 1: what the teacher's beam gives Seq-KD; what length and similarity give Seq-Inter; what
# alpha and the temperature give Word-KD.
do_beam() { # K: another search, and a student of it
    search transformer "$WORK/sweeps/beam$1" "$1"
    from_scratch transformer.small.beam"$1".1 "$WORK/sweeps/beam$1/seq_kd" --criterion seq_kd
}

do_inter() { # name, then options of seqkd select; a student that is fine-tuned on what they choose
    local name=$1
    seqkd select "$WORK/transformer/distilled" --data "$BIN" -o "$WORK/sweeps/$name" --post-process sentencepiece "${@:2}"
    SEQ_INTER=$WORK/sweeps/$name/seq_inter fine_tune "transformer.small.$name.1" transformer.small.student.1
}

do_nbest() { do_inter "nbest$1" --nbest "$1"; }
do_similarity() { do_inter "$1" --similarity "$1"; }
do_alpha() { word_level "alpha${1#*.}" --alpha "$1"; } # no point in the name of a student
do_temperature() { word_level "temperature$1" --temperature "$1"; }

word_level() { # name, then options of word_kd
    from_scratch "transformer.small.$1.1" "$BIN" --criterion word_kd --teacher-distributions "$WORK/transformer/distributions/gold" "${@:2}"
}

do_evaluate_sweeps() { # split
    local name systems=()
    for name in "Student:student" "Seq-KD, beam 1:beam1" "Seq-KD, beam 5:beam5" "Seq-KD, beam 10:seq_kd" \
        "Student + Seq-Inter, best of 2:nbest2" "Student + Seq-Inter, best of 5:nbest5" "Student + Seq-Inter, best of 10:student_inter" \
        "Student + Seq-Inter, best of 10 by chrF:chrf" "Student + Seq-Inter, best of 10 by TER:ter" \
        "Word-KD, alpha 0.25:alpha25" "Word-KD, alpha 0.5:word_kd" "Word-KD, alpha 0.9:alpha9" \
        "Word-KD, alpha 0.5, temperature 2:temperature2"; do
        systems+=("${name%:*}=$(model_of "transformer.small.${name##*:}.1")")
    done
    measure "sweeps.$1" "$1" "${systems[@]}"
}

run_sweeps() {
    local name
    for name in student seq_kd word_kd student_inter; do need_trained "transformer.small.$name.1"; done
    side_by_side beam@5 beam@1 alpha@0.25 alpha@0.9 temperature@2 nbest@2 nbest@5 similarity@chrf similarity@ter
    side_by_side evaluate_sweeps@test evaluate_sweeps@valid
}

run_results() { :; } # they are made below, whatever was run

# The models are settings of the work folder too.
begin_work "$TEXT|${TRAIN_TEACHER:-$MODEL}|$SHORTEN|$BEAM|$(
    declare -f train architecture transformer lstm do_teacher do_teacher_inter search schedule from_scratch fine_tune student \
        retrain | cksum
)"
need_environment "$WORK/venv" ctranslate2,report
BIN=$WORK/bin
for name in text subwords binarise; do stage "$name" "do_$name"; done
for part in "${PARTS[@]}"; do
    echo "$part"
    "run_$part"
done
python "$ROOT/examples/multi30k/results.py" "$WORK"
awk -v jobs="$JOBS" '{ seconds += $1 } END { printf "%.1f hours of stages; %d ran side by side\n", seconds / 3600, jobs }' "$WORK"/done/*
