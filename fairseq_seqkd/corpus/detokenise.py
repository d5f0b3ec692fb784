"""From token ids to detokenised text: the one place where text is made, because BLEU is a metric of text."""

from fairseq_seqkd.errors import Refusal

SENTENCEPIECE, CONTINUED = (
    "sentencepiece",
    "@@ ",
)  # of --post-process: its name, or the mark that a word goes on
NONE = "none"  # of an option: not at all, whatever would be done without it

# What stands for an unknown word: characters of private use, a token each for every tokenizer of sacrebleu, and never
# the same. Were both "<unk>", metrics would reward a word that nobody knows.
UNKNOWN_IN_OUTPUT, UNKNOWN_IN_REFERENCE = "\ue000", "\ue001"


class Detokeniser:
    """Turns ids into text as fairseq-generate does: symbols, post-processing, then BPE and tokenizer undone.

    Args: unknown: what stands for an unknown word; None: the dictionary's own symbol.
    """

    def __init__(self, dictionary, post_process=None, bpe=None, tokenizer=None, unknown=None):
        self.dictionary, self.post_process, self.bpe, self.tokenizer = (
            dictionary,
            post_process,
            bpe,
            tokenizer,
        )
        self.symbols = list(dictionary.symbols)
        for special in (dictionary.eos(), dictionary.pad(), dictionary.bos()):
            self.symbols[special] = None
        self.unknown = unknown

    def __call__(self, tokens):
        """tokens: ids of one sentence, an array or tensor or list; a closing EOS does not matter."""
        tokens = (
            tokens.tolist() if hasattr(tokens, "tolist") else tokens
        )  # many times faster than one by one
        text = join(
            [s for s in map(self.symbols.__getitem__, tokens) if s is not None], self.post_process
        )
        if self.bpe is not None:
            text = self.bpe.decode(text)
        if self.tokenizer is not None:
            text = self.tokenizer.decode(text)
        # Last, since some of fairseq's decoders know "<unk>" and stumble over anything else.
        return (
            text if self.unknown is None else text.replace(self.dictionary.unk_word, self.unknown)
        )


def join(symbols, post_process):
    """Joins symbols into a sentence; post_process as fairseq's --post-process."""
    from fairseq.data.data_utils import post_process as undo

    text = " ".join(symbols)
    return undo(text, post_process) if post_process else text


def joined_by(post_process, dictionary):
    """How subwords are joined: as the user says ("none": not at all), else as the dictionary's symbols show.

    Raises: Refusal: fairseq knows no such way.
    """
    if post_process is None:
        return guess_post_process(dictionary)
    if post_process == NONE:
        return None
    try:
        join([], post_process)
    except NotImplementedError:
        raise Refusal(
            f"--post-process is {post_process!r}, which fairseq does not know; sentencepiece and subword_nmt are the usual ones, "
            "none leaves the symbols apart"
        ) from None
    return post_process


def beside_bpe(post_process, bpe):
    """How subwords are joined, where the user says so; a --bpe that is named joins them itself, so nothing is guessed then."""
    return NONE if post_process is None and bpe else post_process


def guess_post_process(dictionary):
    """How this dictionary's subwords are joined, seen from its symbols; None where they look like words."""
    symbols = dictionary.symbols[dictionary.nspecial :]
    if any(symbol.startswith("\u2581") for symbol in symbols):
        return SENTENCEPIECE
    if any(symbol.endswith("@@") for symbol in symbols):
        return CONTINUED
    return None
