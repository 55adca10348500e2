"""Where system text, passages and question stand in a model's chat format."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from llamabda.errors import ModelError

Slot: TypeAlias = Literal["system", "passages", "question"]

CHILD = Path(__file__).with_name("template_child.py")
UNUSABLE = "the model's chat template cannot be used"
MAX_TEMPLATE_CHARS = 200_000
MAX_RENDERED_CHARS = 100_000
SECONDS = 2  # of processor time; a real template takes a millisecond
WALL_SECONDS = 20.0  # on a machine that is busy with other things
ADDRESS_SPACE = 512 * 2**20  # bytes


@dataclass(frozen=True, slots=True)
class Layout:
    """Control text, which may hold special tokens, and the slots for data, in which nothing is special."""

    parts: tuple[str | _Slot, ...]


@dataclass(frozen=True, slots=True)
class _Slot:
    name: Slot


SYSTEM, PASSAGES, QUESTION = _Slot("system"), _Slot("passages"), _Slot("question")

# for models without a chat template: they continue a text
PLAIN = Layout((SYSTEM, "\n\n", PASSAGES, "\n\n", QUESTION, "\nAnswer:"))

# Letters only and improbable: templates trim, upper-case nothing, and look for tags.
_MARKS: dict[str, _Slot] = {f"Llamabda{slot.name}Qzxj": slot for slot in (SYSTEM, PASSAGES, QUESTION)}
_MARK = {slot.name: mark for mark, slot in _MARKS.items()}
_ANY_MARK = re.compile(f"({'|'.join(_MARKS)})")


def layout(template: str, *, bos: str, eos: str) -> Layout:
    """What a chat template makes of a system text and a user's turn. ModelError when it makes nothing that we can use.

    Models that know no system role get the system text at the head of the user's turn.
    """
    user = f"{_MARK['passages']}\n\n{_MARK['question']}"
    attempts = (
        [{"role": "system", "content": _MARK["system"]}, {"role": "user", "content": user}],
        [{"role": "user", "content": f"{_MARK['system']}\n\n{user}"}],
    )
    problem = ""
    for messages in attempts:
        variables = {
            "messages": messages,
            "add_generation_prompt": True,
            "bos_token": bos,
            "eos_token": eos,
            "enable_thinking": False,  # a switch of models that think aloud; the others ignore it
        }
        answer = _render(template, variables)
        if "text" not in answer:
            problem = answer["error"]
            continue
        parts = tuple(_MARKS.get(part, part) for part in _ANY_MARK.split(answer["text"]) if part)
        slots = [part for part in parts if isinstance(part, _Slot)]
        if slots == [SYSTEM, PASSAGES, QUESTION]:
            return Layout(parts)
        problem = "it does not render the system text, the passages and the question once each, in this order"
    raise ModelError(f"{UNUSABLE}: {problem}")


def _render(template: str, variables: dict[str, object]) -> dict[str, str]:
    """{text} or {error}; ModelError for a template that takes too long or too much: it gets no second attempt."""
    if len(template) > MAX_TEMPLATE_CHARS:
        return {"error": f"it is {len(template)} characters long, at most {MAX_TEMPLATE_CHARS} are taken"}
    request = {
        "path": [folder for folder in sys.path if folder],
        "template": template,
        "variables": variables,
        "seconds": SECONDS,
        "bytes": ADDRESS_SPACE,
        "chars": MAX_RENDERED_CHARS,
    }
    try:
        done = subprocess.run(  # noqa: S603  our own script; the template goes in as data
            [sys.executable, "-I", "-S", "-B", str(CHILD)],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=WALL_SECONDS,
            # what a Python may need to start, and no secret
            env={name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"{UNUSABLE}: it was not done after {WALL_SECONDS:.0f} s") from None
    except (OSError, ValueError) as exc:
        raise ModelError(f"no Python process can be started to render the model's chat template: {exc}") from exc
    if done.returncode != 0:
        raise ModelError(f"{UNUSABLE}: its process ended with {done.returncode} (more than {SECONDS} s, or memory)")
    answer = json.loads(done.stdout)
    return {str(key): str(value) for key, value in answer.items()}
