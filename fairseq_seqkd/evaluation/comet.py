"""COMET of outputs, by unbabel-comet where it is installed (`seqkd evaluate --comet MODEL`)."""

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional

import msgspec
import torch

from fairseq_seqkd.corpus.hashing import sha256
from fairseq_seqkd.errors import Refusal, first_line
from fairseq_seqkd.evaluation.cache import Cache, key
from fairseq_seqkd.evaluation.records import Number
from fairseq_seqkd.evaluation.systems import SOURCE, System

BATCH = 16


class CometScores(msgspec.Struct):
    """COMET of a whole split, and the model that gave it."""

    comet_signature: str
    comet_greedy: Number
    comet_beam5: Number


class Scorer:
    """A model of COMET. It is loaded if any system remains to be scored.

    Args:
        model: a name of unbabel-comet, or the file of a checkpoint.
        device: where it computes.
        cache: the scores that are known.
        systems: the systems that will be scored.
        again: score them whatever the cache holds.

    Raises:
        Refusal: the library is not installed, or the model cannot be loaded.
    """

    def __init__(
        self,
        model: str,
        device: torch.device,
        cache: Cache,
        systems: Iterable[System],
        again: bool = False,
    ) -> None:
        if find_spec("comet") is None:
            raise Refusal(
                "--comet needs unbabel-comet, which is not installed; pip install unbabel-comet, "
                "or leave --comet out"
            )
        is_file = Path(model).is_file()
        self.device, self.cache, self.again = device, cache, again
        self.checkpoint = sha256(model) if is_file else None
        name = f"{Path(model).name}:{self.checkpoint[:8]}" if self.checkpoint else model
        self.signature = f"comet:{metadata.version('unbabel-comet')}|model:{name}"
        self.model: Any = None if all(map(self._known, systems)) else load(model, is_file)

    def _key(self, system: System) -> str:
        return key(
            {
                "comet": self.signature,
                "checkpoint": self.checkpoint,
                "of": system.describe(self.device).facts,
                "source_post_process": system.sides[SOURCE].post_process,
            }
        )

    def _known(self, system: System) -> Optional[CometScores]:
        content = None if self.again else self.cache.get(self._key(system))
        try:
            return msgspec.convert(content, Optional[CometScores])
        except msgspec.ValidationError:  # damaged
            return None

    def scores(self, system: System, outputs: Dict[str, List[str]]) -> CometScores:
        """Returns the scores of a system.

        Args:
            system: the system.
            outputs: the text of every sentence, for each search.
        """
        known = self._known(system)
        if known:
            return known
        sources, references = system.texts()
        values = {search: self._score(sources, outputs[search], references) for search in outputs}
        scores = CometScores(self.signature, values["greedy"], values["beam5"])
        self.cache.put(self._key(system), msgspec.to_builtins(scores))
        return scores

    def _score(self, sources: List[str], texts: List[str], references: List[str]) -> float:
        rows = zip(sources, texts, references)
        samples = [{"src": source, "mt": text, "ref": gold} for source, text, gold in rows]
        gpus = int(self.device.type == "cuda")
        result = self.model.predict(samples, batch_size=BATCH, gpus=gpus, progress_bar=False)
        return float(result.system_score)


def load(model: str, is_file: bool) -> Any:
    """Loads a model of unbabel-comet, which downloads what is no file.

    Raises:
        Refusal: it cannot be loaded.
    """
    from comet import download_model, load_from_checkpoint

    try:
        return load_from_checkpoint(model if is_file else download_model(model))
    except Exception as error:  # of many libraries below, whose kinds nobody lists
        raise Refusal(f"the COMET model {model} cannot be loaded: {first_line(error)}") from error
