"""Run the contenders of bench_decoding.sh in turn, on one thread, and write bench_decoding.json."""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import BIN, ROOT, check_paths, environment, failed, flags, machine, say, watched

from fairseq_seqkd.engines import int8_support

SEARCH = {"beam": 5, "nbest": 5, "max-len-a": 1.2, "max-len-b": 10}
SIZES = (512, 1024, 2048, 3000, 6000, 12000)  # --max-tokens
PROBE = 384  # sentences on which a batch size is tried
PART = 256  # sentences of a part where two workers share the work

PLUGIN = {"user-dir": ROOT / "fairseq_seqkd", "task": "teacher_decoding"}
PLUGIN_CONTENDERS = {
    "plugin_fairseq": {"engine": "fairseq"},
    "plugin_ctranslate2_float32": {"engine": "ctranslate2"},
    "plugin_ctranslate2_int8": {"engine": "ctranslate2", "compute-type": "int8"},
}
RAW_CONTENDERS = {"raw_ctranslate2_float32": "float32", "raw_ctranslate2_int8": "int8"}
CONTENDERS = ("fairseq_generate", *PLUGIN_CONTENDERS, *RAW_CONTENDERS)
if int8_support.saturates():  # where the plugin refuses it
    CONTENDERS = tuple(name for name in CONTENDERS if not name.endswith("int8"))

BEGINS = "decoding begins"
# What is said when all is written: by the plugin, and by fairseq-generate.
ENDS = re.compile(r" is complete \||\bTranslated [\d,]+ sentences \(")

# The stock task; it prints a line when fairseq-generate is about to ask for its first batch.
STOCK = """
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
import fairseq_seqkd.compat

@register_task("timed_translation", dataclass=TranslationConfig)
class TimedTranslationTask(TranslationTask):
    def build_bpe(self, args):
        print("decoding begins", flush=True)
        return super().build_bpe(args)
"""


class Bench:
    def __init__(self, data, teacher, split, folder):
        from fairseq_seqkd.corpus.databin import LanguagePair, Split

        self.folder, self.teacher, self.split = folder, Path(teacher).resolve(), split
        pair = next(Path(data).glob(f"{split}.*-*.*.bin"), None)
        if pair is None:
            raise SystemExit(f"bench_decoding: {data} has no split {split}")
        self.source, self.target = pair.name.split(".")[1].split("-")
        self.gold = Split(data, split, LanguagePair(self.source, self.target))
        self.total = len(self.gold.read(self.source))
        (folder / "timed").mkdir()
        (folder / "timed" / "__init__.py").write_text(STOCK)

    def subset(self, sentences):
        """A data-bin with the first sentences of the split."""
        import shutil

        import numpy as np

        from fairseq_seqkd.corpus.mmap_format import Writer

        out = self.folder / f"bin.{sentences}"
        if not out.exists():
            out.mkdir()
            for lang in (self.source, self.target):
                shutil.copy(self.gold.folder / f"dict.{lang}.txt", out)
                rows = self.gold.read(lang)
                with Writer(out / self.gold.prefix(lang).name, self.gold.dtype(lang)) as writer:
                    for i in range(sentences):
                        row = np.asarray(rows[i])
                        writer.add(row, [len(row)])
        return out

    def command(self, name, sentences, tokens, out, **more):
        plugin = (
            {**PLUGIN, **PLUGIN_CONTENDERS[name], "distill-dir": out}
            if name in PLUGIN_CONTENDERS
            else {}
        )
        stock = {
            "user-dir": self.folder / "timed",
            "task": "timed_translation",
            "required-batch-size-multiple": 1,
        }
        options = {
            **(plugin or stock),
            "path": self.teacher,
            "gen-subset": self.split,
            "source-lang": self.source,
            "target-lang": self.target,
            "max-tokens": tokens,
            "cpu": True,
            **SEARCH,
            **more,
        }
        return [str(BIN / "fairseq-generate"), str(self.subset(sentences)), *flags(options)]

    def run(self, name, sentences, tokens, **more):
        """(seconds of start-up, seconds from the first batch to the finished files, result)."""
        out = Path(tempfile.mkdtemp(dir=self.folder, prefix=f"{name}."))
        if name in RAW_CONTENDERS:
            words = [
                RAW_CONTENDERS[name],
                tokens,
                self.subset(sentences),
                self.teacher,
                self.split,
                self.source,
                self.target,
            ]
            command = [sys.executable, __file__, "--raw", *map(str, words), str(out / "found.json")]
            done = subprocess.run(command, env=environment(), capture_output=True, text=True)
            if done.returncode:
                failed(command, done.stderr)
            return (*map(float, done.stdout.split()[-2:]), out / "found.json")
        started, seconds = timed(
            [self.command(name, sentences, tokens, out / "distilled", **more)], out
        )
        return started, seconds, out / ("distilled" if name in PLUGIN_CONTENDERS else "0.out")

    def workers(self, count, sentences, tokens):
        """Seconds of `count` workers together, from the first batch to the finished files."""
        out = Path(tempfile.mkdtemp(dir=self.folder, prefix=f"workers{count}."))
        more = {"part-size": PART, "distributed-world-size": count}
        commands = [
            self.command(
                "plugin_ctranslate2_float32",
                sentences,
                tokens,
                out / "distilled",
                **more,
                **{"distributed-rank": rank},
            )
            for rank in range(count)
        ]
        return timed(commands, out)[1]


def timed(commands, folder):
    """Run commands side by side and time them.

    Returns (seconds until the first prints BEGINS, seconds from there until all is written).
    """
    begun, times = time.monotonic(), {}

    def seen(now, line):
        if BEGINS in line:
            times.setdefault("begins", now)
        if ENDS.search(line):
            times["ends"] = now

    watched(commands, folder, seen)
    if len(times) < 2:
        failed(commands[0], (folder / "0.out").read_text(errors="replace"))
    return times["begins"] - begun, times["ends"] - times["begins"]


def raw(compute_type, tokens, data, teacher, split, source, target, out):
    """Translate the same lines with CTranslate2 alone, which sorts and batches them.

    Prints the seconds of the start-up and of the translation.
    """
    begun = time.monotonic()
    import ctranslate2
    from fairseq import checkpoint_utils
    from fairseq.data import data_utils

    import fairseq_seqkd

    fairseq_seqkd.register()
    from fairseq_seqkd.engines import ctranslate2_model

    models, _, task = checkpoint_utils.load_model_ensemble_and_task(
        [teacher], arg_overrides={"data": data, "eval_bleu": False}
    )
    models[0].eval()
    vocabularies = [
        ctranslate2_model.id_names(dictionary)
        for dictionary in (task.source_dictionary, task.target_dictionary)
    ]
    files = ctranslate2_model.convert(models[0], *vocabularies)
    translator = ctranslate2.Translator(
        "raw", files=files, compute_type=compute_type, inter_threads=1, intra_threads=1
    )
    names = ctranslate2_model.id_names(task.source_dictionary)
    rows = data_utils.load_indexed_dataset(
        f"{data}/{split}.{source}-{target}.{source}", None, "mmap"
    )
    lines = [[names[i] for i in rows[n].tolist()] for n in range(len(rows))]
    longest = max(map(len, lines))
    started = time.monotonic()
    found = translator.translate_batch(
        lines,
        beam_size=SEARCH["beam"],
        num_hypotheses=SEARCH["nbest"],
        max_batch_size=int(tokens),
        batch_type="tokens",
        max_decoding_length=int(SEARCH["max-len-a"] * longest + SEARCH["max-len-b"]),
        max_input_length=0,
        return_scores=True,
    )
    seconds = time.monotonic() - started
    Path(out).write_text(
        json.dumps(
            [[int(token) for token in row.hypotheses[0] if token.isdigit()] for row in found]
        )
    )
    print(started - begun, seconds)


class Texts:
    """What contenders found, as text, and its BLEU."""

    def __init__(self, bench):
        from fairseq.data import Dictionary

        from fairseq_seqkd.corpus.detokenise import Detokeniser, resolve_post_process

        self.bench = bench
        self.dictionary = Dictionary.load(str(bench.gold.folder / f"dict.{bench.target}.txt"))
        self.detokenise = Detokeniser(self.dictionary, resolve_post_process(None, self.dictionary))

    def of(self, name, result):
        """Best hypotheses, sentence by sentence, as lists of ids."""
        from fairseq_seqkd.corpus.nbest_store import NBestStore

        if name in PLUGIN_CONTENDERS:
            store = NBestStore(result)
            return [store[i][0].tokens.tolist() for i in range(len(store))]
        if name in RAW_CONTENDERS:
            return json.loads(result.read_text())
        found = {}
        for line in result.read_text(errors="replace").splitlines():
            if line.startswith("H-"):
                key, _, text = line.split("\t", 2)
                found.setdefault(
                    int(key[2:]),
                    [self.dictionary.index(symbol) for symbol in text.split(" ") if symbol],
                )
        return [found[i] for i in range(len(found))]

    def bleu(self, hypotheses):
        import sacrebleu

        gold = self.bench.gold.read(self.bench.target)
        references = [self.detokenise(gold[i]) for i in range(len(hypotheses))]
        return sacrebleu.corpus_bleu([self.detokenise(h) for h in hypotheses], [references]).score


def selection_share(bench, sentences, tokens):
    """Time of choosing from 35 hypotheses by sentence BLEU, relative to the time of their search.

    The search runs in CTranslate2, float32.
    """
    from fairseq_seqkd.corpus.detokenise import UNKNOWN_IN_OUTPUT, UNKNOWN_IN_REFERENCE, Detokeniser
    from fairseq_seqkd.corpus.nbest_store import NBestStore
    from fairseq_seqkd.selection.similarity import Similarity

    _, seconds, out = bench.run("plugin_ctranslate2_float32", sentences, tokens, beam=35, nbest=35)
    store, texts = NBestStore(out), Texts(bench)
    output, reference = (
        Detokeniser(texts.dictionary, texts.detokenise.post_process, unknown=u)
        for u in (UNKNOWN_IN_OUTPUT, UNKNOWN_IN_REFERENCE)
    )
    lists, gold = [store[i] for i in range(len(store))], bench.gold.read(bench.target)
    similarity = Similarity("bleu", bench.target)
    begun = time.monotonic()
    for i, nbest in enumerate(lists):
        similarity([output(h.tokens) for h in nbest], reference(gold[i]))
    chosen = time.monotonic() - begun
    return chosen / max(seconds - chosen, 1e-9)


def roofline(bench, hypotheses):
    """The speed that a core could reach.

    It follows from the multiply-adds of a sentence and the measured speed of a matrix product.
    """
    import numpy as np
    import torch
    from fairseq import checkpoint_utils

    import fairseq_seqkd

    fairseq_seqkd.register()
    torch.set_num_threads(1)
    overrides = {"data": str(bench.gold.folder), "eval_bleu": False}
    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task(
        [str(bench.teacher)], arg_overrides=overrides
    )
    source = float(np.mean([len(bench.gold.read(bench.source)[i]) for i in range(len(hypotheses))]))
    steps = float(np.mean([len(h) + 1 for h in hypotheses]))
    weights = lambda module, *skip: sum(  # noqa: E731
        p.numel()
        for name, p in module.named_parameters()
        if p.dim() == 2 and not any(s in name for s in skip)
    )
    encoder = weights(model.encoder.layers)
    cross = weights(model.decoder.layers) - weights(
        model.decoder.layers, "encoder_attn.k_proj", "encoder_attn.v_proj"
    )
    decoder = weights(model.decoder.layers) - cross + model.decoder.output_projection.weight.numel()
    adds = source * (encoder + cross) + SEARCH["beam"] * steps * decoder
    left, right = torch.randn(320, 512), torch.randn(512, 512)
    rates = []
    for _ in range(30):
        begun = time.monotonic()
        for _ in range(20):
            left @ right
        rates.append(20 * 320 * 512 * 512 / (time.monotonic() - begun))
    rate = statistics.median(rates)
    return {
        "multiply_adds_per_sentence": round(adds),
        "core_float32_multiply_adds_per_second": round(rate),
        "roof_float32_sentences_per_second": round(rate / adds, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", default="quickstart/bin")
    parser.add_argument("teacher", nargs="?", default="quickstart/teacher/checkpoint_last.pt")
    parser.add_argument("--split", default="train")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    check_paths(arguments.data, arguments.teacher)
    with tempfile.TemporaryDirectory(prefix="bench_decoding.") as folder:
        result = measure(
            Bench(Path(arguments.data).resolve(), arguments.teacher, arguments.split, Path(folder)),
            arguments,
        )
    Path("bench_decoding.json").write_text(json.dumps(result, indent=1) + "\n")
    table(result)


def measure(bench, arguments):
    probe = min(PROBE, bench.total)
    best, sentences = {}, {}
    for name in CONTENDERS:
        rates = {size: probe / bench.run(name, probe, size)[1] for size in SIZES}
        best[name] = max(rates, key=rates.get)
        sentences[name] = int(min(bench.total, max(probe, rates[best[name]] * arguments.seconds)))
        say(
            f"{name}: best with {best[name]} tokens a batch:",
            {size: round(rate) for size, rate in rates.items()},
        )
    rates, starts, results = ({name: [] for name in CONTENDERS} for _ in range(3))
    speedups, fast = [], "plugin_ctranslate2_float32"
    for turn in range(arguments.rounds):
        for name in CONTENDERS:
            started, seconds, out = bench.run(name, sentences[name], best[name])
            rates[name].append(sentences[name] / seconds)
            starts[name].append(started)
            results[name].append(out)
        one, two = (bench.workers(count, sentences[fast], best[fast]) for count in (1, 2))
        speedups.append(one / two)
        say(
            f"round {turn + 1}:",
            {name: round(values[-1], 1) for name, values in rates.items()},
            f"two workers {one / two:.2f}",
        )
    texts = Texts(bench)
    found = {name: texts.of(name, results[name][-1]) for name in CONTENDERS}
    common = min(len(found[name]) for name in ("fairseq_generate", fast))
    same = sum(a == b for a, b in zip(found["fairseq_generate"][:common], found[fast][:common]))
    shared = min(map(len, found.values()))
    median = {name: statistics.median(values) for name, values in rates.items()}

    def ratio(name, base):
        return round(statistics.median(a / b for a, b in zip(rates[name], rates[base])), 3)

    return {
        **{name: round(value, 1) for name, value in median.items()},
        "identical_float32": round(same / common, 5),
        **{f"bleu_{name}": round(texts.bleu(found[name][:shared]), 2) for name in CONTENDERS},
        "two_workers_speedup": round(statistics.median(speedups), 3),
        "selection_share_nbest35": round(selection_share(bench, min(bench.total, 512), 512), 4),
        "ratios": {
            "plugin_fairseq / fairseq_generate": ratio("plugin_fairseq", "fairseq_generate"),
            "plugin_ctranslate2_float32 / fairseq_generate": ratio(fast, "fairseq_generate"),
            "plugin_ctranslate2_float32 / raw_ctranslate2_float32": ratio(
                fast, "raw_ctranslate2_float32"
            ),
            **{
                f"plugin_ctranslate2_int8 / {base}": ratio("plugin_ctranslate2_int8", base)
                for base in ("fairseq_generate", "raw_ctranslate2_int8")
                if base in CONTENDERS and "plugin_ctranslate2_int8" in CONTENDERS
            },
        },
        "tokens_per_batch": best,
        "sentences": {**sentences, "identical_float32": common, "bleu": shared},
        "startup_seconds": {
            name: round(statistics.median(values), 1) for name, values in starts.items()
        },
        "rounds": {
            **{name: [round(v, 1) for v in values] for name, values in rates.items()},
            "two_workers": speedups,
        },
        "roofline": roofline(bench, found[fast]),
        "machine": machine("ctranslate2"),
        "search": SEARCH,
    }


def table(result):
    base = result["fairseq_generate"]
    print("| | sentences/s | relative to fairseq-generate | batch, tokens | start-up, s | BLEU |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in CONTENDERS:
        print(
            f"| {name} | {result[name]:.1f} | {result[name] / base:.2f} "
            f"| {result['tokens_per_batch'][name]:,} | {result['startup_seconds'][name]:.1f} "
            f"| {result['bleu_' + name]:.2f} |"
        )
    print()
    for key in (
        "identical_float32",
        "two_workers_speedup",
        "selection_share_nbest35",
        "ratios",
        "roofline",
        "machine",
    ):
        print(f"{key}: {result[key]}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--raw"]:
        raw(*sys.argv[2:])
    else:
        main()
