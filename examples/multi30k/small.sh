#!/usr/bin/env bash
# A small student of a Multi30k teacher: Seq-KD, pruned and retrained, in int8; how good and how fast it is.
#
#   examples/multi30k/small.sh DATA_BIN TEACHER SPM_MODEL [WORK]
#
#   DATA_BIN    data-bin of fairseq-preprocess with train, valid and test, pieces of SentencePiece, a joined dictionary
#   TEACHER     a checkpoint that was trained on it
#   SPM_MODEL   what cut the text into pieces
#   WORK        where everything goes (default: ./multi30k-small); run again, it continues where it was
#
# Writes WORK/report.md with the paper's Tables 2 and 3, WORK/report.json, the page WORK/report.html and WORK/pruning.svg, and
# the folder WORK/student.ct2, which `seqkd translate` runs. On two cores it takes two hours.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=recipes/lib.sh
. "$ROOT/recipes/lib.sh"
case "${1:-}" in -h | --help) usage; exit ;; esac
[ $# -ge 3 ] || die "DATA_BIN, TEACHER and SPM_MODEL are needed; see --help"
for path in "$1" "$2" "$3"; do [ -e "$path" ] || die "$path does not exist; see --help"; done
BIN=$(realpath "$1") TEACHER=$(realpath "$2") SPM=$(realpath "$3") WORK=${4:-multi30k-small} JOBS=2
begin_work "$BIN|$TEACHER|$SPM"
need_environment "$WORK/venv" ctranslate2,report
DISTILLED=$WORK/distilled

do_decode() { # a worker; length penalty 1.4, because this teacher's favourites have 0.9 of gold's length
    fairseq-generate "$BIN" --user-dir "$ROOT/fairseq_seqkd" --task teacher_decoding --path "$TEACHER" --gen-subset train \
        --beam 5 --nbest 5 --lenpen 1.4 --max-len-a 1.2 --max-len-b 10 --cpu --engine ctranslate2 --post-process sentencepiece \
        --distill-dir "$DISTILLED" --distributed-world-size "$JOBS" --distributed-rank "$(($1 - 1))"
}

do_score() { # its 8 most probable symbols at every token of its translations, and of gold and Seq-Inter's, for retraining
    local data=$DISTILLED/$1 out=$WORK/distributions.$1
    [ "$1" != gold ] || data=$BIN
    fairseq-generate "$data" --user-dir "$ROOT/fairseq_seqkd" --task teacher_decoding --path "$TEACHER" \
        --gen-subset train --score-reference --topk 8 --distill-dir "$out"
}

# Arguments: run, data, updates, learning rate, warm-up, then what differs. Half a batch for each of two processes;
# on one GPU, where there are some.
train() {
    local run=$1 data=$2 updates=$3 lr=$4 warmup=$5
    shift 5
    mend_checkpoints "$WORK/$run"
    fairseq-train "$data" --user-dir "$ROOT/fairseq_seqkd" --save-dir "$WORK/$run" --arch transformer \
        --encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 168 --decoder-embed-dim 168 \
        --encoder-ffn-embed-dim 336 --decoder-ffn-embed-dim 336 --encoder-attention-heads 4 --decoder-attention-heads 4 \
        --share-all-embeddings --encoder-normalize-before --decoder-normalize-before --seed 1 \
        --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 1.0 \
        --lr "$lr" --lr-scheduler polynomial_decay --end-learning-rate 1e-5 --warmup-updates "$warmup" \
        --total-num-update "$updates" --max-update "$updates" --max-tokens 750 --required-batch-size-multiple 1 \
        --num-workers 0 --distributed-world-size 1 --no-epoch-checkpoints --disable-validation --log-format json --log-interval 100 "$@"
}

do_student() { on_both_cores "$WORK/student" train student "$DISTILLED/seq_kd" 4400 3e-3 400 --criterion seq_kd --dropout 0.1; }

# Arguments: run, data, the checkpoint to start from, updates, learning rate, then what differs.
go_on() { on_both_cores "$WORK/$1" train "$1" "$2" "$4" "$5" 100 --finetune-from-model "$3" "${@:6}"; }

# Zeros stay zero, the teacher's distributions help, and few weights cannot learn too much: no dropout. Arguments: run, the
# checkpoint to start from, updates.
retrain() {
    go_on "$1" "$DISTILLED/seq_kd" "$2" "$3" 2e-3 --criterion seq_kd --dropout 0 --freeze-zeros \
        --teacher-distributions "$WORK/distributions.seq_kd"
}

prune() { # share in per cent, run
    mkdir -p "$WORK/pruned$1"
    seqkd prune "$WORK/$2/checkpoint_last.pt" --sparsity "0.$1" -o "$WORK/pruned$1/pruned.pt"
}

do_pruned60() { prune 60 student && retrain pruned60 "$WORK/pruned60/pruned.pt" 1000; }
do_pruned80() { prune 80 pruned60 && retrain pruned80 "$WORK/pruned80/pruned.pt" 5000; }
do_longer80() { retrain longer80 "$WORK/pruned80/checkpoint_last.pt" 6000; } # once more, from a high learning rate

# In the end on all that the teacher has said of: an epoch of gold, one of Seq-KD's data, one of Seq-Inter's, and so on.
do_mixed80() {
    local says=$WORK/distributions
    go_on mixed80 "$BIN:$DISTILLED/seq_kd:$DISTILLED/seq_inter" "$WORK/longer80/checkpoint_last.pt" 5000 2e-3 --criterion word_kd \
        --alpha 0.8 --teacher-distributions "$says.gold:$says.seq_kd:$says.seq_inter" --dropout 0 --freeze-zeros
}

do_inter() { # for comparison: the whole student, fine-tuned
    go_on inter "$DISTILLED/seq_inter" "$WORK/student/checkpoint_last.pt" 1000 1e-3 --criterion seq_inter --dropout 0
}

do_sweep() { # without retraining, for Table 3
    local share
    for share in 20 40 60 80; do seqkd prune "$WORK/student/checkpoint_last.pt" --sparsity "0.$share" -o "$WORK/sweep$share.pt"; done
}

do_export() {
    seqkd export "$WORK/mixed80/checkpoint_last.pt" --to ctranslate2 --quantization int8 --sentencepiece-model "$SPM" \
        -o "$WORK/student.ct2" --force
    seqkd compress "$WORK/mixed80/checkpoint_last.pt" -o "$WORK/student.compressed"
}

do_evaluate() {
    local systems=(Teacher="$TEACHER" Seq-KD="$WORK/student/checkpoint_last.pt") share
    systems+=("Seq-KD + Seq-Inter=$WORK/inter/checkpoint_last.pt")
    for share in 20 40 60 80; do systems+=("Seq-KD $share%=$WORK/sweep$share.pt"); done
    systems+=("Seq-KD 60% retrained=$WORK/pruned60/checkpoint_last.pt" "Seq-KD 80% retrained on Seq-KD=$WORK/longer80/checkpoint_last.pt")
    systems+=("Seq-KD 80% retrained=$WORK/mixed80/checkpoint_last.pt")
    seqkd evaluate "${systems[@]}" --data "$BIN" --cache "$WORK/cache" -o "$WORK/results.json"
}

do_choose() { # how to retrain is decided on the validation split
    seqkd evaluate Seq-KD="$WORK/student/checkpoint_last.pt" "Seq-KD + Seq-Inter=$WORK/inter/checkpoint_last.pt" \
        "Seq-KD 80% retrained on Seq-KD=$WORK/longer80/checkpoint_last.pt" \
        "Seq-KD 80% retrained=$WORK/mixed80/checkpoint_last.pt" \
        --data "$BIN" --split valid --cache "$WORK/cache" -o "$WORK/valid.json"
}

do_bench() { # alone on the machine
    seqkd bench Teacher="$TEACHER" Seq-KD="$WORK/student/checkpoint_last.pt" \
        "Seq-KD 80% retrained=$WORK/mixed80/checkpoint_last.pt" --data "$BIN" -o "$WORK/speed.json"
}

do_report() {
    local title="A small student on Multi30k German-English, test_2016_flickr"
    seqkd report "$WORK/results.json" "$WORK/speed.json" --title "$title" -o "$WORK/report.md" -o "$WORK/report.json" \
        --plot "$WORK/pruning.svg"
    local logs=$WORK/logs
    write_index results "$WORK/results.json" speeds "$WORK/speed.json" distilled "$DISTILLED" data "$BIN" \
        training Seq-KD "$logs/student.log" training "Seq-KD + Seq-Inter" "$logs/inter.log" \
        training "Seq-KD 60% retrained" "$logs/pruned60.log" training "Seq-KD 80% retrained on Seq-KD" "$logs/longer80.log" \
        training "Seq-KD 80% retrained" "$logs/mixed80.log"
    seqkd report "$WORK" --title "$title" -o "$WORK/report.html"
}

echo "the teacher's beam search over the training set"
side_by_side decode@1 decode@2
stage decoded do_decode 1
side_by_side score@seq_kd score@gold score@seq_inter
echo "student, pruned and retrained"
for name in student inter sweep pruned60 pruned80 longer80 mixed80 export; do stage "$name" "do_$name"; done
echo "evaluation"
for name in choose evaluate bench report; do stage "$name" "do_$name"; done
cat "$WORK/report.md"
python - "$WORK/report.json" "$WORK/valid.json" <<'PYTHON'
import json
import sys

report = json.load(open(sys.argv[1], encoding="utf-8"))
rows = {row["name"]: row for row in report["table3"]}
valid = {row["name"]: row for row in json.load(open(sys.argv[2], encoding="utf-8"))["results"]}
speeds = {(s["name"], s["engine"], s["beam"]): s["words_per_second"] for s in report["table2"][0]["speeds"]}
small = rows["Seq-KD 80% retrained"]
lost, lost_alike = (rows[name]["bleu_beam5"] - small["bleu_beam5"] for name in ("Seq-KD", "Seq-KD + Seq-Inter"))
lost_valid = valid["Seq-KD"]["bleu_beam5"] - valid[small["name"]]["bleu_beam5"]
times = speeds[small["name"], "ctranslate2-int8", 1] / speeds["Teacher", "fairseq", 5]
for what, seen, holds in (
    ("BLEU (beam 5) lost by pruning 80% and retraining, against the student that was pruned, at most 0.4", f"{lost:.2f}", lost <= 0.4),
    ("BLEU lost by it on the validation split, at most 0.4", f"{lost_valid:.2f}", lost_valid <= 0.4),
    ("BLEU lost against that student, whole but fine-tuned on Seq-Inter's data, at most 0.4", f"{lost_alike:.2f}", lost_alike <= 0.4),
    ("times fewer non-zero parameters than the teacher, at least 13", f"{small['ratio']:.1f}", small["ratio"] >= 13),
    ("times as fast, greedy in int8, as the teacher with beam 5 in fairseq, at least 10", f"{times:.1f}", times >= 10),
):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {seen} {what}")
PYTHON
