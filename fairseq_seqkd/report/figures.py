"""The figures of the report as SVG that stands in a page: drawn by matplotlib, coloured by the page, light or dark."""

import contextlib
import io
import re
from pathlib import Path

from fairseq_seqkd.corpus.atomic import whole_file
from fairseq_seqkd.errors import Refusal

WIDTH, HEIGHT = (
    5.2,
    3.5,
)  # inches of 72 units: as wide as a telephone, so that the letters stay legible there
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#b08900",
    "#56a0d3",
    "#7a5fc0",
    "#8c8c8c",
)  # told apart by most eyes
MARKERS = "osD^vP*Xh<>"
UNDATED = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}  # so that the same numbers are the same bytes
INK = "#010203"  # becomes the colour of the page's text


def load():
    """matplotlib.pyplot, drawing to files. Raises Refusal where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise Refusal(
            "figures need matplotlib, which is not installed: pip install 'fairseq_seqkd[report]'"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def figure(name, draw, height=HEIGHT, label=""):
    """SVG text of what `draw` puts on matplotlib axes. Args: name: for its ids, unique in a page; label: what it shows."""
    out = io.StringIO()
    look = {
        "axes.edgecolor": INK,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with drawn(draw, height, {**look, "svg.fonttype": "none", "svg.hashsalt": name}) as drawing:
        drawing.savefig(
            out, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    return for_page(out.getvalue(), name, label)


def save(path, draw):
    """A file of its own, of the kind that its ending says, whole or not at all. Refuses a kind that cannot be drawn."""
    kind, out = Path(path).suffix[1:].lower(), io.BytesIO()
    try:
        with drawn(draw, HEIGHT, {"svg.hashsalt": "plot"}) as drawing:
            drawing.savefig(out, format=kind, dpi=200, metadata=UNDATED.get(kind))
    except ValueError as error:
        raise Refusal(f"{path} cannot be drawn: {error}") from None
    with whole_file(path) as file:
        file.write(out.getvalue())


@contextlib.contextmanager
def drawn(draw, height, more=None):
    pyplot = load()
    settings = {
        "font.size": 9, "font.family": "sans-serif", "axes.spines.top": False, "axes.spines.right": False, "grid.color": INK,
        "text.parse_math": False, "grid.alpha": 0.15, "legend.frameon": False, "legend.fontsize": 8, **(more or {}),
    }  # fmt: skip
    with pyplot.rc_context(settings):
        drawing, axes = pyplot.subplots(figsize=(WIDTH, height), layout="constrained")
        axes.grid(True)
        axes.set_axisbelow(True)
        draw(axes)
        yield drawing
        pyplot.close(drawing)


def for_page(svg, name, label):
    """The <svg> element alone, with ids of its own, as wide as its place, in the page's ink and letters."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'<svg ([^>]*?)\bwidth="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'<svg ([^>]*?)\bheight="[^"]*"', r"<svg \1", svg, count=1)
    svg = svg.replace(INK, "currentColor").replace("'DejaVu Sans', ", "")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def curves(trainings, order):
    """Perplexity on gold against updates. Args: trainings: [{"name", "seed", "points"}]; order: names, for the colours."""

    def draw(axes):
        seen = set()
        for training in trainings:
            name = training["name"]
            style = {"color": colour(order, name), "label": None if name in seen else name}
            axes.plot(
                *zip(*training["points"]), lw=1.3, marker=marker(order, name), markersize=3, **style
            )
            seen.add(name)
        axes.set(xlabel="updates", ylabel="perplexity on gold (valid)", yscale="log")
        plain_logarithm(axes.yaxis)
        below(axes)

    return figure("curves", draw, 4.4, "Perplexity on gold of every training, against updates")


def greedy_and_beam(rows):
    """BLEU with greedy search and with beam 5, a line for every system."""

    def draw(axes):
        for y, row in enumerate(reversed(rows)):
            axes.plot([row["bleu_greedy"], row["bleu_beam5"]], [y, y], color=INK, alpha=0.5, lw=1)
            for key, mark, face in (("bleu_greedy", "o", "none"), ("bleu_beam5", "s", COLOURS[0])):
                label = None if y else {"bleu_greedy": "greedy", "bleu_beam5": "beam 5"}[key]
                deviation = row.get(f"{key}_std")
                axes.errorbar(
                    row[key],
                    y,
                    xerr=deviation,
                    fmt=mark,
                    color=COLOURS[0],
                    mfc=face,
                    ms=5,
                    lw=0.8,
                    capsize=2,
                    label=label,
                )
        axes.set_yticks(range(len(rows)), [row["name"] for row in reversed(rows)])
        axes.set(xlabel="BLEU")
        axes.margins(y=0.08)
        below(axes)

    return figure(
        "search",
        draw,
        1.3 + 0.3 * len(rows),
        "BLEU of every system with greedy search and with beam 5",
    )


def mode_and_bleu(rows):
    """BLEU with greedy search against the probability of the greedy output."""

    def draw(axes):
        names = [row["name"] for row in rows]
        for row in rows:
            deviation = row.get("mode_probability_std")
            axes.errorbar(
                100 * row["mode_probability"], row["bleu_greedy"], yerr=row.get("bleu_greedy_std"),
                xerr=None if deviation is None else 100 * deviation, fmt=marker(names, row["name"]), capsize=2, lw=0.8,
                color=colour(names, row["name"]), label=row["name"],
            )  # fmt: skip
        axes.set(xlabel="p(t = ŷ), per cent", ylabel="BLEU, greedy")
        below(axes)

    return figure("mode", draw, 4.4, "BLEU with greedy search against the probability of the mode")


def speed_and_quality(speeds, what):
    """BLEU against speed. Args: speeds: [{"name", "engine", "beam", "speed", "bleu"}]; what: what the speed is."""

    def draw(axes):
        names = list(dict.fromkeys(speed["name"] for speed in speeds))
        engines = list(dict.fromkeys(speed["engine"] for speed in speeds))
        for speed in speeds:
            axes.plot(
                speed["speed"], speed["bleu"], MARKERS[engines.index(speed["engine"])], ms=6,
                color=colour(names, speed["name"]), mfc="none" if speed["beam"] == 1 else None,
            )  # fmt: skip
        for name in names:
            axes.plot([], [], "o", color=colour(names, name), label=name)
        for engine in engines:
            axes.plot([], [], MARKERS[engines.index(engine)], color=INK, label=engine)
        axes.plot([], [], "o", color=INK, mfc="none", label="hollow: greedy; full: beam")
        axes.set(xlabel=what, ylabel="BLEU", xscale="log")
        plain_logarithm(axes.xaxis)
        below(axes)

    return figure("speed", draw, 4.6, "BLEU against speed, of every model, engine and search")


def pruning(lines):
    """BLEU against the parameters that are left. Args: lines: {name of a series: rows of Table 3}."""
    return figure(
        "pruning",
        draw_pruning(lines),
        label="BLEU against the number of parameters that are not zero",
    )


def draw_pruning(lines):
    def draw(axes):
        for number, (name, rows) in enumerate(lines.items()):
            axes.errorbar(
                [row["nonzero_params"] / 1e6 for row in rows], [row["bleu_beam5"] for row in rows],
                [row.get("bleu_beam5_std", 0) for row in rows], marker=MARKERS[number % len(MARKERS)], ms=5, capsize=2,
                color=COLOURS[number % len(COLOURS)], label=name,
            )  # fmt: skip
        axes.set(xlabel="parameters that are not zero, millions", ylabel="BLEU, beam 5")
        below(axes)

    return draw


def beam(entry, number, metric):
    """Figure 2 of the paper for one sentence of beams.of_directory; its points have the ids beam<number>-h0, -h1, ..."""
    perfect = 0 if metric == "ter" else 100  # TER counts errors, and its negative is the similarity

    def draw(axes):
        for rank, h in enumerate(entry["hypotheses"]):
            mark, fill = "o", "none"
            if rank == entry["seq_inter"]:
                mark, fill = "D", COLOURS[1]
            if rank == entry["seq_kd"]:
                mark, fill = ("D" if rank == entry["seq_inter"] else "s"), COLOURS[0]
            axes.plot(
                h["log_prob"],
                h["similarity"],
                mark,
                ms=7,
                mfc=fill,
                color=COLOURS[0],
                gid=f"h{rank}",
            )
        axes.axhline(perfect, color=COLOURS[2], lw=1, ls="--")
        axes.annotate(
            "gold",
            (0.01, perfect),
            xycoords=("axes fraction", "data"),
            va="bottom",
            color=COLOURS[2],
            fontsize=8,
        )
        axes.set(xlabel="log-probability, nats", ylabel=f"similarity to gold ({metric})")
        axes.margins(x=0.08, y=0.1)
        if metric != "ter":
            axes.set_ylim(-5, 109)

    return figure(
        f"beam{number}",
        draw,
        3.0,
        "The beam of the teacher: log-probability against similarity to gold",
    )


def colour(names, name):
    return COLOURS[names.index(name) % len(COLOURS)]


def marker(names, name):
    return MARKERS[names.index(name) % len(MARKERS)]


def plain_logarithm(axis):
    """Numbers instead of powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())


def below(axes):
    """The legend, where it covers nothing."""
    axes.get_figure().legend(loc="outside lower center", ncols=2)
