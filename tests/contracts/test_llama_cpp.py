"""What llama.cpp in this process promises beyond the port."""

from __future__ import annotations

import logging

import pytest

from llamabda.adapters.llama_cpp import LlamaCppGenerator, requantize
from llamabda.errors import ModelError
from llamabda.prompt import build
from llamabda.types import Deadline, Prompt
from tests.contracts.test_generator import PASSAGES, PROMPT, answer


@pytest.fixture(scope="module")
def generator(gguf):
    return LlamaCppGenerator(gguf, n_ctx=1024, threads=1, max_queue=2)


class Countdown(Deadline):
    """A deadline that comes when it has been asked for so many times: it needs no clock."""

    def __new__(cls, times):
        made = super().__new__(cls)
        object.__setattr__(made, "_times", [times])
        return made

    def __init__(self, times):
        super().__init__(Deadline.after(1000).at)

    def passed(self):
        self._times[0] -= 1
        return self._times[0] < 0


def test_a_deadline_stops_the_prompt_between_two_batches_and_what_was_evaluated_is_kept(generator):
    long = build("What is it?", ["A sentence that fills the context with words. " * 60], language="en")
    answer(generator, max_tokens=1)  # another prompt: only the instruction is shared
    shared = answer(generator, long, deadline=Countdown(1))[1]
    text, stopped = answer(generator, long, deadline=Countdown(2))
    assert (text, stopped.finish_reason, shared.finish_reason) == ("", "deadline", "deadline")
    after = answer(generator, long, max_tokens=1)[1]
    assert 0 < after.cached_tokens < after.prompt_tokens - 1


def test_a_deadline_stops_the_answer(generator):
    answer(generator)  # now all but the last prompt token is cached: one batch
    text, generation = answer(generator, deadline=Countdown(6))
    assert generation.finish_reason == "deadline"
    assert 0 < generation.completion_tokens < 24
    assert answer(generator)[0].startswith(text)


def test_the_state_of_a_common_beginning_is_used_again(generator):
    answer(generator, Prompt(system="x", passages=(), question="y"), max_tokens=1)
    first = answer(generator, max_tokens=1)[1]
    second = answer(generator, build("Where is Porto?", PASSAGES[1:], language="en"), max_tokens=1)[1]
    third = answer(generator, build("Where is Porto?", PASSAGES[1:], language="en"), max_tokens=1)[1]
    system = generator.count_tokens(PROMPT.system)
    assert first.cached_tokens < system <= second.cached_tokens < second.prompt_tokens
    assert third.cached_tokens == third.prompt_tokens - 1


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model" * 100, None])
def test_a_missing_or_broken_file_is_named(tmp_path, content):
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.gguf"):
        LlamaCppGenerator(path, n_ctx=512, threads=1, max_queue=1)


def test_a_model_cut_short_is_refused(tmp_path, gguf):
    path = tmp_path / "short.gguf"
    with gguf.open("rb") as whole:
        path.write_bytes(whole.read(5_000_000))
    with pytest.raises(ModelError, match=r"short\.gguf"):
        LlamaCppGenerator(path, n_ctx=512, threads=1, max_queue=1)


def test_llama_cpp_says_nothing_on_standard_error(gguf, capfd, caplog):
    caplog.set_level(logging.INFO)
    LlamaCppGenerator(gguf, n_ctx=256, threads=1, max_queue=0)
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""


def test_a_model_can_be_converted_and_still_answers(tmp_path, gguf):
    target = tmp_path / "models" / "q8.gguf"
    requantize(gguf, target, "Q8_0")
    assert [path.name for path in target.parent.iterdir()] == ["q8.gguf"]
    assert target.stat().st_size > gguf.stat().st_size
    converted = LlamaCppGenerator(target, n_ctx=512, threads=1, max_queue=0)
    assert answer(converted, max_tokens=4)[0]


def test_a_failed_conversion_leaves_nothing(tmp_path):
    source = tmp_path / "broken.gguf"
    source.write_bytes(b"GGUF no more")
    with pytest.raises(ModelError, match=r"broken\.gguf cannot be converted"):
        requantize(source, tmp_path / "out.gguf", "Q4_0")
    with pytest.raises(ModelError, match="Q4_0, "):
        requantize(source, tmp_path / "out.gguf", "Q3")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.gguf"]
