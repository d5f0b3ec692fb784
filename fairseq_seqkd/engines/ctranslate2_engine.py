"""CTranslate2's search: for a single Transformer, more than twice as fast as fairseq-generate on a CPU.

Its results are fairseq's, with these differences between the two made good:
  * fairseq forbids the empty hypothesis after the softmax, CTranslate2 before it, which shifts every score. So nothing is
    forbidden at first, and the rare sentences that got an empty hypothesis are searched again;
  * at the length limit CTranslate2 stops, where fairseq closes the hypothesis with EOS. So it may go one token further;
    what is not closed by then is cut to the limit, flagged, and scored with its EOS;
  * of a source that is EOS alone CTranslate2 says nothing and looks at no model: fairseq searches those;
  * wherever something shifts its scores (min-len, no unknown words, sampling, a language token), the hypotheses are
    scored again without it, and ranked by that.
So a log-probability is always the model's own, as fairseq's forward pass gives it.
"""

import logging
import math

import numpy as np

from fairseq_seqkd.corpus.nbest import Hypothesis
from fairseq_seqkd.engines import ctranslate2_model, cublas, int8_support
from fairseq_seqkd.engines.ctranslate2_model import END, INSTEAD
from fairseq_seqkd.engines.length_limit import LengthLimit
from fairseq_seqkd.errors import Refusal, first_line

logger = logging.getLogger(__name__)

EXACT = 1e-3  # nats by which a sequence's log-probability may differ from fairseq's in float32; 1e-5 is usual
QUANTISED = (
    0.05  # mean nats a token in a smaller type: rounding stays far below, a wrong model far above
)


def check_installed(compute_type, on_gpu, instead=INSTEAD):
    """Refuses, before anything is loaded, a machine that has no CTranslate2, or not this type of numbers."""
    try:
        import ctranslate2
    except ImportError:
        raise Refusal(
            f"CTranslate2 is not installed: pip install 'fairseq_seqkd[ctranslate2]', or {instead}"
        ) from None
    device = "cuda" if on_gpu else "cpu"
    try:
        types = ctranslate2.get_supported_compute_types(device)
    except (RuntimeError, ValueError) as error:
        raise Refusal(
            f"CTranslate2 cannot use device {device} ({first_line(error)}); {instead}"
        ) from error
    if on_gpu:
        cublas.check(f"search with --cpu, or {instead}")
    if compute_type not in types:
        raise Refusal(
            f"{compute_type} is not among the types that CTranslate2 computes here: {', '.join(sorted(types))}"
        )
    if not on_gpu and int8_support.computed_as(compute_type) != compute_type:
        raise Refusal(f"{compute_type} {int8_support.REFUSED}")


class CTranslate2Engine:
    """Args:
    models: the one Transformer, as fairseq loaded it.
    source_dictionary, target_dictionary: fairseq's.
    search: fairseq's "generation" group, checked by options.check_for_ctranslate2.
    fairseq_engine: the FairseqEngine of the same model and search, for empty sources.
    compute_type: CTranslate2's name of the type of numbers; device: "cpu" or "cuda"; device_index: which GPU.
    suppressed: target symbols that no hypothesis may hold.
    """

    def __init__(
        self,
        models,
        source_dictionary,
        target_dictionary,
        search,
        fairseq_engine,
        compute_type,
        device="cpu",
        device_index=0,
        suppressed=(),
    ):
        ctranslate2_model.check_models(models)
        self.model, self.dictionary = models[0], target_dictionary
        self.names = ctranslate2_model.names(source_dictionary)
        self.ids = {name: i for i, name in enumerate(ctranslate2_model.names(target_dictionary))}
        self.target_names = list(self.ids)
        self.pad = source_dictionary.pad()
        self.fairseq_engine = fairseq_engine
        self.options, self.compute_type = search, compute_type
        self.device = {"device": device, "device_index": device_index}
        self.lenpen = 0.0 if search.unnormalized else float(search.lenpen)
        positions = min(self.model.max_positions()[1], 10**6) - 1
        self.limit = LengthLimit(search.max_len_a, search.max_len_b, positions)
        self.suppressed = [
            [self.target_names[target_dictionary.index(symbol)]] for symbol in suppressed
        ]
        # Where a constraint shifts CTranslate2's scores.
        self.rescore = bool(
            search.min_len > 1 or search.unkpen == math.inf or search.sampling or suppressed
        )
        self.files = ctranslate2_model.convert(self.model, self.names, self.target_names)
        self.translator = None

    def open(self, compute_type=None, seed=None):
        import ctranslate2

        if seed is not None:
            ctranslate2.set_random_seed(seed)
        how = {
            "compute_type": compute_type or self.compute_type,
            "inter_threads": 1,
            "intra_threads": 1,
            **self.device,
        }
        self.translator = ctranslate2.Translator("teacher", files=self.files, **how)

    def begin_part(self, seed):
        self.fairseq_engine.begin_part(seed)
        if seed is not None:
            self.open(seed=seed)  # a living Translator cannot be seeded again

    def verify(self, sample, prefix_tokens=None):
        """Refuses to go on when this model is not fairseq's: compares log-probabilities of what it finds for a batch.

        In float32 they must agree; then, where another type is wanted, roughly.
        """
        self.open("float32")
        worst, _ = self._difference(sample, prefix_tokens)
        if not worst <= EXACT:
            raise Refusal(
                f"engine ctranslate2 does not compute what this teacher computes (log-probabilities differ by {worst:.3g} "
                f"nats, at most {EXACT:g} is rounding); {INSTEAD}"
            )
        if self.compute_type == "float32":
            logger.info(
                "engine ctranslate2: log-probabilities agree with fairseq's to %.1g nats", worst
            )
        else:
            self.open()
            _, mean = self._difference(sample, prefix_tokens)
            if not mean <= QUANTISED:
                raise Refusal(
                    f"--compute-type {self.compute_type} changes this teacher too much ({mean:.2g} nats a token); take float32"
                )
            logger.info(
                "engine ctranslate2: %s differs from fairseq by %.1g nats a token",
                self.compute_type,
                mean,
            )
        if not self.options.sampling:
            self.files = None  # they are needed to open it again for every part

    def _difference(self, sample, prefix_tokens):
        """(largest difference of a log-probability in nats, mean difference a token) over the best hypotheses of a batch."""
        found = [row[0] for row in self.search(sample, prefix_tokens)]
        targets = [h.tokens.tolist() for h in found]
        theirs = ctranslate2_model.fairseq_log_probs(
            self.model, self._source_ids(sample), targets, self.dictionary
        )
        differences = np.abs(np.array([h.log_prob for h in found]) - theirs)
        return float(differences.max()), float(
            differences.sum() / sum(len(h.tokens) + 1 for h in found)
        )

    def search(self, sample, prefix_tokens=None):
        """Returns, row by row of the batch, the list of at most `nbest` Hypothesis, best first.

        Args: prefix_tokens: (rows, n) ids with which every hypothesis begins, such as a language token.
        """
        sources = [[self.names[i] for i in ids] for ids in self._source_ids(sample)]
        width = sample["net_input"]["src_tokens"].size(1)
        limit = self.limit.of(width)
        prefix = prefix_tokens is not None and [
            [self.target_names[i] for i in row] for row in prefix_tokens.tolist()
        ]
        empty = [i for i, source in enumerate(sources) if len(source) == 1]
        if not empty:
            return self._search(sources, limit, prefix)
        there = [i for i, source in enumerate(sources) if len(source) > 1]
        prefix_of_empty = None if prefix_tokens is None else prefix_tokens[empty]
        found = dict(
            zip(empty, self.fairseq_engine.search(part_of(sample, empty), prefix_of_empty))
        )
        if there:
            found.update(
                zip(
                    there,
                    self._search(
                        [sources[i] for i in there], limit, prefix and [prefix[i] for i in there]
                    ),
                )
            )
        return [found[i] for i in range(len(sources))]

    def _search(self, sources, limit, prefix):
        """CTranslate2's search. Args: sources: lists of symbols; limit: of tokens; prefix: lists of symbols, or nothing."""
        shortest = self.options.min_len if self.options.min_len > 1 else 0
        results = self._translate(sources, limit, shortest, prefix)
        again = (
            []
            if self.options.min_len != 1
            else [i for i, r in enumerate(results) if [END] in r.hypotheses]
        )
        for i, result in zip(
            again, self._translate([sources[i] for i in again], limit, 1) if again else ()
        ):
            results[i] = result
        rows = [self._hypotheses(result, limit) for result in results]
        shifted = set(again)
        mend = [
            i
            for i, row in enumerate(rows)
            if self.rescore or prefix or i in shifted or any(h.hit_limit for h in row)
        ]
        if mend:
            self._score_again([sources[i] for i in mend], [rows[i] for i in mend])
        return [row[: self.options.nbest] for row in rows]

    def _source_ids(self, sample):
        return [
            [i for i in row if i != self.pad] for row in sample["net_input"]["src_tokens"].tolist()
        ]

    def _translate(self, sources, limit, shortest, prefix=None):
        options = self.options
        if options.sampling:
            how = {
                "beam_size": 1,
                "sampling_topk": max(options.sampling_topk, 0),
                "sampling_topp": options.sampling_topp if options.sampling_topp > 0 else 1.0,
                "sampling_temperature": options.temperature,
            }
        else:
            how = {"beam_size": options.beam, "length_penalty": self.lenpen}
        if self.suppressed:
            how["suppress_sequences"] = self.suppressed
        return self.translator.translate_batch(
            sources,
            target_prefix=prefix or None,
            num_hypotheses=options.beam,  # the whole beam, so that an empty hypothesis is seen
            max_decoding_length=limit + 1,
            min_decoding_length=shortest,
            disable_unk=options.unkpen == math.inf,
            return_scores=True,
            return_end_token=True,
            max_input_length=0,
            **how,
        )

    def _hypotheses(self, result, limit):
        """A result of CTranslate2 as a list of Hypothesis. Where scores are shifted, `_score_again` replaces them."""
        ids, row, seen = self.ids, [], set()
        for symbols, score in zip(result.hypotheses, result.scores):
            closed = bool(symbols) and symbols[-1] == END
            tokens = [ids[symbol] for symbol in (symbols[:-1] if closed else symbols[:limit])]
            if (
                tuple(tokens) in seen and not self.options.sampling
            ):  # they differed in the token beyond the limit only
                continue  # but a sample that is drawn twice is twice as probable, which a consensus goes by
            seen.add(tuple(tokens))
            length = len(tokens) + 1  # EOS counts
            row.append(
                Hypothesis(
                    np.array(tokens, np.int64),
                    score,
                    score * length**self.lenpen,
                    len(tokens) >= limit,
                )
            )
        return row

    def _score_again(self, sources, rows):
        """Replaces the scores of whole lists by the model's own, and ranks by them (equals keep their order)."""
        pairs = [(source, h) for source, row in zip(sources, rows) for h in row]
        targets = [[self.target_names[i] for i in h.tokens.tolist()] for _, h in pairs]
        # No more rows at a time than the search has sentences: a row's logits are its length times the vocabulary.
        batch = {"max_batch_size": len(sources), "max_input_length": 0}
        scored = self.translator.score_batch([source for source, _ in pairs], targets, **batch)
        for (_, h), result in zip(pairs, scored):
            h.log_prob = float(np.sum(result.log_probs, dtype=np.float64))
            h.score = h.log_prob / (len(h.tokens) + 1) ** self.lenpen
        for row in rows:
            row.sort(key=lambda h: -h.score)


def part_of(sample, rows):
    """What a search reads of some rows of a batch, padded as the batch is: its length limit goes by that."""
    net_input = {key: sample["net_input"][key][rows] for key in ("src_tokens", "src_lengths")}
    return {"id": sample["id"][rows], "net_input": net_input}
