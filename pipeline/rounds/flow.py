"""The rounds: which command runs next, on what, and what of it is taken.

    start/evaluate
    round-00/ selfinstruct[-teacher] -> guards -> sft -> preferences -> dpo | grpo | ppo -> evaluate -> guards
    round-01/ the same from the last good policy, its data with a share of the good rounds' before

All state is in the stages' run directories: a resumed loop walks the same way and runs what is not finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.engines.models import EMBEDDED
from pipeline.intervals import Interval
from pipeline.progress import Display
from pipeline.records import SeedTask, to_json
from pipeline.rounds import facts, guards
from pipeline.rounds.options import GENERATE, LAST, MIXTURE, POLICY, TEACHER, Options
from pipeline.rounds.recipe import Sections, wanted
from pipeline.rounds.runner import Stage
from pipeline.rounds.scores import Scored
from pipeline.rundir import RunDir

START = "start"
Row = dict[str, Any]


@dataclass
class Past:
    """What the good rounds so far have left."""

    policy: str
    scored: Scored | None
    diversity: Interval
    against: str = "the seeds"  # whose diversity that is
    data: list[Path] = field(default_factory=list)
    examples: int = 0


class Loop:
    """Plays the rounds of a loop in `folder`."""

    def __init__(
        self, options: Options, sections: Sections, seeds: Sequence[SeedTask], folder: Path, display: Display
    ) -> None:
        self.options, self.sections, self.folder, self.display = options, sections, folder, display
        self.wanted = wanted(sections)
        self.seeds = [one for one in seeds if one.language in self.wanted]
        self.scored: dict[str, Scored] = {}  # every evaluation, by the name of its row

    def play(self) -> Iterator[Row]:
        """Every row of the table in turn: the model at the start, then what each round trained."""
        options = self.options
        own = facts.diversity([(one.language, one.instruction) for one in self.seeds], options.seed)
        past = Past(options.model, None, own)
        if LAST in options.stages:
            past.scored = self._evaluate(START, self.folder / START, options.model, options.seed)
            yield {"name": START, "policy": options.model, **past.scored.as_json()}
        for number in range(options.rounds):
            yield from self._round(number, past)

    def _round(self, number: int, past: Past) -> Iterator[Row]:
        options, folder = self.options, self.folder / f"round-{number:02d}"
        name = f"round {number}"
        self.display.say(f"{name}: the policy is {past.policy or 'the embedded model'}")
        sources, wanted = self._generate(number, folder, past)
        found = facts.made(sources, wanted, options.seed)
        row: Row = {"name": name, "round": number, "policy": past.policy, **found.as_json()}
        why = guards.data(options, found, past.diversity, past.against)
        if why:
            yield self._judged(row, why, [])
            return
        policy, scored = past.policy, None
        for stage, policy, note in self._train(number, folder, past, sources):
            if note:
                self.display.say(f"{name}: {note}")
                row.setdefault("notes", []).append(note)
            elif LAST in options.stages and options.evaluate == "every":
                scored = self._evaluate(f"{name}, {stage}", folder, policy, options.seed, f"{LAST}-{stage}")
                yield {"name": f"{name}, {stage}", "round": number, "policy": policy, **scored.as_json()}
        if LAST in options.stages and options.evaluate == "last":
            scored = self._evaluate(name, folder, policy, options.seed)
        alarms: list[str] = []
        if scored and past.scored:
            self.scored[name] = scored
            why = guards.policy(options, scored, past.scored)
            alarms = list(guards.alarms(scored, past.scored))
            row |= scored.as_json()
        row["policy"] = policy
        yield self._judged(row, why, alarms)
        if not why:
            past.policy, past.scored, past.diversity, past.against = policy, scored, found.diversity, name
            past.data += [one for one in sources if _kept(one)]
            past.examples += found.kept

    def _judged(self, row: Row, why: list[str], alarms: list[str]) -> Row:
        verdict = "rejected" if why else "accepted"
        self.display.say(f"{row['name']}: {verdict}" + (f": {'; '.join(why)}" if why else ""))
        for alarm in alarms:
            self.display.say(f"{row['name']}: alarm: {alarm}")
        return {**row, "verdict": verdict, "why": why, "alarms": alarms}

    # ---- generate ----

    def _generate(self, number: int, folder: Path, past: Past) -> tuple[list[Path], int]:
        """Make the round's data; returns the runs that hold them and how many examples were wanted."""
        options = self.options
        most = max(1, int(options.max_growth * (len(self.seeds) + past.examples)))
        whole = sum(self.wanted.values())
        writers = {POLICY: (POLICY,), TEACHER: (TEACHER,), MIXTURE: (TEACHER, POLICY)}[options.generator]
        sources: list[Path] = []
        total = 0
        for writer in writers:
            part = {TEACHER: options.teacher_frac, POLICY: 1 - options.teacher_frac}[writer]
            scale = min(1.0, most / whole) * (part if len(writers) > 1 else 1)
            wanted = {language: max(1, round(count * scale)) for language, count in self.wanted.items()}
            stage = self._writer(number, folder, past, writer, wanted, sources)
            self._run(stage)
            sources.append(stage.folder)
            total += sum(wanted.values())
        if most < whole:
            self.display.say(f"round {number}: {total} examples instead of {whole}, as --max-growth says")
        return sources, total

    def _writer(
        self, number: int, folder: Path, past: Past, writer: str, wanted: dict[str, int], beside: list[Path]
    ) -> Stage:
        options, own = self.options, self.sections[GENERATE]
        teaches = writer == TEACHER
        given: dict[str, Any] = {
            "seeds": list(options.seeds),
            "heldout": list(options.heldout),
            "languages": [f"{language}:{count}" for language, count in wanted.items()],
            "model": options.teacher if teaches else past.policy,
            "seed": options.seed + number,
            "round": number,
            "pool": [str(one) for one in (*past.data, *(one for one in beside if _kept(one)))],
            "evolve_frac": options.evolve_frac if number else 0.0,
        }
        more = {**own, **(self.sections[TEACHER] if teaches else {})}
        name = GENERATE + (f"-{TEACHER}" if teaches and options.generator == MIXTURE else "")
        return Stage(GENERATE, folder / name, {**given, **more, "languages": given["languages"]})

    # ---- train ----

    def _train(
        self, number: int, folder: Path, past: Past, sources: list[Path]
    ) -> Iterator[tuple[str, str, str]]:
        """Run the training stages; yields (stage, policy, "") of each and ("", policy, note)."""
        options = self.options
        policy = past.policy if options.start == POLICY else options.model
        data = [str(one) for one in sources if _kept(one)]
        pairs = reward = ""
        for command in (one for one in options.stages if one not in (GENERATE, LAST)):
            if command in ("dpo", "reward") and not pairs:
                yield "", policy, f"{command} is left out: preferences made no pairs"
                continue
            given: dict[str, Any] = {"data": data, "model": policy, "seed": options.seed + number}
            if command in ("dpo", "grpo", "ppo"):  # to them no name means the newest model
                given["model"] = policy or EMBEDDED
            if command == "sft":
                given |= self._mixture(folder, past, data)
            elif pairs and command != "preferences":
                given["data"] = [pairs]
            if command in ("grpo", "ppo") and reward:
                given["reward"] = [f"reward_model={reward}"]
            if command == "reward":
                given["model"] = options.model
            stage = Stage(command, folder / command, {**given, **self.sections[command]})
            made = self._run(stage)
            if command == "preferences":
                pairs = str(stage.folder) if made else ""
            elif command == "reward":
                reward = str(stage.folder)
            else:
                policy = str(stage.folder)
                yield command, policy, ""

    def _mixture(self, folder: Path, past: Past, data: list[str]) -> dict[str, Any]:
        """Examples of this round, the seeds, and a share of the good rounds' before."""
        out: dict[str, Any] = {"data": data, "replay": [str(one) for one in past.data]}
        out["replay_frac"] = self.options.replay_frac
        if self.options.train_on_seeds:
            RunDir(folder).write("seeds.jsonl", "".join(to_json(one) + "\n" for one in self.seeds))
            out["data"] = [*data, str(folder / "seeds.jsonl")]
        return out

    # ---- evaluate ----

    def _evaluate(self, name: str, folder: Path, policy: str, seed: int, stage: str = LAST) -> Scored:
        options = self.options
        given = {"target": [policy or EMBEDDED], "heldout": list(options.heldout), "seed": seed}
        given["seeds"] = list(options.seeds)
        self._run(found := Stage(LAST, folder / stage, {**given, **self.sections[LAST]}))
        self.scored[name] = Scored(name, found.folder)
        return self.scored[name]

    def _run(self, stage: Stage) -> bool:
        if not stage.done:
            self.display.say(f"{stage.folder}: python {' '.join(stage.words)}")
        return stage.run()


def _kept(folder: Path) -> bool:
    return (folder / "kept.jsonl").stat().st_size > 0
