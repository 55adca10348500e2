"""Whether ports are free, before anything slow or anything of somebody else's is touched."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping

from scripts.local.engine import StackError


def check(ports: Mapping[str, int], removal: str) -> None:
    """StackError when one cannot be listened at on this machine. `ports`: by the variable that sets each. `removal`:
    the command that ends what a stack has left that was killed."""
    names: dict[int, str] = {}
    for name, port in ports.items():
        other = f"`{name}={port + 100} make local`"
        if not 0 < port < 65536:
            raise StackError(f"{name}={port} is no port: 1 to 65535")
        if port in names:
            raise StackError(f"{names[port]} and {name} are both {port}: set one of them to another, like {other}")
        names[port] = name
        with socket.socket() as probe:
            # as servers do: connections that have just ended are no hindrance
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as exc:
                if exc.errno != errno.EADDRINUSE:
                    raise StackError(f"port {port} cannot be had ({exc.strerror}): set {name}, like {other}") from exc
                raise StackError(
                    f"port {port} is taken (by another stack?): set {name}, like {other}; "
                    f"`{removal}` ends what is left of a stack that was killed"
                ) from exc
