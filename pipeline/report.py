"""Write a run directory's report.html: what was kept, what was dropped and why, on one self-contained page.

python -m pipeline.report runs/selfinstruct-001
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import option, parse
from pipeline.errors import PipelineError, run_command
from pipeline.lines import StoredRows
from pipeline.records import read_text
from pipeline.rundir import RunDir

SHOWN = 50  # examples, and drops of each reason at most a tenth of that

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ name }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; color: #222 }
table { border-collapse: collapse }
td, th { text-align: left; padding: .2rem .8rem; border-bottom: 1px solid #ddd }
td.n { text-align: right } article { border-left: 4px solid #4a7; margin: 1rem 0; padding: .2rem 1rem }
article.dropped { border-color: #c64 }
pre { white-space: pre-wrap; margin: .2rem 0; font: inherit; color: #444 }
small { color: #777 }
svg { max-width: 30rem; font-size: 10px } rect { fill: #4a7 }
</style></head><body>
<h1>{{ name }}</h1>
<p>{{ num_kept }} examples kept, {{ reasons | sum(attribute=1) }} records of drops;
{{ run.requests }} requests, {{ run.prompt_tokens }} prompt and {{ run.completion_tokens }} completion tokens,
{{ run.seconds }} s.</p>
<h2>Dropped, by reason</h2>
<table><tr><th>what</th><th>stage</th><th>reason</th><th>count</th></tr>
{% for (unit, stage, reason), count in reasons %}
<tr><td>{{ unit }}</td><td>{{ stage }}</td><td>{{ reason }}</td><td class="n">{{ count }}</td></tr>
{% endfor %}
</table>
{% for language, found in diversity.items() %}
<h2>Diversity: {{ language }}</h2>
{% if found.left_out %}
<p>Left out: {{ found.left_out }}.</p>
{% else %}
<p>{{ found.num_examples }} examples have {{ found.num_texts }} different tasks, compared by the cosine of
their instructions' embeddings ({{ found.model }}
{%- if found.num_compared < found.num_texts %}, {{ found.num_compared }} drawn at random{% endif %}).</p>
<p>Seeds: {{ found.seeds_covered }} of {{ found.seeds | length }} are the nearest seed of a task; the tasks
spread as widely as over {{ found.even_seeds }} seeds with equal shares. Most have:
{% for key, count in found.seeds[:5] if count %}
{{ key }} ({{ count }}){{ ", " if not loop.last }}
{%- endfor %}.</p>
{% if found.histogram | sum %}
<p>Cosine of each task to its nearest other one, mean {{ "%.2f" | format(found.mean_nearest) }}:</p>
<svg viewBox="0 0 420 130" role="img" aria-label="Histogram of cosines to the nearest other task">
{% for count in found.histogram %}
{% set height = 100 * count / found.histogram | max %}
<rect x="{{ 10 + 20 * loop.index0 }}" y="{{ "%.1f" | format(110 - height) }}" width="18"
 height="{{ "%.1f" | format(height) }}"><title>{{ count }}</title></rect>
{% endfor %}
{% for tenth in range(0, 11, 2) %}<text x="{{ 4 + 40 * tenth }}" y="124">{{ tenth / 10 }}</text>{% endfor %}
</svg>
{% endif %}
<table><tr><th>tasks</th><th>most central of the cluster</th></tr>
{% for cluster in found.clusters %}
<tr><td class="n">{{ cluster.size }}</td><td>{{ cluster.text }}</td></tr>
{% endfor %}
</table>
{% endif %}
{% endfor %}
<h2>Examples</h2>
{% for row in kept %}
<article><b>{{ row.instruction }}</b>{% if row.input %}<pre>{{ row.input }}</pre>{% endif %}
<pre>{{ row.output }}</pre><small>{{ row.id }}</small></article>
{% endfor %}
<h2>Some of what was dropped</h2>
{% for row in sample %}
<article class="dropped"><b>{{ row.instruction }}</b>{% if row.output %}<pre>{{ row.output }}</pre>{% endif %}
<small>{{ row.stage }}: {{ row.reason }} ({{ row.evidence }})</small></article>
{% endfor %}
<h2>Options</h2>
<pre>{{ config }}</pre>
</body></html>
"""


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    run: str = option("", "run directory, also as the only argument", metavar="DIR")


def write_report(folder: Path) -> Path:
    """Write `folder`/report.html from the run's files. Raises PipelineError if it is no run."""
    import json

    import jinja2

    if not (folder / "run.json").is_file():
        raise PipelineError(folder, "this is no run directory (no run.json)", "Name one under runs/.")
    kept, dropped = (StoredRows(folder / f"{name}.jsonl") for name in ("kept", "dropped"))
    spread = folder / "diversity.json"
    counts = Counter((r["unit"], r["stage"], r["reason"]) for r in dropped)
    page = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(PAGE)
    text = page.render(
        name=folder.name,
        run=json.loads(read_text(folder / "run.json")),
        reasons=counts.most_common(),
        sample=_sample(dropped),
        kept=list(itertools.islice(kept, SHOWN)),
        num_kept=len(kept),
        config=read_text(folder / "config.yaml"),
        diversity=json.loads(read_text(spread)) if spread.is_file() else {},
    )
    RunDir(folder).write("report.html", text)
    return folder / "report.html"


def _sample(dropped: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first few drops of each reason, without those that only say that enough was there."""
    seen: Counter[str] = Counter()
    picked = []
    for row in dropped:
        seen[row["reason"]] += 1
        if seen[row["reason"]] <= SHOWN // 10 and row["reason"] not in ("not_needed", "no_instance_kept"):
            picked.append(row)
    return sorted(picked, key=lambda row: str(row["reason"]))


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    if len(argv) == 1 and not argv[0].startswith("-"):
        argv = ["--run", argv[0]]
    options = parse(Options, argv, prog="python -m pipeline.report", doc=__doc__ or "")
    if not options.run:
        raise PipelineError(
            "command line", "no run directory given", "Name one: python -m pipeline.report RUN"
        )
    print(write_report(Path(options.run)))
    return 0


if __name__ == "__main__":
    run_command(main)
