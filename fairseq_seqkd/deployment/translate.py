"""Translation with a deployed folder: lines in, lines out, in batches of similar length."""

from pathlib import Path
from typing import List, Optional, Sequence, Union

from fairseq_seqkd.deployment import config
from fairseq_seqkd.deployment.subwords import TextPipeline
from fairseq_seqkd.engines import by_length, int8_support
from fairseq_seqkd.engines.ctranslate2_support import check_cublas
from fairseq_seqkd.errors import Refusal, first_line

BATCH_TOKENS = 1024  # source tokens per batch; larger batches are not faster on a CPU core


class Translator:
    """A deployed folder, ready to translate.

    Args:
        folder: the folder, written by `seqkd export`.
        beam: the beam size (default: that of the folder).
        lenpen: the length penalty (default: that of the folder).
        compute_type: CTranslate2's name of the type to compute in. "default" is the type of the
            weights, and "auto" the fastest one, or float32 if int8 overflows on this CPU.
        threads: the number of threads.
        device: "cpu", "cuda" or "auto".

    Raises:
        Refusal: the folder cannot be opened, CTranslate2 is not installed or finds no cuBLAS, or
            int8 is asked for where it overflows.
    """

    def __init__(
        self,
        folder: Union[str, Path],
        beam: Optional[int] = None,
        lenpen: Optional[float] = None,
        compute_type: str = "default",
        threads: int = 1,
        device: str = "cpu",
    ) -> None:
        try:
            import ctranslate2
        except ImportError:
            raise Refusal(
                "CTranslate2 is not installed: pip install 'fairseq_seqkd[ctranslate2]'"
            ) from None
        self.config = config.read(folder)
        self.text = TextPipeline(Path(folder), self.config)
        self.beam = self.config.beam if beam is None else beam
        self.lenpen = self.config.lenpen if lenpen is None else lenpen
        self.truncated = 0  # lines that were longer than the model reads
        if device == "auto":
            device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        if device == "cuda":
            check_cublas("translate with --device cpu")
        else:
            compute_type = self.safe_compute_type(compute_type)
        try:
            self.engine = ctranslate2.Translator(
                str(folder),
                device=device,
                compute_type=compute_type,
                inter_threads=1,
                intra_threads=threads,
            )
        except (RuntimeError, ValueError) as error:
            raise Refusal(f"the model in {folder} cannot be opened: {first_line(error)}") from error

    def safe_compute_type(self, compute_type: str) -> str:
        """Returns the type to compute in on this CPU: float32 instead of an int8 that overflows.

        Raises:
            Refusal: an int8 that overflows is asked for by its name.
        """
        # CTranslate2 regards int8 as the fastest type.
        choices = {"default": self.config.quantization, "auto": "int8"}
        chosen = choices.get(compute_type, compute_type)
        if compute_type in choices and int8_support.computed_as(chosen) != chosen:
            return "float32"
        int8_support.check(compute_type)
        return compute_type

    def translate(self, lines: Sequence[str]) -> List[str]:
        """Translates lines of text. An empty line stays empty."""
        sources = [self.text.segment(line) for line in lines]
        return [self.text.detokenise(subwords) for subwords in self.translate_subwords(sources)]

    def translate_subwords(self, sources: Sequence[List[str]]) -> List[List[str]]:
        """Translates lists of subwords. A source that is too long loses its end, and is counted."""
        longest = self.config.max_source_tokens - 1  # without EOS, which CTranslate2 adds
        self.truncated += sum(len(source) > longest for source in sources)
        sources = [source[:longest] for source in sources]
        translations: List[List[str]] = [[] for _ in sources]
        for batch in by_length([len(source) for source in sources], BATCH_TOKENS):
            limits = [max(self.config.length_limit.of(len(sources[i]) + 1), 1) for i in batch]
            results = self.engine.translate_batch(
                [sources[i] for i in batch],
                beam_size=self.beam,
                length_penalty=self.lenpen,
                max_decoding_length=max(limits),
                max_input_length=0,
            )
            for i, limit, result in zip(batch, limits, results):
                translations[i] = result.hypotheses[0][:limit]
        return translations
