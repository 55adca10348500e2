"""Calls that end by a deadline, however deep they are."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from llamabda import time_left
from llamabda.adapters.dynamodb.records import together
from llamabda.background import Once
from llamabda.errors import DependencyFailed, InvalidInput
from llamabda.time_left import TimeIsUp, bounded, within
from llamabda.types import Deadline


def test_without_a_deadline_a_call_is_made_where_it_stands():
    assert bounded(threading.get_ident) == threading.get_ident()
    assert (time_left.current(), time_left.at_most(7.0)) == (None, 7.0)


def test_with_one_the_call_sees_it_and_returns_or_raises_what_it_does():
    due = Deadline.after(60)
    with within(due):
        assert bounded(time_left.current) is due
        assert bounded(lambda: None) is None
        with pytest.raises(InvalidInput, match="seven"):
            bounded(lambda: _raise(InvalidInput("seven")))


def test_a_call_that_does_not_end_is_left_behind():
    ended = threading.Event()
    with within(Deadline.after(0.05)), pytest.raises(TimeIsUp):
        bounded(ended.wait)
    with pytest.raises(TimeIsUp):
        bounded(ended.wait, 0.05)
    ended.set()


def test_without_time_left_nothing_is_begun():
    begun = []
    with within(Deadline.after(0)), pytest.raises(TimeIsUp):
        bounded(lambda: begun.append(1))
    assert begun == []


def test_the_earlier_deadline_counts():
    first, second = Deadline.after(1), Deadline.after(2)
    with within(first):
        with within(second):
            assert time_left.current() is first
        with within(None):
            assert time_left.current() is first
    with within(second):
        with suppress(KeyError), within(first):
            assert time_left.current() is first
            raise KeyError
        assert time_left.current() is second
    assert time_left.current() is None


def test_calls_that_dynamodb_gets_side_by_side_have_the_deadline_of_whoever_makes_them():
    due = Deadline.after(60)
    with within(due):
        assert together([time_left.current] * 3) == [due] * 3


def test_who_waits_for_what_another_thread_sets_up_waits_no_longer_than_there_is_time():
    begun, go_on = threading.Event(), threading.Event()

    def make() -> str:
        begun.set()
        go_on.wait()
        return "made"

    once = Once(make)
    maker = threading.Thread(target=once)
    maker.start()
    begun.wait()
    with within(Deadline.after(0.05)), pytest.raises(DependencyFailed, match="make was still being set up"):
        once()
    go_on.set()
    maker.join()
    assert once() == "made"


def _raise(exc: Exception) -> None:
    raise exc
