"""Accounts and tokens: /auth/*, and /health."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from llamabda import wiring
from llamabda.errors import NotFound, Unauthorized
from llamabda.http import TEXT_TYPES, Caller, create_app, routes
from llamabda.http_openapi import problems
from llamabda.http_shapes import Body, Health

if TYPE_CHECKING:
    from mangum import Mangum

router = routes(tags=["auth"])


class Credentials(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"username": "alice", "password": "secret123"}]})

    username: str
    password: str = Field(description="8 characters or more; any characters, no other rules.")


class Registered(BaseModel):
    username: str
    tenant: str = Field(description="Whose documents the user reads and writes.")


class Token(BaseModel):
    access_token: str
    token_type: Literal["bearer"]
    expires_in: int = Field(description="Seconds.")


class Me(BaseModel):
    username: str
    tenant: str
    role: Literal["admin", "member"]
    created_at: datetime


@router.get("/health")
async def health() -> Health:
    """The process is up. Not a thread is needed for this, so that it answers under any load."""
    return Health(status="ok")


@router.post("/auth/register", status_code=201, responses=problems(409, 503))
def register(body: Credentials) -> Registered:
    """Makes an account with a tenant of its own."""
    user = wiring.auth().register(body.username, body.password)
    return Registered(username=user.username, tenant=user.tenant)


@router.post("/auth/login", responses=problems(401, 503))
def login(body: Credentials) -> Token:
    """A token to send as `Authorization: Bearer <access_token>`."""
    token = wiring.auth().login(body.username, body.password)
    return Token(access_token=token.value, token_type="bearer", expires_in=token.expires_in)  # noqa: S106  # RFC 6750's name


@router.get("/auth/me", responses=problems(503))
def me(caller: Caller) -> Me:
    """The account that the token speaks for."""
    try:
        user = wiring.auth().user(caller.username)
    except NotFound as exc:
        raise Unauthorized("the account of this token is gone") from exc
    if user.disabled:
        raise Unauthorized("the account of this token is disabled")
    return Me(username=user.username, tenant=user.tenant, role=user.role, created_at=user.created_at)


app = create_app("Llamabda auth", router)


@cache
def _lambda() -> Mangum:
    from mangum import Mangum

    return Mangum(app, lifespan="off", text_mime_types=TEXT_TYPES)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The Lambda entry."""
    return _lambda()(event, context)
