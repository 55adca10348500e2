"""From nothing to ready: imports, models, functions and the server."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measure import OURS, Row, Samples, Unavailable, in_turns, seconds
from benchmarks.plan import Plan, own_python
from benchmarks.server import Server
from benchmarks.workers.client import Worker

RIVAL = "sentence-transformers on torch"
_APPS = ("auth", "ingest", "ask", "local")
_HEAVY = ("onnxruntime", "llama_cpp", "torch", "kreuzberg", "tokenizers")  # modules that mean a model is near
_IMPORT = (
    "import sys, time; start = time.perf_counter(); import llamabda_functions.{app}.app; "
    "taken = time.perf_counter() - start; "
    "print(taken, *sorted({{name.split('.')[0] for name in sys.modules}} & set({heavy!r})))"
)


def run(plan: Plan) -> Iterator[Row]:
    yield from _embedders(plan)
    yield from _apps(plan)
    yield from _server(plan)


def _embedders(plan: Plan) -> list[Row]:
    plan.say("start: importing and loading the embedders, each time in a new process")
    modules = {OURS: (own_python(), "onnx_embedder", plan.embedder_folder)}
    if plan.rival_python is not None:
        modules[RIVAL] = (plan.rival_python, "torch_embedder", plan.published_folder)
    stages: dict[str, dict[str, list[float]]] = {"import": {}, "load": {}}

    def contender(name: str) -> Callable[[], float]:
        python, module, folder = modules[name]

        def work() -> float:
            with Worker(python, module, threads=plan.threads) as worker:
                taken = worker.call("load", folder=str(folder), threads=plan.threads)
            for stage, found in stages.items():
                found.setdefault(name, []).append(taken[stage])
            return float(sum(taken.values()))

        return work

    contenders = {name: contender(name) for name in modules}
    for work in contenders.values():
        work()  # the files are read once, so that every counted round finds them in memory
    for found in stages.values():
        found.clear()
    whole = in_turns(contenders, plan.rounds)
    imported, loaded = ({name: tuple(values) for name, values in stages[stage].items()} for stage in ("import", "load"))
    return [
        _row("importing the embedder's libraries", "s", imported),
        _row("loading the embedding model", "s", loaded),
        _row("import, model and first vector", "s", whole, note="files already in memory"),
    ]


def _row(what: str, unit: str, found: dict[str, tuple[float, ...]], *, note: str = "") -> Row:
    return Row("start", what, unit, Samples(OURS, found[OURS]), (Samples(RIVAL, found.get(RIVAL, ())),), note=note)


def _apps(plan: Plan) -> list[Row]:
    plan.say("start: importing each function's app")
    heavy: dict[str, str] = {}

    def contender(app: str) -> Callable[[], float]:
        code = _IMPORT.format(app=app, heavy=_HEAVY)

        def work() -> float:
            with tempfile.TemporaryDirectory() as folder:  # no .env of anybody's
                done = subprocess.run(
                    [str(own_python()), "-c", code], capture_output=True, text=True, check=False, cwd=folder
                )
            if done.returncode:
                raise Unavailable(f"the {app} app cannot be imported: {done.stderr.strip().splitlines()[-1]}")
            taken, *loaded = done.stdout.split()
            heavy[app] = f"loads {', '.join(loaded)}" if loaded else "loads no model library"
            return float(taken)

        return work

    contenders = {app: contender(app) for app in _APPS}
    for work in contenders.values():
        work()
    found = in_turns(contenders, plan.rounds)
    return [
        Row("start", f"import functions/{app}/app.py", "s", Samples(OURS, found[app]), aim="<= 1 s", note=heavy[app])
        for app in _APPS
    ]


def _server(plan: Plan) -> list[Row]:
    plan.say("start: starting the server")
    live, ready = [], []
    for _ in range(plan.rounds):
        with tempfile.TemporaryDirectory(prefix="llamabda-bench-") as home:
            environment = os.environ | {"LLAMABDA_HOME": str(Path(home) / "home")}
            with Server(environment, folder=Path(home)) as server:
                live.append(seconds(lambda: server.wait_for("/health", 60)))
                ready.append(live[-1] + seconds(server.wait_until_ready))
    return [
        Row("start", "server: until /health answers", "s", Samples(OURS, tuple(live)), aim="<= 1.5 s"),
        Row(
            "start",
            "server: until everything is loaded",
            "s",
            Samples(OURS, tuple(ready)),
            note="embedder and language model, as /health/ready tells it; an empty home",
        ),
    ]
