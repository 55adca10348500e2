"""What DynamoDB's items hold: keys that fit, in order, and values that come back as they were."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llamabda.adapters.dynamodb import layout
from llamabda.adapters.dynamodb.head import Head, Making, head
from llamabda.adapters.dynamodb.items import Record, Version, moment, record, version, when
from llamabda.types import Embedding, EmbeddingModel, GenerationKey

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=1_100)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2400, 1, 1), timezones=st.just(UTC))
numbers = st.integers(0, 10**12)
optional_text = st.none() | texts


@example("k" * 1_000, "k" * 960)
@example("字" * 400, "k" * 959)
@given(texts, texts)
def test_every_id_is_a_sort_key_of_its_own_in_order(one, other):
    keys = [layout.sort_key(one), layout.sort_key(other)]
    assert all(1 <= len(key.encode()) <= 1024 for key in keys)
    assert (keys[0] == keys[1]) == (one == other)
    if max(len(one.encode()), len(other.encode())) <= layout.WHOLE_BYTES:
        assert (keys[0] < keys[1]) == (one < other)


def test_no_id_is_the_key_of_another_one():
    long = "é" * 1_000
    key = layout.sort_key(long)
    assert layout.sort_key(key) != key
    assert key.startswith("é" * 400)


def test_cut_ids_stay_among_their_neighbours():
    ids = ["s3:a", "s3:" + "b" * 1_100, "s3:c"]
    assert sorted(map(layout.sort_key, ids)) == list(map(layout.sort_key, ids))


@given(moments)
def test_moments_come_back_to_the_microsecond(at):
    assert when(moment(at)) == at


def test_moments_of_other_time_zones_are_the_same_moments():
    at = datetime.fromisoformat("2026-03-01T12:00:00.000001+02:00")
    assert when(moment(at)) == at
    assert when(moment(at)).tzinfo is UTC or when(moment(at)).tzinfo is UTC


@given(
    st.builds(
        Record,
        tenant=texts,
        id=texts,
        source=texts,
        state=st.sampled_from(["queued", "processing", "ready", "failed", "deleted"]),
        last=numbers,
        created_at=moments,
        updated_at=moments,
        metadata=st.just('{"k": 0.1}'),
        version=numbers,
        live=st.none() | numbers,
        deleted_upto=numbers,
        overtaken_upto=numbers,
        sequencer=optional_text,
        sha256=st.just("") | texts,
        size=numbers,
        chunks=numbers,
        error=optional_text,
        recipe=st.just("") | texts,
        marks=st.frozensets(texts, max_size=3),
    )
)
def test_a_document_comes_back_as_it_was(given_):
    assert record(given_.item) == given_


@pytest.mark.parametrize("instructions", ["", "{}"])
@given(key=st.builds(GenerationKey, texts, texts, numbers), at=moments, sequencer=optional_text)
def test_a_generation_comes_back_as_it_was(instructions, key, at, sequencer):
    pending = Version(key, "pending", at, "api", '{"k": 1}', instructions, sequencer)
    assert version(pending.item) == pending
    for phase in ("live", "dead"):
        assert version(Version(key, phase, at).item) == Version(key, phase, at)


@given(texts, moments, st.sampled_from(["building", "live", "retired", "dropping"]), numbers)
def test_the_head_comes_back_as_it_was(name, at, state, number):
    making = Making(name, Embedding("f", EmbeddingModel(name, "onnx")), state, at, number)
    given_ = Head("owner", "home", (making,), number, number)
    assert head(given_.item) == given_
