"""`fieldfold node doctor`: everything between this gateway and its federation, looked at in order."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from fieldfold.errors import ConfigError, FieldfoldError, LinkError
from fieldfold.findings import Finding, looked_at
from fieldfold.link.endpoint import Endpoint, TlsFiles, resolve
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.probe import answers_plain_mqtt, connected, permitted
from fieldfold.trust.renewal import is_due
from fieldfold.trust.tls import check_certificate
from fieldfold.wire.topics import Topics
from node_app.config import NodeConfig, load

NOBODY = "doctor-tries-this"
"""A node name that stands for any other."""


def examine(path: Path) -> Iterator[Finding]:
    """Looks at configuration, clock, identity, data, broker and permissions; stops where the rest hangs on it.

    Args:
        path: node.toml.
    """
    try:
        config = load(path)
        endpoint = resolve(config.broker, path.absolute().parent)
    except FieldfoldError as error:
        yield Finding("WRONG", error.reason, error.hint)
        return
    base = path.absolute().parent
    yield Finding("ok", f"{path}: {config.name} of {config.federation}")
    yield looked_at(lambda: _clock(path, endpoint.tls))
    if endpoint.tls is None:
        yield Finding(
            "note", f"{config.broker.url}: no TLS and no identities", "for one machine, or a network you trust"
        )
    else:
        yield from _identity(config, endpoint.tls)
    yield looked_at(lambda: _data(config, base))
    yield looked_at(lambda: _state(config, base))
    yield from _broker(config, base, endpoint)


def _clock(path: Path, tls: TlsFiles | None) -> str:
    """A clock that woke up behind is earlier than the files that were written here."""
    now = datetime.now(UTC)
    for file in (path, tls.certificate if tls else path):
        if file.is_file() and file.stat().st_mtime > time.time() + 60:
            raise ConfigError(f"the clock says {now:%Y-%m-%d %H:%M} UTC, before {file} was written", "set the clock")
    return f"the clock says {now:%Y-%m-%d %H:%M} UTC"


def _identity(config: NodeConfig, tls: TlsFiles) -> Iterator[Finding]:
    try:
        facts = check_certificate(tls.certificate, tls.key)
    except LinkError as error:
        yield Finding("WRONG", error.reason, error.hint)
        return
    yield Finding("ok", f"{tls.key}: for its owner alone")
    expires = datetime.fromtimestamp(facts.expires_s, UTC)
    soon = is_due(facts.begins_s, facts.expires_s, time.time())
    hint = f"the daemon asks for the next one; else beside the broker: fieldfold broker invite {config.name} --again"
    yield Finding("note" if soon else "ok", f"{tls.certificate}: good until {expires:%Y-%m-%d}", hint if soon else "")
    if facts.common_name == config.name:
        yield Finding("ok", f"the certificate is for {config.name}")
    else:
        yield Finding(
            "WRONG", f"the certificate is for {facts.common_name}, and name is {config.name}", "make them one"
        )
    folder = tls.key.parent
    if stat.S_IMODE(folder.stat().st_mode) & stat.S_IWOTH:
        yield Finding("WRONG", f"{folder}: anybody may exchange the files in it", f"chmod o-w {folder}")


def _data(config: NodeConfig, base: Path) -> str:
    count = sum(1 for pattern in config.data.files for _ in base.glob(pattern)) if _relative(config) else -1
    if not count:
        raise ConfigError(f"no file matches {', '.join(config.data.files)} in {base}", "correct files under [data]")
    return f"{count} files to learn from" if count > 0 else "files to learn from are named by absolute paths"


def _relative(config: NodeConfig) -> bool:
    return not any(Path(pattern).is_absolute() for pattern in config.data.files)


def _state(config: NodeConfig, base: Path) -> str:
    folder = base / config.state_dir
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(nearest, os.W_OK):
        raise ConfigError(
            f"{nearest}: this user may not write there", "run this as the daemon's user, or set state_dir"
        )
    return f"{folder}: may be written"


def _broker(config: NodeConfig, base: Path, endpoint: Endpoint) -> Iterator[Finding]:
    client_id = f"fieldfold-{config.federation}-{config.name}-doctor"
    try:
        with connected(config.broker, client_id, base) as link:
            limits = link.limits
            yield Finding(
                "ok",
                f"{endpoint} lets us in: MQTT {limits.protocol}, messages up to {limits.message_bytes} bytes,"
                f" {limits.receive_maximum} at once",
            )
            if not limits.retain_available:
                yield Finding(
                    "WRONG", "the broker keeps no retained messages", "allow them; the model is read from them"
                )
            yield looked_at(lambda: _allowed(config, link))
            if endpoint.tls is not None:
                yield looked_at(lambda: _forbidden(config, link))
    except LinkError as error:
        yield Finding("WRONG", error.reason, error.hint)
        return
    if endpoint.tls is not None and answers_plain_mqtt(endpoint):
        yield Finding("WRONG", f"{endpoint} also speaks MQTT without TLS", "take the plain listener away")


def _allowed(config: NodeConfig, link: MqttLink) -> str:
    status = Topics(config.federation).status(config.name)
    if not permitted(link, [status]):
        raise LinkError(
            f"the broker does not let {config.name} publish its own status",
            "was it revoked? beside the broker: fieldfold broker list",
        )
    return "own topics may be written"


def _forbidden(config: NodeConfig, link: MqttLink) -> str:
    topics = Topics(config.federation)
    others = (
        topics.update(NOBODY),
        topics.status(NOBODY),
        topics.receipt(config.name),
        topics.command(NOBODY),
        topics.live(0),
        topics.aggregator_status,
    )
    if taken := permitted(link, others):
        raise LinkError(
            f"the broker lets {config.name} publish to {', '.join(taken)}", "mend the broker's access rules"
        )
    return f"what is not ours is refused ({len(others)} topics tried)"
