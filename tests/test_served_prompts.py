"""What training saw as the prompt is token for token what a real vLLM server's chat endpoint reads."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from typing import Any

import contract
import pytest
from transformers import AutoTokenizer

from pipeline.format.conversations import Conversation
from pipeline.format.formats import FORMATS
from pipeline.format.phrasing import Asked
from pipeline.format.templates import Template, apart, template_for

pytestmark = pytest.mark.slow
SAVED = "alpaca"  # the format that the served model was saved with; the others go along with the request
EN = Asked("Name a colour.", "", "Red.\n\nOr blue.", "en", "")
ZH = Asked("翻译成英文。", "你好 😀", "Hello {name}", "zh", "translation")


def rows() -> list[Conversation]:
    single = []
    for asked in (EN, ZH):
        said = f"{asked.instruction}\n\n{asked.input}" if asked.input else asked.instruction
        messages = ({"role": "user", "content": said}, {"role": "assistant", "content": asked.output})
        single.append(Conversation("x:1", messages, asked))
    turns = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello")]
    turns += [("user", "再见"), ("assistant", "拜拜")]
    several = Conversation("x:2", tuple({"role": role, "content": text} for role, text in turns))
    return [*single, several]


def template(name: str) -> tuple[Template, str]:
    return template_for(AutoTokenizer.from_pretrained(contract.model_folder()), name)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    model = folder / "model"
    shutil.copytree(contract.model_folder(), model)
    (model / "chat_template.jinja").unlink()
    template(SAVED)[0].tokenizer.save_pretrained(model)
    module = "-m vllm.entrypoints.openai.api_server --served-model-name smol --max-model-len 512".split()
    limits = f"--max-num-seqs 4 --enforce-eager --no-enable-chunked-prefill --dtype {contract.DTYPE}".split()
    limits += ["--trust-request-chat-template", "--model", str(model)]
    command = [contract.vllm_python(), *module, *limits]
    with contract.serving(folder, command) as url:
        yield url


def asked(url: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps({"model": "smol", **body}).encode()
    address, kind = url.removesuffix("/v1") + path, {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(address, data, kind)) as answer:
        return dict(json.loads(answer.read()))


@pytest.mark.parametrize("name", FORMATS)
def test_vllm_reads_the_prompts_that_were_trained_on(url: str, name: str) -> None:
    made, phrasing = template(name)
    own = {} if name == SAVED else {"chat_template": made.tokenizer.chat_template}
    for row in rows():
        row = apart(row) if phrasing == "apart" else row
        one = made.encode(row)
        answers = [i for i, message in enumerate(row.messages) if message["role"] == "assistant"]
        for number, (begin, _) in zip(answers, one.spans, strict=True):
            messages = [dict(message) for message in row.messages[:number]]
            found = asked(url, "/tokenize", {"messages": messages, "add_generation_prompt": True, **own})
            assert found["tokens"] == one.ids[:begin]
            said = asked(url, "/v1/chat/completions", {"messages": messages, "max_tokens": 1, **own})
            assert said["usage"]["prompt_tokens"] == begin
