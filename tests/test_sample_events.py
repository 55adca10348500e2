"""The events that come with the project are what their names say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from llamabda_functions.ingest.app import SWEEP

from llamabda import events
from llamabda.events import Nonsense, ObjectCreated, ObjectDeleted, Sweep, Work
from tests.conftest import ROOT

FOLDER = ROOT / "events"
FILES = sorted(FOLDER.glob("*.json"))
SAID: dict[str, list[type]] = {
    "created": [ObjectCreated],
    "deleted": [ObjectDeleted],
    "s3-created": [ObjectCreated],
    "s3-removed": [ObjectDeleted],
    "s3-test-event": [],
    "several-records": [ObjectCreated, ObjectCreated, ObjectDeleted],
    "encoded-keys": [ObjectCreated, ObjectCreated],
    "versioned": [ObjectCreated, ObjectDeleted, ObjectDeleted],
    "out-of-order": [ObjectDeleted, ObjectCreated],
    "duplicated": [ObjectCreated, ObjectCreated],
    "work": [Work],
    "sweep": [Sweep],
    "nonsense": [Nonsense, Nonsense],
}


def said(name: str) -> list[object]:
    batch = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))["Records"]
    assert all(message["eventSource"] == "aws:sqs" for message in batch)
    return [record.event for message in batch for record in events.parse(message["body"])]


@pytest.mark.parametrize("name", SAID)
def test_each_says_what_it_is_named_after(name):
    assert [type(event) for event in said(name)] == SAID[name]


def test_both_ways_of_writing_a_key_mean_the_same_key():
    first, second = said("encoded-keys")
    assert first == second


def test_a_later_event_has_a_later_sequencer():
    deleted, created = said("out-of-order")
    assert deleted.sequencer > created.sequencer


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_told_of(path: Path):
    assert f"`{path.stem}`" in (FOLDER / "README.md").read_text("utf-8")
    assert path.stem in SAID or path.stem.startswith(("http-", "scheduled-"))


def test_the_scheduled_sweep_is_what_the_function_takes_for_one():
    assert json.loads((FOLDER / "scheduled-sweep.json").read_text("utf-8")) == SWEEP
