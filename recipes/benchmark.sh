# shellcheck shell=bash
# What the recipes of public benchmarks share: from their archives to a data-bin, a teacher, and recipes/own_data.sh. Sourced.
#
# A recipe sets S and T (languages), BENCHMARK (for benchmark_text.py), FILES (lines "NAME URL KIND:SUM"; KIND is sha256, md5 or
# none), PIECES ("bpe MERGES" or "sentencepiece N"), HOW_TEXT, TEACHER (its options), BATCH and UPDATES (tokens and number of the
# teacher's batches), and OWN (options of own_data.sh), then calls `run_benchmark "$@"`.

run_benchmark() {
    local name arch
    DATA='' WORK=$(basename "$0" .sh) TRY='' UNCHECKED='' MAX_TOKENS=4096 GIVEN=()
    while [ $# -gt 0 ]; do
        case "$1" in
            -h | --help) usage; exit ;;
            --try) TRY=yes; shift; continue ;;
            --unchecked) UNCHECKED=yes; shift; continue ;;
            --) shift; GIVEN=("$@"); break ;;
        esac
        [ $# -ge 2 ] || die "option $1 needs a value, or is none; see --help"
        case "$1" in
            --data) DATA=$2 ;;
            --work) WORK=$2 ;;
            --max-tokens) MAX_TOKENS=$2 ;;
            *) die "unknown option $1; see --help" ;;
        esac
        shift 2
    done
    [ -z "$DATA" ] || [ -d "$DATA" ] || die "--data is '$DATA', which is no folder"
    [ -z "$DATA" ] || DATA=$(realpath "$DATA")
    [[ $MAX_TOKENS =~ ^[1-9][0-9]*$ ]] || die "--max-tokens is '$MAX_TOKENS', it must be a positive number"
    begin_work "$BENCHMARK|$TRY|${TRY:+$MAX_TOKENS}" # which is the batch of a trial, and else how much a device takes at a time
    exec 8>&9 # own_data.sh takes 9 for a lock of its own
    need_environment "$WORK/venv" ctranslate2,report,benchmarks
    GPUS=$(python -c 'import torch; print(torch.cuda.device_count())')
    if [ "$GPUS" != 0 ] && [[ " ${OWN[*]} " == *" --engine ctranslate2 "* ]] && ! fast_engine_on_gpu; then
        echo "so fairseq will search, which takes longer"
        OWN+=(--engine fairseq)
    fi
    if [ -n "$TRY" ]; then
        read -r -a arch <<<"$TEACHER" # --arch NAME
        OWN+=(--student "${arch[*]:0:2} $TINY --share-all-embeddings" --updates 10 --tuning-updates 4 --beam 2 --batch "$MAX_TOKENS")
        # As long as it takes to know more than nothing, which is asked of a teacher.
        TEACHER="$TEACHER $TINY --lr 5e-3 --warmup-updates 20 --dropout 0" PIECES="${PIECES% *} 100" UPDATES=150 BATCH=$MAX_TOKENS
    fi
    echo "text"
    # A fetch that compared nothing does not stand for one that does.
    for name in "fetch${UNCHECKED:+.unchecked}" text pieces binarise; do stage "$name" "do_${name%.*}"; done
    echo "teacher"
    stage teacher do_teacher
    exec bash "$ROOT/recipes/own_data.sh" --data-bin "$WORK/bin" --teacher "$WORK/teacher/checkpoint_best.pt" --work "$WORK/students" \
        --max-tokens "$MAX_TOKENS" --text "$HOW_TEXT" "${OWN[@]}" "${GIVEN[@]}"
}

# Of --try: what any machine trains in a minute.
TINY="--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 32 --decoder-embed-dim 32 --encoder-ffn-embed-dim 64
    --decoder-ffn-embed-dim 64 --encoder-attention-heads 2 --decoder-attention-heads 2"

# Downloads what is not there, and compares every file with its checksum. Without one that is known, the first download's is kept,
# so that a later one cannot be another file unseen.
do_fetch() {
    local name url sum file
    mkdir -p "$WORK/downloads"
    while read -r name url sum; do
        [ -n "$name" ] || continue
        file=$WORK/downloads/$name
        if [ -n "$DATA" ]; then
            [ -f "$DATA/$name" ] || die "--data $DATA has no $name; it is at $url"
            ln -sf "$DATA/$name" "$file"
        elif [ ! -f "$file" ]; then
            echo "fetching $url"
            curl --fail --location --silent --show-error --retry 3 --continue-at - --output "$file.partial" "$url" ||
                die "cannot download $url: without a network, fetch it elsewhere and name its folder with --data"
            mv "$file.partial" "$file"
        fi
        if [ -n "$UNCHECKED" ]; then
            echo "$file is not compared with its checksum"
        else
            check "$file" "$sum"
        fi
    done <<<"$FILES"
}

check() { # file, KIND:SUM
    local kind=${2%%:*} known=${2#*:} found
    if [ "$kind" = none ]; then
        kind=sha256 known=$(cat "$WORK/downloads/$(basename "$1").sha256" 2>/dev/null || true)
    fi
    found=$("${kind}sum" "$1" | cut -d ' ' -f 1)
    if [ -z "$known" ]; then
        # Such as the page on which one is to log in, sent instead of the archive.
        tar -tzf "$1" >/dev/null || {
            rm -f "$1"
            die "what was fetched as $(basename "$1") is no archive: fetch it with a browser, and name its folder with --data"
        }
        echo "$found" >"$WORK/downloads/$(basename "$1").sha256"
        echo "no published checksum of $(basename "$1") is known; this one has sha256 $found"
    elif [ "$found" != "$known" ]; then
        die "$1 has the $kind $found, it should have $known: remove it, and fetch it again"
    fi
}

do_text() { python "$ROOT/recipes/benchmark_text.py" "$BENCHMARK" "$WORK/downloads" -o "$WORK/text"; }

do_pieces() {
    local split lang text=$WORK/text
    if [ "${PIECES% *}" = sentencepiece ]; then
        python "$ROOT/recipes/subwords.py" "$text" --langs "$S" "$T" --vocabulary "${PIECES#* }"
        return
    fi
    cat "$text/train.$S" "$text/train.$T" | subword-nmt learn-bpe -s "${PIECES#* }" -o "$text/codes"
    for split in train valid test; do
        for lang in "$S" "$T"; do subword-nmt apply-bpe -c "$text/codes" <"$text/$split.$lang" >"$text/$split.bpe.$lang"; done
    done
    [ "$BENCHMARK" != wmt14 ] || python "$ROOT/recipes/benchmark_text.py" clean "$text" -o "$text"
}

do_binarise() {
    local kind=bpe text=$WORK/text
    [ "${PIECES% *}" != sentencepiece ] || kind=spm
    [ "$BENCHMARK" != wmt14 ] || kind=clean
    rm -rf "${WORK:?}/bin"
    fairseq-preprocess --source-lang "$S" --target-lang "$T" --joined-dictionary --destdir "$WORK/bin" --workers 1 \
        --trainpref "$text/train.$kind" --validpref "$text/valid.$kind" --testpref "$text/test.$kind"
}

# shellcheck disable=SC2046,SC2086
do_teacher() {
    mend_checkpoints "$WORK/teacher"
    fairseq-train "$WORK/bin" --user-dir "$ROOT/fairseq_seqkd" --save-dir "$WORK/teacher" $TEACHER --max-update "$UPDATES" \
        $(batch_of "$BATCH" "$MAX_TOKENS") --seed 1 --required-batch-size-multiple 1 --keep-last-epochs 1 \
        --skip-invalid-size-inputs-valid-test --log-format json --log-interval 100
}
