"""What programs that talk to this machine's stack are given of the user's environment."""

from __future__ import annotations

from collections.abc import Mapping

HERE = ("127.0.0.1", "localhost")


def cleaned(given: Mapping[str, str]) -> dict[str, str]:
    """Without any AWS_*: a profile, an endpoint or a token of the user's is for elsewhere. And with no proxy before
    this machine."""
    kept = {name: value for name, value in given.items() if not name.startswith("AWS_")}
    direct = [one.strip() for one in (kept.get("no_proxy") or kept.get("NO_PROXY") or "").split(",") if one.strip()]
    told = ",".join([*direct, *(one for one in HERE if one not in direct)])
    # some programs read one, some the other, and some stop at the first that is set
    return {**kept, "no_proxy": told, "NO_PROXY": told}
