"""Continuous batching on one device.

A fixed number of slots, each freed slot taken by the next waiting prompt.

Why not `model.generate`: it has one setting of sampling for the whole batch, keeps finished rows until the
last one ends and copies its cache at every token. Here every request has its own temperature, top-p, seed,
length and stops. A prompt prefix that several requests of a group share (few-shot demonstrations) is
computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from pipeline.engines.base import Sampling
from pipeline.engines.draw import draw
from pipeline.engines.kvcache import Layers, SlotCache
from pipeline.engines.sequences import Sequence_, share_prefixes

PREFILL_TOKENS = 1024  # padded tokens in one prefill forward: bounds its memory
SCORED_ROWS = 8  # rows whose logits are held at many positions at the same time: bounds their memory


class Decoder:
    """Runs a causal language model over groups of prompts; `slots` sequences at a time."""

    def __init__(
        self, model: torch.nn.Module, stop_ids: set[int], text: Callable[[list[int]], str], slots: int
    ) -> None:
        self.model, self.stop_ids, self.text, self.slots = model, stop_ids, text, slots
        self.device = next(model.parameters()).device
        self.tokens_drawn = 0

    @torch.inference_mode()
    def generate(self, prompts: Sequence[list[int]], samplings: Sequence[Sampling]) -> list[Sequence_]:
        """Continue every prompt; results in the order given."""
        sequences = [Sequence_(p, s) for p, s in zip(prompts, samplings, strict=True)]
        share_prefixes(sequences)
        prefixes, cache = self._prefixes(sequences), self._cache(sequences, drawing=True)
        # The longest answers start first, so that the end of the group is not one slow row.
        waiting = sorted(sequences, key=lambda s: (-s.sampling.max_tokens, s.prompt))
        active: list[Sequence_] = []
        while waiting or active:
            free = self.slots - len(active)
            if waiting and free >= max(1, self.slots // 4 if active else 1):
                started, waiting = waiting[:free], waiting[free:]
                logits = self._prefill(cache, started, prefixes, len(active))
                active += started
                self._extend(started, logits)
            else:
                self._extend(active, self._step(cache, active))
            active = self._compact(cache, active)
        return sequences

    @torch.inference_mode()
    def score(self, pairs: Sequence[Sequence[tuple[list[int], list[int]]]]) -> list[list[float]]:
        """Return log p(continuation | prompt) for every (prompt, continuation).

        The sum over the continuation's tokens.
        """
        rows = [pair for options in pairs for pair in options]
        sequences = [Sequence_(p + c, Sampling()) for p, c in rows]
        share_prefixes(sequences, [len(p) - 1 for p, _ in rows])
        prefixes, cache = self._prefixes(sequences), self._cache(sequences, drawing=False)
        sums: list[float] = []
        rows_at_once = min(self.slots, SCORED_ROWS)
        for start in range(0, len(rows), rows_at_once):
            batch = slice(start, start + rows_at_once)
            lasts = [len(c) for _, c in rows[batch]]
            scores = self._prefill(cache, sequences[batch], prefixes, 0, [n + 1 for n in lasts])
            for logits, (_, choice) in zip(scores, rows[batch], strict=True):
                logprobs = (
                    logits[:-1].float().log_softmax(-1)
                )  # (len(choice), V): each predicts the next token
                sums.append(float(sum(logprobs[i, t] for i, t in enumerate(choice))))
        flat = iter(sums)
        return [[next(flat) for _ in options] for options in pairs]

    def _cache(self, sequences: Sequence[Sequence_], *, drawing: bool) -> SlotCache:
        """Room for the longest row and what it may still draw."""
        longest = max((s.length + drawing * s.sampling.max_tokens for s in sequences), default=1)
        return SlotCache(min(self.slots, max(len(sequences), 1)), longest)

    def _forward(
        self, cache: SlotCache, rows: slice, ids: torch.Tensor, starts: torch.Tensor, keep: torch.Tensor | int
    ) -> torch.Tensor:
        """Logits (B, kept positions, V) of `ids` (B, Q) placed at `starts` (B,) in the given rows."""
        positions = starts[:, None] + torch.arange(ids.shape[1], device=self.device)  # (B, Q)
        end = min(int(positions.max()) + 1, cache.length)
        cache.aim(rows, starts, end)
        mask = (
            torch.arange(end, device=self.device)[None, None, None] <= positions[:, None, :, None]
        )  # (B, 1, Q, end)
        return self.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits

    def _prefixes(self, sequences: Sequence[Sequence_]) -> dict[tuple[int, ...], Layers]:
        """Keys and values of every shared prefix, each computed once by itself."""
        found: dict[tuple[int, ...], Layers] = {}
        for key in sorted({tuple(s.prompt[: s.prefix]) for s in sequences if s.prefix}):
            cache = SlotCache(1, len(key))
            self._forward(
                cache,
                slice(0, 1),
                torch.tensor([key], device=self.device),
                torch.zeros(1, dtype=torch.long, device=self.device),
                1,
            )
            found[key] = cache.read(0, len(key))
        return found

    def _prefill(
        self,
        cache: SlotCache,
        sequences: Sequence[Sequence_],
        prefixes: dict[tuple[int, ...], Layers],
        first_row: int,
        last: Sequence[int] | None = None,
    ) -> list[torch.Tensor]:
        """Feed whole prompts into rows first_row....

        Return each one's logits for its last `last[i]` (1) positions.
        """
        out: list[torch.Tensor] = []
        last = last or [1] * len(sequences)
        while len(out) < len(sequences):
            start = len(out)
            width, stop = 0, start
            while stop < len(sequences):
                wider = max(width, sequences[stop].length - sequences[stop].prefix)
                if stop > start and wider * (stop + 1 - start) > PREFILL_TOKENS:
                    break
                width, stop = wider, stop + 1
            out += self._prefill_batch(
                cache, sequences[start:stop], prefixes, first_row + start, last[start:stop], width
            )
        return out

    def _prefill_batch(
        self,
        cache: SlotCache,
        batch: Sequence[Sequence_],
        prefixes: dict[tuple[int, ...], Layers],
        row: int,
        last: Sequence[int],
        width: int,
    ) -> list[torch.Tensor]:
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        for i, sequence in enumerate(batch):
            suffix = sequence.prompt[sequence.prefix :]
            ids[i, : len(suffix)] = torch.tensor(suffix)
            if sequence.prefix:
                cache.write(row + i, prefixes[tuple(sequence.prompt[: sequence.prefix])])
        ends = [s.length - s.prefix for s in batch]
        wanted = sorted({p for end, n in zip(ends, last, strict=True) for p in range(end - n, end)})
        starts = torch.tensor([s.prefix for s in batch], device=self.device)
        keep = torch.tensor(wanted, device=self.device)
        logits = self._forward(cache, slice(row, row + len(batch)), ids.to(self.device), starts, keep)
        return [
            logits[i, [wanted.index(p) for p in range(end - n, end)]]
            for i, (end, n) in enumerate(zip(ends, last, strict=True))
        ]

    def _step(self, cache: SlotCache, active: Sequence[Sequence_]) -> list[torch.Tensor]:
        ids = torch.tensor([[s.sampled[-1]] for s in active], device=self.device)
        starts = torch.tensor([s.length - 1 for s in active], device=self.device)
        return list(self._forward(cache, slice(0, len(active)), ids, starts, 1))

    def _extend(self, sequences: Sequence[Sequence_], logits: Sequence[torch.Tensor]) -> None:
        """Draw one token for each sequence and see whether it ends."""
        rows = torch.cat(list(logits)).float()
        for row, sequence in zip(rows, sequences, strict=True):
            if sequence.sampling.frequency_penalty and sequence.sampled:
                used, counts = torch.tensor(sequence.sampled, device=row.device).unique(return_counts=True)
                row[used] -= sequence.sampling.frequency_penalty * counts
        tokens = draw(rows, [s.sampling for s in sequences], [s.uniform.random() for s in sequences])
        self.tokens_drawn += len(tokens)
        for sequence, token in zip(sequences, tokens, strict=True):
            if token in self.stop_ids:
                sequence.finish_reason, sequence.ended_with = "stop", token
                continue
            sequence.sampled.append(token)
            if self._stopped(sequence):
                sequence.finish_reason = "stop"
            elif len(sequence.sampled) >= sequence.sampling.max_tokens:
                sequence.finish_reason = "length"

    def _stopped(self, sequence: Sequence_) -> bool:
        """Whether a stop string has just been completed."""
        stops = sequence.sampling.stop
        if not stops:
            return False
        # n tokens hold n bytes or more; one more, because some tokenizers strip the first token's space
        text = self.text(sequence.sampled[-1 - max(len(stop.encode()) for stop in stops) :])
        return any(stop in text for stop in stops)

    @staticmethod
    def _compact(cache: SlotCache, active: list[Sequence_]) -> list[Sequence_]:
        """Close the gaps that finished rows leave, so that the rows in use stay 0..n-1."""
        row = 0
        while row < len(active):
            if not active[row].finish_reason:
                row += 1
                continue
            last = active.pop()
            if row < len(active):
                if not last.finish_reason:
                    cache.move(len(active), row, last.length)
                active[row] = last
        return active
