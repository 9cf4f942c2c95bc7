"""Whether a port can be had, asked before a broker is started that would only die of it."""

from __future__ import annotations

import errno
import socket

from fieldfold.errors import LinkError


def require_free(port: int, address: str, remedy: str) -> None:
    """Returns when `port` can be bound on `address` (empty: on every address of this machine).

    Raises:
        LinkError: it is taken, needs more rights, or the address is not this machine's; the hint is `remedy`.
    """
    where = f"port {port} on {address or 'this machine'}"
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except socket.gaierror as error:
        raise LinkError(f"{address} cannot be listened on: {error.strerror}", remedy) from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise LinkError(f"{where} is in use by another program", remedy) from None
        raise LinkError(f"{where} cannot be listened on: {error.strerror}", remedy) from None


def is_listening(port: int, address: str) -> bool:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection((address, port), timeout=1.0).close()
    except OSError:
        return False
    return True
