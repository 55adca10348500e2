"""From a prompt's segments to tokens that fit into the context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from llamabda.adapters.llama_cpp.template import PASSAGES, QUESTION, SYSTEM, Layout
from llamabda.errors import InvalidInput
from llamabda.types import Prompt

# A passage is cut to what is left of the context only if that is worth reading.
MIN_PASSAGE_TOKENS = 32
# Nothing in a vocabulary is longer than this many characters, but for runs of white space: more text than this a token
# is not even tokenized.
MAX_TOKEN_CHARS = 64


class Tokenizer(Protocol):
    @property
    def opening(self) -> list[int]: ...

    def tokens(self, text: str, *, control: bool) -> list[int]: ...


class PromptLayout:
    """Lays prompts out as a model's chat format wants. Control text is tokenized once, here."""

    def __init__(self, layout: Layout, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._parts = [tokenizer.tokens(part, control=True) if isinstance(part, str) else part for part in layout.parts]
        opening = tokenizer.opening
        first = self._parts[0]
        written = isinstance(first, list) and first[: len(opening)] == opening
        if not written:  # most templates write the opening token, some leave it to the tokenizer
            self._parts.insert(0, opening)
        self._separator = tokenizer.tokens("\n\n", control=False)

    def fit(self, prompt: Prompt, *, room: int) -> list[int]:
        """At most `room` tokens: as many whole passages as fit, the last one perhaps cut.

        InvalidInput when instruction and question alone are longer than that.
        """
        limit = room * MAX_TOKEN_CHARS
        data = {
            SYSTEM: self._tokenizer.tokens(prompt.system, control=False),
            QUESTION: self._tokenizer.tokens(prompt.question[:limit], control=False),
        }
        fixed = sum(len(part) for part in self._parts if isinstance(part, list)) + len(data[SYSTEM])
        left = room - fixed - len(data[QUESTION])
        if left < 0:
            raise InvalidInput(
                f"the question is {len(data[QUESTION])} tokens long, at most {max(0, room - fixed)} "
                "fit into the model's context: ask a shorter one, or raise N_CTX",
                loc=("body", "question"),
            )
        data[PASSAGES] = self._passages(prompt.passages, left)
        return [token for part in self._parts for token in (part if isinstance(part, list) else data[part])]

    def _passages(self, passages: Sequence[str], room: int) -> list[int]:
        chosen: list[int] = []
        for passage in passages:
            separator = self._separator if chosen else []
            left = room - len(chosen) - len(separator)
            if left <= 0:
                break
            tokens = self._tokenizer.tokens(passage[: left * MAX_TOKEN_CHARS], control=False)
            if len(tokens) <= left:
                chosen += [*separator, *tokens]
                continue
            if left >= MIN_PASSAGE_TOKENS or not chosen:
                chosen += [*separator, *tokens[:left]]
            break
        return chosen
