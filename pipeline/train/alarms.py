"""Alarms of reward hacking: signs that the reward rises and the answers do not get better.

Every figure is a running mean of the last few steps, held against that of the first few where there is a
before and after. An alarm is told once, and again only if it has cleared in between. `state` is JSON: a run
that is resumed is told the same.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.intervals import Interval

REWARD, LENGTH, REPETITION, KL = "reward", "mean_length", "repetition", "kl"
CUT, EXCLUDED, FLAT = "clipped_frac", "excluded_frac", "zero_variance_frac"
METRICS = (REWARD, LENGTH, REPETITION, KL, CUT, EXCLUDED, FLAT)
"""What `after_step` reads: means over a step's answers, shares in [0, 1], KL in nats per answer."""


@dataclass(frozen=True)
class Limits:
    """From where on something is wrong.

    `kl` is in nats per answer, summed over its tokens, against the reference: the best of n answers is at
    most log n - (n - 1) / n away, so 10 is farther than the best of 50,000; reward models are known to be
    overdone well before (Gao et al. 2023, arXiv 2210.10760). `repetition` is the share of three-word runs
    said before: prose has a few percent.
    """

    window: int = 5  # steps of a running mean
    length_ratio: float = 2.0  # answers shorter or longer than at first
    repetition: float = 0.2
    repetition_rise: float = 0.1  # above the first steps
    kl: float = 10.0
    clipped_frac: float = 0.5
    excluded_frac: float = 0.2


@dataclass(frozen=True)
class _Look:
    """A held-out figure at a step, with its interval and the running reward then (None before any step)."""

    step: int
    value: float
    low: float
    high: float
    reward: float | None


class Alarms:
    """Watches a run; `limits` say from where on something is wrong."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._first: dict[str, list[float]] = {name: [] for name in METRICS}
        self._last: dict[str, list[float]] = {name: [] for name in METRICS}
        self._looks: dict[str, list[_Look]] = {}
        self._on: set[str] = set()

    @property
    def metrics(self) -> dict[str, float]:
        """1 for each alarm that holds now: `alarms/NAME`."""
        return {f"alarms/{name}": 1.0 for name in sorted(self._on)}

    def after_step(
        self, step: int, metrics: Mapping[str, float], held_out: Mapping[str, Interval | float] | None = None
    ) -> list[str]:
        """Take a step's figures, those of METRICS that are there, and return what is newly wrong.

        `held_out`: shares or means on held-out prompts by name, of which more is better, when they were
        looked at.
        """
        for name in METRICS:
            if math.isfinite(value := metrics.get(name, math.nan)):
                self._take(name, float(value))
        found = self._step_alarms()
        for name, seen in (held_out or {}).items():
            found[f"held_out/{name}"] = self._look(step, name, seen)
        new = [f"alarm {name}: {said}" for name, said in found.items() if said and name not in self._on]
        self._on = (self._on - set(found)) | {name for name, said in found.items() if said}
        return new

    def state(self) -> dict[str, Any]:
        """All that was seen, as JSON takes it."""
        looks = {name: [asdict(look) for look in found] for name, found in self._looks.items()}
        first = {name: list(values) for name, values in self._first.items()}
        last = {name: list(values) for name, values in self._last.items()}
        return {"first": first, "last": last, "looks": looks, "on": sorted(self._on)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self._first = {name: list(state["first"].get(name, [])) for name in METRICS}
        self._last = {name: list(state["last"].get(name, [])) for name in METRICS}
        self._looks = {name: [_Look(**look) for look in found] for name, found in state["looks"].items()}
        self._on = set(state["on"])

    def _take(self, name: str, value: float) -> None:
        if len(self._first[name]) < self.limits.window:
            self._first[name].append(value)
        self._last[name] = [*self._last[name], value][-self.limits.window :]

    def _now(self, name: str) -> float | None:
        """The running mean; None before the window is full."""
        last = self._last[name]
        return statistics.fmean(last) if len(last) == self.limits.window else None

    def _before(self, name: str) -> float:
        return statistics.fmean(self._first[name])

    def _step_alarms(self) -> dict[str, str]:
        """What is wrong, by alarm; "" where nothing is."""
        return {
            "length": self._length(),
            "repetition": self._repetition(),
            "kl": self._kl(),
            "clipped": self._above(CUT, self.limits.clipped_frac, "of the answers are cut off"),
            "excluded": self._above(EXCLUDED, self.limits.excluded_frac, "of the answers have no reward"),
            "zero_variance": self._flat(),
        }

    def _length(self) -> str:
        now, ratio = self._now(LENGTH), self.limits.length_ratio
        if now is None or not (before := self._before(LENGTH)):
            return ""
        if before / ratio <= now <= before * ratio:
            return ""
        how = "shorter" if now < before else "longer"
        return f"answers got {how}, {now:.4g} on average, {before:.4g} in the first steps"

    def _repetition(self) -> str:
        now, limits = self._now(REPETITION), self.limits
        if now is None:
            return ""
        before = self._before(REPETITION)
        if now <= max(limits.repetition, before + limits.repetition_rise):
            return ""
        return f"answers repeat {now:.0%} of their three-word runs, {before:.0%} in the first steps"

    def _kl(self) -> str:
        kl, reward = self._now(KL), self._now(REWARD)
        if kl is None or reward is None or kl <= self.limits.kl or reward <= self._before(REWARD):
            return ""
        rose = f"the reward rose from {self._before(REWARD):.4g} to {reward:.4g}"
        return f"{rose} while the policy is {kl:.3g} nats an answer from the reference"

    def _above(self, name: str, limit: float, what: str) -> str:
        now = self._now(name)
        return f"{now:.0%} {what}" if now is not None and now > limit else ""

    def _flat(self) -> str:
        now = self._now(FLAT)
        if now is None or now < 1:
            return ""
        return f"in the last {self.limits.window} steps all answers to a prompt had the same reward"

    def _look(self, step: int, name: str, value: Interval | float) -> str:
        """Hold a look against the earlier ones: the largest fall of which the reward says the contrary."""
        seen = self._looks.setdefault(name, [])
        one = value if isinstance(value, Interval) else Interval(float(value), float(value), float(value), 1)
        if not one.count or not math.isfinite(one.value):
            return ""
        last = self._last[REWARD]
        reward = statistics.fmean(last) if last else None
        now = _Look(step, one.value, one.low, one.high, reward)
        earlier = [look for look in seen if _fell(look, now)]
        seen.append(now)
        if reward is None:
            return ""
        rewards = [self._before(REWARD) if look.reward is None else look.reward for look in earlier]
        worse = [(look, then) for look, then in zip(earlier, rewards, strict=True) if reward > then]
        if not worse:
            return ""
        look, then = max(worse, key=lambda pair: pair[0].value)
        fall = f"fell by {look.value - now.value:.3g}, from {look.value:.3g} at step {look.step}"
        rose = f"the reward rose from {then:.4g} to {reward:.4g}"
        return f"it {fall} to {now.value:.3g} at step {step}, while {rose}"


def _fell(then: _Look, now: _Look) -> bool:
    """Whether a figure fell by more than the 95% interval of the difference (Newcombe 1998, method 10)."""
    return then.value - now.value > math.hypot(then.value - then.low, now.high - now.value)
