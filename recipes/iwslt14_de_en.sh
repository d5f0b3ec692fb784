#!/usr/bin/env bash
# IWSLT 2014, German to English: the text as fairseq's prepare-iwslt14.sh has it, fairseq's teacher, and students of it.
#
#   recipes/iwslt14_de_en.sh [--work DIR] [--data DIR] [options]
#
#   --work DIR       where everything goes (default: ./iwslt14_de_en); run again, it continues where it was
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
#       --wrap "bash recipes/iwslt14_de_en.sh --work /shared/iwslt14_de_en"
#
# Text: TED talks, 160,239 pairs to train on, 7,283 to look at, 6,750 to test on; sacremoses, lower-cased, 10,000 joint BPE merges.
# Teacher: transformer_iwslt_de_en with the settings of fairseq's examples/translation, 50,000 updates of 4,096 tokens, but with one
# dictionary and one matrix of embeddings for both languages; students: half as wide, 6 + 2 layers.
# To aim at: 35.64 tokenised BLEU of a Transformer of 6 + 6 layers (Liu et al. 2020; github.com/LiyuanLucasLiu/Transformer-Clinic,
# issue 12), 35.2 of DynamicConv (Wu et al. 2019). BLEU here is sacrebleu's on lower-cased text whose tokens are joined again,
# which is not the same number; fairseq-generate and fairseq-score with --post-process subword_nmt give theirs.
# Disk: 2 GB, and several for the virtual environment, where none is active: torch for GPUs is most of it.
# Time: 50,000 * 4,096 = 205 million tokens; a V100 trains a model five times as large at 32,942 tokens a second (NVIDIA's
# Transformer-big, mixed precision, batches of 5,120 tokens): at that speed the teacher takes 1.7 hours, and so does each of the two
# students that are trained from scratch. An A100 has 82,059: 0.7 hours. The search: fairseq 0.10.2 translated 144.5 sentences a second
# on a V100 with Transformer-big and beam 4: at that speed 160,239 sentences take 18.5 minutes. Not in it: text, fine-tuning, evaluation.
# These are estimates by arithmetic: this recipe was run with --try only.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=recipes/lib.sh
. "$ROOT/recipes/lib.sh"
# shellcheck source=recipes/benchmark.sh
. "$ROOT/recipes/benchmark.sh"
# shellcheck disable=SC2034 # run_benchmark reads them
{
S=de T=en BENCHMARK=iwslt14 PIECES="bpe 10000" BATCH=4096 UPDATES=50000
    FILES="de-en.tgz http://dl.fbaipublicfiles.com/fairseq/data/iwslt14/de-en.tgz md5:10936dfdf616504ddbd844e91b94ef4a"
    HOW_TEXT="--post-process subword_nmt --tokenizer moses"
    TEACHER="--arch transformer_iwslt_de_en --share-all-embeddings --optimizer adam --adam-betas (0.9,0.98) --clip-norm 0.0
        --lr 5e-4 --lr-scheduler inverse_sqrt --warmup-updates 4000 --dropout 0.3 --weight-decay 0.0001
        --criterion label_smoothed_cross_entropy --label-smoothing 0.1"
    OWN=(--engine ctranslate2 --batch 4096)
}
run_benchmark "$@"
