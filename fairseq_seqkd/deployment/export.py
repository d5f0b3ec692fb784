"""Exports a student to a deployed folder, and compares the folder with fairseq.

The folder appears under its name only if it computes what the checkpoint computes.
"""

import shutil
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import msgspec
import numpy as np

from fairseq_seqkd.corpus.atomic import whole_folder
from fairseq_seqkd.deployment.config import SUBWORD_FILE, DeployedConfig, SubwordKind, Tokenizer
from fairseq_seqkd.deployment.subwords import UNKNOWN
from fairseq_seqkd.deployment.translate import Translator
from fairseq_seqkd.engines import ctranslate2_model
from fairseq_seqkd.engines.ctranslate2_engine import TOLERANCE, TOLERANCE_QUANTISED
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import systems

if TYPE_CHECKING:
    from fairseq.data import Dictionary
    from fairseq.models import BaseFairseqModel
    from fairseq.tasks import FairseqTask

    from fairseq_seqkd.evaluation.systems import System

# Share of the sentences that the subword model must segment as the data are segmented. Stray
# spaces explain the others; detokenising and tokenising again loses more.
SAME_SUBWORDS = 0.9
SAME_SUBWORDS_TOKENISED = 0.5
KNOWN_SUBWORDS = 0.8  # share of the subwords of --check that must be in the dictionary
SCORE_BATCH = 8  # sentences scored at once; their log-probabilities take memory


class ExportOptions(NamedTuple):
    """How a student is exported.

    Attributes:
        quantization: CTranslate2's name of the type of the weights.
        beam: the beam size that is written to the folder.
        subwords: the kind of the subword model; None if text is segmented already.
        subword_file: the subword model.
        tokenizer: "moses", or None.
        check_lines: source text to compare on; None for the sources of the system's split.
        check_sentences: the number of sentences to compare on, if they come from the split.
    """

    quantization: str = "float32"
    beam: int = 1
    subwords: Optional[SubwordKind] = None
    subword_file: Optional[Path] = None
    tokenizer: Optional[Tokenizer] = None
    check_lines: Optional[List[str]] = None
    check_sentences: int = 200


class Agreement(msgspec.Struct):
    """How the greedy translations of a folder compare with those of fairseq.

    Attributes:
        sentences: the number of sentences compared.
        same: translations that are equal as text.
        bleu: BLEU of the folder's translations, with those of fairseq as references.
        nats_per_token: mean absolute difference of log p of fairseq's translations.
        worst: largest difference of log p of one translation, in nats.
    """

    sentences: int
    same: int
    bleu: float
    nats_per_token: float = msgspec.field(name="nats_a_token")
    worst: float


def export(system: "System", output: Path, options: ExportOptions) -> Agreement:
    """Writes a deployed folder.

    Args:
        system: the student, and the data that it belongs to.
        output: the folder to write. A folder that is there is replaced.
        options: how the student is exported.

    Returns:
        How its translations compare with those of fairseq.

    Raises:
        Refusal: CTranslate2 cannot hold the model, the subword model is not that of the data, or
            the folder does not compute what the checkpoint computes.
    """
    model, task = systems.load(system)
    if not ctranslate2_model.is_transformer(model):
        raise Refusal(
            f"CTranslate2 runs Transformers only, and {system.path} is a {type(model).__name__}; "
            "translate with fairseq-generate or fairseq-interactive, make the file smaller with "
            "`seqkd prune` and `seqkd compress`, or distil into a Transformer student"
        )
    source, target = task.source_dictionary, task.target_dictionary
    files = ctranslate2_model.convert(
        model,
        ctranslate2_model.symbol_names(source),
        ctranslate2_model.symbol_names(target),
        add_source_eos=True,
        quantization=options.quantization,
    )
    config = deployed_config(system, model, options)
    with whole_folder(output) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        if options.subword_file:
            shutil.copyfile(options.subword_file, folder / SUBWORD_FILE)
        config.write(folder)
        translator = Translator(folder, beam=1)
        sources = read_sources(system, source, options.check_sentences, config.max_source_tokens)
        check_segmentation(
            translator, sources, system.sides[systems.SOURCE].post_process, options.subword_file
        )
        if options.check_lines is not None:
            sources = segment(translator, options.check_lines, source)
        agreement = compare(translator, FairseqSearch(model, task, config), sources, system)
        check_agreement(agreement, options.quantization, system.path)
    return agreement


def deployed_config(
    system: "System", model: "BaseFairseqModel", options: ExportOptions
) -> DeployedConfig:
    """Returns the settings of the folder."""
    settings = system.settings
    max_source, max_target = (int(limit) for limit in model.max_positions())
    return DeployedConfig(
        source_lang=system.split.languages.source,
        target_lang=system.split.languages.target,
        quantization=options.quantization,
        max_source_tokens=max_source,
        max_len_a=settings.max_len_a,
        max_len_b=settings.max_len_b,
        max_target_tokens=max_target - 1,
        post_process=settings.post_process,
        beam=options.beam,
        lenpen=settings.lenpen,
        checkpoint_sha256=system.checkpoint_sha256,
        distillation_signature=system.distillation_signature,
        subwords=options.subwords,
        subword_file=SUBWORD_FILE if options.subword_file else None,
        tokenizer=options.tokenizer,
    )


def read_sources(
    system: "System", dictionary: "Dictionary", count: int, max_tokens: int
) -> List[List[str]]:
    """Returns the subwords of the first sources of the split, cut at max_tokens including EOS."""
    side = system.split.read(system.split.languages.source)
    rows = [side[i].tolist() for i in range(min(count, len(side)))]
    return [
        [dictionary.symbols[i] for i in row if i != dictionary.eos()][: max_tokens - 1]
        for row in rows
    ]


def check_segmentation(
    translator: Translator,
    sources: Sequence[List[str]],
    post_process: Optional[str],
    file: Optional[Path],
) -> None:
    """Checks that the subword model segments text as the data are segmented.

    Args:
        translator: the folder.
        sources: subwords of sources of the data.
        post_process: how these are joined.
        file: the subword model, for the message.

    Raises:
        Refusal: too many sources are segmented in another way.
    """
    if translator.config.subwords is None:
        return
    text = translator.text
    known = [source for source in sources if UNKNOWN not in source]
    same = sum(
        text.segment(text.detokenise_source(source, post_process)) == source for source in known
    )
    required = SAME_SUBWORDS_TOKENISED if translator.config.tokenizer else SAME_SUBWORDS
    if same < required * len(known):
        raise Refusal(
            f"{file} segments {len(known) - same} of {len(known)} sentences differently from the "
            "data; name the subword model of the student's data"
        )


def segment(
    translator: Translator, lines: Sequence[str], dictionary: "Dictionary"
) -> List[List[str]]:
    """Returns the subwords of lines of text, without empty lines.

    Raises:
        Refusal: too many subwords are not in the dictionary.
    """
    sources = [subwords for subwords in map(translator.text.segment, lines) if subwords]
    subwords = [subword for source in sources for subword in source]
    known = sum(subword in dictionary.indices for subword in subwords)
    if not subwords or known < KNOWN_SUBWORDS * len(subwords):
        raise Refusal(
            f"of {len(subwords):,} subwords of the text given to --check, {known:,} are in the "
            "dictionary: the text is not in the student's source language, or the subword model "
            "is not that of the student's data; name others"
        )
    return [source[: translator.config.max_source_tokens - 1] for source in sources]


class FairseqSearch:
    """The greedy search of fairseq with the exported model, one sentence at a time.

    Args:
        model: the student.
        task: its task.
        config: the settings of the folder, which has the same length limit.
    """

    def __init__(
        self, model: "BaseFairseqModel", task: "FairseqTask", config: DeployedConfig
    ) -> None:
        from fairseq_seqkd.engines.fairseq_engine import FairseqEngine

        self.model = model
        self.source_dictionary = task.source_dictionary
        self.target_dictionary = task.target_dictionary
        options = Namespace(beam=1, max_len_a=config.max_len_a, max_len_b=config.max_len_b)
        generator = task.build_generator([model], options)
        self.engine = FairseqEngine(generator, [model], 1, self.target_dictionary.eos())

    def translate(self, sources: Sequence[List[str]]) -> Tuple[List[List[str]], np.ndarray]:
        """Translates sources, which are lists of subwords.

        Returns:
            The subwords of the translations, and (sentences,) their log-probabilities in nats.
        """
        index, eos = self.source_dictionary.index, self.source_dictionary.eos()
        rows = [[*map(index, source), eos] for source in sources]
        tokens = [self.engine.search(as_batch(row))[0][0].tokens.tolist() for row in rows]
        log_probs = ctranslate2_model.fairseq_log_probs(
            self.model, rows, tokens, self.target_dictionary.eos()
        )
        symbols = ctranslate2_model.symbol_names(self.target_dictionary)
        return [[symbols[i] for i in translation] for translation in tokens], log_probs


def as_batch(row: List[int]) -> Dict[str, Any]:
    """Returns the ids of one source as a batch for fairseq's search."""
    import torch

    return {
        "id": torch.tensor([0]),
        "net_input": {"src_tokens": torch.tensor([row]), "src_lengths": torch.tensor([len(row)])},
    }


def compare(
    translator: Translator, fairseq: FairseqSearch, sources: Sequence[List[str]], system: "System"
) -> Agreement:
    """Compares the translations of a folder with those of fairseq.

    Args:
        translator: the folder.
        fairseq: the search of fairseq.
        sources: subwords of the sentences to compare on.
        system: the student; the tokenizer of BLEU is that of its evaluation.
    """
    from fairseq_seqkd.evaluation.measure import bleu

    references, log_probs = fairseq.translate(sources)
    scores = translator.engine.score_batch(
        sources, references, max_input_length=0, max_batch_size=SCORE_BATCH
    )
    differences = np.abs(np.array([sum(score.log_probs) for score in scores]) - log_probs)
    texts = [translator.text.detokenise(row) for row in translator.translate_subwords(sources)]
    reference_texts = [translator.text.detokenise(row) for row in references]
    score, _ = bleu(texts, reference_texts, system.settings.bleu_tokenizer)
    return Agreement(
        sentences=len(sources),
        same=sum(text == reference for text, reference in zip(texts, reference_texts)),
        bleu=score.score,
        nats_per_token=float(differences.sum() / sum(len(row) + 1 for row in references)),
        worst=float(differences.max()),
    )


def check_agreement(agreement: Agreement, quantization: str, path: str) -> None:
    """Checks that a folder computes what its checkpoint computes, up to rounding.

    Raises:
        Refusal: log-probabilities differ by more than rounding explains.
    """
    if quantization == "float32":
        difference, limit, unit = agreement.worst, TOLERANCE, "nats"
        advice = "translate with fairseq instead"
    else:
        difference, limit, unit = agreement.nats_per_token, TOLERANCE_QUANTISED, "nats per token"
        advice = "export it with --quantization float32"
    if not difference <= limit:  # NaN is not small either
        raise Refusal(
            f"exported to {quantization}, {path} is not the same model any more: log-probabilities "
            f"differ by {difference:.3g} {unit} (rounding explains {limit:g}); {advice}"
        )
