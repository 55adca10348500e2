"""What stands around the issuer's function: CloudFront before the bucket, CloudFormation that waits, their clock."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from llamabda_functions.auth import issuer as function

from llamabda import exchange, issuer, logs, publication
from llamabda.settings import settings
from tests.aws import REGION, Aws

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": REGION}
BUCKET = "issuer-of-the-tests"
SECRET = "never-shown-signature"
TIMEOUT = 300  # seconds that the function has
START = 1_800_000_000


@dataclass
class Clock:
    """Nobody waits in earnest: sleeping moves it."""

    now: float = START
    left: float = TIMEOUT
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.left -= seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(self.left * 1_000)


@dataclass
class Stage:
    """`shown`: what the public address answers to a path, None for what the bucket holds. `statuses`: of the next
    answers to an answer."""

    aws: Aws
    address: str = ""
    bucket: str = BUCKET
    clock: Clock = field(default_factory=Clock)
    shown: Callable[[str], tuple[int, bytes] | None] = lambda path: None
    asked: list[str] = field(default_factory=list)
    answers: list[dict] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    former: dict = field(default_factory=dict)
    seconds: float = TIMEOUT

    def key(self) -> str:
        return self.aws.client("kms").create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]

    def event(self, kind: str, **changed: object) -> dict:
        return {
            "RequestType": kind,
            "ResponseURL": f"{self.address}/stack%7C1?X-Amz-Algorithm=AWS4&X-Amz-Signature={SECRET}",
            "StackId": "arn:aws:cloudformation:eu-west-1:123456789012:stack/llamabda/guid",
            "RequestId": f"request-{len(self.answers)}",
            "ResourceType": "Custom::Issuer",
            "LogicalResourceId": "Issuer",
            **({} if kind == "Create" else {"PhysicalResourceId": f"issuer-{self.bucket}"}),
            **changed,
        }

    def properties(self, *keys: str, **changed: object) -> dict:
        given = {"ServiceToken": "arn", "Bucket": self.bucket, "Address": self.address, "KeyIds": ",".join(keys)}
        return {name: value for name, value in (given | changed).items() if value is not None}

    def call(self, event: dict) -> dict:
        """What CloudFormation is told. An invocation has its time anew."""
        self.clock.left = self.seconds
        function.handled(event, self.clock, clock=self.clock, sleep=self.clock.sleep)
        return self.answers[-1]

    def deploy(self, *keys: str, **changed: object) -> dict:
        """As a stack does: the first time, and then from what was before, which comes back after a failure."""
        properties = self.properties(*keys, **changed)
        if not self.former:
            answer = self.call(self.event("Create", ResourceProperties=properties))
        else:
            event = self.event("Update", ResourceProperties=properties, OldResourceProperties=self.former)
            answer = self.call(event)
        if answer["Status"] == "SUCCESS":
            self.former = properties
        return answer

    def roll_back(self, *failed: str, **changed: object) -> dict:
        """What a stack does after something else of the deployment to `failed` has failed."""
        old = self.properties(*failed, **changed)
        return self.call(self.event("Update", ResourceProperties=self.former, OldResourceProperties=old))

    def objects(self) -> dict[str, bytes]:
        client = self.aws.client("s3")
        names = [one["Key"] for one in client.list_objects_v2(Bucket=self.bucket).get("Contents", [])]
        return {name: client.get_object(Bucket=self.bucket, Key=name)["Body"].read() for name in names}

    def documents(self) -> tuple[bytes, bytes]:
        """Discovery document and key set, as they lie in the bucket."""
        found = self.objects()
        return found[issuer.DISCOVERY_PATH], found[issuer.JWKS_PATH]

    def kids(self) -> list[str]:
        return [key["kid"] for key in json.loads(self.documents()[1])["keys"]]


def prepare(patch: pytest.MonkeyPatch, aws: Aws, certificate: Path) -> None:
    """The function's process: whom it trusts, where its AWS is, and time enough on a machine that has much to do."""
    for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": aws.endpoint, "SSL_CERT_FILE": str(certificate)}).items():
        patch.setenv(name, value)
    settings.cache_clear()
    patch.setattr(logs, "configure", lambda style, *, debug: None)  # it takes the handlers of all logs away
    for module, name in ((exchange, "CONNECT_SECONDS"), (exchange, "READ_SECONDS"), (publication, "FETCH_SECONDS")):
        patch.setattr(module, name, 30.0)


@contextmanager
def staged(aws: Aws, certificate: Path) -> Iterator[Stage]:
    """After `prepare`."""
    client = aws.client("s3")
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    stage = Stage(aws)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            stage.asked.append(self.path)
            status, content = stage.shown(self.path) or _object(self.path)
            self._reply(status, content)

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            status = stage.statuses.pop(0) if stage.statuses else 200
            if status == 200:
                assert f"X-Amz-Signature={SECRET}" in self.path
                assert len(content) <= 4_096
                stage.answers.append(json.loads(content))
                stage.headers.append(dict(self.headers))
            self._reply(status, b"")

        def _reply(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    def _object(path: str) -> tuple[int, bytes]:
        try:
            return 200, client.get_object(Bucket=stage.bucket, Key=path.lstrip("/"))["Body"].read()
        except ClientError:
            return 403, b"<Error><Code>AccessDenied</Code></Error>"

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    stage.address = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stage
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
