"""Measure what is lost by storing only the k most probable symbols.

    python recipes/topk_coverage.py DATA_BIN TEACHER STUDENT [--split valid] [--sentences 500]
        [--topk 1,4,8,32]

Prints the mass that k symbols hold, and the word-level loss with them. The loss is the cross
entropy of the student with the teacher at every gold token, in nats: with the whole distribution,
with the tail spread evenly over the other symbols, and with the tail ignored.
"""

import argparse

from benchmarks import check_paths

BATCH = 16


def measure(arguments, ks):
    """Means over tokens for each k, and with the whole distribution.

    Returns ({k: (mass, loss with the tail spread, loss with it ignored)}, loss with the whole
    distribution, size of the vocabulary, number of tokens).
    """
    import torch
    from fairseq import checkpoint_utils

    import fairseq_seqkd

    fairseq_seqkd.register()
    from fairseq_seqkd.training import loss as losses
    from fairseq_seqkd.training import soft_targets as divergences
    from fairseq_seqkd.training import teacher as teachers
    from fairseq_seqkd.training.teacher_checks import readable

    torch.set_num_threads(1)
    overrides = {"data": arguments.data, "eval_bleu": False}
    teacher, _, task = checkpoint_utils.load_model_ensemble_and_task(
        [arguments.teacher], arg_overrides=overrides
    )
    student, _, _ = checkpoint_utils.load_model_ensemble_and_task(
        [arguments.student], arg_overrides=overrides
    )
    teacher, student = teachers.Teacher(teacher), student[0].eval()
    task.load_dataset(arguments.split)
    dataset, objective = task.dataset(arguments.split), losses.Objective(1.0)
    vocabulary, tokens, whole = len(task.target_dictionary), 0, 0.0
    totals = {min(k, vocabulary): [0.0, 0.0, 0.0] for k in ks}
    ids = readable(teacher, dataset, arguments.sentences)
    for start in range(0, len(ids), BATCH):
        sample = dataset.collater([dataset[i] for i in ids[start : start + BATCH]])
        target = sample["target"].flatten()
        keep = target.ne(task.target_dictionary.pad())
        soft, _ = teacher.soft_targets(sample, sample["target"], next(student.parameters()))
        with torch.no_grad():
            logits = teachers.logits_of(student, student(**sample["net_input"])).flatten(0, 1)
            tokens += int(keep.sum())
            whole += losses.word_level(logits, target, keep, soft, objective).kd.sum().item()
            for k in totals:
                probabilities, symbols = soft.probabilities.topk(k, dim=-1)
                rest = (1 - probabilities.sum(-1)).clamp_(min=0.0)
                totals[k][0] += (1 - rest)[keep].sum().item()
                for column, tail in enumerate(divergences.TAILS, start=1):
                    found = divergences.top_k(symbols, probabilities, rest, vocabulary, tail=tail)
                    totals[k][column] += (
                        losses.word_level(logits, target, keep, found, objective).kd.sum().item()
                    )
    return (
        {k: [value / tokens for value in values] for k, values in totals.items()},
        whole / tokens,
        vocabulary,
        tokens,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data")
    parser.add_argument("teacher")
    parser.add_argument("student")
    parser.add_argument("--split", default="valid")
    parser.add_argument("--sentences", type=int, default=500)
    parser.add_argument("--topk", default="1,4,8,32")
    arguments = parser.parse_args()
    check_paths(arguments.data, arguments.teacher, arguments.student)
    found, whole, vocabulary, tokens = measure(
        arguments, [int(k) for k in arguments.topk.split(",")]
    )
    print(
        f"{tokens:,} tokens of {arguments.split}, {vocabulary:,} symbols; "
        f"whole distribution: {whole:.4f} nats per token"
    )
    print("| k | mass | loss, tail spread | difference | loss, tail ignored | difference |")
    print("|---:|---:|---:|---:|---:|---:|")
    for k, (mass, spread, ignored) in found.items():
        print(
            f"| {k} | {mass:.1%} | {spread:.4f} | {spread - whole:+.4f} "
            f"| {ignored:.4f} | {ignored - whole:+.4f} |"
        )


if __name__ == "__main__":
    main()
