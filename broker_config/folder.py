"""What lies where in a broker's folder, and writing into it so that a power cut leaves no half of anything."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fieldfold.errors import ConfigError

STAGING_PREFIX = ".new-"
PRIVATE_FILE = 0o600
PUBLIC_FILE = 0o644
PRIVATE_FOLDER = 0o700


@dataclass(frozen=True)
class IdentityFiles:
    """The three files by which somebody is known to the broker; together they lie in one folder to copy."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class BrokerFolder:
    """Paths below the folder that `fieldfold broker init` writes. `root` is absolute."""

    root: Path

    @property
    def ca_certificate(self) -> Path:
        """Whom everybody trusts."""
        return self.root / "ca" / "ca.crt"

    @property
    def ca_key(self) -> Path:
        """Whoever holds it can let anybody in."""
        return self.root / "ca" / "ca.key"

    @property
    def server_certificate(self) -> Path:
        """What the broker shows to those who connect."""
        return self.root / "server" / "server.crt"

    @property
    def server_key(self) -> Path:
        """The broker's own key."""
        return self.root / "server" / "server.key"

    @property
    def identities(self) -> Path:
        """One folder for each who may connect."""
        return self.root / "identities"

    @property
    def configuration(self) -> Path:
        """Mosquitto's configuration."""
        return self.root / "mosquitto.conf"

    @property
    def aggregator_configuration(self) -> Path:
        """The configuration of the aggregator beside the broker; it names the federation."""
        return self.root / "aggregator.toml"

    @property
    def acl(self) -> Path:
        """Who may say and hear what."""
        return self.root / "acl"

    @property
    def crl(self) -> Path:
        """Whose certificates are no longer good."""
        return self.root / "crl.pem"

    @property
    def members(self) -> Path:
        """The books of who was invited and who was revoked."""
        return self.root / "members.json"

    @property
    def enrolled(self) -> Path:
        """The certificates of gateways that made their own keys."""
        return self.root / "enrolled"

    @property
    def data(self) -> Path:
        """Mosquitto's database: sessions, queues, retained messages."""
        return self.root / "data"

    @property
    def runtime(self) -> Path:
        """What is derived at each start."""
        return self.root / "run"

    def identity(self, name: str) -> IdentityFiles:
        """The files of `name`, whether they exist or not."""
        folder = self.identities / name
        return IdentityFiles(folder / "ca.crt", folder / f"{name}.crt", folder / f"{name}.key")

    @property
    def caretaker_lock(self) -> Path:
        """Held by the caretaker of the running broker."""
        return self.runtime / "caretaker"

    def enrolled_certificate(self, name: str) -> Path:
        """The certificate of a gateway that made its own key, whether it exists or not."""
        return self.enrolled / f"{name}.crt"

    def enrolled_names(self) -> list[str]:
        """Every gateway that made its own key, in alphabetical order."""
        return sorted(path.stem for path in self.enrolled.glob("*.crt"))

    def own_names(self) -> list[str]:
        """By which name a site's broker is known to the centre; none for any other."""
        return sorted(path.stem for path in self.root.glob("*.key"))

    def identity_names(self) -> list[str]:
        """Everybody who has a folder, in alphabetical order."""
        if not self.identities.is_dir():
            return []
        return sorted(entry.name for entry in self.identities.iterdir() if not entry.name.startswith("."))


def existing_folder(root: Path) -> BrokerFolder:
    """The broker's folder at `root`.

    Raises:
        ConfigError: when `fieldfold broker init` has not been there.
    """
    folder = BrokerFolder(root.absolute())
    if not folder.configuration.is_file() or not folder.server_key.is_file():
        raise ConfigError(
            f"{root}: is not a broker's folder (no mosquitto.conf or server key)", f"fieldfold broker init {root}"
        )
    return folder


@contextmanager
def opened_for_writing(root: Path) -> Iterator[BrokerFolder]:
    """Makes `root` when needed and holds it against a second `init` at the same time.

    Raises:
        ConfigError: `root` is a file, cannot be written, or holds things that are not a broker's.
    """
    folder = BrokerFolder(root.absolute())
    if any(not character.isprintable() for character in str(folder.root)):
        raise ConfigError(f"{str(root)!r}: a path in mosquitto.conf must be printable", "choose another folder")
    try:
        folder.root.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        descriptor = os.open(folder.root, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"{root}: cannot be made a broker's folder: {error.strerror}", "choose another") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _remove_leftovers(folder)
        if not folder.ca_key.is_file() and any(folder.root.iterdir()):
            raise ConfigError(
                f"{root}: holds other things and no certificate authority", "choose a new or an empty folder"
            )
        yield folder
    except OSError as error:
        raise ConfigError(f"{error.filename or root}: cannot be written: {error.strerror}") from None
    finally:
        os.close(descriptor)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A private folder to fill; it appears as `target` only when the block ends without an error."""
    target.parent.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=target.parent))
    try:
        yield staging
        staging.rename(target)
        _sync(target.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Writes a file that must not exist yet, through to the disk."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Writes a file or exchanges it for a new one; a reader sees the old or the new, nothing between."""
    with tempfile.TemporaryDirectory(prefix=STAGING_PREFIX, dir=path.parent) as staging:
        write_new(Path(staging) / path.name, content, mode)
        if os.geteuid() == 0:
            # Mosquitto runs as the folder's owner and must be able to read what root writes for it.
            owner = path.parent.stat()
            os.chown(Path(staging) / path.name, owner.st_uid, owner.st_gid, follow_symlinks=False)
        (Path(staging) / path.name).replace(path)
    _sync(path.parent)


def _remove_leftovers(folder: BrokerFolder) -> None:
    """What an `init` that was killed had not finished."""
    for parent in (folder.root, folder.server_key.parent, folder.identities, folder.enrolled):
        for stale in parent.glob(f"{STAGING_PREFIX}*"):
            shutil.rmtree(stale, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
