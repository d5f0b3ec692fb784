"""The figures of the report as SVG in a page: drawn by matplotlib, coloured by the page."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Union

from fairseq_seqkd.corpus.atomic import whole_file
from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.report.records import Beam, Curve, PrunedRow, Row

Draw = Callable[[Any], None]  # puts a figure on matplotlib's axes

# Inches of 72 units: the width of a telephone, so that the letters are legible there.
WIDTH, HEIGHT = 5.2, 3.5
# Most eyes can tell them apart.
COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b08900", "#56a0d3", "#7a5fc0", "#8c8c8c",
)  # fmt: skip
MARKERS = "osD^vP*Xh<>"
# So that equal numbers are equal bytes.
UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
INK = "#010203"  # becomes the colour of the page's text
STYLE = {
    "font.size": 9, "font.family": "sans-serif", "text.parse_math": False,
    "axes.spines.top": False, "axes.spines.right": False, "grid.color": INK, "grid.alpha": 0.15,
    "legend.frameon": False, "legend.fontsize": 8,
}  # fmt: skip
INKED = ("axes.edgecolor", "text.color", "axes.labelcolor", "xtick.color", "ytick.color")


class SpeedPoint(NamedTuple):
    """A point of the figure of speed and quality."""

    name: str
    engine: str
    beam: int
    speed: float
    bleu: float


def load() -> Any:
    """Imports matplotlib.pyplot to draw to files.

    Raises:
        Refusal: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise Refusal(
            "figures need matplotlib, which is not installed; pip install 'fairseq_seqkd[report]'"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def figure(name: str, draw: Draw, label: str, height: float = HEIGHT) -> str:
    """Draws a figure for the page.

    Args:
        name: the prefix of its ids, unique in a page.
        draw: draws it.
        label: what it shows, for screen readers.
        height: in inches.

    Returns:
        The <svg> element, in the page's width, ink and letters.
    """
    out = io.StringIO()
    style = {**dict.fromkeys(INKED, INK), "svg.fonttype": "none", "svg.hashsalt": name}
    with drawn(draw, height, style) as drawing:
        metadata = {"Date": None, "Creator": None}
        drawing.savefig(out, format="svg", transparent=True, metadata=metadata)
    svg = out.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    for side in ("width", "height"):
        svg = re.sub(rf'<svg ([^>]*?)\b{side}="[^"]*"', r"<svg \1", svg, count=1)
    svg = svg.replace(INK, "currentColor").replace("'DejaVu Sans', ", "")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def save(path: Union[str, Path], draw: Draw) -> None:
    """Saves a figure as a file, in the format of its ending.

    Raises:
        Refusal: matplotlib does not know the format.
    """
    kind, out = Path(path).suffix[1:].lower(), io.BytesIO()
    try:
        with drawn(draw, HEIGHT, {"svg.hashsalt": "plot"}) as drawing:
            drawing.savefig(out, format=kind, dpi=200, metadata=UNDATED.get(kind))
    except ValueError as error:
        raise Refusal(f"{path} cannot be drawn: {error}") from None
    with whole_file(path) as file:
        file.write(out.getvalue())


@contextlib.contextmanager
def drawn(draw: Draw, height: float, style: Dict[str, str]) -> Iterator[Any]:
    """Draws, and closes the drawing at the end of the block."""
    pyplot = load()
    with pyplot.rc_context({**STYLE, **style}):
        drawing, axes = pyplot.subplots(figsize=(WIDTH, height), layout="constrained")
        axes.grid(True)
        axes.set_axisbelow(True)
        draw(axes)
        yield drawing
        pyplot.close(drawing)


def draw_curves(trainings: Sequence[Curve], names: List[str]) -> str:
    """Draws perplexity on gold against updates. `names` are all rows, for the colours."""

    def draw(axes: Any) -> None:
        labelled = set()
        for training in trainings:
            name = training.name
            axes.plot(
                *zip(*training.points), lw=1.3, markersize=3, **style_of(names, name),
                label=None if name in labelled else name,
            )  # fmt: skip
            labelled.add(name)
        axes.set(xlabel="updates", ylabel="perplexity on gold (valid)", yscale="log")
        use_plain_numbers(axes.yaxis)
        put_legend_below(axes)

    return figure("curves", draw, "Perplexity on gold of every training, against updates", 4.4)


def draw_searches(rows: Sequence[Row]) -> str:
    """Draws BLEU with greedy search and with beam 5, a line for each system."""

    def draw(axes: Any) -> None:
        style = {"color": COLOURS[0], "ms": 5, "lw": 0.8, "capsize": 2}
        for y, row in enumerate(reversed(rows)):
            axes.plot([row.bleu_greedy, row.bleu_beam5], [y, y], color=INK, alpha=0.5, lw=1)
            for search, shape, fill in (("greedy", "o", "none"), ("beam 5", "s", None)):
                key = f"bleu_{search.replace(' ', '')}"
                axes.errorbar(
                    row.score(key), y, xerr=row.deviations.get(key), fmt=shape, mfc=fill, **style,
                    label=None if y else search,
                )  # fmt: skip
        axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
        axes.set(xlabel="BLEU")
        axes.margins(y=0.08)
        put_legend_below(axes)

    label = "BLEU of every system with greedy search and with beam 5"
    return figure("search", draw, label, 1.3 + 0.3 * len(rows))


def draw_mode(rows: Sequence[Row]) -> str:
    """Draws BLEU with greedy search against the probability of the greedy output."""

    def draw(axes: Any) -> None:
        names = [row.name for row in rows]
        for row in rows:
            deviation = row.deviations.get("mode_probability", 0)
            axes.errorbar(
                100 * row.mode_probability, row.bleu_greedy, yerr=row.deviations.get("bleu_greedy"),
                xerr=100 * deviation or None, capsize=2, lw=0.8,
                label=row.name, linestyle="none", **style_of(names, row.name),
            )  # fmt: skip
        axes.set(xlabel="p(t = ŷ), per cent", ylabel="BLEU, greedy")
        put_legend_below(axes)

    label = "BLEU with greedy search against the probability of the mode"
    return figure("mode", draw, label, 4.4)


def draw_speeds(points: Sequence[SpeedPoint], unit: str) -> str:
    """Draws BLEU against speed in the given unit."""

    def draw(axes: Any) -> None:
        names = list(dict.fromkeys(point.name for point in points))
        engines = list(dict.fromkeys(point.engine for point in points))
        for point in points:
            axes.plot(
                point.speed, point.bleu, MARKERS[engines.index(point.engine)], ms=6,
                color=style_of(names, point.name)["color"],
                mfc="none" if point.beam == 1 else None,
            )  # fmt: skip
        for name in names:
            axes.plot([], [], "o", color=style_of(names, name)["color"], label=name)
        for engine in engines:
            axes.plot([], [], MARKERS[engines.index(engine)], color=INK, label=engine)
        axes.plot([], [], "o", color=INK, mfc="none", label="hollow: greedy; full: beam")
        axes.set(xlabel=unit, ylabel="BLEU", xscale="log")
        use_plain_numbers(axes.xaxis)
        put_legend_below(axes)

    return figure("speed", draw, "BLEU against speed, of every model, engine and search", 4.6)


def draw_pruning(lines: Dict[str, List[PrunedRow]]) -> str:
    """Draws BLEU against the parameters that are left, a line for each series of Table 3."""
    label = "BLEU against the number of parameters that are not zero"
    return figure("pruning", pruning_drawer(lines), label)


def pruning_drawer(lines: Dict[str, List[PrunedRow]]) -> Draw:
    """Returns what draws the figure of pruning."""

    def draw(axes: Any) -> None:
        for name, rows in lines.items():
            deviations = [row.deviations.get("bleu_beam5", 0) for row in rows]
            axes.errorbar(
                [(row.nonzero_params or 0) / 1e6 for row in rows],
                [row.bleu_beam5 for row in rows], deviations, ms=5, capsize=2, label=name,
                **style_of([*lines], name),
            )  # fmt: skip
        axes.set(xlabel="parameters that are not zero, millions", ylabel="BLEU, beam 5")
        put_legend_below(axes)

    return draw


def draw_beam(beam: Beam, number: int, metric: Optional[str]) -> str:
    """Draws the paper's Figure 2 for one sentence.

    Args:
        beam: the hypotheses of the sentence.
        number: of the beam in the page; the points have the ids beam<number>-h0, -h1, ...
        metric: the similarity to gold.
    """
    # TER counts errors, and its negative is the similarity.
    perfect = 0 if metric == "ter" else 100

    def draw(axes: Any) -> None:
        for rank, hypothesis in enumerate(beam.hypotheses):
            shape, fill = "o", "none"
            if rank == beam.seq_inter:
                shape, fill = "D", COLOURS[1]
            if rank == beam.seq_kd:
                shape, fill = "D" if rank == beam.seq_inter else "s", COLOURS[0]
            point = (hypothesis.log_prob, hypothesis.similarity)
            axes.plot(*point, shape, ms=7, mfc=fill, color=COLOURS[0], gid=f"h{rank}")
        axes.axhline(perfect, color=COLOURS[2], lw=1, ls="--")
        axes.annotate(
            "gold", (0.01, perfect), xycoords=("axes fraction", "data"), va="bottom",
            color=COLOURS[2], fontsize=8,
        )  # fmt: skip
        axes.set(xlabel="log-probability, nats", ylabel=f"similarity to gold ({metric})")
        axes.margins(x=0.08, y=0.1)
        if metric != "ter":
            axes.set_ylim(-5, 109)

    label = "The beam of the teacher: log-probability against similarity to gold"
    return figure(f"beam{number}", draw, label, 3.0)


def style_of(names: List[str], name: str) -> Dict[str, str]:
    """Returns the colour and the marker of a row."""
    number = names.index(name)
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def use_plain_numbers(axis: Any) -> None:
    """Labels a logarithmic axis with numbers instead of powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())


def put_legend_below(axes: Any) -> None:
    """Puts the legend below the axes, where it covers nothing."""
    axes.get_figure().legend(loc="outside lower center", ncols=2)
