"""The node's certificate, renewed well before it ends while everything else goes on.

The key stays. A new certificate counts from the next connection on: the present session is not touched.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from fieldfold.errors import FieldfoldError, LinkError
from fieldfold.link.endpoint import TlsFiles
from fieldfold.trust.invitation import parse
from fieldfold.trust.renewal import RenewalAnswer, RenewalRequest, is_due
from fieldfold.trust.tls import CertificateFacts, check_certificate

log = logging.getLogger(__name__)
LOOK_EVERY_S = 3600.0
ASK_EVERY_S = 600.0
"""The broker's side may be away; there is a third of the certificate's life to find it."""


class Renewal:
    """Looks now and then whether the certificate ends, asks for the one that follows, and takes it.

    Args:
        tls: the node's files; None where it connects without TLS, and nothing is to be renewed.
        name: the node's.
        ask: sends a request.
    """

    def __init__(self, tls: TlsFiles | None, name: str, ask: Callable[[bytes], None]) -> None:
        self._tls, self._name, self._ask = tls, name, ask
        self._look_at_s = -math.inf

    def tick(self, now_s: float) -> None:
        """To be called while the link is up.

        Args:
            now_s: of a clock that only rises.
        """
        if self._tls is None or now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_EVERY_S
        try:
            facts = check_certificate(self._tls.certificate, self._tls.key)
        except LinkError as error:
            log.warning("the certificate cannot be renewed: %s", error)
            return
        if is_due(facts.begins_s, facts.expires_s, time.time()):
            self._look_at_s = now_s + ASK_EVERY_S
            log.info("the certificate ends on %s; it is to be renewed", _day(facts))
            self._ask(msgspec.json.encode(RenewalRequest(expires_s=facts.expires_s)))

    def take(self, payload: bytes) -> None:
        """Puts the certificate that came in the place of the present one.

        Raises:
            FieldfoldError: when it is not one of our authority, for our key and name, that ends later.
        """
        if self._tls is None:
            return
        answer = parse(payload, RenewalAnswer)
        present = self._tls.certificate
        staged = present.with_name(f".{present.name}.renewed")
        try:
            _write(staged, answer.certificate.encode())
            fresh = self._checked(staged, self._tls)
            if fresh.expires_s > check_certificate(present, self._tls.key).expires_s:
                staged.replace(present)
                self._look_at_s = -math.inf
                log.info("the certificate is renewed, and good until %s", _day(fresh))
        except OSError as error:
            raise LinkError(
                f"{present}: cannot be exchanged for its renewed one: {error.strerror}",
                "let the daemon's user write in that folder",
            ) from None
        finally:
            staged.unlink(missing_ok=True)

    def _checked(self, staged: Path, tls: TlsFiles) -> CertificateFacts:
        fresh = check_certificate(staged, tls.key, tls.ca)
        if fresh.common_name != self._name:
            raise FieldfoldError(f"a certificate came that is for {fresh.common_name!r}, not {self._name}")
        return fresh


def _write(path: Path, content: bytes) -> None:
    """Through to the disk."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _day(facts: CertificateFacts) -> str:
    return f"{datetime.fromtimestamp(facts.expires_s, UTC):%Y-%m-%d %H:%M} UTC"
