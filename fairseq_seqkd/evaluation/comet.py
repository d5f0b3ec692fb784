"""COMET of outputs, by unbabel-comet where it is installed (`seqkd evaluate --comet MODEL`)."""

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from fairseq_seqkd.corpus.files import sha256
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import systems
from fairseq_seqkd.evaluation.cache import key

BATCH = 16


def check_installed():
    if find_spec("comet") is None:
        raise Refusal("--comet needs unbabel-comet, which is not installed: pip install unbabel-comet, or leave --comet out")


def of(system, outputs, model, device, cache):
    """{"comet_<search>": score of the whole split, "comet_signature"} of outputs, {search: [text]}, from the cache or new."""
    is_file = Path(model).is_file()
    found = {"comet_signature": f"comet:{metadata.version('unbabel-comet')}|model:{Path(model).name if is_file else model}"}
    facts = {"comet": found["comet_signature"], "checkpoint": sha256(model) if is_file else None, "of": system.facts(device)}
    known = cache.get(key(facts))
    if known:
        return known
    scorer = load(model, is_file)
    sources, references = systems.texts(system)
    for search, texts in outputs.items():
        triples = [{"src": s, "mt": t, "ref": r} for s, t, r in zip(sources, texts, references)]
        predicted = scorer.predict(triples, batch_size=BATCH, gpus=int(device.type == "cuda"), progress_bar=False)
        found[f"comet_{search}"] = float(predicted.system_score)
    cache.put(key(facts), found)
    return found


def load(model, is_file):
    from comet import download_model, load_from_checkpoint

    try:
        return load_from_checkpoint(model if is_file else download_model(model))
    except Exception as error:  # of many libraries below, whose kinds nobody lists
        raise Refusal(f"the COMET model {model} cannot be loaded: {(str(error).splitlines() or [repr(error)])[0]}") from error
