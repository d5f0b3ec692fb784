"""The measurements of a checkpoint on all sentences of a split (`seqkd evaluate`).

The batches are our own, because fairseq's batching drops up to seven sentences, the longest ones.
An unknown word in an output never matches one in the reference: as text both are "<unk>", and BLEU
would reward them.
"""

import contextlib
import datetime
import math
import time
from argparse import Namespace
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import msgspec
import numpy as np
import torch

from fairseq_seqkd.corpus.detokenise import UNKNOWN_IN_OUTPUT
from fairseq_seqkd.corpus.json_text import tree
from fairseq_seqkd.corpus.nbest import Hypothesis
from fairseq_seqkd.corpus.plan import make_plan
from fairseq_seqkd.engines import Sample
from fairseq_seqkd.engines.fairseq_engine import FairseqEngine
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation.cache import Cache, key
from fairseq_seqkd.evaluation.records import SEARCHES, Measurement, MeasurementSettings
from fairseq_seqkd.evaluation.systems import TARGET, Loaded, System, load_with_split

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEUScore

# Iterates over batches and shows how far it is; the second argument says what is done with them.
Progress = Callable[[Sequence[Any], str], Iterable[Any]]
LARGEST_NLL = 700  # nats; exp overflows beyond


class Measured(NamedTuple):
    """A measurement and the texts that it is about."""

    measurement: Measurement
    outputs: Dict[str, List[str]]  # search: the text of every sentence


class Searched(NamedTuple):
    """The 1-best of every sentence, and the seconds that the search took."""

    hypotheses: List[Hypothesis]
    seconds: float


def no_progress(batches: Sequence[Any], action: str) -> Iterable[Any]:
    """Iterates over batches and shows nothing."""
    return batches


def measure_or_reuse(
    system: System,
    device: torch.device,
    cache: Cache,
    again: bool = False,
    progress: Progress = no_progress,
) -> Measured:
    """Measures a system, unless the cache holds its measurement.

    Args:
        system: the system.
        device: where it runs.
        cache: the measurements that are known.
        again: measure whatever the cache holds.
        progress: shows a progress bar over batches.

    Raises:
        Refusal: it cannot be measured, or its checkpoint was replaced meanwhile.
    """
    description = system.describe(device)
    name, described = key(description.facts), tree(description)
    content = None if again else cache.get(name)
    if content:
        with contextlib.suppress(msgspec.ValidationError):
            outputs = msgspec.convert(content.pop("outputs", None), Dict[str, List[str]])
            return Measured(msgspec.convert({**content, **described}, Measurement), outputs)
    measurement, outputs = measure(system, device, progress)
    measurement.date = datetime.date.today().isoformat()
    system.check_unchanged()
    numbers = {
        column: value for column, value in tree(measurement).items() if column not in described
    }
    cache.put(name, {**numbers, "outputs": outputs})
    return Measured(measurement, outputs)


def measure(system: System, device: torch.device, progress: Progress = no_progress) -> Measured:
    """Measures a system with greedy search and with a beam, on one thread.

    * params, nonzero_params: trainable parameters, and those that are not zero. Tied weights count
      once.
    * ppl: exp of the mean NLL, in nats, of a gold token. EOS counts.
    * bleu, chrf, length_ratio: of detokenised text, by sacrebleu.
    * hit_limit: outputs that the length limit ended.
    * mode_probability: the paper's p(t = y_hat), the mean over sentences of the probability of the
      greedy output with its EOS, not length-normalised.
    * sentences_per_second: search alone.

    Args:
        system: the system.
        device: where it runs.
        progress: shows a progress bar over batches.

    Raises:
        Refusal: the model cannot read the data, or its probabilities are NaN.
    """
    settings, searched = system.settings, {}
    with one_thread():
        loaded = load_with_split(system)
        loaded.model.to(device)
        dataset = loaded.dataset
        longer_sides = np.maximum(dataset.src_sizes, dataset.tgt_sizes)
        scored = plan_batches(longer_sides, settings.max_tokens)
        ppl = perplexity(loaded, progress(scored, "perplexity"), device)
        if not math.isfinite(ppl):
            raise Refusal(
                f"the perplexity of {system.path} is not finite; its training diverged, or the "
                "file is damaged"
            )
        # As fairseq-generate does: attention weights that nobody reads are not computed.
        loaded.model.make_generation_fast_(need_attn=False)
        batches = plan_batches(dataset.src_sizes, settings.max_tokens)
        for name, beam in beams(settings):
            searched[name] = search(
                loaded, progress(batches, name), batches[-1], beam, settings, device
            )
    detokenise, (_, references) = system.detokeniser(TARGET, UNKNOWN_IN_OUTPUT), system.texts()
    outputs, numbers = {}, {}
    for name, (hypotheses, seconds) in searched.items():
        texts = outputs[name] = [detokenise(hypothesis.tokens) for hypothesis in hypotheses]
        score, sacrebleu_signature = bleu(texts, references, settings.bleu_tokenizer)
        numbers[f"bleu_{name}"] = score.score
        numbers[f"chrf_{name}"], chrf_signature = chrf(texts, references)
        numbers[f"length_ratio_{name}"] = score.sys_len / max(score.ref_len, 1)
        numbers[f"hit_limit_{name}"] = sum(hypothesis.hit_limit for hypothesis in hypotheses)
        numbers[f"sentences_per_second_{name}"] = len(dataset) / max(seconds, 1e-9)
    greedy, beam5 = (searched[name].hypotheses for name in SEARCHES)
    same = [np.array_equal(one.tokens, other.tokens) for one, other in zip(greedy, beam5)]
    measurement = msgspec.structs.replace(
        system.describe(device),
        sentences=len(dataset),
        params=count_parameters(loaded.model),
        nonzero_params=count_nonzero(loaded.model),
        ppl=ppl,
        mode_probability=float(np.mean([math.exp(mode.log_prob) for mode in greedy])),
        greedy_equals_beam5=float(np.mean(same)),
        sacrebleu_signature=sacrebleu_signature,
        chrf_signature=chrf_signature,
        **numbers,
    )
    return Measured(measurement, outputs)


def beams(settings: MeasurementSettings) -> Tuple[Tuple[str, int], ...]:
    """Returns the searches and their beams."""
    return tuple(zip(SEARCHES, (1, settings.beam)))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Runs torch on one thread: speeds and the last bits of scores depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def plan_batches(sizes: np.ndarray, max_tokens: Optional[int]) -> List[np.ndarray]:
    """Returns batches of sentence ids that hold every sentence once, longest first.

    Args:
        sizes: (sentences,) the tokens of each.
        max_tokens: the limit of a batch.
    """
    plan = make_plan(len(sizes), max_tokens, wanted_part_size=len(sizes))
    return plan.batches(0, np.asarray(sizes), np.ones(len(sizes), bool))


def collated(
    loaded: Loaded, batches: Iterable[np.ndarray], device: torch.device
) -> Iterator[Sample]:
    """Yields batches as fairseq's samples on the device."""
    from fairseq.utils import apply_to_sample

    for batch in batches:
        sample = loaded.dataset.collater([loaded.dataset[int(i)] for i in batch])
        yield apply_to_sample(lambda tensor: tensor.to(device), sample)


def trainable(model: torch.nn.Module) -> Iterator[torch.nn.Parameter]:
    """Yields the trainable parameters; torch lists a tied weight once."""
    return (parameter for parameter in model.parameters() if parameter.requires_grad)


def count_parameters(model: torch.nn.Module) -> int:
    """Counts the trainable parameters."""
    return sum(parameter.numel() for parameter in trainable(model))


def count_nonzero(model: torch.nn.Module) -> int:
    """Counts the trainable parameters that pruning left."""
    return sum(int(torch.count_nonzero(parameter)) for parameter in trainable(model))


@torch.no_grad()
def perplexity(loaded: Loaded, batches: Iterable[np.ndarray], device: torch.device) -> float:
    """Returns exp of the mean NLL, in nats, of a gold token: EOS counts, padding does not."""
    model, total, tokens, pad = loaded.model, 0.0, 0, loaded.dataset.tgt_dict.pad()
    for sample in collated(loaded, batches, device):
        output, target = model(**sample["net_input"]), sample["target"]
        log_probs = model.get_normalized_probs(output, log_probs=True, sample=sample).float()
        keep = target.ne(pad)
        total -= log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1)[keep].sum().item()
        tokens += int(keep.sum())
    mean = total / max(tokens, 1)
    return math.exp(mean) if mean < LARGEST_NLL else math.inf


def search(
    loaded: Loaded,
    batches: Iterable[np.ndarray],
    warm_up: np.ndarray,
    beam: int,
    settings: MeasurementSettings,
    device: torch.device,
) -> Searched:
    """Translates the split with fairseq's own search.

    Args:
        loaded: the model and the split.
        batches: every sentence once.
        warm_up: a batch that is not timed: the first search of a process is slower.
        beam: the beam size.
        settings: the length limit and the length penalty.
        device: where the model is.
    """
    options = Namespace(
        beam=beam,
        max_len_a=settings.max_len_a,
        max_len_b=settings.max_len_b,
        lenpen=settings.lenpen,
    )
    models, eos = [loaded.model], loaded.dataset.tgt_dict.eos()
    engine = FairseqEngine(loaded.task.build_generator(models, options), models, 1, eos)
    for sample in collated(loaded, [warm_up], device):
        engine.search(sample)
    modes: List[Any] = [None] * len(loaded.dataset)
    seconds = 0.0
    for sample in collated(loaded, batches, device):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begun = time.perf_counter()
        nbests = engine.search(sample)  # it brings the tokens back to the CPU
        seconds += time.perf_counter() - begun
        for sentence, nbest in zip(sample["id"].tolist(), nbests):
            modes[sentence] = nbest[0]
    return Searched(modes, seconds)


def bleu(
    outputs: List[str], references: List[str], tokenizer: Optional[str]
) -> "Tuple[BLEUScore, str]":
    """Returns sacrebleu's corpus score of detokenised texts, and its signature."""
    from sacrebleu.metrics import BLEU

    # force: no warning about text that looks tokenised
    scorer = BLEU(tokenize=tokenizer, force=True)
    score = scorer.corpus_score(outputs, [references])
    return score, str(scorer.get_signature())


def chrf(outputs: List[str], references: List[str]) -> Tuple[float, str]:
    """Returns sacrebleu's corpus chrF2 of detokenised texts, and its signature."""
    from sacrebleu.metrics import CHRF

    scorer = CHRF()
    return scorer.corpus_score(outputs, [references]).score, str(scorer.get_signature())
