"""From tokens' bytes to text, and the chat layout."""

from __future__ import annotations

import pytest

from llamabda.adapters.llama_cpp.layout import PromptLayout
from llamabda.adapters.llama_cpp.template import PASSAGES, PLAIN, QUESTION, SYSTEM, Layout, layout
from llamabda.adapters.llama_cpp.text import is_loop
from llamabda.adapters.llama_cpp.waiting import Queue
from llamabda.errors import Busy, InvalidInput, ModelError
from llamabda.pieces import TextAssembler
from llamabda.types import Deadline, Prompt

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start>{{ m.role }}\n{{ m.content }}<end>\n{% endfor %}"
)


def assembled(pieces, stop=()):
    text = TextAssembler(stop)
    return [*(text.feed(piece) for piece in pieces), text.feed(b"", final=True)], text.stopped


def test_a_character_is_handed_out_once_its_bytes_are_complete():
    data = "São 🎈".encode()
    pieces, _ = assembled([data[i : i + 1] for i in range(len(data))])
    assert "".join(pieces) == "São 🎈"
    assert pieces.count("🎈") == 1


@pytest.mark.parametrize(
    ("pieces", "stop", "expected", "stopped"),
    [
        ([b"one ", b"two ", b"three"], ["two"], "one ", True),
        ([b"one st", b"o", b"p two"], ["stop"], "one ", True),
        ([b"one st", b"ay"], ["stop"], "one stay", False),
        ([b"a\n", b"\nb"], ["\n\n", "b"], "a", True),
        ([b"ends in st"], ["stop"], "ends in st", False),
        ([b"abab", b"c"], ["abc"], "ab", True),
        ([b"text"], [""], "text", False),
    ],
)
def test_text_ends_before_the_first_stop_string_wherever_tokens_split_it(pieces, stop, expected, stopped):
    found, was_stopped = assembled(pieces, stop)
    assert ("".join(found), was_stopped) == (expected, stopped)


def test_broken_bytes_become_replacement_characters():
    assert "".join(assembled([b"a\xff", b"b\xc3"])[0]) == "a\ufffdb\ufffd"


def test_leading_white_space_is_dropped():
    assert "".join(assembled([b" ", b"\n", b" a b "])[0]) == "a b "


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (list(range(8)) * 2, True),
        ([99, *list(range(20)) * 2], True),
        (list(range(40)), False),
        ([1, 2, 3] * 2, False),
        ([7] * 16, True),
        ([], False),
    ],
)
def test_a_block_said_twice_in_a_row_is_a_loop(tokens, expected):
    assert is_loop(tokens) is expected


def test_a_chat_template_is_split_into_control_text_and_slots():
    assert layout(CHATML, bos="", eos="").parts == (
        "<|im_start|>system\n",
        SYSTEM,
        "<|im_end|>\n<|im_start|>user\n",
        PASSAGES,
        "\n\n",
        QUESTION,
        "<|im_end|>\n<|im_start|>assistant\n",
    )


def test_without_a_system_role_the_instruction_opens_the_users_turn():
    parts = layout(NO_SYSTEM, bos="<s>", eos="").parts
    assert parts == ("<s><start>user\n", SYSTEM, "\n\n", PASSAGES, "\n\n", QUESTION, "<end>\n")


HOSTILE = {
    "an endless loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "huge output": "{% for a in range(99999) %}{{ 'x' * 99 }}{% endfor %}",
    "huge memory": "{{ 'x' * (10 ** 12) }}",
    "a huge power": "{{ 9 ** 9 ** 9 }}",
    "reaching for Python": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "reaching through a function": "{{ raise_exception.__globals__['sys'].exit(0) }}",
    "importing a file": "{% include '/etc/passwd' %}",
    "changing the messages": "{{ messages.append(1) }}{{ messages[0].content }}",
    "an error": "{{ raise_exception('no') }}",
    "bad syntax": "{% for %}",
    "no slots": "hello",
    "one slot twice": "{{ messages[0].content }}{{ messages[0].content }}{{ messages[1].content }}",
    "too long": "x" * 300_000,
}


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_or_broken_template_is_refused(template):
    with pytest.raises(ModelError, match="chat template cannot be used"):
        layout(template, bos="", eos="")


class Letters:
    """One token a character: its code point; special text in brackets is one negative token when control is on."""

    def __init__(self, opening=1):
        self.opening = [opening]

    def tokens(self, text, *, control):
        return [-1 if control and letter == "|" else ord(letter) for letter in text]


def fitted(prompt, room, parts=("|", SYSTEM, "|", PASSAGES, "|", QUESTION, "|")):
    tokens = PromptLayout(Layout(parts), Letters()).fit(prompt, room=room)
    return "".join("|" if t == -1 else "^" if t == 1 else "/" if t == 10 else chr(t) for t in tokens)


def test_whole_passages_fill_the_room_and_the_rest_is_left_out():
    prompt = Prompt(system="S", passages=("a" * 40, "b" * 40, "c" * 40), question="Q")
    assert fitted(prompt, 1000) == "^|S|" + "a" * 40 + "//" + "b" * 40 + "//" + "c" * 40 + "|Q|"
    assert fitted(prompt, 7 + 82 + 20) == "^|S|" + "a" * 40 + "//" + "b" * 40 + "|Q|"


def test_the_last_passage_is_cut_when_the_rest_of_it_is_worth_reading():
    prompt = Prompt(system="S", passages=("a" * 40, "b" * 100), question="Q")
    assert fitted(prompt, 7 + 42 + 35) == "^|S|" + "a" * 40 + "//" + "b" * 35 + "|Q|"


def test_the_first_passage_is_always_there_even_if_only_a_little():
    assert fitted(Prompt(system="S", passages=("a" * 40,), question="Q"), 10) == "^|S|aaa|Q|"


def test_special_text_in_data_is_not_control():
    tokens = fitted(Prompt(system="S", passages=("a|b",), question="Q"), 100)
    assert tokens == "^|S|a|b|Q|"
    plain = PromptLayout(PLAIN, Letters()).fit(Prompt(system="", passages=("|",), question="|"), room=50)
    assert -1 not in plain


def test_a_question_longer_than_the_context_is_refused_with_the_numbers():
    with pytest.raises(InvalidInput, match="500 tokens long, at most 94 fit"):
        fitted(Prompt(system="S", passages=("a",), question="Q" * 500), 100)


def test_the_opening_token_is_not_doubled_when_the_template_writes_it():
    tokens = PromptLayout(Layout(("|", QUESTION)), Letters(opening=-1)).fit(Prompt("", (), "Q"), room=9)
    assert tokens == [-1, ord("Q")]


def test_more_than_the_queue_takes_is_busy_at_once():
    queue = Queue(1)
    tickets = [queue.enter(), queue.enter()]
    with pytest.raises(Busy) as busy:
        queue.enter()
    assert busy.value.retry_after >= 1
    tickets[0].leave()
    tickets[0].leave()
    queue.enter()
    with pytest.raises(Busy):
        queue.enter()


def test_a_ticket_whose_deadline_passes_gets_no_turn():
    queue = Queue(1)
    running, waiting = queue.enter(), queue.enter()
    assert running.wait(Deadline.after(10))
    assert not waiting.wait(Deadline.after(0))
    running.leave()
    assert waiting.wait(Deadline.after(10))


def test_giving_a_ticket_back_lets_the_next_one_in():
    queue = Queue(2)
    first, second, third = queue.enter(), queue.enter(), queue.enter()
    assert first.wait(Deadline.after(10))
    second.withdraw()
    assert not second.wait(Deadline.after(10))
    first.withdraw()  # its turn has come: that does nothing
    assert not third.wait(Deadline.after(0))
    first.leave()
    assert third.wait(Deadline.after(10))
