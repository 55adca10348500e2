"""CloudWatch's embedded metric format, as its specification has it, and what a document's metrics are."""

from __future__ import annotations

import json

import jsonschema_rs

# the schema that AWS publishes with the specification, in our words; a metric without a resolution is of 60 seconds
UNITS = (
    *("Seconds", "Microseconds", "Milliseconds", "Bytes", "Kilobytes", "Megabytes", "Gigabytes", "Terabytes"),
    *("Bits", "Kilobits", "Megabits", "Gigabits", "Terabits", "Percent", "Count"),
    *(f"{unit}/Second" for unit in ("Bytes", "Kilobytes", "Megabytes", "Gigabytes", "Terabytes")),
    *(f"{unit}/Second" for unit in ("Bits", "Kilobits", "Megabits", "Gigabits", "Terabits", "Count")),
    "None",
)
NAME = {"type": "string", "minLength": 1, "maxLength": 1024}
SCHEMA = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "properties": {
                "Timestamp": {"type": "integer", "minimum": 10**12, "maximum": 10**13},
                "CloudWatchMetrics": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["Namespace", "Dimensions", "Metrics"],
                        "additionalProperties": False,
                        "properties": {
                            "Namespace": {**NAME, "pattern": "^[a-zA-Z0-9._#:/-]+$"},
                            "Dimensions": {
                                "type": "array",
                                "minItems": 1,
                                "items": {"type": "array", "minItems": 1, "maxItems": 30, "items": NAME},
                            },
                            "Metrics": {
                                "type": "array",
                                "maxItems": 100,
                                "items": {
                                    "type": "object",
                                    "required": ["Name"],
                                    "additionalProperties": False,
                                    "properties": {
                                        "Name": NAME,
                                        "Unit": {"enum": list(UNITS)},
                                        "StorageResolution": {"enum": [1, 60]},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        }
    },
}


def read(line: str) -> tuple[dict[str, str], dict[str, float], dict[str, object]]:
    """The dimensions, the metrics and everything else of a line that CloudWatch would take."""
    assert len(line.encode()) <= 256 * 1024
    document = json.loads(line)
    jsonschema_rs.validate(SCHEMA, document)
    (directive,) = document.pop("_aws")["CloudWatchMetrics"]
    assert directive["Namespace"] == "Llamabda"
    ((*names,),) = directive["Dimensions"]
    dimensions = {name: document.pop(name) for name in names}
    assert all(isinstance(value, str) and 0 < len(value) <= 1024 for value in dimensions.values())
    metrics = {one["Name"]: document.pop(one["Name"]) for one in directive["Metrics"]}
    assert len(metrics) == len(directive["Metrics"])
    assert all(type(value) in (int, float) for value in metrics.values())
    return dimensions, metrics, document
