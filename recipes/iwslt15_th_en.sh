#!/usr/bin/env bash
# IWSLT 2015, Thai to English, the small task of Kim & Rush: raw text, SentencePiece, an LSTM teacher and LSTM students, as in the paper.
#
#   recipes/iwslt15_th_en.sh [--work DIR] [--data DIR] [options]
#
#   --work DIR       where everything goes (default: ./iwslt15_th_en); run again, it continues where it was
#   --data DIR       a folder with the archives, for machines without a network
#   --unchecked      do not compare the archives with their checksums
#   --max-tokens N   tokens that a GPU takes at a time (default: 4096); the batch stays the same
#   --try            every step, with tiny models and a few updates, to see that it runs; its figures are worth nothing
#   -- ...           options of recipes/own_data.sh: other students, seeds, methods
#   --help
#
# GPUs: all of the machine's, in half precision. SLURM, as a job of one node; preempted, it goes back into the queue and continues there,
# and when its time is over it continues where it is submitted again:
#   sbatch --gres=gpu:1 --cpus-per-task=4 --time=24:00:00 --requeue --open-mode=append \
#       --wrap "bash recipes/iwslt15_th_en.sh --work /shared/iwslt15_th_en"
#
# Text: TED talks; tst2010 and tst2011 to look at, tst2012 and tst2013 to test on; nothing is tokenised (Thai has no spaces between
# words), 8,000 SentencePiece pieces for both languages.
# Teacher: 2 layers of 500, students 2 of 100: stacked LSTMs with attention and input feeding.
# To aim at: Kim & Rush's student has 14.2 BLEU (as paperswithcode.com lists it), from other tokens than these.
# The archive is at wit3.fbk.eu, in the collection 2015-01; where that needs a browser, fetch it and name its folder with --data. No
# published checksum of it is known: that of the download is printed and kept beside it.
# Disk: 1 GB, and several for the virtual environment, where none is active: torch for GPUs is most of it.
# Time: no published figure for this size was found. The teacher has 14 million parameters, 6 operations each for every one
# of 20,000 * 4,096 = 82 million tokens: 6.9e15; a V100 that does a twentieth of its 15.7e12 a second, since the steps of an LSTM wait
# for each other, takes 2.4 hours. This is an estimate by arithmetic: this recipe was run with --try only.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=recipes/lib.sh
. "$ROOT/recipes/lib.sh"
# shellcheck source=recipes/benchmark.sh
. "$ROOT/recipes/benchmark.sh"
# shellcheck disable=SC2034 # run_benchmark reads them
{
S=th T=en BENCHMARK=iwslt15 PIECES="sentencepiece 8000" BATCH=4096 UPDATES=20000
    FILES="th-en.tgz https://wit3.fbk.eu/archive/2015-01/texts/th/en/th-en.tgz none:"
    HOW_TEXT="--post-process sentencepiece"
    TEACHER="--arch lstm --encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 500 --decoder-embed-dim 500
        --encoder-hidden-size 500 --decoder-hidden-size 500 --decoder-out-embed-dim 500 --share-all-embeddings
        --optimizer adam --clip-norm 5.0 --lr 1e-3 --lr-scheduler inverse_sqrt --warmup-updates 1000 --dropout 0.3
        --criterion cross_entropy"
    OWN=(--updates 20000 --tuning-updates 2000 --batch 4096
        --student "--arch lstm --encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 100 --decoder-embed-dim 100
            --encoder-hidden-size 100 --decoder-hidden-size 100 --decoder-out-embed-dim 100 --share-all-embeddings"
        --training "--optimizer adam --clip-norm 5.0 --lr 2e-3 --warmup-updates 1000 --dropout 0.1")
    TINY="--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 32 --decoder-embed-dim 32 --encoder-hidden-size 32
        --decoder-hidden-size 32 --decoder-out-embed-dim 32"
}
run_benchmark "$@"
