"""What a model card (README.md with YAML in front) says about a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamabda.iso639 import codes

# cards write licences in lower case
_SPDX = {
    "apache-2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0",
    "mit": "MIT",
}


@dataclass(frozen=True, slots=True)
class Card:
    """Empty where the card says nothing: an unknown licence must not look like a known one."""

    languages: tuple[str, ...] = ()  # ISO 639
    licence: str = ""  # SPDX where there is one

    @classmethod
    def read(cls, file: Path) -> Card:
        return cls.parse(file.read_text(encoding="utf-8", errors="replace")) if file.is_file() else cls()

    @classmethod
    def parse(cls, text: str) -> Card:
        import yaml

        front = re.match(r"\A---\s*\n(.*?)\n---\s*(\n|\Z)", text, re.DOTALL)
        try:
            content = yaml.safe_load(front[1]) if front else {}
        except yaml.YAMLError:
            content = {}
        return cls.of(content if isinstance(content, dict) else {})

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Card:
        licence = str(content.get("license") or "")
        return cls(codes(content.get("language")), _SPDX.get(licence.lower(), licence))
