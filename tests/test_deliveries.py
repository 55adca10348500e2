"""What the queue delivers: objects of a real bucket protocol, real stores, no model."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from llamabda import events
from llamabda.adapters.kreuzberg import KreuzbergExtractor
from llamabda.adapters.s3 import S3Objects
from llamabda.chunking import Chunking
from llamabda.deliveries import APART_SECONDS, BACKOFF, LAST_RECEIVE, MAX_ATTEMPTS, READ_SECONDS, Deliveries, Delivery
from llamabda.errors import DependencyFailed
from llamabda.types import Deadline, NewDocument
from tests.aws import REGION
from tests.crash_child import LengthEmbedder, open_ingest, with_embedder

BUCKET = "documents-of-the-tests"
TENANT = "t_" + "b" * 26
SOON = 280.0


@dataclass
class Sent:
    """The letters, kept."""

    sent: list[tuple[dict, float]] = field(default_factory=list)
    buried: list[tuple[dict, str]] = field(default_factory=list)
    broken: bool = False

    def send(self, body: str, *, delay: float) -> None:
        self._check()
        self.sent.append((json.loads(body), delay))

    def bury(self, body: str, why: str) -> None:
        self._check()
        self.buried.append((json.loads(body), why))

    def _check(self) -> None:
        if self.broken:
            raise DependencyFailed("the queue does not answer", dependency="queue")


class Broken(LengthEmbedder):
    def embed_documents(self, texts):
        raise DependencyFailed("no memory left", dependency="embedder")


@pytest.fixture
def letters() -> Sent:
    return Sent()


@pytest.fixture
def s3(aws):
    client = aws.client("s3")
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    return client


@pytest.fixture(scope="module")
def extractor():
    found = KreuzbergExtractor()
    yield found
    found.close()


@pytest.fixture
def ingest(tmp_path):
    return open_ingest(tmp_path)


@pytest.fixture
def deliveries(ingest, letters, s3, extractor) -> Deliveries:
    return Deliveries(lambda: ingest, letters, S3Objects(s3), lambda: extractor, BUCKET)


def created(key: str, sequencer: str = "01", **item) -> str:
    return changed("Object Created", key, sequencer, **item)


def deleted(key: str, sequencer: str = "02", **item) -> str:
    return changed("Object Deleted", key, sequencer, **item)


def changed(kind: str, key: str, sequencer: str, **item) -> str:
    detail = {"bucket": {"name": BUCKET}, "object": {"key": key, "sequencer": sequencer, **item}}
    return json.dumps({"source": "aws.s3", "detail-type": kind, "detail": detail})


def deliver(deliveries: Deliveries, *bodies: str, receives: int = 1, seconds: float = SOON) -> list[str]:
    batch = [Delivery(f"m{at}", body, receives) for at, body in enumerate(bodies)]
    return deliveries(batch, until=Deadline.after(seconds))


def put(s3, key: str, text: str | bytes) -> None:
    s3.put_object(Bucket=BUCKET, Key=key, Body=text)


def text_of(ingest, key: str, tenant: str = "shared") -> str | None:
    document = ingest.catalog.get(tenant, f"s3:{key}")
    return None if document is None else ingest.source([tenant], f"s3:{key}", None)[0]


@pytest.mark.parametrize(
    ("key", "tenant"), [("harbour ção+%.txt", "shared"), (f"tenants/{TENANT}/harbour.txt", TENANT)]
)
def test_an_object_becomes_a_document_of_its_tenant(deliveries, letters, ingest, s3, key, tenant):
    put(s3, key, "The harbour office opens at eight.")
    assert deliver(deliveries, created(key)) == []
    document = ingest.catalog.get(tenant, f"s3:{key}")
    assert (document.state, document.source) == ("ready", f"s3://{BUCKET}/{key}")
    assert text_of(ingest, key, tenant) == "The harbour office opens at eight."
    assert (letters.sent, letters.buried) == ([], [])


def test_an_object_that_is_overwritten_is_answered_anew_and_one_that_is_deleted_is_gone(deliveries, ingest, s3):
    put(s3, "a.txt", "Old news.")
    deliver(deliveries, created("a.txt", "01"))
    put(s3, "a.txt", "New news.")
    deliver(deliveries, created("a.txt", "02"))
    assert text_of(ingest, "a.txt") == "New news."
    s3.delete_object(Bucket=BUCKET, Key="a.txt")
    assert deliver(deliveries, deleted("a.txt", "03")) == []
    assert ingest.catalog.get("shared", "s3:a.txt") is None


def test_events_in_any_order_and_twice_end_at_the_buckets_last_state(deliveries, letters, ingest, s3):
    put(s3, "a.txt", "The last word.")
    three = [created("a.txt", "0A"), deleted("a.txt", "0B"), created("a.txt", "0C")]
    for body in (three[2], three[0], three[1], three[2], three[1], three[0]):
        assert deliver(deliveries, body) == []
    assert text_of(ingest, "a.txt") == "The last word."
    s3.delete_object(Bucket=BUCKET, Key="a.txt")
    for body in (deleted("a.txt", "0D"), *three):
        assert deliver(deliveries, body) == []
    assert ingest.catalog.get("shared", "s3:a.txt") is None
    assert letters.buried == []


def test_the_end_of_an_old_version_leaves_the_object_that_is_there(deliveries, ingest, s3):
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=BUCKET, Key="a.txt", Body="First version.")["VersionId"]
    second = s3.put_object(Bucket=BUCKET, Key="a.txt", Body="Second version.")["VersionId"]
    deliver(deliveries, created("a.txt", "01", **{"version-id": first}))
    assert text_of(ingest, "a.txt") == "First version."
    deliver(deliveries, created("a.txt", "02", **{"version-id": second}))
    s3.delete_object(Bucket=BUCKET, Key="a.txt", VersionId=first)
    deliver(deliveries, deleted("a.txt", "03", **{"version-id": first}))
    assert text_of(ingest, "a.txt") == "Second version."
    s3.delete_object(Bucket=BUCKET, Key="a.txt", VersionId=second)
    deliver(deliveries, deleted("a.txt", "04", **{"version-id": second}))
    assert ingest.catalog.get("shared", "s3:a.txt") is None


def test_an_object_that_is_gone_before_it_is_read_is_left_to_its_next_event(deliveries, letters, ingest):
    assert deliver(deliveries, created("gone.txt")) == []
    assert ingest.catalog.get("shared", "s3:gone.txt") is None
    assert (letters.sent, letters.buried) == ([], [])


def test_a_folder_is_no_document(deliveries, letters, ingest, s3):
    put(s3, "folder/", b"")
    assert deliver(deliveries, created("folder/")) == []
    assert ingest.catalog.get("shared", "s3:folder/") is None
    assert letters.buried == []


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [("broken.pdf", b"%PDF-1.7 and then nothing", "broken.pdf"), ("empty.txt", b" \n", "empty.txt")],
)
def test_a_file_that_cannot_be_read_is_put_aside_with_the_reason_and_says_so(
    deliveries, letters, ingest, s3, name, data, why
):
    put(s3, name, data)
    put(s3, "good.txt", "A good one.")
    assert deliver(deliveries, created(name), created("good.txt")) == []
    assert text_of(ingest, "good.txt") == "A good one."
    ((body, reason),) = letters.buried
    assert body["detail"]["object"]["key"] == name
    assert why in reason
    document = ingest.catalog.get("shared", f"s3:{name}")
    assert (document.state, document.error) == ("failed", reason)


def test_a_version_that_cannot_be_read_leaves_the_one_before(deliveries, letters, ingest, s3):
    put(s3, "a.txt", "A good one.")
    deliver(deliveries, created("a.txt", "01"))
    put(s3, "a.txt", b"\x00\x01\x02 nothing \xff\xfe" * 9)
    deliver(deliveries, created("a.txt", "02"))
    assert len(letters.buried) == 1
    assert text_of(ingest, "a.txt") == "A good one."
    assert ingest.catalog.get("shared", "s3:a.txt").state == "failed"


@pytest.mark.parametrize("key", ["tenants/nobody/a.txt", "tenants/shared/a.txt"])
def test_an_object_in_a_folder_that_is_no_tenants_is_nobodys(deliveries, letters, ingest, s3, key):
    put(s3, key, "A secret.")
    assert deliver(deliveries, created(key)) == []
    assert "tenants/<tenant" in letters.buried[0][1]
    assert ingest.catalog.get("shared", f"s3:{key}") is None


def test_an_object_of_another_bucket_is_not_read(deliveries, letters):
    body = created("a.txt").replace(BUCKET, "elsewhere")
    assert deliver(deliveries, body) == []
    assert "'elsewhere'" in letters.buried[0][1]


def test_own_work_is_done(deliveries, ingest):
    (key,) = ingest.accept("t", [NewDocument("d", "Some text.")], chunking=Chunking())
    assert deliver(deliveries, events.work(key), events.work(key)) == []
    assert ingest.catalog.get("t", "d").state == "ready"
    assert deliver(deliveries, events.work(key)) == []


def test_nonsense_is_put_aside_with_the_reason_and_what_is_beside_it_is_done(deliveries, letters, ingest, s3):
    put(s3, "good.txt", "A good one.")
    test_event = json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"})
    assert deliver(deliveries, '{"what": "?"}', test_event, created("good.txt")) == []
    assert letters.buried == [({"what": "?"}, "the message is neither an S3 event nor work of Llamabda's own")]
    assert text_of(ingest, "good.txt") == "A good one."


def test_what_may_go_well_another_time_is_tried_again_later_and_later(deliveries, letters, ingest, s3):
    put(s3, "a.txt", "Some text.")
    broken = with_embedder(ingest, Broken)
    failing = replace(deliveries, ingest=lambda: broken)
    assert deliver(failing, created("a.txt")) == []
    assert ingest.catalog.get("shared", "s3:a.txt").state == "queued"
    for attempt in range(2, MAX_ATTEMPTS + 1):
        body, delay = letters.sent.pop()
        assert (body["attempt"], delay) == (attempt, BACKOFF[min(attempt - 1, len(BACKOFF)) - 1])
        assert deliver(failing, json.dumps(body)) == []
    assert letters.sent == []
    ((body, why),) = letters.buried
    assert f"given up after {MAX_ATTEMPTS} attempts" in why
    document = ingest.catalog.get("shared", "s3:a.txt")
    assert (document.state, document.error) == ("queued", why)
    # somebody sends it again, once that is there which was away
    assert deliver(deliveries, json.dumps(body)) == []
    assert ingest.catalog.get("shared", "s3:a.txt").state == "ready"
    assert text_of(ingest, "a.txt") == "Some text."


def test_an_event_whose_object_could_not_be_read_may_be_sent_again_after_all_attempts(deliveries, letters, ingest, s3):
    class Away:
        def read(self, bucket, key, *, version=None, limit):
            raise DependencyFailed("the bucket does not answer", dependency="source")

    put(s3, "a.txt", "Some text.")
    last = json.dumps({"llamabda": "again", "attempt": MAX_ATTEMPTS, "event": json.loads(created("a.txt"))})
    assert deliver(replace(deliveries, objects=Away()), last) == []
    ((body, why),) = letters.buried
    assert ingest.catalog.get("shared", "s3:a.txt").error == why
    assert deliver(deliveries, json.dumps(body)) == []
    assert text_of(ingest, "a.txt") == "Some text."


def test_it_goes_well_at_the_second_attempt(deliveries, letters, ingest, s3):
    put(s3, "a.txt", "Some text.")
    broken = with_embedder(ingest, Broken)
    deliver(replace(deliveries, ingest=lambda: broken), created("a.txt"))
    ((body, _),) = letters.sent
    assert deliver(deliveries, json.dumps(body)) == []
    assert text_of(ingest, "a.txt") == "Some text."


def test_a_source_that_does_not_answer_is_asked_again_later(deliveries, letters, ingest, aws):
    class Away:
        def read(self, bucket, key, *, version=None, limit):
            raise DependencyFailed("the bucket does not answer", dependency="source")

    assert deliver(replace(deliveries, objects=Away()), created("a.txt")) == []
    ((body, delay),) = letters.sent
    assert (body["event"], body["attempt"], delay) == (json.loads(created("a.txt")), 2, BACKOFF[0])


def test_what_ended_its_worker_twice_gets_one_more_attempt_and_is_given_up(deliveries, letters, ingest, s3):
    put(s3, "a.txt", "Some text.")
    (key,) = ingest.accept("t", [NewDocument("d", "Some text.")], chunking=Chunking())
    assert deliver(deliveries, created("a.txt"), events.work(key), receives=LAST_RECEIVE) == []
    assert ingest.catalog.get("shared", "s3:a.txt") is None
    assert [(body["attempt"], delay) for body, delay in letters.sent] == [(MAX_ATTEMPTS, BACKOFF[-1])] * 2
    assert letters.buried == []
    last = [json.dumps(body) for body, _ in letters.sent]
    assert deliver(deliveries, *last, receives=LAST_RECEIVE) == []
    assert [why for _, why in letters.buried] == ["given up: the work on it ended 2 times without a result"] * 2
    assert ingest.catalog.get("shared", "s3:a.txt").state == "failed"
    assert ingest.catalog.get("t", "d").state == "failed"


@pytest.mark.parametrize("receives", [2, LAST_RECEIVE, LAST_RECEIVE + 1])
def test_what_was_done_when_it_was_delivered_before_stays_done(deliveries, letters, ingest, s3, receives):
    put(s3, "a.txt", "Some text.")
    (key,) = ingest.accept("t", [NewDocument("d", "Some text.")], chunking=Chunking())
    bodies = [created("a.txt"), events.work(key)]
    assert deliver(deliveries, *bodies) == []
    for body in bodies:
        assert deliver(deliveries, body, receives=receives) == []
    assert [ingest.catalog.get(*one).state for one in (("shared", "s3:a.txt"), ("t", "d"))] == ["ready"] * 2
    assert (letters.sent, letters.buried) == ([], [])


def test_of_what_may_have_ended_its_worker_one_is_tried_and_the_others_come_one_by_one(deliveries, letters, ingest, s3):
    names = ["a.txt", "b.txt", "c.txt", "new.txt"]
    for name in names:
        put(s3, name, f"The text of {name}.")
    batch = [Delivery(name, created(name), 1 if name == "new.txt" else 2) for name in names]
    assert deliveries(batch, until=Deadline.after(SOON)) == []
    assert [text_of(ingest, name) for name in names] == ["The text of a.txt.", None, None, "The text of new.txt."]
    sent = [(body["event"]["detail"]["object"]["key"], body["attempt"], delay) for body, delay in letters.sent]
    assert sent == [("b.txt", 2, APART_SECONDS), ("c.txt", 2, 2 * APART_SECONDS)]
    for body, _ in letters.sent:
        assert deliver(deliveries, json.dumps(body)) == []
    assert all(text_of(ingest, name) for name in names)


class Defective(LengthEmbedder):
    def embed_documents(self, texts):
        if any("poison" in text for text in texts):
            raise RuntimeError("a defect")
        return super().embed_documents(texts)


def test_a_defect_does_not_hold_up_what_is_beside_it(deliveries, letters, ingest, s3, caplog):
    for name in ("a.txt", "poison.txt", "b.txt"):
        put(s3, name, f"The text of {name}.")
    defective = with_embedder(ingest, Defective)
    bodies = [created("a.txt"), created("poison.txt"), created("b.txt")]
    assert deliver(replace(deliveries, ingest=lambda: defective), *bodies, seconds=SOON) == ["m1"]
    assert [text_of(ingest, name) is not None for name in ("a.txt", "b.txt")] == [True, True]
    assert "a defect" in caplog.text

    class Strange:
        def read(self, bucket, key, *, version=None, limit):
            raise RuntimeError("another defect")

    put(s3, "c.txt", "Some text.")
    (key,) = ingest.accept("t", [NewDocument("d", "Some text.")], chunking=Chunking())
    assert deliver(replace(deliveries, objects=Strange()), created("c.txt"), events.work(key)) == ["m0"]
    assert ingest.catalog.get("t", "d").state == "ready"


def test_a_defect_in_settling_loses_no_document(deliveries, letters, ingest, s3):
    def broken(body: str, *, delay: float) -> None:
        raise RuntimeError("a defect")

    put(s3, "a.txt", "Some text.")
    letters.send = broken
    failing = with_embedder(ingest, Broken)
    assert deliver(replace(deliveries, ingest=lambda: failing), created("a.txt")) == ["m0"]


def test_when_the_catalog_fails_in_the_midst_of_work_it_is_sent_on_and_nonsense_is_put_aside_once(
    deliveries, letters, ingest, s3
):
    class Away:
        def __getattr__(self, name):
            if name in ("start", "requeue"):
                raise DependencyFailed("the catalog is throttled", dependency="catalog")
            return getattr(ingest.catalog, name)

    for name in ("a.txt", "b.txt"):
        put(s3, name, f"The text of {name}.")
    failing = replace(ingest, catalog=Away())
    bodies = [created("a.txt"), "nonsense", created("b.txt")]
    batch = replace(deliveries, ingest=lambda: failing)
    letters.bury = lambda body, why: letters.buried.append((body, why))
    assert deliver(batch, *bodies, seconds=SOON) == []
    assert [body for body, _ in letters.buried] == ["nonsense"]
    assert [(body["attempt"], delay) for body, delay in letters.sent] == [(2, BACKOFF[0])] * 2
    for body, _ in letters.sent:
        assert deliver(deliveries, json.dumps(body)) == []
    assert [text_of(ingest, name) for name in ("a.txt", "b.txt")] == ["The text of a.txt.", "The text of b.txt."]


def test_no_file_is_begun_that_may_take_longer_than_there_is_time_but_the_first(deliveries, letters, ingest, s3):
    for name in ("a.txt", "b.txt"):
        put(s3, name, f"The text of {name}.")
    assert deliver(deliveries, created("a.txt"), created("b.txt"), seconds=READ_SECONDS - 1) == []
    assert text_of(ingest, "a.txt") is not None
    ((body, delay),) = letters.sent
    assert (body["event"], body["attempt"], delay) == (json.loads(created("b.txt")), 1, 0.0)


@pytest.mark.parametrize("key", ["tenants/", f"tenants/{TENANT}/"])
def test_a_folder_of_tenants_that_is_made_is_no_failure(deliveries, letters, s3, key):
    put(s3, key, b"")
    assert deliver(deliveries, created(key)) == []
    assert letters.buried == []


def test_a_key_that_is_not_unicode_is_put_aside(deliveries, letters):
    assert deliver(deliveries, created("\ud800.txt")) == []
    assert "not Unicode" in letters.buried[0][1]


def test_what_there_is_no_time_for_is_sent_on_as_it_is(deliveries, letters, ingest, s3):
    put(s3, "a.txt", "Some text.")
    assert deliver(deliveries, created("a.txt"), seconds=0.0) == []
    ((body, delay),) = letters.sent
    assert (body["event"], body["attempt"], delay) == (json.loads(created("a.txt")), 1, 0.0)
    assert ingest.catalog.get("shared", "s3:a.txt") is None


def test_nothing_is_acknowledged_that_could_neither_be_done_nor_sent_on(deliveries, letters, ingest, s3):
    put(s3, "a.txt", "Some text.")
    put(s3, "b.pdf", b"%PDF-1.7 and then nothing")
    letters.broken = True
    assert deliver(deliveries, created("a.txt"), created("b.pdf"), "nonsense") == ["m1", "m2"]
    broken = with_embedder(ingest, Broken)
    put(s3, "c.txt", "Some text.")
    assert deliver(replace(deliveries, ingest=lambda: broken), created("c.txt")) == ["m0"]


def test_of_several_records_in_one_message_a_bad_one_fails_alone(deliveries, letters, ingest, s3):
    put(s3, "a b.txt", "Some text.")
    one = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": BUCKET}, "object": {"key": "a+b.txt"}}}
    body = json.dumps({"Records": [{"eventName": "ObjectRestore:Post"}, one]})
    assert deliver(deliveries, body) == []
    assert text_of(ingest, "a b.txt") == "Some text."
    assert letters.buried[0][0] == {"Records": [{"eventName": "ObjectRestore:Post"}]}


def test_what_nobody_wants_any_more_is_swept_now_and_then(deliveries, ingest, s3):
    put(s3, "a.txt", "Old news.")
    deliver(deliveries, created("a.txt", "01"))
    put(s3, "a.txt", "New news.")
    deliver(deliveries, created("a.txt", "02"))
    now = datetime.now(UTC)
    assert ingest.catalog.garbage(before=now + timedelta(seconds=5), abandoned_before=now - timedelta(hours=1))
    with ingest.catalog._database.write() as db:
        db.execute("UPDATE generations SET dead_since = dead_since - 120")
    assert deliver(deliveries, events.sweep()) == []
    assert not ingest.catalog.garbage(before=now + timedelta(seconds=5), abandoned_before=now - timedelta(hours=1))
