"""Renders one chat template and exits: run as a script, in a process of its own, by `template.py`.

A template comes with a model file that somebody published. The sandbox keeps it from reaching Python's objects, but
nothing inside a process keeps it from looping for ever or filling the memory: so it gets a process, with limits, that
knows nothing of ours (no environment, no open files) and can be ended.

stdin: a JSON object {path, template, variables, seconds, bytes, chars}; stdout: a JSON object {text} or {error}.
"""

from __future__ import annotations

import json
import resource
import sys


def main() -> None:
    request = json.load(sys.stdin)
    for limit, value in (
        (resource.RLIMIT_CPU, request["seconds"]),
        (resource.RLIMIT_AS, request["bytes"]),
        (resource.RLIMIT_FSIZE, 0),
    ):
        try:
            resource.setrlimit(limit, (value, value))
        except (OSError, ValueError):  # macOS has no limit of the address space; the clock of the parent still runs
            continue
    sys.path[:] = request["path"]
    answer = render(request["template"], request["variables"])
    if len(answer.get("text", "")) > request["chars"]:
        answer = {"error": f"it renders more than {request['chars']} characters"}
    json.dump(answer, sys.stdout)


def render(template: str, variables: dict[str, object]) -> dict[str, str]:
    from datetime import datetime

    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: object) -> None:
        raise TemplateError(str(message))

    def now(form: object) -> str:
        return datetime.now().astimezone().strftime(str(form))

    # what chat templates are written against: these two trims and these two functions
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = now
    try:
        return {"text": environment.from_string(template).render(variables)}
    except Exception as exc:  # noqa: BLE001  a template can raise anything; the answer says what
        return {"error": f"{type(exc).__name__}: {exc}"[:300]}


if __name__ == "__main__":
    main()
