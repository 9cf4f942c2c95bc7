"""`fieldfold broker doctor`: the broker's folder, its rules, and the running broker, looked at in order."""

from __future__ import annotations

import fcntl
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from broker_config.certificates import PublicKey, read_certificate
from broker_config.folder import BrokerFolder, existing_folder
from broker_config.lint import lint
from broker_config.members import Members, read_members, with_members
from broker_config.mosquitto import listeners
from broker_config.renew import RENEW_WITHIN
from fieldfold.errors import ConfigError, FieldfoldError, LinkError
from fieldfold.findings import Finding, looked_at
from fieldfold.link.endpoint import resolve
from fieldfold.link.probe import answers_plain_mqtt, answers_without_certificate, connected, permitted
from fieldfold.link.session import LinkConfig
from fieldfold.wire.topics import Topics

_TRIED = Topics("doctor-tries-this")


def examine(root: Path) -> Iterator[Finding]:
    """Looks at permissions, certificates, mosquitto.conf, ACL and CRL, then at the broker itself.

    Args:
        root: the broker's folder.
    """
    try:
        folder = existing_folder(root)
        members = read_members(folder)
    except ConfigError as error:
        yield Finding("WRONG", error.reason, error.hint)
        return
    yield from _private(folder)
    yield from _certificates(folder)
    found = list(lint(folder.configuration.read_text(encoding="utf-8")))
    yield from found or [Finding("ok", f"{folder.configuration}: refuses who has no certificate")]
    if not folder.ca_key.is_file():
        yield from _site(folder)
        return
    yield looked_at(lambda: _rules(folder, members))
    yield looked_at(lambda: _revoked(folder, members))
    yield from _running(folder)


def _private(folder: BrokerFolder) -> Iterator[Finding]:
    """Private keys and the books of invitations are for their owner alone, and nobody else writes here."""
    wrong = False
    for path in sorted([*folder.root.rglob("*.key"), folder.members, folder.acl]):
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0
        if mode & 0o077:
            wrong = True
            yield Finding("WRONG", f"{path}: may be read by others (mode {mode:04o})", f"chmod 600 {path}")
    for path in (folder.root, folder.ca_key.parent, folder.identities):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o022:
            wrong = True
            yield Finding("WRONG", f"{path}: may be written by others", f"chmod 700 {path}")
    if not wrong:
        yield Finding("ok", f"{folder.root}: keys are their owner's alone")


def _certificates(folder: BrokerFolder) -> Iterator[Finding]:
    now = datetime.now(UTC)
    paths = {"(authority)": folder.ca_certificate, "(broker)": folder.server_certificate}
    paths |= {name: folder.identity(name).certificate for name in folder.identity_names()}
    paths |= {name: folder.root / f"{name}.crt" for name in folder.own_names()}
    paths |= {name: folder.enrolled_certificate(name) for name in folder.enrolled_names()}
    good = 0
    for name, path in paths.items():
        try:
            certificate = read_certificate(path)
        except ConfigError as error:
            yield Finding("WRONG", error.reason, error.hint)
            continue
        remaining = certificate.not_valid_after_utc - now
        if certificate.not_valid_before_utc > now:
            yield Finding(
                "WRONG", f"{name}: its certificate is not valid yet by this machine's clock", "set the clock"
            )
        elif remaining < RENEW_WITHIN:
            enrolled = f"its daemon asks for the next one; if it is gone: fieldfold broker invite {name} --again"
            beside = f"the caretaker renews it within a day; at once: fieldfold broker renew {folder.root}"
            if not folder.ca_key.is_file():
                beside = (
                    "at the centre: fieldfold broker renew, and fieldfold broker site; then copy the folder again"
                )
            hint = enrolled if name in folder.enrolled_names() else beside
            ends = f"ends on {certificate.not_valid_after_utc:%Y-%m-%d}" if remaining.days >= 0 else "has expired"
            yield Finding("WRONG" if remaining.days < 0 else "note", f"{name}: its certificate {ends}", hint)
        else:
            good += 1
    yield Finding("ok", f"{good} certificates are good for {RENEW_WITHIN.days} days and more")


def _rules(folder: BrokerFolder, members: Members) -> str:
    text = folder.acl.read_text(encoding="utf-8")
    if with_members(text, members) != text:
        raise ConfigError(
            f"{folder.acl}: its last part is not as the books have it", f"fieldfold broker renew {folder.root}"
        )
    for line in text.splitlines():
        if line.startswith("pattern ") and "%u" not in line and not line.startswith("pattern read fieldfold/+/"):
            raise ConfigError(f"{folder.acl}: {line!r} holds for everybody", "give it to a user, or name %u in it")
    return f"{folder.acl}: as the books have it"


def _revoked(folder: BrokerFolder, members: Members) -> str:
    try:
        crl = x509.load_pem_x509_crl(folder.crl.read_bytes())
    except (OSError, ValueError):
        raise ConfigError(f"{folder.crl}: cannot be read", f"fieldfold broker init {folder.root}") from None
    authority = read_certificate(folder.ca_certificate).public_key()
    if not isinstance(authority, PublicKey) or not crl.is_signature_valid(authority):
        raise ConfigError(f"{folder.crl}: is not the authority's", f"fieldfold broker renew {folder.root}")
    listed = {f"{entry.serial_number:x}" for entry in crl}
    if missing := [each.name for each in members.revoked if each.serial not in listed]:
        raise ConfigError(f"{folder.crl}: lacks {', '.join(missing)}", f"fieldfold broker renew {folder.root}")
    return f"{folder.crl}: {len(listed)} certificates revoked"


def _running(folder: BrokerFolder) -> Iterator[Finding]:
    found = listeners(folder.configuration.read_text(encoding="utf-8"))
    if not found:
        return
    yield looked_at(lambda: _caretaker(folder))
    url = found[0].url
    for name in ("broker", "observer"):
        files = folder.identity(name)
        config = LinkConfig(url=url, ca=str(files.ca), certificate=str(files.certificate), key=str(files.key))
        yield looked_at(lambda name=name, config=config: _may_not(name, config, folder.root))  # type: ignore[misc]
    yield from _strangers(config, folder.root)


def _site(folder: BrokerFolder) -> Iterator[Finding]:
    """A site's broker has rules that were written at the centre, and one identity, which is for the centre."""
    found = listeners(folder.configuration.read_text(encoding="utf-8"))
    for name in folder.own_names() if found else ():
        files = folder.root / f"{name}.crt", folder.root / f"{name}.key"
        config = LinkConfig(
            url=found[0].url, ca=str(folder.ca_certificate), certificate=str(files[0]), key=str(files[1])
        )
        yield from _strangers(config, folder.root)


def _strangers(config: LinkConfig, base: Path) -> Iterator[Finding]:
    try:
        endpoint = resolve(config, base)
    except FieldfoldError:
        return
    for answers, what in (
        (answers_plain_mqtt, "without TLS"),
        (answers_without_certificate, "without a certificate"),
    ):
        if answers(endpoint):
            yield Finding("WRONG", f"{endpoint} speaks with somebody {what}", "mend mosquitto.conf and restart it")
        else:
            yield Finding("ok", f"{endpoint} refuses who comes {what}")


def _may_not(name: str, config: LinkConfig, base: Path) -> str:
    """Nobody but the aggregator releases a model, and nobody but a node speaks for it."""
    forbidden = (_TRIED.live(0), _TRIED.update("press-07"), _TRIED.receipt("press-07"), _TRIED.status(name))
    with connected(config, f"fieldfold-doctor-{name}", base) as link:
        if taken := permitted(link, forbidden):
            raise LinkError(f"the broker lets {name} publish to {', '.join(taken)}", "mend the access rules")
    return f"{config.url} lets {name} in, and refuses it what is not its own"


def _caretaker(folder: BrokerFolder) -> str:
    """The caretaker holds a lock for as long as it lives."""
    try:
        with folder.caretaker_lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "the caretaker is there: invitations are answered, and who is revoked is out at once"
    except OSError:
        pass
    raise LinkError(
        "no caretaker runs beside the broker: invitations are not answered, and who is revoked stays connected",
        f"start the broker with: fieldfold broker run {folder.root}",
    )
