"""SFT beside plain TRL on the same rows: tokens a second, and the held-out loss that each ends with.

    .venv/bin/python tests/bench/sft.py data.json                        # one epoch each, three ways
    .venv/bin/python tests/bench/sft.py data.json --max-steps 20 --rounds 3 --arms ours trl

Each way trains in a process of its own, one after the other in each round:

- ours: `python -m pipeline.sft` with a LoRA and no other option than those of this run;
- trl: TRL's SFTTrainer on string prompts and completions, with the same LoRA, precision, batches of
  near-equal length, learning rate, schedule and evaluation: what our command costs beside it, and whether it
  learns as much;
- trl-defaults: TRL's SFTTrainer as it comes, with the same LoRA and batch size. It evaluates nothing
  meanwhile.

Tokens are those of the rows, padding apart; seconds those of training, in the first two with evaluation and
checkpoints. All losses are taken by one function, in fp32, on the tokens of the held-out answers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import parse
from pipeline.engines.models import language_model, quiet
from pipeline.format.templates import Encoded, template_for
from pipeline.train import hardware, trained
from pipeline.train.data import Data, find_input, load
from pipeline.train.methods import METHODS
from pipeline.train.sft_options import Options

ARMS = ("ours", "trl", "trl-defaults")
BATCH = 8  # rows evaluated together


def main() -> None:
    """Run every arm in every round; print a line each and the ratios of the medians."""
    options = parsed()
    if options.arm:
        print(json.dumps(measured(options)))
        return
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in options.arms}
    for number in range(options.rounds):
        for arm in options.arms if number % 2 == 0 else reversed(options.arms):
            command = [sys.executable, __file__, *sys.argv[1:], "--arm", arm]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[arm].append(json.loads(said.stdout.splitlines()[-1]))
            print(f"round {number + 1}, {arm:<12} {line(found[arm][-1])}", flush=True)
    medians = {arm: statistics.median(map(rate, rows)) for arm, rows in found.items()}
    first = next(iter(medians))
    for arm in list(medians)[1:]:
        loss = found[first][0]["loss"] / found[arm][0]["loss"]
        print(
            f"{first} over {arm}: {medians[first] / medians[arm]:.3f} x tokens/s, {loss:.4f} x held-out loss"
        )


def rate(row: dict[str, float]) -> float:
    """Tokens a second."""
    return row["tokens"] / row["seconds"]


def line(row: dict[str, float]) -> str:
    """For people."""
    return (
        f"{row['tokens']:.0f} tokens in {row['seconds']:.1f} s: {rate(row):.1f} tokens/s; "
        f"held-out loss {row['before']:.4f} -> {row['loss']:.4f}"
    )


def measured(given: argparse.Namespace) -> dict[str, float]:
    """One training in this process."""
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        options = settings(given, folder)
        base = language_model(options.model)
        rows = data(options, base)
        before = loss_of(plain(base), rows.validation)
        run = ours if given.arm == "ours" else trl
        tokens, seconds, model = run(options, base, rows, given.arm)
        loss = loss_of(model, rows.validation)
    return {"tokens": tokens, "seconds": seconds, "before": before, "loss": loss}


def settings(given: argparse.Namespace, folder: str) -> Options:
    """The command's options for this bench."""
    words = [given.data, "--run", f"{folder}/run", "--num-epochs", str(given.num_epochs), "--seed", "0"]
    words += ["--max-steps", str(given.max_steps), "--num-answers", "0", "--model", given.model]
    return parse(Options, words, prog="sft", doc="")


def data(options: Options, base: str) -> Data:
    """The rows as our command splits and encodes them."""
    from transformers import AutoTokenizer

    template, phrasing = template_for(
        AutoTokenizer.from_pretrained(base), options.format, options.format_file
    )
    return load(options, find_input(options), template, phrasing, options.seed)


def ours(options: Options, base: str, rows: Data, arm: str) -> tuple[float, float, Any]:
    """Our command."""
    import torch

    from pipeline.train import start
    from pipeline.train.sft_job import SFTJob

    start.run(SFTJob, options, Path("runs"))
    facts = json.loads((Path(options.run) / "run.json").read_text(encoding="utf-8"))
    model, _ = trained.load(Path(options.run), dtype=torch.float32)
    return facts["train_tokens"], facts["train_seconds"], model


def trl(options: Options, base: str, rows: Data, arm: str) -> tuple[float, float, Any]:
    """TRL's trainer with our settings, or as it comes."""
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from pipeline.train.adapters import Tuning
    from pipeline.train.peft_configs import config_for
    from pipeline.train.trainer_fields import trainer_config

    tokenizer, same = AutoTokenizer.from_pretrained(base), arm == "trl"
    peft = config_for(plain(base), Tuning("lora", rank=options.rank))
    assert isinstance(peft, LoraConfig)
    texts = [as_strings(tokenizer, part) for part in (rows.train, rows.validation)]
    folder = Path(options.run)
    if same:
        machine = hardware.choose(options)
        own = {"learning_rate": METHODS["lora"].learning_rate}
        args = trainer_config(SFTConfig, options, machine, folder, own, validates=True)
        steps = options.max_steps or round(-(-len(rows.train) // options.batch_size) * options.num_epochs)
        args.dataset_kwargs, args.lr_scheduler_type = None, "cosine"
        args.warmup_steps, args.max_length = round(options.warmup_frac * steps), options.max_length
        dtype = torch.bfloat16 if machine.precision == "bf16" else torch.float32
    else:
        args = SFTConfig(
            output_dir=str(folder), use_cpu=not torch.cuda.is_available(), report_to=[], disable_tqdm=True,
            num_train_epochs=options.num_epochs, max_steps=options.max_steps or -1,
            max_length=options.max_length, per_device_train_batch_size=options.batch_size,
        )  # fmt: skip
        dtype = torch.float32  # what TRL loads a model in that is given by name
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=dtype),
        args=args,
        train_dataset=texts[0],
        eval_dataset=texts[1] if same else None,
        processing_class=tokenizer,
        peft_config=peft,
    )
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    trainer.save_model(str(folder / "adapter"))
    model = PeftModel.from_pretrained(plain(base), str(folder / "adapter"))
    return trainer._total_train_tokens, seconds, model


def as_strings(tokenizer: Any, rows: Sequence[Encoded]) -> Any:
    """The same rows as string prompts and completions, to which TRL adds the end token."""
    from datasets import Dataset

    out = []
    for one in rows:
        ((begin, end),) = one.spans
        prompt, said = tokenizer.decode(one.ids[:begin]), tokenizer.decode(one.ids[begin : end - 1])
        assert one.ids[end - 1] == tokenizer.eos_token_id
        out.append({"prompt": prompt, "completion": said})
    return Dataset.from_list(out)


def plain(base: str) -> Any:
    """The untrained model in fp32."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def loss_of(model: Any, rows: Sequence[Encoded]) -> float:
    """The mean loss of all trained tokens of these rows."""
    import torch

    model, total, count = model.float().eval(), 0.0, 0
    ordered = sorted(rows, key=lambda one: len(one.ids))
    for begin in range(0, len(ordered), BATCH):
        part = ordered[begin : begin + BATCH]
        longest = max(len(one.ids) for one in part)
        ids = torch.tensor([one.ids + [0] * (longest - len(one.ids)) for one in part])
        labels = torch.tensor([one.labels + [-100] * (longest - len(one.ids)) for one in part])
        mask = torch.tensor([[1] * len(one.ids) + [0] * (longest - len(one.ids)) for one in part])
        device = next(model.parameters()).device
        with torch.inference_mode():
            logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, :-1]
        wanted = labels[:, 1:].to(device)
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum")
        total, count = total + float(losses), count + int((wanted != -100).sum())
    return total / count


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="any file that pipeline.sft reads, rows of one exchange")
    parser.add_argument("--model", default="", help="none: the embedded one")
    parser.add_argument("--num-epochs", type=float, default=1.0)
    parser.add_argument("--max-steps", type=int, default=0, help="0: as the epochs say")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
