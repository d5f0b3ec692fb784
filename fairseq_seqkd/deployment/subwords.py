"""Text to subwords and back, as a deployed folder's settings say.

Nothing here needs torch or fairseq. Libraries are imported when a folder needs them.
"""

import re
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Protocol, Sequence

from fairseq_seqkd.deployment.config import (
    FASTBPE,
    SENTENCEPIECE,
    SUBWORD_NMT,
    DeployedConfig,
    SubwordKind,
)
from fairseq_seqkd.errors import Refusal, first_line

UNKNOWN = "<unk>"
PACKAGES = {SENTENCEPIECE: "sentencepiece", SUBWORD_NMT: "subword-nmt", FASTBPE: "fastBPE"}
SPACE = "\u2581"  # SentencePiece's mark of a space


class Segmenter(Protocol):
    """Segments text into subwords."""

    def segment(self, line: str) -> List[str]:
        """Returns the subwords of a line."""
        ...


class WhitespaceSegmenter:
    """Splits text that is segmented already."""

    def segment(self, line: str) -> List[str]:
        """Returns the words of a line."""
        return line.split()


class SentencePieceSegmenter:
    """Segments text with a model of SentencePiece."""

    def __init__(self, file: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        self.processor = SentencePieceProcessor(model_file=str(file))

    def segment(self, line: str) -> List[str]:
        """Returns the subwords of a line."""
        return self.processor.encode(line, out_type=str)


class SubwordNmtSegmenter:
    """Segments words with codes of subword-nmt."""

    def __init__(self, file: Path) -> None:
        from subword_nmt.apply_bpe import BPE

        with file.open(encoding="utf-8") as codes:
            self.bpe = BPE(codes)

    def segment(self, line: str) -> List[str]:
        """Returns the subwords of a line."""
        return self.bpe.process_line(line).split()


class FastBpeSegmenter:
    """Segments words with codes of fastBPE."""

    def __init__(self, file: Path) -> None:
        from fastBPE import fastBPE

        self.bpe = fastBPE(str(file))

    def segment(self, line: str) -> List[str]:
        """Returns the subwords of a line."""
        return self.bpe.apply([line])[0].split()


SEGMENTERS: Dict[str, Callable[[Path], Segmenter]] = {
    SENTENCEPIECE: SentencePieceSegmenter,
    SUBWORD_NMT: SubwordNmtSegmenter,
    FASTBPE: FastBpeSegmenter,
}


def open_segmenter(kind: SubwordKind, file: Path) -> Segmenter:
    """Opens a subword model.

    Args:
        kind: SENTENCEPIECE, SUBWORD_NMT or FASTBPE.
        file: its model or codes.

    Raises:
        Refusal: the file is missing or of another kind, or the library is not installed.
    """
    if not file.is_file():
        raise Refusal(f"{file}, the subword model, is missing; export the checkpoint again")
    try:
        return SEGMENTERS[kind](file)
    except ImportError as error:
        package = PACKAGES[kind]
        raise Refusal(
            f"{file} needs {package}, which is not installed: pip install {package}"
        ) from error
    except (RuntimeError, OSError, ValueError) as error:
        raise Refusal(f"{file} is not a model of {kind}: {first_line(error)}") from error


def kind_of_codes(file: Path) -> SubwordKind:
    """Returns SUBWORD_NMT or FASTBPE, whichever wrote a file of BPE codes.

    A line of fastBPE holds two subwords and their count, one of subword-nmt the two subwords only.
    """
    with file.open("rb") as codes:
        columns = codes.readline(1000).split(b" ")
    return FASTBPE if len(columns) == 3 else SUBWORD_NMT


def join(subwords: Sequence[str], post_process: Optional[str]) -> str:
    """Joins subwords into a line.

    Args:
        subwords: the subwords.
        post_process: SENTENCEPIECE; None to leave them apart; any other value for "@@ ".
    """
    if post_process == SENTENCEPIECE:
        return "".join(subwords).replace(SPACE, " ").strip()
    line = " ".join(subwords)
    return re.sub("@@( |$)", "", line).rstrip() if post_process else line


class TextPipeline:
    """Turns lines into subwords and back, as the settings of a deployed folder say.

    Args:
        folder: the deployed folder, with its subword model.
        config: its settings.

    Raises:
        Refusal: the subword model cannot be opened, or sacremoses is not installed.
    """

    def __init__(self, folder: Path, config: DeployedConfig) -> None:
        self.config = config
        self.segmenter: Segmenter = WhitespaceSegmenter()
        if config.subwords is not None and config.subword_file is not None:
            self.segmenter = open_segmenter(config.subwords, folder / config.subword_file)
        self.source_moses = MosesText(config.source_lang) if config.tokenizer else None
        self.target_moses = MosesText(config.target_lang) if config.tokenizer else None

    def segment(self, line: str) -> List[str]:
        """Returns the subwords of a source."""
        if self.source_moses:
            line = self.source_moses.tokenise(line)
        return self.segmenter.segment(line)

    def detokenise(self, subwords: Sequence[str]) -> str:
        """Returns a translation as text."""
        line = join(subwords, self.config.post_process)
        return self.target_moses.detokenise(line) if self.target_moses else line

    def detokenise_source(self, subwords: Sequence[str], post_process: Optional[str]) -> str:
        """Returns a source as text, the inverse of `segment`.

        Args:
            subwords: the subwords of the source.
            post_process: how they are joined, as for `join`.
        """
        line = join(subwords, post_process)
        return self.source_moses.detokenise(line) if self.source_moses else line


class MosesText:
    """The tokenizer and detokenizer of sacremoses for one language.

    The options are the defaults of fairseq's --tokenizer moses.
    """

    def __init__(self, language: str) -> None:
        try:
            from sacremoses import MosesDetokenizer, MosesTokenizer
        except ImportError:
            raise Refusal(
                "the folder's text is tokenised by sacremoses, which is not installed: "
                "pip install sacremoses"
            ) from None
        self.tokenizer: Any = MosesTokenizer(lang=language)
        self.detokenizer: Any = MosesDetokenizer(lang=language)

    def tokenise(self, line: str) -> str:
        """Returns the tokens of a line, joined by spaces."""
        return self.tokenizer.tokenize(
            line, return_str=True, escape=True, aggressive_dash_splits=True
        )

    def detokenise(self, line: str) -> str:
        """Returns the text of a line of tokens."""
        return self.detokenizer.detokenize(line.split())
