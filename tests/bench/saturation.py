"""How busy the pipeline keeps an engine, and how many examples it keeps beside Alpaca's loop.

    python tests/bench/saturation.py embedded [--num-examples 60]
    python tests/bench/saturation.py server [--base-url URL --model NAME] [--num-examples 200]
    python tests/bench/saturation.py server --minutes 4       # the beginning of a run without an end
    python tests/bench/saturation.py server --alpaca [--minutes 3]
    ... [any option of pipeline.selfinstruct]

Saturation is generated tokens/s of a Self-Instruct run (scheduler, state machine, filters, embeddings,
journal with fsync; the cache is off) over tokens/s of the bare engine given the same requests in the order
in which the run handed them over: the embedded engine the same groups, one at a time (so many requests are
in flight as `--concurrency` says), a server `--concurrency` of the requests at all times. Both go through
the same engine class; the clock runs from the first request handed over to the last answer. Rounds
alternate: run, bare, bare, run. In the second of two rounds the bare engine goes first, with the requests
of the run before it, which has the same seed (on a server its requests differ, as answers depend on what is
computed together: the output says how many are the same).

A run drains at its end: the last examples go through their stages with nothing left to propose, while the
bare engine is given everything at once. So two ratios: of the whole run, and of the part before the run first
had nothing to ask. For that part the bare engine's time is that in which it had received as many tokens.
With --minutes both are cut after so long, as the beginning of a long run, and only that part is compared: a
slow machine drains for most of a short run. Of a server its own count of generated tokens is compared too: in
a few minutes answers of the same length come in waves, and those under way at the end are many.

A server's prefix cache must not carry from one pass to the next: it is emptied before each by vLLM's
/reset_prefix_cache, which a server has when it is started with VLLM_SERVER_DEV_MODE=1, as here. (A cache_salt
per pass would do as well, but the engine would have to send it.) Without --base-url a server is started as
the contract suite does it (PIPELINE_VLLM_PYTHON names the Python that has vLLM).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import median

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / "tests"), str(REPO / "tests" / "bench")]

import alpaca_loop  # noqa: E402
from noted import Pass  # noqa: E402
from subject import Bench, root, server  # noqa: E402

from pipeline.engines.base import Request  # noqa: E402
from pipeline.stages.seeds import load_seeds  # noqa: E402

NO_END = 10**6  # examples: more than there is time for
ENDLESS = f"--num-examples {NO_END} --max-proposals {100 * NO_END}".split()


def saturation(bench: Bench) -> None:
    """Print tokens/s of runs and of the bare engine, and their ratios."""
    whole, before, counted, last = list[float](), list[float](), list[float](), list[list[Request]]()
    for number in range(bench.given.rounds):
        if number % 2:
            bare, run = bench.bare(last), begun(bench)
            now = [list(g.requests) for g in run.groups]
            same = len({r.digest for g in last for r in g} & {r.digest for g in now for r in g})
            note = f"bare first, with the last round's requests ({same} of {sum(map(len, now))} are the same)"
        else:
            run, note = begun(bench), "run first"
            last = [list(g.requests) for g in run.groups]
            bare = bench.bare(last)
        cut = run.ended if bench.given.minutes else run.drain(bench.batch)
        level = bare.reaches(run.tokens(cut))
        print(f"round {number + 1} ({note})")
        print(describe("run ", run, cut, bench.given.concurrency, f"; {run.kept[-1][1]} examples kept"))
        print(describe("bare", bare, level if cut else 0.0, bench.given.concurrency))
        if bench.given.minutes and bench.server:
            speeds = [one.counted(60 * bench.given.minutes) for one in (run, bare)]
            counted.append(speeds[0] / speeds[1])
            said = "  by the server's own count: run {:.1f} tokens/s, bare {:.1f}".format(*speeds)
            print(f"{said}; ratio {counted[-1]:.3f}", flush=True)
        if not bench.given.minutes:
            whole.append(run.speed(run.ended) / bare.speed(bare.ended))
            print(f"  ratio, whole run with its drain: {whole[-1]:.3f}")
        if cut:
            before.append(run.speed(cut) / bare.speed(level))
            share = (cut - run.began) / (run.ended - run.began)
            print(f"  ratio, before the drain: {before[-1]:.3f} ({share:.0%} of the run's time)", flush=True)
        else:
            print("  before the drain: too few examples to tell", flush=True)
    if counted:
        print(f"median ratio of {len(counted)} rounds, by the server's own count: {median(counted):.3f}")
    if whole:
        print(f"median ratio of {len(whole)} rounds, whole run with its drain: {median(whole):.3f}")
    if before:
        print(f"median ratio of {len(before)} rounds, before the drain: {median(before):.3f}")


def begun(bench: Bench) -> Pass:
    """A run, or what it did in the first minutes if it is to be cut."""
    if not bench.given.minutes:
        return bench.run()
    return bench.run(*ENDLESS, seconds=60 * bench.given.minutes)


def describe(name: str, one: Pass, cut: float, places: int, more: str = "") -> str:
    """A line on a pass, with the same for the part before `cut` in brackets."""
    asked, failed = sum(len(g.requests) for g in one.groups), sum(g.failed for g in one.groups)
    mean, free = one.in_flight(places, one.ended)
    text = f"  {name}: {one.speed(one.ended):.1f} tokens/s"
    text += f" [{one.speed(cut):.1f}]" if cut else ""
    text += f"; {asked} requests, {one.tokens(one.ended)} tokens, {one.ended - one.began:.1f} s"
    text += f" [{cut - one.began:.1f}]" if cut else ""
    text += f"; {mean:.1f} of {places} in flight, fewer for {free:.1%} of the time"
    text += " [{:.1f}, {:.1%}]".format(*one.in_flight(places, cut)) if cut else ""
    text += f"; {one.processor:.0f} CPU s of the client"
    return text + (f"; {failed} failed" if failed else "") + more


def against_alpaca(bench: Bench) -> None:
    """Print kept examples per minute of Alpaca's loop and of both our variants.

    Each has the same time; Alpaca's loop then ends the step that it is in, and has its own time counted.
    """
    given, rates = bench.given, dict[str, list[float]]()
    names = {"alpaca": "ours, --variant alpaca", "self-instruct": "ours, --variant self-instruct"}

    def note(name: str, rate: float, said: str) -> None:
        rates.setdefault(name, []).append(rate)
        print(f"  {name}: {rate:.2f} kept examples a minute; {said}", flush=True)

    def loop(seed: int) -> None:
        bench.forget()
        tasks = [(s.instruction, s.instances[0]) for s in load_seeds(["seeds/en.jsonl"])]
        seeds = [{"instruction": text, "input": i.input, "output": i.output} for text, i in tasks]
        limit = given.alpaca_max_tokens
        made = alpaca_loop.alpaca_loop(bench.url, given.model, seeds, given.minutes, limit, seed)
        busy = f"{made.asking / made.seconds:.0%} of the time asking"
        said = f"{len(made.kept)} kept of {made.proposed} proposals that passed its filters before ROUGE-L"
        said += f"; {made.steps} steps, {made.seconds:.0f} s, {made.tokens} tokens, {busy}"
        note("Alpaca's loop, its own rules", 60 * len(made.kept) / made.seconds, said)
        passed = alpaca_loop.passing(bench.options("-", "--variant", "alpaca"), made.kept)
        said = f"{passed} of those {len(made.kept)}"
        note("Alpaca's loop, then our filters", 60 * passed / made.seconds, said)

    def ours(variant: str) -> None:
        run = bench.run("--variant", variant, *ENDLESS, seconds=60 * given.minutes)
        kept, until = run.kept_by(60 * given.minutes), run.began + 60 * given.minutes
        mean, answered = run.in_flight(given.concurrency, until)[0], sum(g.answered > 0 for g in run.groups)
        said = f"{kept} kept; {answered} requests answered, {run.tokens(until)} tokens, {mean:.1f} in flight"
        note(names[variant], kept / given.minutes, said)

    for number in range(given.rounds):
        print(f"round {number + 1}, {given.minutes:g} minutes each")
        steps: list[Callable[[], None]] = [
            partial(loop, given.seed + number),
            lambda: ours("alpaca"),
            lambda: ours("self-instruct"),
        ]
        for step in reversed(steps) if number % 2 else steps:
            step()
    middle = {name: median(values) for name, values in rates.items()}
    for name in names.values():
        for other in (other for other in middle if other.startswith("Alpaca")):
            factor = f"{middle[name] / middle[other]:.1f} times" if middle[other] else "(nothing to compare)"
            print(f"{name}: {factor} as many a minute as {other} (medians of {given.rounds} rounds)")


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawTextHelpFormatter
    parser.add_argument("engine", choices=("embedded", "server"))
    parser.add_argument("--num-examples", type=int, default=0, help="of a run; 0: 60 embedded, 200 server")
    parser.add_argument("--concurrency", type=int, default=64, help="in flight (embedded: in a group)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--base-url", default="", help="of a running vLLM server, with /v1")
    parser.add_argument("--model", default="smol", help="the server's name of it")
    parser.add_argument("--alpaca", action="store_true", help="compare with Alpaca's loop instead")
    parser.add_argument("--minutes", type=float, default=0.0, help="of a run; of each of the three: 3")
    parser.add_argument("--alpaca-max-tokens", type=int, default=1024, help="of an answer in Alpaca's loop")
    given, more = parser.parse_known_args()
    if given.alpaca and given.engine != "server":
        parser.error("--alpaca wants the server")
    given.minutes = given.minutes or (3.0 if given.alpaca else 0.0)
    given.num_examples = given.num_examples or (60 if given.engine == "embedded" else 200)
    os.chdir(REPO)
    with server(given) as url:
        names = ("torch", "transformers", "openai")
        versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
        if url:
            with urllib.request.urlopen(f"{root(url)}/version") as answer:
                versions += f", server: vLLM {json.loads(answer.read())['version']}"
        cores = f"{os.cpu_count()} cores, Python {platform.python_version()}"
        print(f"{' '.join(sys.argv[1:])}: {cores}, {versions}")
        print(time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), flush=True)
        (against_alpaca if given.alpaca else saturation)(Bench(given, more, url))


if __name__ == "__main__":
    main()
