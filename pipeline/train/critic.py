"""PPO's value model as its trainer uses it: the values of tokens, gradients over processes, a file.

A Critic is a model of its own. A HeadCritic is one layer on the states that the policy computes anyway: its
values cost next to nothing, and the policy's weights do not learn from them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from pipeline.train import ppo_math, unpadded
from pipeline.train.targets import plain

VALUE_FILE = "value.safetensors"
Returns = Callable[[Tensor, Tensor], Tensor]  # of rows (N,) and their values (N, T): what these should be


class Critic(TrainerCallback):
    """A model with one output a token (B, T, 1), trained beside the policy by the policy's optimizer."""

    reads_policy = False

    def __init__(self, model: Any, learning_rate: float) -> None:
        self.model, self.learning_rate = model, learning_rate
        self.trained = [one for one in model.parameters() if one.requires_grad]

    def attach(self, trainer: Any) -> None:
        """Become part of a trainer that has been built."""
        self._trainer, self._accelerator = trainer, trainer.accelerator
        for module in self.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if hasattr(self.model, "config"):
            self.model.config.pad_token_id = trainer.processing_class.pad_token_id
        self.model.to(self._accelerator.device)
        trainer.add_callback(self)

    def values(self, batch: dict[str, Tensor], size: int = 0) -> Tensor:
        """The value of the text before each token of the answers (B, T), `size` rows at a time."""
        ids, mask = _whole(batch)
        return unpadded.compute(
            lambda *given: [self._of(*given)], ids, mask, batch["completion_ids"].shape[1], size
        )[0]

    def learn(
        self, batch: dict[str, Tensor], returns: Returns, tokens: Tensor, size: int
    ) -> tuple[Tensor, Tensor]:
        """The values (B, T), and the loss (B, T) of each, whose sum over `tokens` leaves its gradients.

        Where there is one pass over the answers the values do not move between the two: one forward pass
        does for both. `returns` is asked for `size` rows at a time.
        """
        ids, mask = _whole(batch)
        values, losses = (torch.zeros(batch["completion_mask"].shape, device=mask.device) for _ in range(2))
        for rows, columns, width in unpadded.pieces(mask, values.shape[1], size):
            counted = batch["completion_mask"][rows, :width].float()
            with torch.enable_grad():
                found = self._of(ids[rows, columns], mask[rows, columns], width)
                old = found.detach()
                wanted = returns(rows, old * counted)
                loss, _ = ppo_math.value_loss(found, old, wanted, counted, clip=1.0)
                (loss.sum() / tokens).backward()
            values[rows, :width], losses[rows, :width] = old, loss.detach()
        return values, losses

    def forget(self) -> None:
        """It remembers nothing."""

    def read(self, length: int) -> list[Tensor]:
        """What a head reads off the policy's pass just done."""
        return []

    def _of(self, ids: Tensor, mask: Tensor, length: int) -> Tensor:
        """The values before the last `length` tokens (B, length)."""
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        with self._accelerator.autocast():
            found = self.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
        return found.logits[..., 0].float()[:, -length - 1 : -1]

    # ---- its gradients ----

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the mean of the gradients over all processes, and clip them by a norm of their own."""
        if self._accelerator.num_processes > 1:
            for one in self.trained:
                gradient = torch.zeros_like(one) if one.grad is None else one.grad
                one.grad = self._accelerator.reduce(gradient, reduction="mean")
        norm = torch.nn.utils.clip_grad_norm_(self.trained, args.max_grad_norm or torch.inf)
        self._trainer._metrics["train"]["value/grad_norm"].append(float(norm))

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The Trainer empties the policy's gradients alone."""
        self.model.zero_grad()

    # ---- its file in a checkpoint ----

    def save(self, folder: Path) -> None:
        """Its trained parameters."""
        from safetensors.torch import save_file

        named = self.model.named_parameters()
        trained = {name: one.detach().contiguous() for name, one in named if one.requires_grad}
        save_file(trained, str(folder / VALUE_FILE))

    def load(self, folder: Path) -> None:
        """Go on from them."""
        from safetensors.torch import load_file

        found = load_file(str(folder / VALUE_FILE))
        with torch.no_grad():
            for name, one in self.model.named_parameters():
                if one.requires_grad:
                    one.copy_(found.pop(name))
        if found:
            raise RuntimeError(f"{VALUE_FILE} holds parameters that the value model has not: {sorted(found)}")


class HeadCritic(Critic):
    """A layer on the last hidden states of the policy (B, T, H), which it sees but does not change."""

    reads_policy = True

    def attach(self, trainer: Any) -> None:
        """Watch the policy's decoder."""
        super().attach(trainer)
        self._states: Tensor | None = None
        policy = trainer.accelerator.unwrap_model(trainer.model)
        decoder = plain(policy).get_decoder()

        def keep(module: Any, given: Any, output: Any) -> None:
            """Hold the states of a pass. A function, as the policy is copied with its hooks to draw from."""
            if module is decoder:
                self._states = output[0].detach()

        decoder.register_forward_hook(keep)

    def forget(self) -> None:
        """What comes next may be another model's pass."""
        self._states = None

    def read(self, length: int) -> list[Tensor]:
        """The values before the last `length` tokens of the last pass (B, length), if it was the policy's."""
        if self._states is None:
            return []
        states = self._states[:, -length - 1 : -1].float()
        with torch.autocast(states.device.type, enabled=False):
            return [self.model(states)[..., 0]]


def _whole(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Ids and mask of prompts with their answers (B, P + T)."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    return ids, torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
