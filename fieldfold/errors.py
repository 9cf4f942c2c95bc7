"""The one exception tree.

FieldfoldError
├── ConfigError       a configuration file, key or value
├── DataError         sensor files, columns, windows
├── BundleError       a task bundle that cannot be read, trusted or reproduced here
├── CompileError      a task file that cannot be turned into a bundle
├── CodecError        a payload that does not decode, a delta that must not be encoded
├── WireError         a message that breaks the wire format or one of its limits
│   └── SignatureError a message that is not from whom it says, or was said before
├── LinkError         the broker: reachability, certificates, permissions
│   └── LinkDownError nothing can be sent at this moment; what was to be sent is still the caller's
├── StoreError        a database on disk: locked, full, of a newer program
│   └── StoreDamagedError what is in it cannot be trusted any more
├── ControlError      the control socket: nobody there, not permitted, a command refused
└── LeaseError        another aggregator keeps the federation
"""

from __future__ import annotations


class FieldfoldError(Exception):
    """Something a person can act on.

    Args:
        reason: one line saying what is wrong and where.
        hint: one line saying what to do about it; may be empty when the reason says it.
    """

    exit_code = 1

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.reason}; {self.hint}" if self.hint else self.reason


class ConfigError(FieldfoldError):
    """A configuration file that cannot be used as it stands."""

    exit_code = 2


class DataError(FieldfoldError):
    """Sensor data that is missing, unreadable or not what the task needs."""

    exit_code = 3


class BundleError(FieldfoldError):
    """A task bundle that is damaged, hostile or not reproducible on this machine."""

    exit_code = 4


class CompileError(FieldfoldError):
    """A task file that cannot be compiled into a bundle."""

    exit_code = 4


class CodecError(FieldfoldError):
    """A payload or a delta that the codec refuses."""


class WireError(FieldfoldError):
    """A message that breaks the wire format or exceeds one of its limits."""


class SignatureError(WireError):
    """A message that is not what its sender has said, or not the newest of it."""


class LinkError(FieldfoldError):
    """The MQTT session cannot do what was asked."""

    exit_code = 5


class LinkDownError(LinkError):
    """The session is not connected; nothing was sent and nothing is lost."""


class StoreError(FieldfoldError):
    """A database on disk that cannot be read or written."""

    exit_code = 6


class StoreDamagedError(StoreError):
    """A database whose content cannot be what was written."""


class ControlError(FieldfoldError):
    """A control socket that nobody answers, or a command that was refused."""

    exit_code = 7


class LeaseError(FieldfoldError):
    """Another aggregator keeps the federation, and this one must not."""

    exit_code = 8
