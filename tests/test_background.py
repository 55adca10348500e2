"""Values made once, by one thread."""

from __future__ import annotations

import threading

import pytest

from llamabda.background import Background, Once
from llamabda.errors import ModelError


def test_many_threads_get_the_one_value():
    made = []
    gate = threading.Event()

    def make() -> object:
        gate.wait()
        made.append(object())
        return made[-1]

    once = Once(make)
    results: list[object] = []
    threads = [threading.Thread(target=lambda: results.append(once())) for _ in range(8)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert results == made * 8


def test_a_failure_is_not_kept():
    answers = iter([ModelError("not yet"), "there"])

    def make() -> str:
        answer = next(answers)
        if isinstance(answer, ModelError):
            raise answer
        return answer

    once = Once(make)
    with pytest.raises(ModelError):
        once()
    assert once() == "there"


def test_a_background_value_is_none_while_it_is_made_and_there_afterwards():
    gate = threading.Event()

    def make() -> str:
        gate.wait()
        return "model"

    background = Background(make, name="test")
    assert background.state == "idle"
    assert background.wait(0) is None
    assert (background.peek(), background.state) == (None, "loading")
    gate.set()
    assert background.wait() == "model"
    assert (background.peek(), background.state) == ("model", "ready")


def test_a_background_failure_is_told_to_everyone_who_asks():
    def make() -> str:
        raise ModelError("broken file")

    background = Background(make, name="test")
    for call in (background.wait, background.peek):
        with pytest.raises(ModelError, match="broken file"):
            call()
    assert background.state == "failed"
