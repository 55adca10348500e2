"""The calculator, against sums made by hand, and the page that shows what it prints."""

from __future__ import annotations

import json
import re
import shlex
from datetime import date
from statistics import median

import pytest
import yaml

from llamabda import costs, prices
from llamabda.adapters import emf
from llamabda.costs import Choices, Line, Rival, Work
from llamabda.settings import settings
from tests.command_line import runner
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "costs.md"
BLOCK = re.compile(r"^```console\n\$ (llamabda cost[^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command: exit code, stdout, stderr."""
    monkeypatch.setenv("LLAMABDA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()

    yield runner(capsys)
    settings.cache_clear()


def by_name(lines: list[Line]) -> dict[str, float]:
    return {line.what: round(line.usd, 9) for line in lines}


def test_an_idle_month_is_made_of_what_stands_there():
    found = by_name(costs.idle(Choices(alarms=3, signing_keys=2), Work(documents=1_000_000, gigabytes=2)))
    assert found == {
        "OpenSearch, 1 x t3.small.search": 26.28,  # 730 h of 0.036
        "its volumes": 2.196,  # 2 GB of text, 12 of index, 18 of volume, 0.122 each
        "signing keys": 2.0,
        "documents and texts in S3": 0.092,  # 4 GB of 0.023
        "catalog in DynamoDB, recoverable": 0.9,  # 2 GB of 0.25 + 0.20
        "images in ECR": 0.07,
        "alarms": 0.6,  # 3, and 3 of the domain
        "dashboard": 3.0,
    }


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        (Choices(opensearch="existing"), 0.0),
        (Choices(opensearch="serverless", standby=True), 1460 * 0.24 + 0.6 * 0.024),
        (Choices(opensearch="serverless"), 730 * 0.24 + 0.6 * 0.024),
        (Choices(storage=50), 26.28 + 50 * 0.122 + 0.3),  # and three alarms
        (Choices(instance="r6g.large.search", instances=3), 3 * 730 * 0.167 + 3 * 10 * 0.122 + 0.3),
        (Choices(instance="m8g.large.search", instance_hour=0.2), 146 + 1.22 + 0.3),
        (Choices(instance_hour=0.0), 1.22 + 0.3),  # zero is a price
    ],
)
def test_each_kind_of_opensearch_has_its_price(choices, expected):
    rest = costs.total(costs.idle(Choices(opensearch="existing"), Work(gigabytes=0.1)))
    assert costs.total(costs.idle(choices, Work(gigabytes=0.1))) - rest == pytest.approx(expected)


@pytest.mark.parametrize(
    ("gigabytes", "instances", "volumes"), [(0, 1, 10), (1, 1, 10), (2, 1, 18), (2, 2, 20), (100, 3, 3 * 290)]
)
def test_volumes_hold_the_index_with_room(gigabytes, instances, volumes):
    lines = costs.idle(Choices(instances=instances), Work(gigabytes=gigabytes))
    assert next(line.amount for line in lines if line.what == "its volumes") == volumes


def test_a_million_answers_of_two_seconds():
    found = by_name(costs.answers(Choices(ask_memory=2048, architecture="arm64"), Work(seconds=2.0), 1_000_000))
    assert found == {
        "running": 53.3336,  # 4 million GB-seconds
        "function calls": 0.2,
        "HTTP API": 1.0,
        "reads of DynamoDB": 12.875,  # 103 million
        "logs": 1.25,  # 2.5 GB
        "replies": 0.54,  # 6 GB
        "signatures of logins": 0.15,  # 50,000
    }


@pytest.mark.parametrize(("answers", "usd"), [(0, 0.0), (73, 0.57), (730, 5.7), (1_000_000, 5.7)])
def test_metrics_are_paid_by_the_hour_and_no_more_than_all_of_them(answers, usd):
    assert costs.total(costs.metrics(Work(answers=answers))) == pytest.approx(usd)


def test_a_month_is_idle_answers_and_metrics():
    choices, work = Choices(), Work(answers=1_460)
    expected = costs.total(costs.idle(choices, work)) + 1.46 * costs.total(costs.answers(choices, work, 1_000)) + 5.7
    assert costs.month(choices, work) == pytest.approx(expected)


def test_taking_documents_in():
    found = by_name(costs.taking_in(Choices(ingest_memory=2048), Work(documents=500, gigabytes=0.7)))
    seconds = 1_000_000 / 68.1  # 0.7 GB are a million chunks of 700 characters
    assert found["running"] == pytest.approx(2 * seconds * 0.0000166667, abs=1e-5)
    assert found["writes of DynamoDB"] == 0.00375
    assert found["objects written to S3"] == 0.005
    assert found["objects read"] == 0.0002
    assert found["events"] == 0.0005
    assert found["messages"] == 0.0006


def test_a_knowledge_base_at_the_same_work():
    work = Work(passages=5, passage_tokens=300, completion_tokens=100, documents=1_000, gigabytes=1)
    assert work.prompt_tokens == 1_555
    assert by_name(costs.rival_idle(Rival(), work)) == {
        "OpenSearch Serverless, at least": 350.4,
        "its storage": 0.144,
        "documents in S3": 0.023,
    }
    assert by_name(costs.rival_answers(Rival("claude-3-haiku"), work, 1_000)) == {
        "prompts to claude-3-haiku": 0.38875,  # 1,555,000 tokens of 0.25 a million
        "answers of claude-3-haiku": 0.125,
        "questions embedded": 0.0011,
    }
    assert by_name(costs.rival_taking_in(Rival(), work)) == {"texts embedded": 5.0, "objects written to S3": 0.005}


def test_a_knowledge_base_over_s3_vectors():
    work = Work(documents=10, gigabytes=0.7)
    rival = Rival(store="s3-vectors")
    gigabytes = 1_000_000 * (4 * 1024 + 700) / 1e9
    assert by_name(costs.rival_idle(rival, work))["vectors in S3 Vectors"] == pytest.approx(0.06 * gigabytes)
    assert by_name(costs.rival_answers(rival, work, 1_000_000))["queries of S3 Vectors"] == 2.5
    assert by_name(costs.rival_taking_in(rival, work))["vectors written"] == pytest.approx(0.2 * gigabytes)


def test_from_the_break_even_on_the_knowledge_base_is_the_cheaper_one():
    choices, rival = Choices(), Rival()
    even = costs.break_even(choices, rival, Work())
    assert even is not None

    def ours_is_cheaper(answers: int) -> bool:
        work = Work(answers=answers)
        return costs.month(choices, work) < costs.rival_month(rival, work)

    assert ours_is_cheaper(even - 1)
    assert not ours_is_cheaper(even)


@pytest.mark.parametrize(
    ("choices", "rival", "work"),
    [
        (Choices(opensearch="serverless", standby=True), Rival(), Work()),  # dearer from the start
        (Choices(), Rival("claude-3-haiku"), Work(seconds=0.1)),  # cheaper for ever
    ],
)
def test_where_one_is_always_the_cheaper_one_there_is_no_break_even(choices, rival, work):
    assert costs.break_even(choices, rival, work) is None


def test_what_was_measured_is_in_the_benchmarks_results():
    rows = json.loads((ROOT / "benchmarks" / "results" / "bench.json").read_text("utf-8"))["rows"]
    found = {(row["part"], row["what"]): row for row in rows}

    def middle(part: str, what: str) -> float:
        return median(found[part, what]["ours"]["values"])

    assert middle("server", "POST /ask/question, auto, 10k chunks") / 1000 == pytest.approx(
        costs.ANSWER_SECONDS, rel=0.01
    )
    extract = middle("server", "POST /ask/question, extractive, 10k chunks") / 1000
    assert extract == pytest.approx(costs.EXTRACT_SECONDS, rel=0.01)
    assert middle("embedding", "texts of 20-160 words") == pytest.approx(costs.CHUNKS_PER_SECOND, rel=0.01)
    answered, tokens = re.match(
        r"(\d+) of \d+ answered, (\d+) tokens", found["server", "POST /ask/question, auto, 10k chunks"]["note"]
    ).groups()
    assert int(tokens) / int(answered) == pytest.approx(costs.COMPLETION_TOKENS, rel=0.01)
    low, high = re.search(r"prompts of (\d+)-(\d+) tokens", found["generation", "prefill"]["note"]).groups()
    assert int(low) <= costs.PROMPT_TOKENS <= int(high)


def test_the_defaults_are_the_templates():
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, _tag, node: None)
    template = yaml.load((ROOT / "template.yaml").read_text("utf-8"), Loader)
    defaults = {name: one.get("Default") for name, one in template["Parameters"].items()}
    choices = Choices()
    counted = {
        "Architecture": choices.architecture,
        "AskMemory": choices.ask_memory,
        "IngestMemory": choices.ingest_memory,
        "OpenSearchMode": choices.opensearch,
        "OpenSearchInstanceType": choices.instance,
        "OpenSearchInstances": choices.instances,
        "OpenSearchStorage": choices.storage,
        "OpenSearchStandby": "ENABLED" if choices.standby else "DISABLED",
    }
    there = {name: value for name, value in counted.items() if name in defaults}
    assert {"Architecture", "AskMemory", "IngestMemory"} <= set(there)
    assert {name: defaults[name] for name in there} == there
    kinds = [one["Type"] for one in template["Resources"].values()]
    assert kinds.count("AWS::CloudWatch::Alarm") == choices.alarms + costs.DOMAIN_ALARMS
    assert kinds.count("AWS::CloudWatch::Dashboard") == choices.dashboards


def test_as_many_metrics_are_counted_as_there_are():
    assert costs.METRICS["ask"] == len(emf.UNITS)
    lines: list[str] = []
    emf.EmfMetrics("auth", write=lines.append).request("/health", "GET", 200, 0.1)
    (directive,) = json.loads(lines[0])["_aws"]["CloudWatchMetrics"]
    assert costs.METRICS["auth"] == costs.METRICS["ingest"] == len(directive["Metrics"])


def test_every_price_says_for_what_and_where_it_was_found():
    assert date.fromisoformat(prices.AS_OF) >= date(2026, 11, 23)
    for name, price in prices.PRICES.items():
        assert price.usd > 0, name
        assert price.unit, name
        assert price.source.startswith("aws.amazon.com/"), name
        assert price.found, name


def test_the_command_prints_json_that_adds_up(run):
    code, out, _ = run("cost", "--json", "--answers", "5000", "--seconds", "1.5", "--ask-memory", "2048")
    found = json.loads(out)
    assert code == 0
    assert found["answers"]["lines"][0]["amount"] == 3_000
    for group in (found["idle_month"], found["answers"], found["knowledge_base"]["answers"]):
        assert group["usd"] == pytest.approx(sum(line["usd"] for line in group["lines"]))
    expected = found["idle_month"]["usd"] + 5 * found["answers"]["usd"] + found["metrics_month"]["usd"]
    assert found["month_usd"] == pytest.approx(expected)
    by_kind = found["idle_month_by_opensearch"]
    assert by_kind["domain, 1 x t3.small.search"] == pytest.approx(found["idle_month"]["usd"])
    assert by_kind["existing"] < by_kind["domain, 1 x t3.small.search"] < by_kind["serverless"]


def test_the_table_of_prices_is_printed_with_its_date(run):
    code, out, _ = run("cost", "--prices", "--json")
    found = json.loads(out)
    assert (code, found["region"], found["as_of"]) == (0, "us-east-1", prices.AS_OF)
    assert found["prices"]["kms key"]["usd"] == 1.0


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--instance", "x9.huge.search"), "--instance-hour"),
        (("--seconds", "-1"), "'-1' is not a number from 0 to 900"),
        (("--seconds", "nan"), "'nan' is not a number"),
        (("--answers", "1.5"), "'1.5' is not a whole number"),
        (("--opensearch", "none"), "invalid choice"),
        (("--model", "gpt"), "invalid choice"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(run, argv, says):
    code, _, err = run("cost", *argv)
    assert code == 2
    assert says in err


def test_counting_makes_no_home(run, tmp_path):
    assert run("cost")[0] == 0
    assert not (tmp_path / "home").exists()


SHOWN = BLOCK.findall(PAGE.read_text("utf-8"))


def test_the_page_shows_the_command_in_its_variants():
    assert len(SHOWN) >= 4
    assert SHOWN[0][0] == "llamabda cost"


@pytest.mark.parametrize(("command", "output"), SHOWN, ids=[command for command, _ in SHOWN])
def test_the_page_shows_what_the_command_prints(run, command, output):
    code, out, _ = run(*shlex.split(command)[1:])
    assert code == 0
    assert out == output
