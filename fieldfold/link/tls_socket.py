"""A TLS socket that says afterwards why it failed.

In TLS 1.3 a client learns only with its first read that the broker refused its certificate. paho reports a lost
connection then and forgets the alert; the socket remembers it.
"""

from __future__ import annotations

import ssl


class RememberingSocket(ssl.SSLSocket):
    """Set as `SSLContext.sslsocket_class`."""

    failure: ssl.SSLError | None = None

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature is the base's
        """Closes the socket when the handshake fails; paho lets go of it open."""
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Reads as the base does; keeps the error of a connection that TLS ended."""
        try:
            return super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self.failure = error
            raise
