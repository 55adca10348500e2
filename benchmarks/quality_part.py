"""Retrieval and answer quality, as `benchmarks.quality` finds it, in a process and a home of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import tempfile

from benchmarks.measure import Section, Unavailable
from benchmarks.plan import ROOT, Plan, own_python


def run(plan: Plan) -> list[Section]:
    if importlib.util.find_spec("benchmarks.quality") is None:
        raise Unavailable("benchmarks/quality.py is not there")
    plan.say("quality: retrieval and answers over the evaluation data; takes minutes")
    command = [str(own_python()), "-m", "benchmarks.quality", *(["--quick"] if plan.quick else [])]
    with tempfile.TemporaryDirectory(prefix="llamabda-bench-") as home:
        environment = os.environ | {"LLAMABDA_HOME": home}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment, check=False)
    if done.returncode:
        raise Unavailable(f"benchmarks.quality ended with {done.returncode}; its messages stand above")
    return [Section("quality", done.stdout)]
