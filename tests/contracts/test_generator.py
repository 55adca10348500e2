"""What every Generator promises, over the demo's model: llama.cpp in this process, and llama.cpp's own server."""

from __future__ import annotations

import gc
import threading

import pytest

from llamabda.adapters.llama_cpp import LlamaCppGenerator
from llamabda.adapters.openai import OpenAiGenerator
from llamabda.endpoint import Endpoint
from llamabda.errors import Busy, InvalidInput
from llamabda.prompt import build
from llamabda.types import Deadline, Prompt
from tests.contracts.conftest import SERVER_CONTEXT, SERVER_KEY

PASSAGES = [
    "The Tejo is 1,007 km long. It rises in the Sierra de Albarracín and reaches the sea at Lisbon.",
    "The Douro is 897 km long and reaches the sea at Porto.",
]
PROMPT = build("How long is the Tejo?", PASSAGES, language="en")
MAX_QUEUE = 2


def far():
    return Deadline.after(240)


def llama_cpp(request):
    path = request.getfixturevalue("gguf")
    return LlamaCppGenerator(path, n_ctx=SERVER_CONTEXT, threads=1, max_queue=MAX_QUEUE)


def openai(request):
    endpoint = Endpoint.parse(request.getfixturevalue("llama_server"))
    # the server says how much it holds, and which model it has
    return OpenAiGenerator(endpoint, model="", api_key=SERVER_KEY, n_ctx=256, max_queue=MAX_QUEUE)


@pytest.fixture(scope="module", params=[llama_cpp, openai], ids=lambda make: make.__name__)
def generator(request):
    return request.param(request)


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
    text, generation = answer(generator, max_tokens=200)
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
        list(generator.generate(build("why " * 5000, PASSAGES, language="en"), max_tokens=8, deadline=far()))


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
