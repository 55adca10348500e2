"""What the Dockerfile says of the images that the template names."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Stage:
    """`begins_with`: another stage or an image; `copied`: paths of the build context; `stages`: where else from."""

    begins_with: str
    command: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)


def stages(path: Path) -> dict[str, Stage]:
    """By name."""
    text = path.read_text("utf-8").replace("\\\n", " ")
    found: dict[str, Stage] = {}
    current = Stage("")
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            current = found[name.strip() or image] = Stage(image.strip())
        elif word == "CMD":
            current.command = json.loads(rest)
        elif word == "COPY":
            parts = [part for part in rest.split() if not part.startswith("--")]
            if origin := re.search(r"--from=(\S+)", rest):
                current.stages.append(origin[1])
            else:
                current.copied += parts[:-1]
    return found


def missing(path: Path) -> list[str]:
    """Paths that are copied and not there, and stages that are named and not defined."""
    found, folder = stages(path), path.parent
    problems = []
    for name, stage in found.items():
        known = {one for one in found if one != name}
        problems += [f"{name}: no stage {one}" for one in stage.stages if one not in known]
        if stage.begins_with not in known and "$" not in stage.begins_with:
            problems.append(f"{name}: no stage {stage.begins_with}")
        # with a star it may be that there is none
        problems += [f"{name}: no {one}" for one in stage.copied if "*" not in one and not (folder / one).exists()]
    return problems
