"""`llamabda models ...`"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from llamabda import exported, models, wiring_models
from llamabda.catalogue import CATALOGUE
from llamabda.cpu import available_cpus
from llamabda.errors import Conflict, InvalidInput, NotFound
from llamabda.settings import settings

if TYPE_CHECKING:
    from llamabda.cli.console import Console

State = Literal["ready", "not fetched", "ready, original changed"]


@dataclass(frozen=True, slots=True)
class Row:
    """A model as it is listed."""

    kind: Literal["embedder", "generator"]
    name: str
    origin: Literal["catalogue", "exported"]
    languages: tuple[str, ...]  # ISO 639; empty: not known
    licence: str  # SPDX; "": not known
    download_size: int | None  # bytes over the network; None: nothing to download
    state: State
    configured: bool


def list_models(_arguments: Namespace, console: Console) -> int:
    rows = [*_catalogue(), *_exported()]
    if console.json:
        console.data({"models": [asdict(row) for row in rows]})
        return 0
    table = [("", "kind", "name", "languages", "licence", "download", "state")]
    table += [
        (
            "*" if row.configured else "",
            row.kind,
            row.name,
            " ".join(row.languages) or "?",
            row.licence or "?",
            "-" if row.download_size is None else f"{row.download_size / 1e6:.0f} MB",
            row.state if row.origin == "catalogue" else f"{row.state} (exported)",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        console.result("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    console.note("* is what EMBED_MODEL_NAME and MODEL_PATH say")
    return 0


def get(arguments: Namespace, console: Console) -> int:
    """NotFound for what is neither in the catalogue nor exported."""
    name = arguments.name
    if name not in CATALOGUE and exported.find(name, wiring_models.models_dir()) is None:
        raise NotFound(
            f"there is no model {name[:200]!r} in the catalogue, which has {', '.join(sorted(CATALOGUE))}; "
            "`llamabda models export` brings in any other sentence-transformers model"
        )
    path = wiring_models.prepare_model(name, console.progress)
    kind = CATALOGUE[name].kind if name in CATALOGUE else "embedder"
    if console.json:
        console.data({"name": name, "kind": kind, "path": str(path)})
    else:
        console.result(f"{name} is ready in {path}")
        console.note(f"next: {'EMBED_MODEL_NAME' if kind == 'embedder' else 'MODEL_PATH'}={name}")
    return 0


def export_model(arguments: Namespace, console: Console) -> int:
    from llamabda.export import Wishes, export

    name = _checked_name(arguments.model, arguments.name)
    source = _source(arguments.model, name, console)
    replaced = exported.find(name, wiring_models.models_dir())
    made = export(
        source,
        name=name,
        cache=wiring_models.models_dir(),
        threads=available_cpus(),
        wishes=Wishes(
            precision=arguments.precision,
            background=arguments.background,
            query_prompt=arguments.query_prompt,
            document_prompt=arguments.document_prompt,
            max_tokens=arguments.max_tokens,
            languages=arguments.languages,
            licence=arguments.licence,
        ),
        say=console.note,
    )
    for note in made.notes:
        console.note(f"note: {note}")
    if console.json:
        console.data({**made.about, "path": str(made.folder), "notes": list(made.notes)})
        return 0
    for label, value in _lines(made.about):
        console.result(f"{label:<12}  {value}")
    console.result(f"{'folder':<12}  {made.folder}")
    console.note(f"next: EMBED_MODEL_NAME={name}, then `llamabda reindex`")
    if replaced is not None and replaced.about.get("fingerprint") != made.about["fingerprint"]:
        console.note(
            f"{name} is another model now: where documents were indexed with the former one, a server that starts from "
            "now on answers nothing until `llamabda reindex` has run"
        )
    return 0


def _catalogue() -> list[Row]:
    return [
        Row(
            kind=entry.kind,
            name=entry.name,
            origin="catalogue",
            languages=entry.languages,
            licence=entry.licence,
            download_size=entry.download_size or entry.size,
            state="ready" if models.cached(entry, wiring_models.models_dir()) else "not fetched",
            configured=entry.name in (settings().embed_model_name, settings().model_path),
        )
        for entry in CATALOGUE.values()
    ]


def _exported() -> list[Row]:
    configured = None
    if settings().embed_model_name not in CATALOGUE:
        configured = exported.find(settings().embed_model_name, wiring_models.models_dir())
    return [
        Row(
            kind="embedder",
            name=one.name,
            origin="exported",
            languages=tuple(one.about.get("languages", ())),
            licence=one.about.get("licence", ""),
            download_size=None,
            state="ready, original changed" if one.outdated else "ready",
            configured=configured is not None and one.folder == configured.folder,
        )
        for one in exported.every(wiring_models.models_dir())
    ]


def _checked_name(model: str, wanted: str | None) -> str:
    """What the export shall be called. Under a name of the catalogue it could never be found."""
    folder = exported.local_path(model)
    name = (folder.resolve().name if folder.is_dir() else model) if wanted is None else wanted.strip()
    if not name:
        raise InvalidInput("--name is empty", loc=("name",))
    if name in CATALOGUE:
        raise InvalidInput(
            f"{name} is in the catalogue, ready made: `llamabda models get {name}`; to export all the same, give "
            "another --name",
            loc=("name",),
        )
    return name


def _source(model: str, name: str, console: Console) -> str:
    """The folder or the hub's name. Conflict when the name stands for an export of another model already."""
    from llamabda.export import require_packages

    if model in CATALOGUE:
        require_packages()  # before anything is fetched for nothing
        path = models.fetch(model, cache=wiring_models.models_dir(), progress=console.progress, prepared=False)
    else:
        path = exported.local_path(model)
    source = str(path) if path.is_dir() else model
    known = exported.find(name, wiring_models.models_dir())
    if known is not None and known.name == name and not known.is_of(source):
        raise Conflict(f"{name} is already the name of an export of {known.of}; give this one another --name")
    return source


def _lines(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    agreement = about["agreement"]
    prompts = about["prompts"]
    return [
        ("name", about["name"]),
        ("dimension", str(about["dim"])),
        ("max tokens", str(about["max_tokens"])),
        ("prompts", f"query {prompts['query']!r}, document {prompts['document']!r}"),
        ("languages", ", ".join(about["languages"]) or "not known"),
        ("licence", about["licence"] or "not known"),
        ("precision", about["precision"]),
        (
            "agreement",
            f"cosine to the original {agreement['mean']:.4f} on average, {agreement['least']:.4f} at least "
            f"({agreement['texts']} texts); order of similarities {agreement['order']:.4f}, "
            f"same nearest texts {agreement['neighbours']:.0%}",
        ),
        ("background", f"{about['background']:.3f}"),
        ("fingerprint", about["fingerprint"]),
    ]
