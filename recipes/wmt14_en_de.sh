#!/usr/bin/env bash
# WMT 2014, English to German: the text as fairseq's prepare-wmt14en2de.sh --icml17 has it, a large teacher, and base students of it.
#
#   recipes/wmt14_en_de.sh [--work DIR] [--data DIR] [options]
#
#   --work DIR       where everything goes (default: ./wmt14_en_de); run again, it continues where it was
#   --data DIR       a folder with the archives, for machines without a network
#   --unchecked      do not compare the archives with their checksums
#   --max-tokens N   tokens that a GPU takes at a time (default: 4096); the batch stays the same
#   --try            every step, with tiny models and a few updates, to see that it runs; its figures are worth nothing
#   -- ...           options of recipes/own_data.sh: other students, seeds, methods
#   --help
#
# GPUs: all of the machine's, in half precision. SLURM, as a job of one node; preempted, it goes back into the queue and continues there,
# and when its time is over it continues where it is submitted again:
#   sbatch --gres=gpu:8 --cpus-per-task=16 --time=48:00:00 --requeue --open-mode=append \
#       --wrap "bash recipes/wmt14_en_de.sh --work /shared/wmt14_en_de"
#
# Text: Europarl v7, Common Crawl, News Commentary v9: 4.5 million pairs, every 100th to look at, newstest2014 to test on; punctuation
# normalised, sacremoses with split hyphens, cased, 40,000 joint BPE merges; then no pair above 250 pieces or of unequal lengths.
# Teacher: transformer_vaswani_wmt_en_de_big with batches of 458,752 tokens (Ott et al. 2018: 128 GPUs of 3,584), 24,000 updates;
# students: transformer_wmt_en_de, batches of 32,000 tokens, 100,000 updates.
# To aim at: 29.3 tokenised BLEU of the large model (Ott et al. 2018, abstract; 28.6 by sacrebleu in fairseq's examples/scaling_nmt),
# 27.3 of the base model (Vaswani et al. 2017; it averages checkpoints and splits compounds, a plain run had 26.65 in fairseq issue
# 1352). The other three are of another preparation of the text (WMT 2016's, 32,000 merges), and all are of models with label smoothing,
# which these students do without. Kim & Rush's student gained 4.2 BLEU with greedy search, 1.7 with beam (abstract).
# Disk: 1.7 GB of archives, and by arithmetic 26 GB besides: text four times (raw, tokens, BPE, clean) at 1.5 GB each, 0.6 GB for the
# data-bin and each of two views, 3 GB for 4-best lists while they are put together, 15 GB of checkpoints (12 bytes for each of 218
# million weights and the optimizer's state, up to three files of the teacher; 0.8 GB for each file of a student), and several GB for
# the virtual environment, where none is active: torch for GPUs is most of it.
# Time: the teacher reads 24,000 * 458,752 = 11 billion tokens; eight V100 train this model at 214,656 tokens a second, eight A100 at
# 551,599 (NVIDIA's DeepLearningExamples, mixed precision), so 14.2 hours and 5.5. The search over 4.5 million sentences at 144.5 a
# second (fairseq 0.10.2, this model, V100, beam 4): 8.6 hours of one V100, 1.1 of eight. A student: 3.2 billion tokens at 160,000 a
# second (fairseq, base, four V100, issue 940): 5.6 hours of those four; fine-tuning is a tenth of that. Not in it: cutting the text,
# hours of a CPU, and the evaluation.
# These are estimates by arithmetic: this recipe was run with --try only.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=recipes/lib.sh
. "$ROOT/recipes/lib.sh"
# shellcheck source=recipes/benchmark.sh
. "$ROOT/recipes/benchmark.sh"
# shellcheck disable=SC2034 # run_benchmark reads them
{
S=en T=de BENCHMARK=wmt14 PIECES="bpe 40000" BATCH=458752 UPDATES=24000
    FILES="training-parallel-europarl-v7.tgz http://www.statmt.org/wmt13/training-parallel-europarl-v7.tgz sha256:0224c7c710c8a063dfd893b0cc0830202d61f4c75c17eb8e31836103d27d96e7
training-parallel-commoncrawl.tgz http://www.statmt.org/wmt13/training-parallel-commoncrawl.tgz sha256:c7a74e2ea01ac6c920123108627e35278d4ccb5701e15428ffa34de86fa3a9e5
training-parallel-nc-v9.tgz http://www.statmt.org/wmt14/training-parallel-nc-v9.tgz sha256:cb8953f292298e6877ae433c98912b927cb0766b303f4540512ddd286c748485
test-full.tgz https://www.statmt.org/wmt14/test-full.tgz md5:a8cd784e006feb32ac6f3d9ec7eb389a"
    HOW_TEXT="--post-process subword_nmt --tokenizer moses"
    TEACHER="--arch transformer_vaswani_wmt_en_de_big --share-all-embeddings --optimizer adam --adam-betas (0.9,0.98) --clip-norm 0.0
        --lr 1e-3 --lr-scheduler inverse_sqrt --warmup-updates 4000 --warmup-init-lr 1e-7 --dropout 0.3 --weight-decay 0.0
        --criterion label_smoothed_cross_entropy --label-smoothing 0.1"
    OWN=(--engine ctranslate2 --beam 4 --lenpen 0.6 --updates 100000 --tuning-updates 10000 --batch 32000
        --student "--arch transformer_wmt_en_de --share-all-embeddings"
        --training "--optimizer adam --adam-betas (0.9,0.98) --clip-norm 0.0 --lr 7e-4 --warmup-updates 4000 --dropout 0.1")
}
run_benchmark "$@"
