"""COMET of outputs, by unbabel-comet where it is installed (`seqkd evaluate --comet MODEL`)."""

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from fairseq_seqkd.corpus.hashing import sha256
from fairseq_seqkd.errors import Refusal, first_line
from fairseq_seqkd.evaluation import systems
from fairseq_seqkd.evaluation.cache import key

BATCH = 16


class Scorer:
    """A model of COMET, loaded if anything is left to score.

    Args: model: a name of unbabel-comet, or the file of a checkpoint; wanted: the systems.System that will be scored; again:
    score them whatever the cache holds.
    Raises Refusal where the library is missing, and for a model that cannot be loaded.
    """

    def __init__(self, model, device, cache, wanted, again=False):
        if find_spec("comet") is None:
            raise Refusal(
                "--comet needs unbabel-comet, which is not installed: pip install unbabel-comet, or leave --comet out"
            )
        is_file = Path(model).is_file()
        self.device, self.cache, self.again = device, cache, again
        self.checkpoint = sha256(model) if is_file else None
        name = f"{Path(model).name}:{self.checkpoint[:8]}" if is_file else model
        self.signature = f"comet:{metadata.version('unbabel-comet')}|model:{name}"
        self.model = None if all(self.known(system) for system in wanted) else load(model, is_file)

    def key(self, system):
        return key(
            {
                "comet": self.signature,
                "checkpoint": self.checkpoint,
                "of": system.facts(self.device),
            }
        )

    def known(self, system):
        return None if self.again else self.cache.get(self.key(system))

    def scores(self, system, outputs):
        """{"comet_<search>": score of the whole split, "comet_signature"} of outputs, {search: [text]}."""
        found = self.known(system)
        if found:
            return found
        sources, references = systems.texts(system)
        found = {"comet_signature": self.signature}
        for search, texts in outputs.items():
            triples = [{"src": s, "mt": t, "ref": r} for s, t, r in zip(sources, texts, references)]
            predicted = self.model.predict(
                triples, batch_size=BATCH, gpus=int(self.device.type == "cuda"), progress_bar=False
            )
            found[f"comet_{search}"] = float(predicted.system_score)
        self.cache.put(self.key(system), found)
        return found


def load(model, is_file):
    from comet import download_model, load_from_checkpoint

    try:
        return load_from_checkpoint(model if is_file else download_model(model))
    except Exception as error:  # of many libraries below, whose kinds nobody lists
        raise Refusal(f"the COMET model {model} cannot be loaded: {first_line(error)}") from error
