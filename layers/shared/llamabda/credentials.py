"""What may be a username or a password, in which form they are compared, and what counts as one address. Pure."""

from __future__ import annotations

import unicodedata
from ipaddress import IPv6Address, ip_address, ip_network

from llamabda.errors import InvalidInput

MAX_USERNAME_CHARS = 64  # after normalisation
MAX_RAW_USERNAME_CHARS = 4 * MAX_USERNAME_CHARS  # composing shortens; beyond this nothing is normalised at all
USERNAME_PUNCTUATION = frozenset("._@-+")
BLANK_LETTERS = frozenset("\u115f\u1160")  # letters to Unicode, but nothing shows: names would look alike
MIN_PASSWORD_CHARS = 8  # NIST SP 800-63B; no composition rules
MAX_PASSWORD_CHARS = 1_024


def canonical_username(username: str) -> str:
    """The form in which a name is stored and compared: `Ａlice` and `ALICE` are `alice`. InvalidInput if not a name."""
    if len(username) <= MAX_RAW_USERNAME_CHARS:
        folded = unicodedata.normalize("NFKC", username).casefold()
        name = unicodedata.normalize("NFKC", folded)  # folding can leave what is not normalised
        if 0 < len(name) <= MAX_USERNAME_CHARS and all(map(_fits_username, name)):
            return name
    raise InvalidInput(
        f"username: 1 to {MAX_USERNAME_CHARS} letters, digits or {' '.join(sorted(USERNAME_PUNCTUATION))}",
        loc=("body", "username"),
        value=shown(username),
    )


def _fits_username(char: str) -> bool:
    return (char.isalnum() and char not in BLANK_LETTERS) or char in USERNAME_PUNCTUATION


def new_password(password: str) -> str:
    password = acceptable_password(password)
    if len(password) < MIN_PASSWORD_CHARS:
        raise InvalidInput(f"password: {MIN_PASSWORD_CHARS} characters or more", loc=("body", "password"))
    return password


def acceptable_password(password: str) -> str:
    """The password as it is hashed: whole, with accents composed (RFC 8265), since keyboards differ in that."""
    if len(password) > MAX_PASSWORD_CHARS:
        raise InvalidInput(f"password: at most {MAX_PASSWORD_CHARS} characters", loc=("body", "password"))
    if any("\ud800" <= char <= "\udfff" for char in password):  # not by trying: the encoder's error holds the password
        raise InvalidInput("password: has a lone surrogate, which UTF-8 cannot hold", loc=("body", "password"))
    return unicodedata.normalize("NFC", password)


def canonical_or_none(username: str) -> str | None:
    try:
        return canonical_username(username)
    except InvalidInput:
        return None


def shown(username: str) -> str:
    return username[:100].encode("utf-8", "replace").decode("utf-8")  # a lone surrogate could not be sent back


def network(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 that an IPv6 host has to itself."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:100]
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)
