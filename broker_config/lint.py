"""What is wrong with a mosquitto.conf, read as text; pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from fieldfold.findings import Finding

FEW_QUEUED = 10_000
"""Below it chunks of a few updates at a time may be dropped for an aggregator that is away."""

_LISTENER_NEEDS = {
    "require_certificate": ("true", "somebody without a certificate could connect"),
    "use_identity_as_username": ("true", "a client could choose its own name"),
}
_SAYS_WHO = re.compile(r"^log_type[ \t]+(notice|all)\b", re.MULTILINE)
_OLD_TLS = frozenset({"tlsv1", "tlsv1.0", "tlsv1.1"})


def lint(text: str) -> Iterator[Finding]:
    """Each setting that opens the broker, or loses what a fleet sends."""
    blocks = _blocks(text)
    if not any("listener" in block for block in blocks):
        yield Finding("WRONG", "mosquitto.conf has no listener", "write one: listener 8883")
    settings = {key: value for block in blocks for key, value in block.items()}
    if settings.get("allow_anonymous", "false") != "false":
        yield Finding("WRONG", "allow_anonymous is not false: anybody may connect", "write: allow_anonymous false")
    if "acl_file" not in settings:
        yield Finding("WRONG", "acl_file is missing: everybody may say everything", "name the file acl beside it")
    for block in blocks[1:]:
        yield from _listener(block) if "listener" in block else _bridge(block)
    if settings.get("persistence") != "true":
        yield Finding(
            "note", "persistence is not true: a restart loses the released model", "write: persistence true"
        )
    if "persistent_client_expiration" in settings:
        yield Finding(
            "WRONG",
            "persistent_client_expiration: Mosquitto 2.0 may crash when it reads its rules again",
            "take the line out",
        )
    queued = settings.get("max_queued_messages", "1000")
    if not queued.isdecimal() or 0 < int(queued) < FEW_QUEUED:
        yield Finding("note", "max_queued_messages is low: chunks may be dropped silently", "write 100000")
    if settings.get("log_dest", "stderr") != "stderr" or not _SAYS_WHO.search(text):
        yield Finding(
            "WRONG",
            "the log does not say on stderr who connects, so a revoked session is not ended",
            "write: log_dest stderr, and log_type notice",
        )


def _listener(block: dict[str, str]) -> Iterator[Finding]:
    where = f"listener {block['listener']}"
    if block.get("protocol") == "websockets":
        yield Finding(
            "WRONG",
            f"{where}: websockets: Mosquitto 2.0 crashes on them when it has read its rules again",
            "take the listener out",
        )
    if "certfile" not in block:
        if not _is_loopback(block["listener"]):
            yield Finding(
                "WRONG", f"{where}: no TLS", "give it cafile, crlfile, certfile and keyfile, or take it away"
            )
        return
    for key, (wanted, why) in _LISTENER_NEEDS.items():
        if block.get(key) != wanted:
            yield Finding("WRONG", f"{where}: {key} is not {wanted}: {why}", f"write: {key} {wanted}")
    if "crlfile" not in block:
        yield Finding(
            "WRONG", f"{where}: no crlfile: whoever was revoked comes back", "fieldfold broker init names it"
        )
    if block.get("tls_version", "tlsv1.2") in _OLD_TLS:
        yield Finding("WRONG", f"{where}: tls_version allows old TLS", "write: tls_version tlsv1.2")


def _bridge(block: dict[str, str]) -> Iterator[Finding]:
    where = f"connection {block['connection']}"
    for key in ("bridge_cafile", "bridge_certfile", "bridge_keyfile"):
        if key not in block:
            yield Finding(
                "WRONG", f"{where}: no {key}: the centre is not asked who it is, or does not ask", f"name {key}"
            )
    if block.get("bridge_insecure", "false") != "false":
        yield Finding("WRONG", f"{where}: bridge_insecure: any name will do for the centre", "take the line out")
    if block.get("cleansession", "false") != "false":
        yield Finding(
            "note", f"{where}: cleansession: an outage loses what was on its way", "write: cleansession false"
        )


def _blocks(text: str) -> list[dict[str, str]]:
    """The general settings, then those of each listener and bridge, which begin with its line."""
    blocks: list[dict[str, str]] = [{}]
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        if not key or key.startswith("#"):
            continue
        if key in {"listener", "connection"}:
            blocks.append({})
        blocks[-1][key] = value.strip()
    return blocks


def _is_loopback(listener: str) -> bool:
    _, _, address = listener.partition(" ")
    try:
        return ipaddress.ip_address(address.strip()).is_loopback
    except ValueError:
        return address.strip() == "localhost"
