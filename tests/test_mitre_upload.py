"""The way of documents into an API that is busy, broken or somebody else's."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO

import pytest

from scripts.attack_mobile import documents, download
from scripts.attack_mobile.api import ATTEMPTS, Api, ApiError, Rejected, Unauthorized, UsageError
from scripts.attack_mobile.progress import Progress
from scripts.attack_mobile.upload import Outcome, Upload
from tests.mitre_fakes import KINDS, SMALL, Told, all_ready, read, telling

TOKEN = "a-token-never-shown"


@pytest.fixture
def told() -> Iterator[Told]:
    with telling() as server:
        yield server


@dataclass
class Waits:
    """How long the client would have waited, and what it said."""

    seconds: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def api(self, url: str) -> Api:
        return Api(url, TOKEN, self.said.append, pause=self.seconds.append)

    def upload(self, url: str) -> Upload:
        return Upload(self.api(url), Progress("documents", 0, out=StringIO()))


SOME = documents.of(read(SMALL), KINDS)


@pytest.mark.parametrize(("status", "after", "waits"), [(429, "7", [7.0]), (503, "1000", [60.0]), (502, None, [1.0])])
def test_a_busy_server_is_waited_for(told, status, after, waits):
    told.replies.insert(0, (status, {"Retry-After": after} if after else {}, {"detail": "busy"}))
    waiting = Waits()
    assert waiting.upload(told.url).send(SOME).ready == [one.id for one in SOME]
    assert waiting.seconds == waits
    assert f"{status} busy" in waiting.said[0]


def test_a_server_that_stays_busy_is_given_up(told):
    told.replies = [(503, {}, {"detail": "busy"})]
    waiting = Waits()
    with pytest.raises(ApiError, match=f"failed {ATTEMPTS} times.*503 busy"):
        waiting.upload(told.url).send(SOME)
    assert waiting.seconds == [2.0**n for n in range(ATTEMPTS - 1)]


def test_a_connection_that_fails_is_tried_again_and_then_given_up():
    waiting = Waits()
    with pytest.raises(ApiError, match=r"failed 6 times.*refused"):
        waiting.upload("http://127.0.0.1:9").send(SOME)
    assert len(waiting.seconds) == ATTEMPTS - 1


@pytest.mark.parametrize("status", [b"503 Busy", b"200 OK"])
def test_a_reply_that_is_cut_off_is_tried_again(status):
    """The first time the server dies in the middle of its reply, as it does when it is restarted."""
    whole = json.dumps({"documents": []}).encode()
    replies = iter([whole[:5], whole])

    class Cutting(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            body = next(replies)
            line = status if body != whole else b"200 OK"
            head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (line, len(whole))
            self.wfile.write(head + body)

    waiting = Waits()
    with socketserver.TCPServer(("127.0.0.1", 0), Cutting) as server:
        thread = threading.Thread(target=lambda: [server.handle_request() for _ in range(2)])
        thread.start()
        assert list(waiting.api(f"http://127.0.0.1:{server.server_address[1]}").documents()) == []
        thread.join()
    assert len(waiting.seconds) == 1


def test_too_large_a_request_is_sent_in_parts(told):
    def at_most_two(body: Mapping[str, list[object]]) -> object:
        return all_ready(body)

    told.replies = [(413, {}, {"detail": "large"}), (413, {}, {}), (200, {}, at_most_two)]
    assert Waits().upload(told.url).send(SOME).ready == [one.id for one in SOME]
    sizes = [len(body["docs"]) for _, _, _, body in told.requests]
    assert sizes[:3] == [len(SOME), len(SOME) // 2, len(SOME) // 4]
    assert sum(sizes[2:]) == len(SOME)


def test_a_document_that_is_too_large_alone_fails_and_the_others_go_on(told):
    outcome = Waits().upload(told.url).send([])
    assert outcome == Outcome()
    told.replies = [(413, {}, {"detail": "large"}), (413, {}, {"detail": "large"}), (200, {}, all_ready)]
    outcome = Waits().upload(told.url).send(SOME[:2])
    assert list(outcome.failed) == [SOME[0].id]
    assert outcome.ready == [SOME[1].id]


def test_documents_that_the_server_finds_fault_with_fail_and_the_others_go_on(told):
    fault = {"detail": "wrong", "errors": [{"loc": ["body", "docs", 1, "metadata"], "msg": "is 20000 bytes"}]}
    told.replies = [(422, {}, fault), (200, {}, all_ready)]
    outcome = Waits().upload(told.url).send(SOME)
    assert outcome.failed == {SOME[1].id: "is 20000 bytes"}
    assert outcome.ready == [one.id for one in SOME if one is not SOME[1]]


def test_a_chunking_that_the_server_refuses_is_wrong_usage(told):
    fault = {"detail": "wrong", "errors": [{"loc": ["body", "chunk_size"], "msg": "must be between"}]}
    told.replies = [(422, {}, fault)]
    with pytest.raises(UsageError, match="chunk_size: must be between"):
        Waits().upload(told.url).send(SOME)


def test_any_other_refusal_ends_it(told):
    told.replies = [(404, {}, b"<html>")]
    with pytest.raises(Rejected, match="answered 404"):
        Waits().upload(told.url).send(SOME)


@pytest.mark.parametrize("reply", [b"<html>", b"[]", {"documents": 7}, {"documents": [{"id": "x", "state": "ready"}]}])
def test_a_reply_that_is_not_llamabda_s_ends_it(told, reply):
    told.replies = [(200, {}, reply)]
    with pytest.raises(ApiError, match="is this Llamabda"):
        Waits().upload(told.url).send(SOME)


def test_what_is_queued_is_waited_for_and_told_apart(told):
    one, other, third = (doc.id for doc in SOME[:3])
    queued = {"documents": [{"id": one}, {"id": other}], "next_cursor": None}
    none: dict[str, object] = {"documents": [], "next_cursor": None}
    told.replies = [
        (202, {}, lambda body: all_ready(body, "queued")),
        *[(200, {}, queued), (200, {}, none), (200, {}, {"state": "ready", "error": None})],  # the third is done
        *[(200, {}, none), (200, {}, none)],
        *[(200, {}, {"state": "failed", "error": "no"}), (404, {}, {})],
    ]
    waiting = Waits()
    upload = waiting.upload(told.url)
    outcome = upload.send(SOME[:3])
    assert outcome.queued == [one, other, third]
    upload.wait(outcome, seconds=60)
    assert (outcome.queued, outcome.ready) == ([], [third])
    assert outcome.failed == {one: "no", other: "it was deleted meanwhile"}
    assert len(waiting.seconds) == 1


def test_the_waiting_ends(told):
    told.replies = [(200, {}, {"documents": [{"id": "a"}], "next_cursor": None})]
    waiting = Waits()
    times = iter(range(100))
    upload = Upload(waiting.api(told.url), Progress("documents", 0, out=StringIO()), clock=lambda: next(times))
    outcome = Outcome(queued=["a"])
    upload.wait(outcome, seconds=3)
    assert outcome.queued == ["a"]
    assert len(waiting.seconds) == 2


def test_the_token_is_sent_to_the_api_and_nowhere_else(told):
    told.replies = [(307, {"Location": f"{told.url}/elsewhere"}, {})]
    with pytest.raises(ApiError, match="the token will not be sent"):
        Waits().upload(told.url).send(SOME)
    told.replies = [(302, {"Location": f"{told.url}/elsewhere"}, {})]
    with pytest.raises(ApiError, match="the token will not be sent"):
        list(Waits().api(told.url).documents())
    assert [path for _, path, _, _ in told.requests] == ["/training/train", "/documents?limit=200"]
    assert told.requests[0][2]["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_said_plainly_and_never_shown(told, status):
    told.replies = [(status, {}, {"detail": "no"})]
    with pytest.raises(Unauthorized, match=r"get a new one from POST /auth/login") as refused:
        Waits().upload(told.url).send(SOME)
    assert TOKEN not in str(refused.value)
    assert TOKEN not in repr(Waits().api(told.url))


@pytest.mark.parametrize(
    "address",
    ["", "localhost:8000", "ftp://x", "http://", "http://a b", "http://x?y", "http://u:p@x", "http://x:99999"],
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(UsageError, match="--api"):
        Api(address, TOKEN, print)


@pytest.mark.parametrize("token", ["", "two words", "a\r\nX-Evil: 1", "ação"])
def test_a_token_that_is_none_is_refused_and_not_shown(token):
    with pytest.raises(UsageError, match="one word") as refused:
        Api("http://127.0.0.1:8000", token, print)
    assert not token or token not in str(refused.value)


def test_ids_are_quoted_in_addresses(told):
    told.replies = [(204, {}, b"")]
    Waits().api(told.url).delete("attack-mobile/../x?y#z")
    assert told.requests[0][:2] == ("DELETE", "/documents/attack-mobile%2F..%2Fx%3Fy%23z")


def test_only_own_documents_that_are_gone_are_stale(told):
    ours = {"dataset": "attack-mobile"}
    listed = [("attack-mobile/T1", ours), ("attack-mobile/T2", ours), ("attack-mobile/notes", {}), ("other", ours)]
    page = [{"id": doc_id, "metadata": metadata} for doc_id, metadata in listed]
    told.replies = [
        (200, {}, {"documents": page[:1], "next_cursor": "c d"}),
        (200, {}, {"documents": page[1:], "next_cursor": None}),
    ]
    assert Waits().upload(told.url).stale({"attack-mobile/T2"}) == ["attack-mobile/T1"]
    assert told.requests[1][1] == "/documents?limit=200&cursor=c+d"


# -- progress and download


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere():
    terminal, plain = Terminal(), StringIO()
    for out in (terminal, plain):
        progress = Progress("documents", 100, out=out)
        for _ in range(100):
            progress.add(1)
        progress.close()
    assert terminal.getvalue().endswith("\r\x1b[Kdocuments [##############################] 100 of 100\n")
    assert plain.getvalue().splitlines()[0] == "documents: 1 of 100"
    assert plain.getvalue().splitlines()[-1] == "documents: 100 of 100"
    assert len(plain.getvalue().splitlines()) <= 12
    assert "\x1b" not in plain.getvalue()


def test_a_download_is_whole(told):
    told.replies = [(200, {}, b"x" * 200_000)]
    assert download.fetch(told.url, progress=lambda total: Progress("d", total, out=StringIO())) == b"x" * 200_000


def test_a_download_that_fails_says_where_and_why(told):
    with pytest.raises(download.DownloadError, match=r"cannot download http://127\.0\.0\.1:9: .*refused"):
        download.fetch("http://127.0.0.1:9")
    told.replies = [(302, {"Location": told.url}, {})]
    with pytest.raises(download.DownloadError, match="not https"):
        download.fetch(told.url)
