"""Accounts and tokens: /auth/*, and /health."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from llamabda import issuer, wiring
from llamabda.auth import Tokens
from llamabda.errors import NotFound
from llamabda.http import TEXT_TYPES, Address, Caller, create_app, routes
from llamabda.http_openapi import problems
from llamabda.http_shapes import Body, Health
from llamabda.settings import settings
from llamabda.types import Role

from .docs import CONTENT_SECURITY_POLICY, PAGE

if TYPE_CHECKING:
    from mangum import Mangum

router = routes(tags=["auth"])
page_router = APIRouter(include_in_schema=False)
document_router = APIRouter(include_in_schema=False)

OPENAPI = Path(__file__).with_name("openapi.json")  # in images
PUBLIC = {"Cache-Control": "public, max-age=300"}


class Credentials(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"username": "alice", "password": "secret123"}]})

    username: str
    password: str = Field(description="8 characters or more; any characters, no other rules.")


class Registration(Credentials):
    invite: str | None = Field(
        default=None, max_length=256, description="From an admin of the tenant that you want to join."
    )


class RefreshToken(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"refresh_token": "as /auth/login gave it"}]})

    refresh_token: str = Field(max_length=256)


class InviteRequest(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"role": "member"}]})

    role: Role = Field(default="member", description="What the one invited will be.")


class NewInvite(BaseModel):
    invite: str = Field(description="To be sent to POST /auth/register, once.")
    tenant: str
    role: Role
    expires_at: datetime


class Registered(BaseModel):
    username: str
    tenant: str = Field(description="Whose documents the user reads and writes.")


class Token(BaseModel):
    access_token: str
    token_type: Literal["bearer"]
    expires_in: int = Field(description="Seconds.")
    refresh_token: str = Field(description="For POST /auth/refresh, once: the reply has the next one.")


class Me(BaseModel):
    username: str
    tenant: str
    role: Role
    created_at: datetime


@router.get("/health")
async def health() -> Health:
    """The process is up. Not a thread is needed for this, so that it answers under any load."""
    return Health(status="ok")


@router.post("/auth/register", status_code=201, responses=problems(403, 409, 503))
def register(body: Registration) -> Registered:
    """Makes an account: with a tenant of its own, or in the tenant that the invite is for."""
    user = wiring.auth().register(body.username, body.password, invite=body.invite)
    return Registered(username=user.username, tenant=user.tenant)


@router.post("/auth/login", responses=problems(401, 429, 503))
def login(body: Credentials, address: Address) -> Token:
    """A token to send as `Authorization: Bearer <access_token>`, and one to get the next with."""
    return _token(wiring.auth().login(body.username, body.password, address=address))


@router.post("/auth/refresh", responses=problems(401, 503))
def refresh(body: RefreshToken) -> Token:
    """New tokens for a refresh token, which is used up. One that is used twice ends the session it belongs to."""
    return _token(wiring.auth().refresh(body.refresh_token))


@router.post("/auth/logout", status_code=204, responses=problems(503))
def logout(body: RefreshToken) -> None:
    """Ends the session of a refresh token, whether or not there is one. Access tokens live until they expire."""
    wiring.auth().logout(body.refresh_token)


@router.post("/auth/invites", status_code=201, responses=problems(403, 503))
def invite(body: InviteRequest, caller: Caller) -> NewInvite:
    """Lets one more person register in your tenant. Only its admins can."""
    secret, made = wiring.auth().new_invite(wiring.auth().user(caller.username), role=body.role)
    expires_at = datetime.fromtimestamp(made.expires_at, UTC)
    return NewInvite(invite=secret, tenant=made.tenant, role=made.role, expires_at=expires_at)


@router.get("/auth/me", responses=problems(503))
def me(caller: Caller) -> Me:
    """The account that the token speaks for."""
    user = wiring.auth().user(caller.username)
    return Me(username=user.username, tenant=user.tenant, role=user.role, created_at=user.created_at)


@router.get("/.well-known/openid-configuration", include_in_schema=False)
def discovery() -> JSONResponse:
    """Where the keys are that tokens are verified with (OpenID Connect Discovery 1.0, the part that gateways read)."""
    return JSONResponse(issuer.discovery(settings().token_issuer), headers=PUBLIC)


@router.get("/.well-known/jwks.json", include_in_schema=False)
def jwks() -> JSONResponse:
    """The public keys: the one that signs first, then those that will, or did for tokens that still live."""
    return JSONResponse(dict(wiring.signer().public_jwks()), headers=PUBLIC)


@page_router.get("/docs")
async def docs() -> HTMLResponse:
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})


@document_router.get("/openapi.json")
def openapi() -> Response:
    """Of all functions together, as it was written when the image was made."""
    if not OPENAPI.is_file():
        raise NotFound("this process knows its own endpoints only: the document is made with the image")
    return Response(OPENAPI.read_bytes(), media_type="application/json")


def _token(tokens: Tokens) -> Token:
    return Token(
        access_token=tokens.access,
        token_type="bearer",  # noqa: S106  # RFC 6750's name
        expires_in=tokens.expires_in,
        refresh_token=tokens.refresh,
    )


app = create_app("Llamabda auth", router, page_router, document_router)


@cache
def _lambda() -> Mangum:
    from mangum import Mangum

    return Mangum(app, lifespan="off", text_mime_types=TEXT_TYPES)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The Lambda entry."""
    return _lambda()(event, context)
