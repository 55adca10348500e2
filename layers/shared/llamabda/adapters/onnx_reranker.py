"""The reranker port over onnxruntime and tokenizers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llamabda.errors import DependencyFailed, ModelError
from llamabda.onnx_session import opened, readable
from llamabda.types import Deadline

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILES = ("model.onnx", "tokenizer.json", "reranker.json")
QUESTION_SHARE = 0.5  # of the model's tokens; only a longer question is cut


class OnnxReranker:
    """Reads one pair at a time: no padding is computed, and a score cannot depend on the other passages.

    `folder` is one that `llamabda.cross_encoder_onnx.prepare` made. `threads` pairs are read at the same time, each by
    one thread. Words that stand for control tokens are plain text in questions and passages.
    """

    def __init__(self, folder: Path, *, threads: int) -> None:
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise ModelError(f"{folder} is not a reranker prepared for onnxruntime: it has no {', '.join(missing)}")
        import onnxruntime
        import tokenizers

        self._name, self._max_tokens = _described(folder / "reranker.json")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as exc:
            raise ModelError(f"{folder / 'tokenizer.json'} cannot be loaded: {exc}") from exc
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True
        self._frame = _Frame.of(self._tokenizer)
        self._room = self._max_tokens - self._frame.size
        if self._room < 2:
            raise ModelError(f"{folder / 'reranker.json'}: no pair fits into {self._max_tokens} tokens")

        onnxruntime.disable_telemetry_events()
        self._session = opened(folder / "model.onnx", threads=1)
        self._inputs = frozenset(one.name for one in self._session.get_inputs())
        self._pool = ThreadPoolExecutor(max(1, threads), thread_name_prefix="rerank")

    def scores(self, question: str, texts: Sequence[str], *, deadline: Deadline) -> NDArray[np.float32]:
        """(m,) float32: logits of the first m texts, all of them unless the deadline came before.

        DependencyFailed for whatever goes wrong in the tokenizer, the network or the threads, which end before the
        process does.
        """
        if not texts or deadline.passed():
            return np.empty(0, np.float32)
        try:
            asked = self._tokens(question)[: int(QUESTION_SHARE * self._room)]
            # Texts are begun in their order, so those that are begun in time stand before all others.
            found = list(self._pool.map(partial(self._score, asked, deadline), texts))
        except DependencyFailed:
            raise
        except Exception as exc:
            raise DependencyFailed(f"the reranker {self._name} failed: {exc}", dependency="reranker") from exc
        return np.array(list(takewhile(lambda score: score is not None, found)), np.float32)

    def _score(self, asked: Sequence[int], deadline: Deadline, text: str) -> float | None:
        """None when the deadline has passed."""
        if deadline.passed():
            return None
        passage = self._tokens(text)[: self._room - len(asked)]
        ids, types = self._frame.around(asked, passage)
        given = {"input_ids": ids, "token_type_ids": types}
        (logit,) = self._session.run(["logit"], {name: given[name] for name in self._inputs})
        if logit.shape != (1, 1):
            message = f"the reranker {self._name} gave scores of the shape {logit.shape} for a pair, not (1, 1)"
            raise DependencyFailed(message, dependency="reranker")
        score = float(logit[0, 0])
        if not np.isfinite(score):
            raise DependencyFailed(f"the reranker {self._name} gave the score {score}", dependency="reranker")
        return score

    def _tokens(self, text: str) -> list[int]:
        """A text's tokens, without those that are put around a pair."""
        clean = readable(text, tokens=self._max_tokens)
        tokens: list[int] = self._tokenizer.encode(clean, add_special_tokens=False).ids
        return tokens


@dataclass(frozen=True, slots=True)
class _Frame:
    """How a tokenizer puts a pair together: control tokens (token, type) and, in their places, the texts (None, type).

    Its own way of cutting a pair makes every pair of what was cut off, too: seconds for long texts.
    """

    parts: tuple[tuple[int | None, int], ...]

    @classmethod
    def of(cls, tokenizer: Any) -> _Frame:
        """ModelError when it does not put the first text before the second."""
        probe = tokenizer.encode("a", "a")
        rows = zip(probe.sequence_ids, probe.ids, probe.type_ids, strict=True)
        parts: list[tuple[int | None, int]] = []
        order = []
        for text, group in groupby(rows, key=lambda row: row[0]):
            tokens = [(token, kind) for _, token, kind in group]
            if text is None:
                parts += tokens
            else:
                order.append(text)
                parts.append((None, tokens[0][1]))
        if order != [0, 1]:
            raise ModelError("the tokenizer does not put a question before a passage: it is not a cross-encoder's")
        return cls(tuple(parts))

    @property
    def size(self) -> int:
        """Control tokens."""
        return sum(token is not None for token, _ in self.parts)

    def around(self, first: Sequence[int], second: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens and types of a pair, (1, tokens) each."""
        texts = iter((first, second))
        ids: list[int] = []
        types: list[int] = []
        for token, kind in self.parts:
            new = next(texts) if token is None else (token,)
            ids += new
            types += [kind] * len(new)
        return np.array([ids], np.int64), np.array([types], np.int64)


def _described(file: Path) -> tuple[str, int]:
    """Name and the most tokens of a pair."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return str(content["name"]), int(content["max_tokens"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ModelError(f"{file} does not describe a reranker: {exc!r}") from exc
