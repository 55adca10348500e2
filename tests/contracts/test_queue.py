"""What every Queue does."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.queue import SqliteQueue
from llamabda.ports import Queue
from llamabda.types import GenerationKey


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


MAKERS: dict[str, Callable[[Path, Clock], Queue]] = {
    "sqlite": lambda folder, clock: SqliteQueue(Database(folder / "queue.db"), clock=clock),
}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=MAKERS)
def queue(request, tmp_path, clock) -> Queue:
    return MAKERS[request.param](tmp_path, clock)


def key(name: str, generation: int = 1) -> GenerationKey:
    return GenerationKey("t", name, generation)


def taken(queue: Queue, *, limit: int = 10, seconds: float = 60.0) -> list[str]:
    return [lease.key.doc_id for lease in queue.take(limit=limit, seconds=seconds)]


def test_what_was_put_is_taken_once_in_order(queue):
    queue.put([key("a"), key("b"), key("c")])
    assert taken(queue, limit=2) == ["a", "b"]
    assert taken(queue) == ["c"]
    assert taken(queue) == []


def test_what_is_not_done_in_time_is_taken_again(queue, clock):
    queue.put([key("a"), key("b")])
    first, second = queue.take(limit=2, seconds=60)
    assert (first.attempts, second.attempts) == (1, 1)
    queue.done(first)
    clock.now += 61
    (again,) = queue.take(limit=2, seconds=60)
    assert (again.key, again.attempts) == (key("b"), 2)


def test_who_came_too_late_can_neither_finish_nor_keep_it(queue, clock):
    queue.put([key("a")])
    (late,) = queue.take(limit=1, seconds=60)
    clock.now += 61
    (mine,) = queue.take(limit=1, seconds=60)
    queue.done(late)
    queue.retry(late, delay=0)
    queue.extend([late], seconds=-100)
    assert taken(queue) == []
    clock.now += 61
    assert taken(queue) == ["a"]
    queue.done(mine)
    clock.now += 61
    assert taken(queue) == ["a"]


def test_work_that_takes_long_is_kept(queue, clock):
    queue.put([key("a")])
    leases = queue.take(limit=1, seconds=60)
    for _ in range(5):
        clock.now += 50
        queue.extend(leases, seconds=60)
        assert taken(queue) == []
    queue.done(leases[0])
    clock.now += 100
    assert taken(queue) == []


def test_what_is_given_back_waits(queue, clock):
    queue.put([key("a")])
    (lease,) = queue.take(limit=1, seconds=60)
    queue.retry(lease, delay=20)
    clock.now += 19
    assert taken(queue) == []
    clock.now += 2
    (again,) = queue.take(limit=1, seconds=60)
    assert again.attempts == 2


def test_a_delay_can_be_changed_as_long_as_nobody_has_it(queue, clock):
    queue.put([key("a")], delay=30)
    assert taken(queue) == []
    queue.put([key("a")])
    (lease,) = queue.take(limit=10, seconds=60)
    queue.put([key("a")])
    assert taken(queue) == []
    queue.done(lease)
    assert taken(queue) == []


def test_what_is_withdrawn_is_gone_unless_somebody_has_it(queue, clock):
    queue.put([key("a"), key("b")])
    assert taken(queue, limit=1) == ["a"]
    queue.withdraw([key("a"), key("b"), key("unknown")])
    clock.now += 61
    assert taken(queue) == ["a"]


def test_it_tells_how_much_waits(queue):
    assert dict(queue.counts()) == {"waiting": 0, "taken": 0}
    queue.put([key("a"), key("b"), key("b", 2)])
    queue.take(limit=1, seconds=60)
    assert dict(queue.counts()) == {"waiting": 2, "taken": 1}


def test_many_workers_share_the_work_without_doing_any_twice(queue):
    queue.put([key(f"{n}") for n in range(100)])
    with ThreadPoolExecutor(10) as pool:
        found = [name for part in pool.map(lambda _: taken(queue, limit=3), range(60)) for name in part]
    assert sorted(found, key=int) == [f"{n}" for n in range(100)]


def test_what_came_back_comes_alone_and_after_what_is_new(queue, clock):
    keys = [key("a"), key("b"), key("c")]
    queue.put(keys[:2])
    assert len(queue.take(limit=10, seconds=60)) == 2
    clock.now += 61
    queue.put(keys[2:3])
    assert [lease.key for lease in queue.take(limit=10, seconds=60)] == keys[2:3]
    assert [lease.key for lease in queue.take(limit=10, seconds=60)] == keys[:1]
    assert [lease.key for lease in queue.take(limit=10, seconds=60)] == keys[1:2]
    assert queue.take(limit=10, seconds=60) == []
