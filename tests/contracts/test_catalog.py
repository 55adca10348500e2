"""What every catalog promises."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from llamabda.adapters.dynamodb.catalog import DynamoCatalog
from llamabda.adapters.sqlite.catalog import SqliteCatalog
from llamabda.adapters.sqlite.database import Database
from llamabda.errors import InvalidInput
from llamabda.ports import Catalog
from llamabda.types import GenerationKey
from tests.aws import CATALOG, Aws


def _dynamodb(aws: Aws) -> Catalog:
    return DynamoCatalog(aws.client("dynamodb"), CATALOG, patience=60)  # many threads write one document


MAKERS: dict[str, Callable[[pytest.FixtureRequest], Catalog]] = {
    "sqlite": lambda request: SqliteCatalog(Database(request.getfixturevalue("tmp_path") / "catalog.db")),
    "dynamodb": lambda request: _dynamodb(request.getfixturevalue("aws")),
}


@pytest.fixture(params=MAKERS)
def catalog(request) -> Catalog:
    return MAKERS[request.param](request)


def begin(catalog: Catalog, doc_id: str = "d", tenant: str = "t", **more) -> GenerationKey:
    generation = catalog.begin(tenant, doc_id, source="api", metadata={}, **more)
    assert generation is not None
    return GenerationKey(tenant, doc_id, generation)


def commit(catalog: Catalog, key: GenerationKey, **more) -> bool:
    given = {"source": "api", "metadata": {"k": [1, "é"]}, "sha256": "ab" * 32, "size": 7, "chunks": 2, **more}
    return catalog.commit(key, **given)


def live(catalog: Catalog, doc_id: str = "d", tenant: str = "t") -> int | None:
    return catalog.live([(tenant, doc_id)]).get((tenant, doc_id))


def everything(catalog: Catalog) -> set[GenerationKey]:
    now = datetime.now(UTC) + timedelta(seconds=5)
    return set(catalog.garbage(before=now, abandoned_before=now - timedelta(hours=1)))


def test_a_document_is_not_live_before_its_commit(catalog):
    key = begin(catalog)
    assert live(catalog) is None
    assert catalog.get("t", "d").state == "processing"
    assert catalog.get("t", "d").generation is None
    assert commit(catalog, key)
    document = catalog.get("t", "d")
    assert (document.state, document.generation, document.chunks, document.bytes) == ("ready", 1, 2, 7)
    assert document.metadata == {"k": [1, "é"]}
    assert document.created_at.tzinfo is not None
    assert live(catalog) == 1


def test_the_former_generation_stays_live_until_the_next_commit(catalog):
    commit(catalog, begin(catalog))
    second = begin(catalog)
    assert live(catalog) == 1
    assert catalog.get("t", "d").state == "processing"
    assert everything(catalog) == set()
    assert commit(catalog, second)
    assert live(catalog) == 2
    assert everything(catalog) == {GenerationKey("t", "d", 1)}


def test_an_ingestion_that_began_earlier_cannot_replace_a_later_one(catalog):
    first, second = begin(catalog), begin(catalog)
    assert commit(catalog, second)
    assert not commit(catalog, first)
    assert live(catalog) == 2
    assert catalog.get("t", "d").state == "ready"
    assert everything(catalog) == {first}


def test_an_earlier_commit_leaves_the_state_to_the_ingestion_under_way(catalog):
    first = begin(catalog)
    begin(catalog)
    assert commit(catalog, first)
    assert catalog.get("t", "d").state == "processing"
    assert live(catalog) == 1


def test_a_failure_keeps_what_was_live_and_tells_the_error(catalog):
    commit(catalog, begin(catalog))
    key = begin(catalog)
    catalog.fail(key, "no text layer")
    document = catalog.get("t", "d")
    assert (document.state, document.error, document.generation) == ("failed", "no text layer", 1)
    assert not commit(catalog, key)
    assert live(catalog) == 1


def test_success_clears_the_error(catalog):
    catalog.fail(begin(catalog), "broken")
    commit(catalog, begin(catalog))
    assert catalog.get("t", "d").error is None


def test_a_failure_of_an_older_ingestion_does_not_touch_the_state(catalog):
    first, second = begin(catalog), begin(catalog)
    commit(catalog, second)
    catalog.fail(first, "late")
    assert catalog.get("t", "d").state == "ready"


def test_a_deleted_document_is_gone_at_once_and_its_generations_are_not_used_again(catalog):
    commit(catalog, begin(catalog))
    assert catalog.delete("t", "d")
    assert catalog.get("t", "d") is None
    assert live(catalog) is None
    assert not catalog.delete("t", "d")
    assert catalog.list("t").documents == ()
    assert everything(catalog) == {GenerationKey("t", "d", 1)}
    again = begin(catalog)
    assert again.generation == 2
    assert commit(catalog, again)
    assert live(catalog) == 2


def test_a_delete_wins_over_an_ingestion_that_began_before_it(catalog):
    key = begin(catalog)
    assert catalog.delete("t", "d")
    assert not commit(catalog, key)
    assert catalog.get("t", "d") is None


def test_what_was_deleted_stays_so_whatever_becomes_of_its_ingestion(catalog):
    keys = [begin(catalog, doc_id) for doc_id in "abc"]
    for doc_id in "abc":
        assert catalog.delete("t", doc_id)
    catalog.fail(keys[0], "no")
    catalog.requeue(keys[1], "later")
    assert catalog.start(keys[2]) is None
    assert [catalog.get("t", doc_id) for doc_id in "abc"] == [None] * 3
    assert catalog.list("t").counts == {}


def test_deleting_what_was_never_there_says_so(catalog):
    assert not catalog.delete("t", "nothing")


@pytest.mark.parametrize(
    ("known", "late"),
    [("5", "4"), ("50", "5"), ("005", "0049"), ("0A", "09"), ("617f08299329d189", "617f08299329d188")],
)
def test_a_lower_sequencer_is_refused_everywhere(catalog, known, late):
    commit(catalog, begin(catalog, sequencer=known), sequencer=known)
    if known.ljust(9, "0") > late.ljust(9, "0") or len(known) > 9:
        assert catalog.begin("t", "d", source="api", metadata={}, sequencer=late) is None
        assert not catalog.delete("t", "d", sequencer=late)
    else:
        assert catalog.begin("t", "d", source="api", metadata={}, sequencer=late) is not None
    assert live(catalog) == 1


def test_sequencers_decide_whatever_the_order_in_which_ingestions_began(catalog):
    newer = begin(catalog, sequencer="7")
    older = begin(catalog, sequencer="6")
    assert commit(catalog, older, sequencer="6")
    assert commit(catalog, newer, sequencer="7")
    assert live(catalog) == newer.generation
    assert everything(catalog) == {older}


def test_a_re_creation_overtaken_by_its_delete_still_wins_by_sequencer(catalog):
    key = begin(catalog, sequencer="9")
    catalog.delete("t", "d", sequencer="8")
    assert commit(catalog, key, sequencer="9")
    assert live(catalog) == 1
    assert catalog.get("t", "d").state == "ready"


def test_a_delete_that_arrives_before_the_creation_it_follows_is_remembered(catalog):
    assert not catalog.delete("t", "d", sequencer="5")
    assert catalog.begin("t", "d", source="s3", metadata={}, sequencer="4") is None
    assert commit(catalog, begin(catalog, sequencer="6"), sequencer="6")


def test_a_write_without_a_sequencer_leaves_the_document_s_own(catalog):
    commit(catalog, begin(catalog, sequencer="5"), sequencer="5")
    commit(catalog, begin(catalog))
    assert catalog.begin("t", "d", source="s3", metadata={}, sequencer="4") is None
    assert catalog.delete("t", "d")
    assert catalog.begin("t", "d", source="s3", metadata={}, sequencer="4") is None


def test_an_unchanged_version_is_as_late_as_its_event(catalog):
    """Put, deleted, put again with the same content; the delete arrives last."""
    first = begin(catalog, sequencer="1")
    assert commit(catalog, first, sequencer="1")
    again = begin(catalog, sequencer="3")
    assert catalog.unchanged(again, first.generation)
    assert not catalog.delete("t", "d", sequencer="2")
    assert live(catalog) == first.generation
    assert catalog.delete("t", "d", sequencer="4")


@pytest.mark.parametrize("known", ["1", "3"])
def test_an_older_event_that_says_nothing_new_does_not_end_a_newer_one(catalog, known):
    first = begin(catalog, sequencer="1")
    assert commit(catalog, first, sequencer="1")
    newer = begin(catalog, sequencer="4")
    older = begin(catalog, sequencer="2")
    if known == "3":
        assert catalog.unchanged(begin(catalog, sequencer="3"), first.generation)
    assert catalog.unchanged(older, first.generation)
    assert catalog.unchanged(older, first.generation)  # two had this piece of work
    assert catalog.start(newer) is not None
    assert commit(catalog, newer, sequencer="4")
    assert live(catalog) == newer.generation
    assert catalog.get("t", "d").state == "ready"
    assert catalog.begin("t", "d", source="s3", metadata={}, sequencer="3") is None


@pytest.mark.parametrize("ends", ["start", "commit", "fail"])
def test_when_an_older_event_comes_to_nothing_the_state_is_that_of_what_is_live(catalog, ends):
    newer = begin(catalog, sequencer="2", state="queued")
    older = begin(catalog, sequencer="1", state="queued")
    assert commit(catalog, newer, sequencer="2")
    if ends == "start":
        assert catalog.start(older) is None
    elif ends == "commit":
        assert not commit(catalog, older, sequencer="1")
    else:
        catalog.fail(older, "an older version is broken")
    document = catalog.get("t", "d")
    assert (document.state, document.error, document.generation) == ("ready", None, newer.generation)
    assert catalog.list("t").counts == {"ready": 1}
    assert everything(catalog) == {older}


def test_a_version_that_was_given_up_stays_failed_though_an_older_one_is_live(catalog):
    commit(catalog, begin(catalog))
    lost = begin(catalog)
    catalog.fail(lost, "broken")
    assert catalog.start(lost) is None
    assert not commit(catalog, lost)
    assert (catalog.get("t", "d").state, catalog.get("t", "d").error) == ("failed", "broken")


def test_the_same_event_twice_ends_in_the_same_state(catalog):
    for _ in range(2):
        assert commit(catalog, begin(catalog, sequencer="5"), sequencer="5")
    assert catalog.get("t", "d").state == "ready"


def test_an_abandoned_ingestion_is_failed_and_can_never_go_live(catalog):
    key = begin(catalog)
    now = datetime.now(UTC) + timedelta(seconds=5)
    assert list(catalog.garbage(before=now - timedelta(minutes=1), abandoned_before=now)) == []
    assert catalog.get("t", "d").state == "failed"
    assert "interrupted" in catalog.get("t", "d").error
    assert not commit(catalog, key)
    assert everything(catalog) == {key}


def test_garbage_is_young_until_its_time_and_forgotten_once_swept(catalog):
    commit(catalog, begin(catalog))
    commit(catalog, begin(catalog))
    minute_ago = datetime.now(UTC) - timedelta(minutes=1)
    assert list(catalog.garbage(before=minute_ago, abandoned_before=minute_ago)) == []
    catalog.swept(everything(catalog))
    assert everything(catalog) == set()
    assert live(catalog) == 2


def test_tenants_do_not_see_each_other(catalog):
    commit(catalog, begin(catalog, tenant="a"))
    assert catalog.get("b", "d") is None
    assert catalog.list("b").documents == ()
    assert not catalog.delete("b", "d")
    assert catalog.live([("b", "d"), ("a", "d")]) == {("a", "d"): 1}


def test_a_listing_has_pages_counts_and_states(catalog):
    for number in range(7):
        commit(catalog, begin(catalog, f"é{number}"))
    catalog.fail(begin(catalog, "x"), "broken")
    seen, cursor, pages = [], None, 0
    while True:
        page = catalog.list("t", limit=3, cursor=cursor)
        assert page.counts == {"ready": 7, "failed": 1}
        seen += [document.id for document in page.documents]
        pages += 1
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(seen) == seen
    assert sorted(seen) == sorted(["x", *(f"é{number}" for number in range(7))])
    assert pages == 3
    assert [d.id for d in catalog.list("t", state="failed").documents] == ["x"]


LONG = ("k" * 1_020, "é" * 510, "字" * 340)


def test_ids_may_be_longer_than_any_key(catalog):
    # an object's key has up to 1,024 bytes, and "s3:" before it
    long = ["s3:" + letter + last for letter, last in zip(LONG, "abc", strict=True)]
    ids = ["a", *long, "z"]
    for doc_id in ids:
        commit(catalog, begin(catalog, doc_id))
    seen, cursor = [], None
    for _ in ids:
        page = catalog.list("t", limit=1, cursor=cursor)
        seen += [document.id for document in page.documents]
        cursor = page.next_cursor
    assert cursor is None
    assert (seen[0], set(seen[1:4]), seen[4]) == ("a", set(long), "z")
    assert catalog.live([("t", doc_id) for doc_id in ids]) == {("t", doc_id): 1 for doc_id in ids}
    assert catalog.delete("t", long[1])
    assert [live(catalog, doc_id) for doc_id in long] == [1, None, 1]
    assert everything(catalog) == {GenerationKey("t", long[1], 1)}


@pytest.mark.parametrize("cursor", ["%%%", "é", "abc", "\x00", "gIA"])
def test_a_foreign_cursor_is_refused(catalog, cursor):
    with pytest.raises(InvalidInput, match="cursor"):
        catalog.list("t", cursor=cursor)


def test_live_takes_more_documents_than_one_query_may_have_parameters(catalog):
    there = {("t", f"d{number}"): 1 for number in range(0, 500, 11)}
    for _, doc_id in there:
        commit(catalog, begin(catalog, doc_id))
    assert catalog.live([("t", f"d{number}") for number in range(500)]) == there


def test_of_many_threads_each_gets_its_own_generation_and_the_last_begun_wins(catalog):
    keys: list[GenerationKey] = []
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        for _ in range(10):
            key = begin(catalog)
            keys.append(key)
            commit(catalog, key)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.generation for key in keys) == list(range(1, 81))
    assert live(catalog) == 80
    assert everything(catalog) == {key for key in keys if key.generation != 80}


# -- two who have the same piece of work, and work that lay about for long


def test_committing_again_leaves_it_live(catalog):
    key = begin(catalog)
    assert commit(catalog, key)
    assert commit(catalog, key)
    assert live(catalog) == 1
    assert everything(catalog) == set()
    with_sequencer = begin(catalog, "s", sequencer="1")
    assert commit(catalog, with_sequencer, sequencer="1")
    assert commit(catalog, with_sequencer, sequencer="1")
    assert everything(catalog) == set()


def test_what_is_live_can_neither_fail_nor_be_queued_nor_be_unchanged(catalog):
    key = begin(catalog)
    commit(catalog, key)
    catalog.fail(key, "too late")
    catalog.requeue(key, "too late")
    catalog.unchanged(key, 1)
    document = catalog.get("t", "d")
    assert (document.state, document.error, document.generation) == ("ready", None, 1)
    assert everything(catalog) == set()


def test_what_has_failed_is_not_queued_again(catalog):
    key = begin(catalog)
    catalog.fail(key, "no")
    catalog.requeue(key, "later")
    assert (catalog.get("t", "d").state, catalog.get("t", "d").error) == ("failed", "no")


def test_saying_the_old_again_overtakes_what_was_said_in_between(catalog):
    commit(catalog, begin(catalog))
    between = begin(catalog, state="queued", instructions="{}")
    latest = begin(catalog, state="queued", instructions="{}")
    assert catalog.unchanged(latest, 1)
    assert catalog.start(between) is None
    assert not commit(catalog, between)
    assert (live(catalog), catalog.get("t", "d").state) == (1, "ready")
    assert everything(catalog) == {between, latest}


def test_work_with_instructions_is_not_given_up_after_an_hour(catalog):
    queued, plain = begin(catalog, "a", instructions="{}"), begin(catalog, "b")
    assert catalog.start(queued) is not None
    now = datetime.now(UTC) + timedelta(seconds=5)
    catalog.garbage(before=now, abandoned_before=now)
    assert [catalog.get("t", name).state for name in "ab"] == ["processing", "failed"]
    assert commit(catalog, queued)
    assert not commit(catalog, plain)


def test_what_is_committed_after_it_was_swept_is_garbage_again(catalog):
    key = begin(catalog)
    catalog.fail(key, "given up")
    catalog.swept([key])
    assert everything(catalog) == set()
    assert not commit(catalog, key)
    assert everything(catalog) == {key}
