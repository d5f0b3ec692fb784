"""Measures a checkpoint on all sentences of a split: BLEU, chrF, perplexity, its mode's weight, speed (`seqkd evaluate`).

The batches are our own, because fairseq's batching drops up to seven sentences, the longest ones. An unknown word in an
output never matches an unknown word in the reference: as text both are "<unk>", and BLEU would reward them.
"""

import contextlib
import math
import time
from argparse import Namespace

import numpy as np
import torch

from fairseq_seqkd.corpus.detokenise import UNKNOWN_IN_OUTPUT
from fairseq_seqkd.corpus.plan import make_plan
from fairseq_seqkd.engines.fairseq_engine import FairseqEngine
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import systems


def measure(system, device, progress=lambda batches, what: batches):
    """All measurements of a systems.System, as a dictionary for JSON.

    Args: progress: (batches of sentence ids, what is done with them) -> the same batches, to show how far it is.

    params, nonzero_params: trainable parameters, and those that are not zero, tied weights once. bleu_*, chrf_*,
    length_ratio_*: sacrebleu on detokenised text. hit_limit_*: outputs that the length limit ended. ppl: exp of the mean
    NLL in nats of a gold token, EOS counted. mode_probability: p(t = y_hat) of the paper, the mean over sentences of the
    probability, not length-normalised, of the greedy output with its EOS. sentences_per_second_*: search alone, one
    thread. greedy_equals_beam5: a share of the sentences. outputs: {search: the text of every sentence}.

    Raises Refusal for data that the model cannot read, and for a model whose probabilities are no numbers.
    """
    with one_thread():
        model, task = systems.load(system)
        dataset = systems.load_split(system, task)
        systems.check_lengths(system.path, system.split, model.max_positions())
        model.to(device)
        batches = plan_batches(dataset.src_sizes, system.settings["max_tokens"])
        measured = {
            "sentences": len(dataset),
            "params": count_parameters(model),
            "nonzero_params": count_nonzero(model),
        }
        longer_sides = np.maximum(dataset.src_sizes, dataset.tgt_sizes)
        scored = plan_batches(longer_sides, system.settings["max_tokens"])
        measured["ppl"] = perplexity(model, dataset, progress(scored, "perplexity"), device)
        if not math.isfinite(measured["ppl"]):
            raise Refusal(
                f"the perplexity of {system.path} is no finite number: its training diverged, or it is damaged"
            )
        # What fairseq-generate does too: attention weights that nobody reads are not computed.
        model.make_generation_fast_(need_attn=False)
        searched = {
            name: search(
                task,
                model,
                dataset,
                batches,
                device,
                beam,
                system.settings,
                lambda b, name=name: progress(b, name),
            )
            for name, beam in beams(system)
        }
    output = systems.detokeniser(system, 1, UNKNOWN_IN_OUTPUT)
    references = systems.texts(system)[1]
    texts = {name: [output(h.tokens) for h in outputs] for name, (outputs, _) in searched.items()}
    for name, (outputs, seconds) in searched.items():
        score, signature = bleu(texts[name], references, system.settings["bleu_tokenizer"])
        measured[f"bleu_{name}"] = score.score
        measured[f"chrf_{name}"], chrf_signature = chrf(texts[name], references)
        measured[f"length_ratio_{name}"] = score.sys_len / max(score.ref_len, 1)
        measured[f"hit_limit_{name}"] = sum(h.hit_limit for h in outputs)
        measured[f"sentences_per_second_{name}"] = len(dataset) / max(seconds, 1e-9)
    greedy, beam = (outputs for outputs, _ in searched.values())
    measured["mode_probability"] = float(np.mean([math.exp(h.log_prob) for h in greedy]))
    measured["greedy_equals_beam5"] = float(
        np.mean([np.array_equal(g.tokens, b.tokens) for g, b in zip(greedy, beam)])
    )
    measured["sacrebleu_signature"], measured["chrf_signature"] = signature, chrf_signature
    measured["distillation_signature"] = system.distillation_signature
    measured["outputs"] = texts
    return measured


def beams(system):
    """The columns' names and their beams."""
    return (("greedy", 1), ("beam5", system.settings["beam"]))


@contextlib.contextmanager
def one_thread():
    """Speeds are compared on one thread; and the last bits of a score depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def plan_batches(sizes, max_tokens):
    """Arrays of sentence ids that hold every sentence once, longest first. Args: sizes: (sentences,) tokens of each."""
    plan = make_plan(len(sizes), max_tokens, wanted_part_size=len(sizes))
    return plan.batches(0, np.asarray(sizes), np.ones(len(sizes), bool))


def collated(dataset, batches, device):
    """Yields the batches as fairseq's samples on the device."""
    from fairseq.utils import apply_to_sample

    for batch in batches:
        yield apply_to_sample(
            lambda tensor: tensor.to(device), dataset.collater([dataset[int(i)] for i in batch])
        )


def count_parameters(model):
    """Trainable parameters; torch lists a tied weight once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_nonzero(model):
    """Trainable parameters that pruning left."""
    return sum(
        int(torch.count_nonzero(parameter))
        for parameter in model.parameters()
        if parameter.requires_grad
    )


@torch.no_grad()
def perplexity(model, dataset, batches, device):
    """exp of the mean NLL, in nats, of a token of the gold targets: EOS counts, padding does not."""
    total, tokens, pad = 0.0, 0, dataset.tgt_dict.pad()
    for sample in collated(dataset, batches, device):
        lprobs = model.get_normalized_probs(
            model(**sample["net_input"]), log_probs=True, sample=sample
        ).float()
        keep = sample["target"].ne(pad)
        total -= lprobs.gather(-1, sample["target"].unsqueeze(-1)).squeeze(-1)[keep].sum().item()
        tokens += int(keep.sum())
    mean = total / max(tokens, 1)
    return math.exp(mean) if mean < 700 else math.inf  # exp overflows beyond


def search(task, model, dataset, batches, device, beam, settings, progress=lambda batches: batches):
    """(best Hypothesis of every sentence, in order; seconds of search), with fairseq's own search."""
    options = Namespace(
        beam=beam, max_len_a=settings["max_len_a"], max_len_b=settings["max_len_b"], lenpen=settings["lenpen"]
    )  # fmt: skip
    engine = FairseqEngine(
        task.build_generator([model], options), [model], 1, dataset.tgt_dict.eos()
    )
    outputs, seconds = [None] * len(dataset), 0.0
    # The first search of a process is slower than the others, and is not measured. The last batch is the shortest.
    for sample in collated(dataset, batches[-1:], device):
        engine.search(sample)
    for sample in collated(dataset, progress(batches), device):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begun = time.perf_counter()
        nbests = engine.search(sample)  # it brings the tokens back to the CPU
        seconds += time.perf_counter() - begun
        for sentence, nbest in zip(sample["id"].tolist(), nbests):
            outputs[sentence] = nbest[0]
    return outputs, seconds


def bleu(outputs, references, tokenizer):
    """(sacrebleu's corpus score, its signature) of detokenised texts, one reference each."""
    from sacrebleu.metrics import BLEU

    scorer = BLEU(
        tokenize=tokenizer, force=True
    )  # force: no warning about text that looks tokenised
    score = scorer.corpus_score(outputs, [references])
    return score, str(scorer.get_signature())


def chrf(outputs, references):
    """(sacrebleu's corpus chrF2, its signature) of detokenised texts, one reference each."""
    from sacrebleu.metrics import CHRF

    scorer = CHRF()
    return scorer.corpus_score(outputs, [references]).score, str(scorer.get_signature())
