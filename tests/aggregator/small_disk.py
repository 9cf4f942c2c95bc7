"""A file system of a few megabytes that can really be full."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path
from typing import Self

SIZE_BYTES = 8 << 20
PIECE_BYTES = 4096
NO_ROOM_BYTES = 4096


class SmallDisk:
    """A tmpfs in namespaces of its own, which need no privileges; a program begun `within` them finds it at `folder`.

    Where a machine does not allow that, an ordinary folder, in which the program is forbidden to let files grow.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        script = f"mount -t tmpfs -o size={SIZE_BYTES} disk '{folder}' && echo mounted && exec sleep infinity"
        self._keeper = subprocess.Popen(
            ["/usr/bin/unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._keeper.stdout is not None
        self.is_real = self._keeper.stdout.readline() == "mounted\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._keeper.kill()
        self._keeper.communicate()

    @property
    def within(self) -> tuple[str, ...]:
        """What a command begins with that is to see the disk."""
        if not self.is_real:
            return ()
        target = f"--target={self._keeper.pid}"
        return ("/usr/bin/nsenter", target, "--user", "--mount", "--preserve-credentials", f"--wd={Path.cwd()}")

    @property
    def seen(self) -> Path:
        """The folder as this program sees it."""
        return Path(f"/proc/{self._keeper.pid}/root{self.folder}") if self.is_real else self.folder

    def fill(self, pid: int) -> None:
        """Leaves no room, for the program `pid` at least."""
        if not self.is_real:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (NO_ROOM_BYTES, resource.RLIM_INFINITY))
            return
        descriptor = os.open(self.seen / "ballast", os.O_WRONLY | os.O_CREAT)
        try:
            while True:
                os.write(descriptor, bytes(PIECE_BYTES))
        except OSError:
            return
        finally:
            os.close(descriptor)

    def make_room(self, pid: int) -> None:
        """Undoes `fill`."""
        if self.is_real:
            (self.seen / "ballast").unlink()
        else:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
