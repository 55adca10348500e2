"""Whatever a client sends, it gets a problem document with the right 4xx, and nothing is half-written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from llamabda_functions.local.app import create_local_app

from llamabda import wiring
from tests.http.conftest import Account, home_at, register
from tests.http.problem import checked

SECRET = "hunter2-hunter2"

# path -> a body that is right
BODIES: dict[str, dict[str, object]] = {
    "/auth/register": {"username": "bob", "password": SECRET},
    "/auth/login": {"username": "bob", "password": SECRET},
    "/training/train": {"docs": [{"id": "a", "text": "some text", "metadata": {}}]},
    "/ask/question": {"question": "what?"},
    "/search": {"query": "what?"},
}
GETS = ("/auth/me", "/documents", "/documents/a", "/chunks?doc_id=a", "/source?doc_id=a")
NEED_TOKEN = [
    *(("POST", path) for path in BODIES if not path.startswith("/auth/")),
    *(("GET", path) for path in GETS),
    ("DELETE", "/documents/a"),
]
posts = pytest.mark.parametrize("path", BODIES)


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, signing_key: Path) -> Iterator[Path]:
    """One home for the module: none of these tests may change it."""
    with home_at(tmp_path_factory.mktemp("home"), signing_key) as folder:
        yield folder


@pytest.fixture(scope="module")
def client(home: Path) -> TestClient:
    return TestClient(create_local_app())


@pytest.fixture(scope="module")
def alice(client: TestClient) -> Account:
    return register(client, "alice")


@pytest.fixture
def post(client: TestClient, alice: Account) -> Iterator[Callable]:
    """Posts bytes as alice, and checks in the end that nothing was written."""

    def post(path: str, content: bytes, content_type: str | None = "application/json"):
        headers = dict(alice.headers) | ({"Content-Type": content_type} if content_type else {})
        reply = client.post(path, content=content, headers=headers)
        assert SECRET not in reply.text
        return reply

    yield post
    page = wiring.catalog().list(alice.tenant)
    assert (page.documents, sum(page.counts.values())) == ((), 0)
    assert [user.username for user in wiring.users().list()] == ["alice"]
    wiring.database().close()


NOT_JSON = {
    "empty": b"",
    "blank": b" \n",
    "word": b"hello",
    "cut": b'{"username": "bob", "password": "hunter2-hunter2"',
    "two values": b"{} {}",
    "trailing comma": b'{"a": 1,}',
    "single quotes": b"{'a': 1}",
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": -Infinity}',
    "a number beyond doubles": b'{"a": 1e999}',
    "a number of 5000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "a name twice": b'{"question": "a", "question": "b"}',
    "not UTF-8": b'{"question": "\xff\xfe"}',
    "UTF-16": '{"question": "a"}'.encode("utf-16"),
    "an encoded surrogate": b'{"question": "\xed\xa0\x80"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a raw newline in a string": b'{"question": "a\nb"}',
    "100000 levels": b"[" * 100_000 + b"]" * 100_000,
}


@posts
@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_not_json_is_refused(post, path, content):
    problem = checked(post(path, content), 400)
    assert problem["code"] == "not_json"


@posts
@pytest.mark.parametrize("content", [b"null", b"[]", b"7", b'"hunter2-hunter2"', b"true", b"[{}]", b"{}"])
def test_json_of_another_shape_is_refused(post, path, content):
    checked(post(path, content), 422)


@posts
@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml",
     "application/json; charset=utf-16", "json", "", "application/json5"],
)  # fmt: skip
def test_another_content_type_is_refused(post, path, content_type):
    reply = post(path, json.dumps(BODIES[path]).encode(), content_type)
    assert "application/json" in checked(reply, 415)["detail"]


@posts
def test_an_unknown_field_is_refused_and_its_value_not_repeated(post, path):
    reply = post(path, json.dumps(BODIES[path] | {"passwrod": "oops-" + SECRET, "unheard": True}).encode())
    problem = checked(reply, 422)
    assert [entry["loc"] for entry in problem["errors"]] == [["body", "passwrod"], ["body", "unheard"]]
    assert all("value" not in entry for entry in problem["errors"])


def strings(value: object, at: tuple = ()) -> Iterator[tuple]:
    """Paths to all strings, names of metadata included by the caller."""
    if isinstance(value, str):
        yield at
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings(item, (*at, key))
    elif isinstance(value, list):
        for key, item in enumerate(value):
            yield from strings(item, (*at, key))


def with_value(body: object, at: tuple, value: object) -> object:
    if not at:
        return value
    copy = dict(body) if isinstance(body, dict) else list(body)  # type: ignore[call-overload]  # only these two occur
    copy[at[0]] = with_value(copy[at[0]], at[1:], value)
    return copy


STRING_FIELDS = [(path, at) for path, body in BODIES.items() for at in strings(body)]
ACCEPTING = [field for field in STRING_FIELDS if field[0] != "/auth/login"]  # there, an impossible name is a wrong one
WRONG_TYPES = [None, 7, 1.5, True, [], {}, ["x"], {"x": "y"}, 10**40]


@pytest.mark.parametrize(("path", "at"), STRING_FIELDS)
@pytest.mark.parametrize("value", WRONG_TYPES, ids=str)
def test_a_wrong_type_is_refused_where_a_string_belongs(post, path, at, value):
    problem = checked(post(path, json.dumps(with_value(BODIES[path], at, value)).encode()), 422)
    assert problem["errors"][0]["loc"] == ["body", *at]


@pytest.mark.parametrize(("path", "at"), STRING_FIELDS)
@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", "\0", "a\0b"], ids=ascii)
def test_lone_surrogates_and_nuls_are_refused_everywhere(post, path, at, value):
    checked(post(path, json.dumps(with_value(BODIES[path], at, value)).encode()), 422)


@pytest.mark.parametrize("metadata", [{"\ud800": 1}, {"a": {"b\0": 1}}, {"a": ["\ud800"]}, {"a": "\udc00"}], ids=ascii)
def test_surrogates_and_nuls_are_refused_inside_metadata(post, metadata):
    body = {"docs": [{"id": "a", "text": "some text", "metadata": metadata}]}
    checked(post("/training/train", json.dumps(body).encode()), 422)


@pytest.mark.parametrize("char", ["\x01", "\x1b", "\x7f", "\x85"], ids=ascii)
@pytest.mark.parametrize(("path", "at"), [f for f in ACCEPTING if f[1][-1] in ("id", "username", "question", "query")])
def test_control_characters_are_refused_in_names_and_questions(post, path, at, char):
    problem = checked(post(path, json.dumps(with_value(BODIES[path], at, f"a{char}b")).encode()), 422)
    assert char not in json.dumps(problem, ensure_ascii=False)


@pytest.mark.parametrize(("path", "at"), ACCEPTING)
@pytest.mark.parametrize("value", ["", " \t\n"], ids=ascii)
def test_empty_strings_are_refused(post, path, at, value):
    if at[-1] == "id" and value:
        value = "\t"
    checked(post(path, json.dumps(with_value(BODIES[path], at, value)).encode()), 422)


TRAIN = {
    "neither texts nor docs": {},
    "both": {"texts": ["a"], "docs": [{"id": "a", "text": "b"}]},
    "both null": {"texts": None, "docs": None},
    "no texts": {"texts": []},
    "no docs": {"docs": []},
    "an empty text": {"texts": ["good", ""]},
    "a blank text": {"texts": ["good", " \n"]},
    "1001 texts": {"texts": ["a"] * 1001},
    "texts as a string": {"texts": "abc"},
    "no id": {"docs": [{"text": "b"}]},
    "no text": {"docs": [{"id": "a"}]},
    "a long id": {"docs": [{"id": "a" * 513, "text": "b"}]},
    "an id of the bucket": {"docs": [{"id": "s3:key", "text": "b"}]},
    "an id twice": {"docs": [{"id": "a", "text": "b"}, {"id": "a", "text": "c"}]},
    "metadata too large": {"docs": [{"id": "a", "text": "b", "metadata": {"m": "é" * 8192}}]},
    "metadata too deep": {"docs": [{"id": "a", "text": "b", "metadata": {"m": json.loads("[" * 40 + "]" * 40)}}]},
    "metadata as a list": {"docs": [{"id": "a", "text": "b", "metadata": []}]},
    "an unknown field in a doc": {"docs": [{"id": "a", "text": "b", "meta": {}}]},
    "overlap as large as size": {"texts": ["a"], "chunk_size": 100, "chunk_overlap": 100},
    "overlap larger than size": {"texts": ["a"], "chunk_size": 100, "chunk_overlap": 200},
    "a negative overlap": {"texts": ["a"], "chunk_overlap": -1},
    "a size of zero": {"texts": ["a"], "chunk_size": 0, "chunk_overlap": 0},
    "a negative size": {"texts": ["a"], "chunk_size": -5},
    "a huge size": {"texts": ["a"], "chunk_size": 10**30},
    "a size as text": {"texts": ["a"], "chunk_size": "800"},
    "a fractional size": {"texts": ["a"], "chunk_size": 800.5},
    "a size of true": {"texts": ["a"], "chunk_size": True},
    "a size of null": {"texts": ["a"], "chunk_size": None},
}


@pytest.mark.parametrize("body", TRAIN.values(), ids=TRAIN.keys())
def test_a_train_request_that_makes_no_sense_is_refused_whole(post, body):
    checked(post("/training/train", json.dumps(body).encode()), 422)


QUESTION = {
    "top_k 0": {"top_k": 0},
    "top_k -1": {"top_k": -1},
    "top_k large": {"top_k": 101},
    "top_k huge": {"top_k": 10**100},
    "top_k text": {"top_k": "3"},
    "top_k null": {"top_k": None},
    "weights both 0": {"weights": {"text": 0, "vector": 0}},
    "weights negative": {"weights": {"text": -1, "vector": 1}},
    "weights huge": {"weights": {"text": 1e308, "vector": 1e308}},
    "weights halved": {"weights": {"text": 1}},
    "weights list": {"weights": [1, 1]},
    "filter that says nothing": {"filter": {}},
}


@pytest.mark.parametrize("path", ["/ask/question", "/search"])
@pytest.mark.parametrize("extra", QUESTION.values(), ids=QUESTION.keys())
def test_a_question_with_senseless_options_is_refused(post, path, extra):
    checked(post(path, json.dumps(BODIES[path] | extra).encode()), 422)


@pytest.mark.parametrize(
    "extra", [{"max_tokens": 0}, {"max_tokens": 10**9}, {"mode": "magic"}, {"mode": None}], ids=str
)
def test_an_ask_with_senseless_options_is_refused(post, extra):
    checked(post("/ask/question", json.dumps(BODIES["/ask/question"] | extra).encode()), 422)


@pytest.mark.parametrize(("path", "field"), [("/ask/question", "question"), ("/search", "query")])
def test_a_question_longer_than_the_setting_is_too_large(post, path, field):
    assert post(path, json.dumps({field: "é" * 4_001}).encode()).status_code == 413
    assert post(path, json.dumps({field: "é" * 4_000}).encode()).status_code == 200


def test_echoed_values_are_cut_at_100_characters(post):
    problem = checked(post("/ask/question", json.dumps({"question": "a", "mode": "m" * 5_000}).encode()), 422)
    [entry] = problem["errors"]
    assert len(entry["value"]) == 100
    assert entry["value"].startswith("mmm")


@pytest.mark.parametrize("password", ["short", "a" * 2_000], ids=["short", "long"])
def test_a_refused_password_is_not_repeated(client, password):
    reply = client.post("/auth/register", json={"username": "bob", "password": password})
    checked(reply, 422)
    assert password not in reply.text


@pytest.mark.parametrize("password", [73317331, 7331.7331])
def test_a_password_of_a_wrong_type_is_not_repeated(client, password):
    problem = checked(client.post("/auth/login", json={"username": "bob", "password": password}), 422)
    assert problem["errors"][0]["loc"] == ["body", "password"]
    assert "7331" not in json.dumps(problem["errors"]) + problem["detail"]


def in_pieces(size: int) -> Iterator[bytes]:
    yield b'{"question": "'
    for _ in range(size // 1_000):
        yield b"a" * 1_000
    yield b'"}'


@posts
@pytest.mark.parametrize("content", [b"a" * 200_001, None], ids=["declared", "streamed"])
def test_a_body_over_the_limit_is_refused_whether_declared_or_streamed(client, alice, path, content):
    headers = alice.headers | {"Content-Type": "application/json"}
    reply = client.post(path, content=content or in_pieces(201_000), headers=headers)
    assert checked(reply, 413)["code"] == "too_large"


def test_a_lie_about_the_length_does_not_help(client, alice):
    headers = alice.headers | {"Content-Type": "application/json", "Content-Length": "10"}
    checked(client.post("/search", content=in_pieces(201_000), headers=headers), 413)


TOKENS = {
    "none": {},
    "empty": {"Authorization": ""},
    "another scheme": {"Authorization": "Basic YWxpY2U6c2VjcmV0"},
    "no token": {"Authorization": "Bearer "},
    "no JWT": {"Authorization": "Bearer abc"},
    "three dots": {"Authorization": "Bearer ..."},
    "not ASCII": {"Authorization": "Bearer \xff\xfe"},
    "long": {"Authorization": "Bearer " + "a" * 60_000},
    "unsigned": {"Authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9."},
}


@pytest.mark.parametrize(("method", "path"), NEED_TOKEN)
@pytest.mark.parametrize("headers", TOKENS.values(), ids=TOKENS.keys())
def test_without_a_good_token_nothing_opens(client, method, path, headers):
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    reply = client.request(method, path, headers=raw)
    assert checked(reply, 401)["code"] == "unauthorized"


@pytest.mark.parametrize(("method", "path"), NEED_TOKEN)
def test_a_forged_token_does_not_open(client, alice, method, path):
    head, payload, signature = alice.token.split(".")
    forged = ".".join((head, payload, ("B" if signature[0] == "A" else "A") + signature[1:]))
    reply = client.request(method, path, headers={"Authorization": f"Bearer {forged}"})
    checked(reply, 401)
    assert "invalid_token" in reply.headers["www-authenticate"]
    assert forged not in reply.text


@pytest.mark.parametrize(("method", "path"), NEED_TOKEN)
def test_a_token_counts_in_the_authorization_header_only(client, alice, method, path):
    joint = "&" if "?" in path else "?"
    reply = client.request(
        method,
        f"{path}{joint}access_token={alice.token}&token={alice.token}",
        headers={"Cookie": f"access_token={alice.token}", "X-Access-Token": alice.token},
    )
    checked(reply, 401)
    assert alice.token not in reply.text


def test_two_authorization_headers_are_none(client, alice):
    headers = [("Authorization", f"Bearer {alice.token}"), ("Authorization", "Bearer x")]
    checked(client.get("/auth/me", headers=headers), 401)


def test_a_token_is_asked_for_before_the_body_is_read(client):
    headers = {"Content-Type": "application/json"}
    checked(client.post("/training/train", content=b"not json", headers=headers), 401)


QUERIES = [
    "/documents?limit=0",
    "/documents?limit=201",
    "/documents?limit=x",
    "/documents?limit=1e2",
    "/documents?limit=" + "9" * 5_000,
    "/documents?state=lost",
    "/documents?cursor=nonsense",
    "/documents?cursor=%00",
    "/documents?cursor=" + "A" * 5_000,
    "/documents?stat=ready",
    "/chunks",
    "/chunks?doc_id=",
    "/chunks?doc_id=a%00b",
    "/chunks?doc_id=a%0Ab",
    "/chunks?doc_id=" + "a" * 1_101,
    "/chunks?doc_id=a&doc=b",
    "/source",
    "/source?doc_id=a&generation=x",
    "/source?doc_id=a&generation=0",
    "/source?doc_id=a&generation=-1",
    "/source?doc_id=a&generation=" + "9" * 30,
    "/documents/a%00b",
    "/documents/a%1Fb",
    "/documents/" + "a" * 1_101,
]


@pytest.mark.parametrize("url", QUERIES, ids=lambda url: url[:40])
def test_senseless_parameters_are_refused(client, alice, url):
    checked(client.get(url, headers=alice.headers), 422)


@pytest.mark.parametrize("doc_id", ["s3:key", "a%00b", "a" * 513])
def test_what_http_does_not_write_it_does_not_delete(client, alice, doc_id):
    checked(client.delete(f"/documents/{doc_id}", headers=alice.headers), 422)


@pytest.mark.parametrize(
    "url",
    ["/documents/%ff", "/documents/%ED%A0%80", "/%c0%80", "/chunks?doc_id=%ff", "/documents?%80=1"],
)
def test_urls_that_are_not_utf8_are_refused(client, alice, url):
    checked(client.get(url, headers=alice.headers), 400)


def test_an_endless_url_is_refused(client, alice):
    checked(client.get("/documents/" + "a" * 9_000, headers=alice.headers), 414)


@pytest.mark.parametrize(
    "doc_id", ["missing", "..", "a/../b", "%2E%2E%2Fetc", "'; DROP TABLE documents; --", "🦙", "s3:no"]
)
def test_unknown_ids_are_missing(client, alice, doc_id):
    checked(client.get("/chunks", params={"doc_id": doc_id}, headers=alice.headers), 404)
    checked(client.get("/source", params={"doc_id": doc_id}, headers=alice.headers), 404)
