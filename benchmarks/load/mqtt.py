"""As much of an MQTT 3.1.1 client as a node needs, so small that one process holds thousands: asyncio, no thread."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90, 0xC0
QOS_1 = 0x02
_TWO = struct.Struct(">H")


class Session(asyncio.Protocol):
    """One connection. `on_message(topic, payload)` is called with all that comes, which is acknowledged after it."""

    def __init__(self, client_id: str, on_message: Callable[[str, bytes], None], keepalive_s: int = 120) -> None:
        self._client_id, self._on_message, self._keepalive_s = client_id, on_message, keepalive_s
        self._buffer = bytearray()
        self._identifier = 0
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._transport: asyncio.Transport | None = None
        self._up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gone = asyncio.Event()
        self.unacknowledged = 0
        self.lost = False

    # -- asyncio's callbacks -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends CONNECT with a clean session."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what create_connection gives
        self._transport = transport
        transport.write(
            _packet(CONNECT, _text("MQTT") + b"\x04\x02" + _TWO.pack(self._keepalive_s) + _text(self._client_id))
        )

    def data_received(self, data: bytes) -> None:
        """Takes the whole packets off what has come."""
        self._buffer += data
        offset = 0
        while (packet := _take(self._buffer, offset)) is not None:
            kind, start, offset = packet
            self._react(kind, bytes(self._buffer[start:offset]))
        del self._buffer[:offset]

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells whoever waits."""
        self.lost = True
        self._gone.set()
        for future in (self._up, *self._waiting.values()):
            if not future.done():
                future.set_exception(ConnectionError(f"{self._client_id}: the broker hung up: {exc}"))

    # -- what a node does --------------------------------------------------------------------------------------------

    async def open(self, *filters: tuple[str, int]) -> None:
        """Waits for CONNACK, and subscribes to (filter, QoS)."""
        await self._up
        for topic_filter, qos in filters:
            identifier, done = self._expect()
            self._send(_packet(SUBSCRIBE, _TWO.pack(identifier) + _text(topic_filter) + bytes([qos])))
            await done

    def publish(self, topic: str, payload: bytes) -> None:
        """Sends with QoS 1; `unacknowledged` falls again when the broker has it."""
        self._identifier = self._identifier % 0xFFFF + 1
        self.unacknowledged += 1
        self._send(_packet(PUBLISH | QOS_1, _text(topic) + _TWO.pack(self._identifier) + payload))

    def ping(self) -> None:
        """Shows that it is alive."""
        self._send(_packet(PINGREQ, b""))

    async def close(self) -> None:
        """Hangs up."""
        if self._transport is not None:
            self._transport.close()
            await self._gone.wait()

    # -- packets -----------------------------------------------------------------------------------------------------

    def _react(self, kind: int, body: bytes) -> None:
        match kind & 0xF0:
            case 0x20:
                self._up.set_result(None)
            case 0x30:
                self._received(kind, body)
            case 0x40:
                self.unacknowledged -= 1
            case 0x90:
                self._waiting.pop(_TWO.unpack_from(body)[0]).set_result(None)

    def _received(self, kind: int, body: bytes) -> None:
        (length,) = _TWO.unpack_from(body)
        topic, start = body[2 : 2 + length].decode(), 2 + length
        if kind & QOS_1:
            identifier, start = body[start : start + 2], start + 2
            self._send(_packet(PUBACK, identifier))
        self._on_message(topic, body[start:])

    def _expect(self) -> tuple[int, asyncio.Future[None]]:
        self._identifier = self._identifier % 0xFFFF + 1
        self._waiting[self._identifier] = asyncio.get_running_loop().create_future()
        return self._identifier, self._waiting[self._identifier]

    def _send(self, packet: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(packet)


async def connect(
    port: int, client_id: str, on_message: Callable[[str, bytes], None], *filters: tuple[str, int]
) -> Session:
    """A session with the broker on this machine, subscribed to (filter, QoS)."""
    loop = asyncio.get_running_loop()
    _, session = await loop.create_connection(lambda: Session(client_id, on_message), "127.0.0.1", port)
    await session.open(*filters)
    return session


def _text(value: str) -> bytes:
    data = value.encode()
    return _TWO.pack(len(data)) + data


def _packet(kind: int, body: bytes) -> bytes:
    length, left = bytearray(), len(body)
    while left > 0x7F:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    length.append(left)
    return bytes([kind]) + length + body


def _take(buffer: bytearray, offset: int) -> tuple[int, int, int] | None:
    """Kind, start and end of the packet at `offset`; None while it is not whole."""
    length = 0
    for place in range(4):
        if offset + 1 + place >= len(buffer):
            return None
        digit = buffer[offset + 1 + place]
        length |= (digit & 0x7F) << 7 * place
        if digit < 0x80:
            start = offset + 2 + place
            return (buffer[offset], start, start + length) if start + length <= len(buffer) else None
    raise ConnectionError("the broker sent a packet without an end")
