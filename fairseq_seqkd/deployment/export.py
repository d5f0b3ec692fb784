"""Makes a deployable folder of a student, and compares what it translates with what fairseq translates.

A folder that does not compute what the checkpoint computes is never left behind: it appears under its name only when
the comparison is over.
"""

import shutil
from argparse import Namespace
from dataclasses import dataclass

import numpy as np

from fairseq_seqkd.corpus.atomic import whole_folder
from fairseq_seqkd.deployment import config as folders
from fairseq_seqkd.deployment.translate import Translator
from fairseq_seqkd.engines import ctranslate2_model
from fairseq_seqkd.engines.ctranslate2_engine import TOLERANCE, TOLERANCE_QUANTISED
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import systems

SAME_CUT = 0.9  # of the sentences that the subword model must cut as the data are cut; stray spaces explain the others
SAME_CUT_TOKENISED = (
    0.5  # where a tokenizer is undone and done again, which loses what it was unsure of
)
SCORED_AT_A_TIME = 8  # sentences
KNOWN = 0.8  # of the pieces of a given text that must be in the dictionary


@dataclass
class Agreement:
    """How a folder's greedy translations of some sentences compare with fairseq's."""

    sentences: int
    same: int  # translations that are equal, as text
    bleu: float  # of the folder's translations, with fairseq's as references
    nats_a_token: float  # mean difference of log p of fairseq's translations
    worst: float  # largest difference of log p of one of them, nats


def export(system, quantization, output, text_options, beam, check_lines=None, check_sentences=200):
    """Writes the folder and returns its Agreement.

    Args:
        system: a systems.System. quantization: type of the weights on disk.
        text_options: {"subwords", "subword_file" (a path), "tokenizer"}, how text becomes pieces.
        beam: of the folder. check_lines: raw text to compare on; None: the first check_sentences of the system's split.

    Raises Refusal for a model that CTranslate2 cannot hold, subwords that are not the data's, and a folder that differs.
    """
    model, task = systems.load(system)
    if not ctranslate2_model.is_transformer(model):
        raise Refusal(
            f"CTranslate2 holds Transformers only, and {system.path} is a {type(model).__name__}: translate with it by "
            "fairseq-generate or fairseq-interactive, make its file small with `seqkd prune` and `seqkd compress`, or distil "
            "the same teacher into a Transformer student, which may follow a teacher of any architecture"
        )
    source, target = task.source_dictionary, task.target_dictionary
    vocabularies = ctranslate2_model.symbol_names(source), ctranslate2_model.symbol_names(target)
    files = ctranslate2_model.convert(
        model, *vocabularies, add_source_eos=True, quantization=quantization
    )
    reads, writes = (int(limit) for limit in model.max_positions())
    settings = system.settings
    folder = folders.Folder(
        source_lang=settings["source_lang"],
        target_lang=settings["target_lang"],
        quantization=quantization,
        max_source_tokens=reads,
        max_len_a=settings["max_len_a"],
        max_len_b=settings["max_len_b"],
        max_target_tokens=writes - 1,
        joined_by=settings["post_process"],
        beam=beam,
        lenpen=settings["lenpen"],
        checkpoint_sha256=system.checkpoint_sha256,
        distillation_signature=system.distillation_signature,
        subwords=text_options["subwords"],
        tokenizer=text_options["tokenizer"],
        subword_file=text_options["subword_file"] and folders.SUBWORD_FILE,
    )
    with whole_folder(output) as beside:
        for name, content in files.items():
            (beside / name).write_bytes(content)
        if text_options["subword_file"]:
            shutil.copyfile(text_options["subword_file"], beside / folder.subword_file)
        folder.write(beside)
        translator = Translator(beside, beam=1)
        sources = sources_of(system, task, check_sentences, reads)
        check_cut(translator, sources, system.source_join, text_options["subword_file"])
        if check_lines is not None:
            sources = cut(translator, check_lines, source)
        agreement = compare(translator, model, task, settings, sources)
        check(agreement, quantization, system.path)
    return agreement


def sources_of(system, task, count, reads):
    """Pieces of the first sentences of the split, of as many tokens as the model reads."""
    side, dictionary = system.split.read(system.split.languages.source), task.source_dictionary
    rows = [side[i].tolist() for i in range(min(count, len(side)))]
    return [
        [dictionary.symbols[i] for i in row if i != dictionary.eos()][: reads - 1] for row in rows
    ]


def check_cut(translator, sources, joined_by, file):
    """Refuses a subword model that cuts text in another way than the data are cut. Args: joined_by: of the sources."""
    if translator.folder.subwords is None:
        return
    again = [
        translator.text.pieces(translator.text.source(source, joined_by)) for source in sources
    ]
    same = sum(a == b for a, b in zip(again, sources) if folders.UNKNOWN not in b)
    possible = sum(folders.UNKNOWN not in source for source in sources)
    if same < (SAME_CUT_TOKENISED if translator.folder.tokenizer else SAME_CUT) * possible:
        raise Refusal(
            f"{file} cuts text otherwise than the data are cut ({same} of {possible} sentences agree); name theirs"
        )


def cut(translator, lines, dictionary):
    """Pieces of lines of text, which must be in the dictionary for the most part."""
    sources = [pieces for pieces in map(translator.text.pieces, lines) if pieces]
    pieces = [piece for source in sources for piece in source]
    known = sum(piece in dictionary.indices for piece in pieces)
    if not pieces or known < KNOWN * len(pieces):
        raise Refusal(
            f"of {len(pieces):,} pieces of the text given to --check, {known:,} are in the dictionary: the text is not in the "
            "student's source language, or the subword model is not the one that its data were cut with"
        )
    return [source[: translator.folder.max_source_tokens - 1] for source in sources]


def compare(translator, model, task, settings, sources):
    """The Agreement on sources, lists of pieces; fairseq searches with the same limit of length, a sentence at a time."""
    from fairseq_seqkd.engines.fairseq_engine import FairseqEngine
    from fairseq_seqkd.evaluation.measure import bleu

    source_dictionary, target_dictionary = task.source_dictionary, task.target_dictionary
    options = Namespace(beam=1, max_len_a=settings["max_len_a"], max_len_b=settings["max_len_b"])
    engine = FairseqEngine(
        task.build_generator([model], options), [model], 1, target_dictionary.eos()
    )
    rows = [[*map(source_dictionary.index, source), source_dictionary.eos()] for source in sources]
    theirs = [engine.search(sample(row))[0][0].tokens.tolist() for row in rows]
    log_probs = ctranslate2_model.fairseq_log_probs(model, rows, theirs, target_dictionary.eos())
    names = ctranslate2_model.symbol_names(target_dictionary)
    # A few at a time, or the numbers over the vocabulary of all of them stand in memory at once.
    how = {"max_input_length": 0, "max_batch_size": SCORED_AT_A_TIME}
    scored = translator.engine.score_batch(
        sources, [[names[i] for i in row] for row in theirs], **how
    )
    differences = np.abs(np.array([sum(result.log_probs) for result in scored]) - log_probs)
    found = [translator.text.text(pieces) for pieces in translator.pieces(sources)]
    wanted = [translator.text.text([names[i] for i in row]) for row in theirs]
    score, _ = bleu(found, wanted, settings["bleu_tokenizer"])
    return Agreement(
        sentences=len(sources),
        same=sum(a == b for a, b in zip(found, wanted)),
        bleu=score.score,
        nats_a_token=float(differences.sum() / sum(len(row) + 1 for row in theirs)),
        worst=float(differences.max()),
    )


def sample(row):
    """A batch of one source, as fairseq's search takes it."""
    import torch

    return {
        "id": torch.tensor([0]),
        "net_input": {"src_tokens": torch.tensor([row]), "src_lengths": torch.tensor([len(row)])},
    }


def check(agreement, quantization, path):
    """Refuses a folder that does not compute what the checkpoint computes."""
    exact = quantization == "float32"
    seen, bound = (
        (agreement.worst, TOLERANCE) if exact else (agreement.nats_a_token, TOLERANCE_QUANTISED)
    )
    if not seen <= bound:
        raise Refusal(
            f"exported to {quantization}, {path} is not the same model any more: log-probabilities differ by {seen:.3g} nats "
            f"{'' if exact else 'a token '}(at most {bound:g} is rounding); "
            + (
                "translate with fairseq instead"
                if exact
                else "export it with --quantization float32"
            )
        )
