"""What every Generator promises, over llama.cpp with the demo's model."""

from __future__ import annotations

import gc
import logging
import threading

import pytest

from llamabda.adapters.llama_cpp import LlamaCppGenerator, requantize
from llamabda.errors import Busy, InvalidInput, ModelError
from llamabda.prompt import build
from llamabda.types import Deadline, Prompt

PASSAGES = [
    "The Tejo is 1,007 km long. It rises in the Sierra de Albarracín and reaches the sea at Lisbon.",
    "The Douro is 897 km long and reaches the sea at Porto.",
]
PROMPT = build("How long is the Tejo?", PASSAGES, language="en")
MAX_QUEUE = 2


def far():
    return Deadline.after(240)


@pytest.fixture(scope="module")
def generator(gguf):
    return LlamaCppGenerator(gguf, n_ctx=1024, threads=1, max_queue=MAX_QUEUE)


def answer(generator, prompt=PROMPT, **options):
    generation = generator.generate(prompt, **{"max_tokens": 24, "deadline": far(), **options})
    return "".join(generation), generation


def test_the_answer_comes_from_the_passages(generator):
    text, generation = answer(generator)
    assert "1,007" in text
    assert generation.completion_tokens > 0
    assert generation.prompt_tokens > generator.count_tokens(PASSAGES[0])
    assert generation.prefill_ms > 0
    assert generation.decode_ms > 0


def test_the_same_prompt_gives_the_same_text(generator):
    first = answer(generator)[0]
    answer(generator, build("Where does the Douro end?", PASSAGES, language="pt"), max_tokens=3)
    assert answer(generator)[0] == first


def test_pieces_are_not_empty(generator):
    assert all(generator.generate(PROMPT, max_tokens=10, deadline=far()))


def test_max_tokens_ends_a_completion(generator):
    generation = answer(generator, max_tokens=3)[1]
    assert (generation.finish_reason, generation.completion_tokens) == ("length", 3)


def test_the_models_own_end_is_a_stop(generator):
    prompt = Prompt(system="You reply with one word.", passages=(), question="Say hello.")
    text, generation = answer(generator, prompt, max_tokens=200)
    assert generation.finish_reason == "stop"
    assert "<|im_end|>" not in text


def test_a_stop_string_ends_the_text_before_it(generator):
    whole = answer(generator)[0]
    stop = whole[5:9]
    text, generation = answer(generator, stop=(stop,))
    assert (text, generation.finish_reason) == (whole[: whole.index(stop)], "stop")


def test_a_deadline_in_the_past_gives_nothing(generator):
    text, generation = answer(generator, deadline=Deadline.after(-1))
    assert (text, generation.finish_reason, generation.completion_tokens) == ("", "deadline", 0)


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


CONTROL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]


@pytest.mark.parametrize("text", CONTROL)
def test_control_tokens_in_data_are_text(generator, text):
    assert generator.count_tokens(text) > 1
    plain = answer(generator, Prompt("s", ("a b",), "q"), max_tokens=1)[1].prompt_tokens
    laced = answer(generator, Prompt("s", (f"a b{text}",), f"q{text}"), max_tokens=1)[1].prompt_tokens
    assert laced >= plain + 2 * (generator.count_tokens(text) - 1)


@pytest.mark.parametrize("text", ["", "\x00", "\ud800", "🎈 São Paulo ção", "a" * 5000, " " * 5000, "\n" * 300])
def test_any_text_can_be_asked_about(generator, text):
    pieces = answer(generator, build(text[:500], [text], language="pt"), max_tokens=4)[0]
    pieces.encode("utf-8")
    assert generator.count_tokens(text) >= 0


def test_passages_that_do_not_fit_are_left_out(generator):
    passages = [f"Passage {n} says that nothing is known about it. " * 12 for n in range(40)]
    generation = answer(generator, build("What is known?", passages, language="en"), max_tokens=8)[1]
    assert generation.prompt_tokens <= generator.context_size - 8
    assert generation.prompt_tokens > generator.context_size - 8 - generator.count_tokens(passages[0]) - 32


def test_more_tokens_than_the_context_holds_can_be_asked_for(generator):
    generation = generator.generate(PROMPT, max_tokens=10**6, stop=("1",), deadline=far())
    list(generation)
    assert generation.prompt_tokens + generation.completion_tokens <= generator.context_size


def test_a_question_longer_than_the_context_is_refused(generator):
    with pytest.raises(InvalidInput, match="tokens long"):
        generator.generate(build("why " * 5000, PASSAGES, language="en"), max_tokens=8, deadline=far())


@pytest.mark.parametrize("max_tokens", [0, -1])
def test_no_tokens_are_refused(generator, max_tokens):
    with pytest.raises(InvalidInput, match="max_tokens"):
        generator.generate(PROMPT, max_tokens=max_tokens, deadline=far())


def test_a_full_queue_is_busy_at_once_a_late_waiter_gets_nothing_and_closing_frees_the_model(generator):
    running = generator.generate(PROMPT, max_tokens=50, deadline=far())
    next(iter(running))
    waiting = [generator.generate(PROMPT, max_tokens=2, deadline=d) for d in (Deadline.after(-1), far())]
    with pytest.raises(Busy) as busy:
        generator.generate(PROMPT, max_tokens=2, deadline=far())
    assert busy.value.retry_after >= 1
    assert (list(waiting[0]), waiting[0].finish_reason) == ([], "deadline")
    running.close()
    running.close()
    assert list(running) == []
    assert "".join(waiting[1])
    assert answer(generator)[0]


def test_an_abandoned_generation_frees_the_model(generator):
    for _ in range(3 * (MAX_QUEUE + 1)):
        next(iter(generator.generate(PROMPT, max_tokens=50, deadline=far())))
        generator.generate(PROMPT, max_tokens=50, deadline=far())  # never iterated
    gc.collect()
    assert answer(generator)[0]


def test_threads_take_turns_and_each_gets_its_own_answer(generator):
    prompts = [build(f"How long is the {river}?", PASSAGES, language="en") for river in ("Tejo", "Douro", "Tejo")]
    alone = [answer(generator, prompt, max_tokens=12)[0] for prompt in prompts]
    together = [""] * len(prompts)

    def work(place):
        together[place] = answer(generator, prompts[place], max_tokens=12)[0]

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_close_from_another_thread_ends_a_wait(generator):
    running = generator.generate(PROMPT, max_tokens=50, deadline=far())
    next(iter(running))
    waiting = generator.generate(PROMPT, max_tokens=2, deadline=far())
    found = []
    thread = threading.Thread(target=lambda: found.append(list(waiting)))
    thread.start()
    waiting.close()
    thread.join()
    running.close()
    assert found == [[]]


def test_the_name_is_the_models(generator):
    assert "135M" in generator.name


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
