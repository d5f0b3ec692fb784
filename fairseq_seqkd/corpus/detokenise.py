"""From token ids to detokenised text. Nothing else here makes text: BLEU is a metric of text."""

from typing import TYPE_CHECKING, Any, List, Optional, Sequence

from fairseq_seqkd.errors import Refusal

if TYPE_CHECKING:
    from fairseq.data import Dictionary

# Values of --post-process: a name, or the mark at the end of a subword that is continued.
SENTENCEPIECE, CONTINUED = "sentencepiece", "@@ "
NONE = "none"  # the value of an option that disables it

# Replacements for unknown words: characters of private use, which every tokenizer of sacrebleu
# takes for a token. They differ, because metrics would otherwise reward a word that nobody knows.
UNKNOWN_IN_OUTPUT, UNKNOWN_IN_REFERENCE = "\ue000", "\ue001"


class Detokeniser:
    """Turns token ids into text as fairseq-generate does.

    Symbols are joined and post-processed, then BPE and tokenizer are reverted.

    Args:
        dictionary: the dictionary of the ids.
        post_process: fairseq's --post-process, or None.
        bpe: fairseq's --bpe, an object with `decode`, or None.
        tokenizer: fairseq's --tokenizer, an object with `decode`, or None.
        unknown: what replaces an unknown word (default: the dictionary's own symbol).
    """

    def __init__(
        self,
        dictionary: "Dictionary",
        post_process: Optional[str] = None,
        bpe: Any = None,
        tokenizer: Any = None,
        unknown: Optional[str] = None,
    ) -> None:
        self.dictionary, self.post_process = dictionary, post_process
        self.bpe, self.tokenizer, self.unknown = bpe, tokenizer, unknown
        self.symbols: List[Optional[str]] = list(dictionary.symbols)
        for special in (dictionary.eos(), dictionary.pad(), dictionary.bos()):
            self.symbols[special] = None

    def __call__(self, tokens: Any) -> str:
        """Detokenises one sentence.

        Args:
            tokens: token ids (an array, a tensor or a list), with or without the closing EOS.
        """
        # Lists are many times faster to iterate over than arrays.
        ids = tokens.tolist() if hasattr(tokens, "tolist") else tokens
        symbols = map(self.symbols.__getitem__, ids)
        text = join([symbol for symbol in symbols if symbol is not None], self.post_process)
        for decoder in (self.bpe, self.tokenizer):
            if decoder is not None:
                text = decoder.decode(text)
        # Last, because some of fairseq's decoders know "<unk>" and fail on anything else.
        unk_word = self.dictionary.unk_word
        return text if self.unknown is None else text.replace(unk_word, self.unknown)


def join(symbols: Sequence[str], post_process: Optional[str]) -> str:
    """Joins symbols into a sentence. `post_process` is fairseq's --post-process."""
    from fairseq.data import data_utils

    text = " ".join(symbols)
    return data_utils.post_process(text, post_process) if post_process else text


def resolve_post_process(post_process: Optional[str], dictionary: "Dictionary") -> Optional[str]:
    """Returns the post-processing of a side.

    Args:
        post_process: the value of --post-process; "none" disables it. If it is None, the symbols
            of the dictionary decide.
        dictionary: the dictionary of that side.

    Raises:
        Refusal: fairseq does not know this value.
    """
    if post_process is None:
        return guess_post_process(dictionary)
    if post_process == NONE:
        return None
    try:
        join([], post_process)
    except NotImplementedError:
        raise Refusal(
            f"--post-process is {post_process!r}, which fairseq does not know; the usual values "
            "are sentencepiece and subword_nmt, 'none' disables it"
        ) from None
    return post_process


def beside_bpe(post_process: Optional[str], bpe: Optional[str]) -> Optional[str]:
    """Returns --post-process, which defaults to 'none' beside a --bpe: that joins subwords."""
    return NONE if post_process is None and bpe else post_process


def guess_post_process(dictionary: "Dictionary") -> Optional[str]:
    """Returns the post-processing that the symbols suggest; None if they look like words."""
    symbols = dictionary.symbols[dictionary.nspecial :]
    if any(symbol.startswith("\u2581") for symbol in symbols):
        return SENTENCEPIECE
    if any(symbol.endswith("@@") for symbol in symbols):
        return CONTINUED
    return None
