"""Translates lines of text with a deployed folder: batches of like lengths, lines out in the order of lines in."""

from pathlib import Path

from fairseq_seqkd.deployment import config as folders
from fairseq_seqkd.engines import by_length, int8_support
from fairseq_seqkd.engines.ctranslate2_support import check_cublas
from fairseq_seqkd.engines.length_limit import LengthLimit
from fairseq_seqkd.errors import Refusal, first_line

BATCH_TOKENS = 1024  # source tokens; on a core of a CPU more are not faster


class Translator:
    """A deployed folder, opened.

    Args:
        path: the folder; beam, lenpen: instead of the folder's own.
        compute_type: CTranslate2's type of numbers (default: that of the weights on disk, where this CPU computes in it rightly);
        int8 that saturates here is refused.
        threads: of one translation; device: "cpu", "cuda" or "auto".
    """

    def __init__(
        self, path, beam=None, lenpen=None, compute_type="default", threads=1, device="cpu"
    ):
        try:
            import ctranslate2
        except ImportError:
            raise Refusal(
                "CTranslate2 is not installed: pip install 'fairseq_seqkd[ctranslate2]'"
            ) from None
        self.folder = folders.read(path)
        self.text = folders.Text(path, self.folder)
        self.limit = LengthLimit(
            self.folder.max_len_a, self.folder.max_len_b, self.folder.max_target_tokens
        )
        self.beam, self.lenpen = (
            beam or self.folder.beam,
            self.folder.lenpen if lenpen is None else lenpen,
        )
        if device == "auto":
            device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        if device == "cuda":
            check_cublas("translate with --device cpu")
        else:
            compute_type = self.computed_rightly(compute_type)
        how = {"compute_type": compute_type, "inter_threads": 1, "intra_threads": threads}
        try:
            self.engine = ctranslate2.Translator(str(path), device=device, **how)
        except (RuntimeError, ValueError) as error:
            raise Refusal(
                f"the model in {Path(path)} cannot be opened: {first_line(error)}"
            ) from error
        self.cut = 0  # lines that were longer than the model reads

    def computed_rightly(self, compute_type):
        """The type that this CPU computes rightly in: what is asked for or, where the choice is ours, float32 for int8."""
        ours = {
            "default": self.folder.quantization,
            "auto": "int8",
        }  # CTranslate2 takes int8 for the fastest
        wanted = ours.get(compute_type, compute_type)
        if compute_type in ours and int8_support.computed_as(wanted) != wanted:
            return "float32"
        int8_support.check(compute_type)
        return compute_type

    def lines(self, lines):
        """Translates a list of lines. An empty line stays empty; one that is too long loses its end, and is counted."""
        return [
            self.text.text(pieces)
            for pieces in self.pieces([self.text.pieces(line) for line in lines])
        ]

    def pieces(self, sources):
        """Translates lists of pieces into lists of pieces."""
        most = self.folder.max_source_tokens - 1  # EOS
        self.cut += sum(len(source) > most for source in sources)
        sources = [source[:most] for source in sources]
        found = [[] for _ in sources]
        for batch in by_length([len(source) for source in sources], BATCH_TOKENS):
            limits = [max(self.limit.of(len(sources[i]) + 1), 1) for i in batch]
            results = self.engine.translate_batch(
                [sources[i] for i in batch],  # CTranslate2 adds the EOS
                beam_size=self.beam,
                length_penalty=self.lenpen,
                max_decoding_length=max(limits),
                max_input_length=0,
            )
            for i, limit, result in zip(batch, limits, results):
                found[i] = result.hypotheses[0][:limit]
        return found
