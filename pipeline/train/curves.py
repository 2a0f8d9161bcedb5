"""The curves of a run as SVG and PNG, drawn from metrics.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import disk_errors
from pipeline.lines import StoredRows


def draw(metrics: Path, folder: Path, title: str) -> None:
    """Write loss.svg and loss.png: training and held-out loss by optimizer step."""
    figure, (axes,) = panels(1)
    by_step(axes, list(StoredRows(metrics)), "loss", "loss (nats a token)")
    axes.set_title(title)
    write(figure, folder, "loss")


def draw_rewards(metrics: Path, folder: Path) -> None:
    """Write rewards.svg and rewards.png: margins and accuracies of the implied rewards by step."""
    figure, (left, right) = panels(2)
    rows = list(StoredRows(metrics))
    by_step(left, rows, "rewards/margins", "reward of the chosen answer over the rejected one's")
    by_step(right, rows, "rewards/accuracies", "pairs in which it is higher")
    write(figure, folder, "rewards")


def panels(count: int) -> tuple[Any, Sequence[Any]]:
    """A figure with so many axes beside each other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, count, figsize=(7 if count == 1 else 5 * count, 4.2), layout="constrained", squeeze=False
    )
    for one in axes[0]:
        one.grid(alpha=0.3)
    return figure, list(axes[0])


def write(figure: Any, folder: Path, name: str) -> None:
    """Put a figure into a folder as SVG and PNG, with a legend where there is something to tell apart."""
    from matplotlib import pyplot

    for axes in figure.axes:
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    for path in (folder / f"{name}.svg", folder / f"{name}.png"):
        with disk_errors(path):
            figure.savefig(path, dpi=120)
    pyplot.close(figure)


def by_step(axes: Any, rows: Sequence[dict[str, Any]], metric: str, label: str) -> None:
    """Draw a metric and its held-out counterpart `eval_METRIC` by optimizer step."""
    for name, curve, style in ((metric, "training", "-"), (f"eval_{metric}", "held out", "o-")):
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=curve, markersize=4)
    axes.set(xlabel="optimizer step", ylabel=label)
