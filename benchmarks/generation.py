"""Reading prompts and writing answers: our generator, `create_chat_completion`, and bare llama.cpp."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import OURS, Row, Samples, in_turns
from benchmarks.plan import Plan, own_python
from benchmarks.workers.client import Worker
from llamabda.prompt import build

CHAT = "Llama.create_chat_completion"
RAW = "raw llama_decode"
N_CTX = 2048
_MAX_TOKENS = 48
_MODULES = {OURS: "llama_ours", CHAT: "llama_chat", RAW: "llama_raw"}


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt, for the three that take it apart and for the one that takes it whole (as ChatML)."""

    system: str
    passages: tuple[str, ...]
    question: str

    @property
    def whole(self) -> str:
        user = "\n\n".join([*self.passages, self.question])
        return (
            f"<|im_start|>system\n{self.system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
        )


def questions(plan: Plan, count: int) -> list[Question]:
    """Each with three passages of 120 words, all different: about 600 tokens."""
    pieces = [text for _, text in plan.corpus.windows(3 * count, documents=len(plan.corpus.documents))]
    asked = plan.corpus.questions
    prompts = [build(asked[at % len(asked)], pieces[3 * at : 3 * at + 3], language="en") for at in range(count)]
    return [Question(prompt.system, tuple(prompt.passages), prompt.question) for prompt in prompts]


def run(plan: Plan) -> list[Row]:
    if plan.gguf is None:
        plan.say("generation: left out, no model is configured")
        return []
    prompts = questions(plan, 2 if plan.quick else 4)
    decoded: dict[str, list[float]] = {name: [] for name in _MODULES}
    tokens: list[int] = []
    loaded: dict[str, tuple[float, ...]] = {}
    flash = False

    def contender(name: str, worker: Worker) -> Callable[[], float]:
        def work() -> float:
            found = [_ask(worker, prompt, whole=name == RAW) for prompt in prompts]
            decoded[name].append(statistics.median(answer["decode"] for answer in found))
            if name == OURS:
                tokens[:] = [int(answer["tokens"]) for answer in found]
            return statistics.median(float(answer["prefill"]) for answer in found)

        return work

    with ExitStack() as stack:
        contenders = {}
        for name, module in _MODULES.items():
            worker = stack.enter_context(Worker(own_python(), module, threads=plan.threads))
            loaded[name] = (worker.call("load", path=str(plan.gguf), n_ctx=N_CTX, threads=plan.threads),)
            contenders[name] = contender(name, worker)
            if name == RAW:
                flash = worker.call("tune", text=prompts[0].whole)
            _ask(worker, prompts[0], whole=name == RAW)  # warm-up
        plan.say("generation: reading and writing in turns")
        prefilled = in_turns(contenders, plan.rounds)
    note = (
        f"prompts of {min(tokens)}-{max(tokens)} tokens; raw is faster {'with' if flash else 'without'} flash attention"
    )
    return [
        _row("prefill", "tokens/s", prefilled, higher=True, aim=">= 0.9x raw", note=note),
        _row(
            "decode",
            "tokens/s",
            {name: tuple(values) for name, values in decoded.items()},
            higher=True,
            note=f"up to {_MAX_TOKENS} tokens, greedy",
        ),
        _row("loading the model", "s", {name: loaded[name] for name in (OURS, CHAT)}),
    ]


def _ask(worker: Worker, prompt: Question, *, whole: bool) -> Any:
    if whole:
        return worker.call("run", text=prompt.whole, max_tokens=_MAX_TOKENS)
    return worker.call(
        "run",
        system=prompt.system,
        passages=list(prompt.passages),
        question=prompt.question,
        max_tokens=_MAX_TOKENS,
    )


def _row(
    what: str, unit: str, found: dict[str, tuple[float, ...]], *, higher: bool = False, aim: str = "", note: str = ""
) -> Row:
    rivals = tuple(Samples(name, values) for name, values in found.items() if name != OURS)
    return Row("generation", what, unit, Samples(OURS, found[OURS]), rivals, higher, aim, note)
