"""The loss curve of a run as SVG and PNG, drawn from metrics.jsonl."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import disk_errors
from pipeline.lines import StoredRows


def draw(metrics: Path, folder: Path, title: str) -> None:
    """Write loss.svg and loss.png: training and held-out loss by optimizer step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = list(StoredRows(metrics))
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for name, label, style in (("loss", "training", "-"), ("eval_loss", "held out", "o-")):
        points = [(row["step"], row[name]) for row in rows if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=4)
    axes.set(xlabel="optimizer step", ylabel="loss (nats a token)", title=title)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    for name in ("loss.svg", "loss.png"):
        with disk_errors(folder / name):
            figure.savefig(folder / name, dpi=120)
    pyplot.close(figure)
