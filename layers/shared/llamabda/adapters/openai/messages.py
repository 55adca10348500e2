"""From a prompt's segments to chat messages that fit into the context, in which data is no control text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llamabda.errors import InvalidInput
from llamabda.types import Prompt

# Of servers that do not count for us. Tokens of the usual vocabularies hold 3 to 5 bytes of text on average; what comes
# out too small is refused by the server, and asked again with less.
BYTES_PER_TOKEN = 3
MESSAGE_TOKENS = 16  # that a chat format puts around a message

ATTEMPTS = 6  # to find how much fits
MIN_PASSAGE_CHARS = 128  # a passage is cut to what is left of the context only if that is worth reading

# What opens a control token in the vocabularies of chat models: <|im_start|>, <｜User｜>, <s>, </s>, <start_of_turn>,
# <<SYS>>, <0x0A>; [INST], [/INST], [TOOL_CALLS], [gMASK].
_OPENING = re.compile(r"<(?=[|｜/\w])|\[(?=/?g?[A-Z][A-Z_]*\])")

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Fitted:
    messages: tuple[Message, ...]
    tokens: int  # of the whole prompt, counted or estimated


def neutral(text: str) -> str:
    """The text with a space after whatever could open a control token.

    A server tokenizes its chat format and our data as one text, with control tokens on, so `<|im_start|>` in a document
    would begin a new message. No vocabulary holds the broken form, and a reader does not stumble over `< |im_start|>`
    or `< div>`; invisible characters would be copied into answers. It is not the whole truth: a vocabulary may have
    control tokens of any shape. What is written is held against the passages in any case.

    Lone surrogates, which JSON cannot carry, become "?".
    """
    return _OPENING.sub(lambda found: found[0] + " ", text).encode("utf-8", "replace").decode("utf-8")


def estimate(text: str) -> int:
    """Tokens, rather too many than too few."""
    return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def estimated(messages: Sequence[Message]) -> int:
    return sum(MESSAGE_TOKENS + estimate(message["content"]) for message in messages)


def fit(prompt: Prompt, *, room: int, measure: Callable[[Sequence[Message]], int]) -> Fitted:
    """As many whole passages as fit into `room` tokens, the last one perhaps cut.

    InvalidInput when instruction and question alone are longer than that. `measure` counts the tokens of messages; it
    is called ATTEMPTS times at most.
    """
    question = neutral(prompt.question)
    passages = [neutral(passage) for passage in prompt.passages]
    whole = sum(map(len, passages))
    budget = whole
    for attempt in range(1, ATTEMPTS + 1):
        chosen = _within(passages, budget)
        messages = (
            {"role": "system", "content": prompt.system.encode("utf-8", "replace").decode("utf-8")},
            {"role": "user", "content": "\n\n".join([*chosen, question])},
        )
        tokens = measure(messages)
        if tokens <= room:
            return Fitted(messages, tokens)
        if not chosen:
            break
        size = sum(map(len, chosen))
        length = sum(len(message["content"]) for message in messages)
        surplus = math.ceil((tokens - room) * length / tokens)  # characters
        # what comes last may be of fewer tokens a character than the rest: each time a larger step
        budget = size - attempt * surplus - 16 * attempt if attempt < ATTEMPTS - 1 else 0
    raise InvalidInput(
        f"instruction and question are {tokens} tokens long, at most {room} fit into the model's context: ask a "
        "shorter question",
        loc=("body", "question"),
    )


def _within(passages: Sequence[str], budget: int) -> list[str]:
    """The first passages, `budget` characters of them at most."""
    chosen: list[str] = []
    for passage in passages:
        if len(passage) <= budget:
            chosen.append(passage)
            budget -= len(passage)
            continue
        if budget >= MIN_PASSAGE_CHARS or (budget > 0 and not chosen):
            chosen.append(passage[:budget])
        break
    return chosen
