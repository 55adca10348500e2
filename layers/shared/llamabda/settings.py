"""Every setting, from the environment or a `.env` file in the working folder."""

from __future__ import annotations

import os
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from llamabda import jwks_address
from llamabda.endpoint import Endpoint
from llamabda.jwks_address import JwksAddress
from llamabda.types import Registration

# Names that other RAG services use and that mean nothing here any more, with what to use instead.
GONE = {
    "SECRET_KEY": "tokens are signed with an RSA key: SIGNING_KEY_FILE (made on first run)",
    "ALGORITHM": "tokens are always RS256",
    "LLAMA_CPP_PATH": "llama.cpp runs inside the process; set MODEL_PATH to a GGUF file",
}

OPENSEARCH_EXAMPLE = "https://search.example.org:9200"


class Settings(BaseSettings):
    """Read once at start. Names are upper case in the environment: `app_name` is `APP_NAME`."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    app_name: str = "Llamabda"
    debug: bool = False
    home: Path = Field(default=Path("~/.llamabda"), validation_alias=AliasChoices("LLAMABDA_HOME", "home"))
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)

    # accounts and tokens
    signing_key_file: Path | None = None  # default: <home>/signing-key.pem
    token_issuer: str = "https://llamabda.local"
    token_audience: str = "llamabda"
    access_token_expire_minutes: int = Field(default=60, ge=1, le=1440)
    refresh_token_expire_days: int = Field(default=30, ge=1, le=365)  # since it was last used
    registration: Registration = "open"  # who may register: everybody, whoever has an invite, nobody
    login_guesses_account: int = Field(default=10, ge=1, le=1_000_000)  # in 15 minutes
    login_guesses_address: int = Field(default=100, ge=1, le=1_000_000)  # in 15 minutes
    trusted_proxies: str = ""  # comma-separated addresses and networks whose X-Forwarded-For is believed
    cors_origins: str = ""  # comma-separated origins; empty: none

    # logs and metrics
    log_format: str = Field(default="json", pattern="^(json|text)$")
    metrics_from: str = "127.0.0.0/8, ::1/128"  # addresses and networks that may read /metrics without a token

    # models
    embed_model_name: str = "sentence-transformers/all-MiniLM-L6-v2"
    embed_backend: str = Field(default="onnx", pattern="^(onnx|sentence_transformers)$")
    rerank_model: str = ""  # a folder that holds a cross-encoder; empty: hits stay in the order of the fusion
    model_path: str = "smollm2-135m-instruct"  # a GGUF file, a name from the catalogue, or "" for none: extracts only
    n_ctx: int = Field(default=2048, ge=256, le=131072)  # tokens
    max_queue: int = Field(default=4, ge=0, le=1000)  # questions that may wait for the model
    generator_url: str = ""  # base address of an OpenAI-compatible server, which then takes the place of MODEL_PATH
    generator_model: str = ""  # as that server names it; empty: the first that it lists
    generator_api_key: SecretStr = SecretStr("")

    # the index: in LLAMABDA_HOME unless OPENSEARCH_HOST says where
    opensearch_host: str = ""  # address of an OpenSearch cluster, like https://search.example.org:9200
    opensearch_user: str = ""  # empty: requests to AWS are signed, others carry no credentials
    opensearch_pass: SecretStr = SecretStr("")
    opensearch_service: Literal["", "es", "aoss"] = ""  # empty: as the address says
    opensearch_ca_certs: Path | None = None  # a file with the certificates of a private authority
    opensearch_timeout: float = Field(default=10.0, gt=0, le=300)  # seconds for one request
    opensearch_shards: int = Field(default=1, ge=1, le=1024)
    opensearch_replicas: int = Field(default=0, ge=0, le=10)
    index_name: str = Field(default="llamabda", pattern="^[a-z0-9][a-z0-9_-]{0,99}$")
    knn_engine: Literal["faiss", "lucene"] = "faiss"
    knn_space: Literal["l2", "cosinesimil", "innerproduct"] = "l2"

    # AWS: each takes the place of what is in LLAMABDA_HOME otherwise
    users_table: str = Field(default="", pattern="^([a-zA-Z0-9_.-]{3,255})?$")  # a DynamoDB table
    catalog_table: str = Field(default="", pattern="^([a-zA-Z0-9_.-]{3,255})?$")  # another
    text_bucket: str = Field(default="", pattern="^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$")  # for extracted texts alone
    bucket: str = Field(default="", pattern="^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$")  # whose objects are documents
    queue_url: str = ""  # an SQS queue for the work; its messages come to the ingest function
    dead_letter_url: str = ""  # an SQS queue for what failed, with the reason
    kms_key_id: str = ""  # comma-separated ids, ARNs or aliases of KMS keys: the first one signs, all are published
    jwks_url: str = ""  # where tokens' keys are read from: file:, s3: or https:; empty: from this process's own signer
    aws_endpoint_url: str = ""  # in place of AWS itself, as for tests

    # limits
    rate_limit_user: int = Field(default=600, ge=0, le=1_000_000)  # requests a minute; 0: none
    rate_limit_address: int = Field(default=1_200, ge=0, le=1_000_000)  # requests a minute; 0: none
    ask_deadline_seconds: float = Field(default=25.0, gt=0, le=900)
    max_body_bytes: int = Field(default=6_000_000, ge=1_000)  # a Lambda request cannot be larger than 6 MB
    max_question_chars: int = Field(default=4_000, ge=1)

    @property
    def home_dir(self) -> Path:
        return self.home.expanduser().absolute()

    @property
    def key_file(self) -> Path:
        return (self.signing_key_file or self.home_dir / "signing-key.pem").expanduser()

    @field_validator("trusted_proxies", "metrics_from")
    @classmethod
    def _networks(cls, value: str) -> str:
        for part in _listed(value):
            ip_network(part, strict=False)  # its message names the part
        return value

    @field_validator("generator_url")
    @classmethod
    def _address(cls, value: str) -> str:
        if value.strip():
            Endpoint.parse(value.strip())
        return value.strip()

    @field_validator("opensearch_host")
    @classmethod
    def _cluster(cls, value: str) -> str:
        if value.strip():
            Endpoint.parse(value.strip(), example=OPENSEARCH_EXAMPLE)
        return value.strip()

    @field_validator("jwks_url")
    @classmethod
    def _key_set(cls, value: str) -> str:
        if value.strip():
            jwks_address.parse(value.strip())
        return value.strip()

    @field_validator("aws_endpoint_url")
    @classmethod
    def _aws(cls, value: str) -> str:
        if value.strip():
            Endpoint.parse(value.strip(), example="http://127.0.0.1:5000")
        return value.strip()

    @field_validator("opensearch_ca_certs")
    @classmethod
    def _file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.expanduser().is_file():
            raise ValueError(f"{value} is no file: name one with the authority's certificates, in PEM")
        return value

    @field_validator("generator_api_key")
    @classmethod
    def _key(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value().strip()
        if any(not "!" <= c <= "~" for c in key):
            raise ValueError("a key of printable ASCII characters without spaces")
        return SecretStr(key)

    @property
    def opensearch_endpoint(self) -> Endpoint | None:
        return Endpoint.parse(self.opensearch_host) if self.opensearch_host else None

    @property
    def key_set_address(self) -> JwksAddress | None:
        return jwks_address.parse(self.jwks_url) if self.jwks_url else None

    @property
    def kms_key_ids(self) -> tuple[str, ...]:
        return _listed(self.kms_key_id)

    @property
    def generator_endpoint(self) -> Endpoint | None:
        return Endpoint.parse(self.generator_url) if self.generator_url else None

    @property
    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(part, strict=False) for part in _listed(self.trusted_proxies))

    @property
    def metrics_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(part, strict=False) for part in _listed(self.metrics_from))

    @property
    def origins(self) -> tuple[str, ...]:
        return _listed(self.cors_origins)


def _listed(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


# what is wrong in these is told without their value
HIDDEN = frozenset(
    ("aws_endpoint_url", "generator_url", "generator_api_key", "jwks_url", "opensearch_host", "opensearch_pass")
)


@cache
def settings() -> Settings:
    """The settings of this process."""
    return Settings()


def unsafe() -> list[str]:
    """A warning for what is set and puts a secret at risk."""
    given = settings()
    found = []
    for name, endpoint, secret, what in (
        ("GENERATOR_URL", given.generator_endpoint, given.generator_api_key, "GENERATOR_API_KEY and every question"),
        ("OPENSEARCH_HOST", given.opensearch_endpoint, given.opensearch_pass, "OPENSEARCH_PASS and every document"),
    ):
        if endpoint and endpoint.scheme != "https" and not endpoint.is_loopback and secret.get_secret_value():
            found.append(f"{what} travel unencrypted: {name} is http and not on this machine")
    return found


def obsolete() -> list[str]:
    """A warning for each setting that is set but has no effect any more, naming what replaced it."""
    return [f"{name} is set but has no effect: {instead}" for name, instead in GONE.items() if os.environ.get(name)]
