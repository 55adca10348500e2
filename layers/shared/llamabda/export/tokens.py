"""The model's tokenizer as a file of its own, which gives the same token ids without transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamabda.adapters.onnx import tokenizer
from llamabda.errors import ModelError

if TYPE_CHECKING:
    from llamabda.export.original import Original, Role

# Scripts, digits, joined and decomposed characters, markup, blanks, and more than fits.
SAMPLES = (
    "",
    " two  blanks\tand a line\nbreak ",
    "Don't PANIC: naïve café, coöperate — 3.14 € (50%)",
    "A universidade exige frequência mínima de 75%.",
    "Für die Prüfung gilt: übermäßig große Straße.",
    "Мы живём в большом городе.",
    "日本語の文章と漢字。中文也可以。한국어도.",
    "اللغة العربية تُكتب من اليمين",
    "हिन्दी में लिखा हुआ",
    "e\u0301 ﬁne 👩‍👩‍👧 🏳️‍🌈",
    "[CLS] <s> <|im_start|> </s> [MASK]",
    "https://example.org/a_b?c=d&e=%20 foo_bar(x) -> {y: [1, 2]}",
    "unbelievably " * 9_000,
)


def write(original: Original, file: Path) -> None:
    """ModelError when it gives other ids alone than in the model."""
    import tokenizers

    alone = tokenizers.Tokenizer.from_str(original.model.tokenizer.backend_tokenizer.to_str())
    alone.no_padding()
    alone.no_truncation()
    alone.save(str(file))
    _compare(original, tokenizer(file, max_tokens=original.max_tokens))


def _compare(original: Original, alone: Any) -> None:
    roles: tuple[tuple[Role, str], ...] = (("query", original.query_prompt), ("document", original.document_prompt))
    for role, prompt in roles:
        for text in SAMPLES:
            expected = original.features(text, role)["input_ids"][0].tolist()
            found = alone.encode(prompt + text).ids
            if found != expected:
                raise ModelError(
                    f"{original.name} cannot be exported: its tokenizer alone gives other tokens than the model does, "
                    f"for a {role} such as {text[:60]!r}: {found[:12]}, not {expected[:12]}; "
                    "EMBED_BACKEND=sentence_transformers runs it as it is"
                )
