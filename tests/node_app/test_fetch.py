"""A retained object comes whole, whatever else lies there, and only what is missing is asked for."""

from __future__ import annotations

import random

import pytest

from fieldfold.errors import WireError
from fieldfold.wire.chunks import Assembly, cut, object_digest, short
from fieldfold.wire.messages import Chunk, unpack
from node_app.fetch import Announced, Fetch

BODY = bytes(range(256)) * 5
NEXT_BODY = BODY[::-1]


def chunks(data: bytes, chunk_bytes: int = 200) -> list[Chunk]:
    return [unpack(Chunk, message) for message in cut(data, chunk_bytes)]


def announced(data: bytes, chunk_bytes: int = 200) -> Announced:
    return Announced(object_digest(data), len(data), chunk_bytes)


def test_an_object_is_whole_with_its_last_chunk_in_any_order() -> None:
    fetch = Fetch("bundle", announced(BODY))
    *most, last = random.Random(3).sample(chunks(BODY), 7)
    assert fetch.progress == 0.0
    for chunk in (*most, most[0]):
        assert fetch.take(chunk) is None
    assert 0.5 < fetch.progress < 1.0
    assert fetch.take(last) == BODY


def test_only_what_has_not_come_is_asked_for() -> None:
    fetch = Fetch("snapshot/0", announced(BODY))
    assert fetch.missing(3) == ["snapshot/0/0", "snapshot/0/1", "snapshot/0/2"]
    for index in (0, 1, 3):
        fetch.take(chunks(BODY)[index])
    assert fetch.missing(8) == [f"snapshot/0/{index}" for index in (2, 4, 5, 6)]


def test_an_object_that_nobody_announced_is_known_by_its_first_chunk() -> None:
    fetch = Fetch("delta/7", max_bytes=2000)
    first, *rest = chunks(BODY)
    assert fetch.missing(8) == ["delta/7/0"]
    fetch.take(first)
    assert fetch.missing(8) == [f"delta/7/{index}" for index in range(1, 7)]
    assert [fetch.take(chunk) for chunk in rest][-1] == BODY


def test_what_came_another_way_is_not_asked_for() -> None:
    """Half of a delta came live, then the link was lost."""
    assembly = Assembly(chunks(BODY)[0])
    for chunk in chunks(BODY)[1:5]:
        assembly.add(chunk)
    here = {assembly.digest: assembly}
    fetch = Fetch("delta/7", max_bytes=2000, begun=here.get)
    assert fetch.take(chunks(BODY)[0]) is None
    assert fetch.missing(8) == ["delta/7/5", "delta/7/6"]
    fetch.take(chunks(BODY)[5])
    assert fetch.take(chunks(BODY)[6]) == BODY


@pytest.mark.parametrize("known", [True, False], ids=["announced", "not announced"])
def test_another_object_in_its_place_is_noticed(known: bool) -> None:  # noqa: FBT001 - a parameter of the test
    fetch = Fetch("snapshot/0", announced(BODY)) if known else Fetch("delta/7", max_bytes=2000)
    fetch.take(chunks(BODY)[0])
    assert not fetch.outdated
    assert fetch.take(chunks(NEXT_BODY)[1]) is None
    assert fetch.outdated


def test_an_object_of_another_size_or_cut_than_announced_is_noticed() -> None:
    for other in (Announced(object_digest(BODY), len(BODY) - 1, 200), announced(BODY, 300)):
        fetch = Fetch("bundle", other)
        assert fetch.take(chunks(BODY)[0]) is None
        assert fetch.outdated


def test_an_object_that_is_too_large_is_not_collected() -> None:
    with pytest.raises(WireError, match="at most 1000 are taken"):
        Fetch("delta/7", max_bytes=1000).take(chunks(BODY)[0])


def test_an_object_with_another_content_is_refused() -> None:
    fetch = Fetch("bundle", Announced(short(object_digest(BODY)).hex() + "0" * 48, len(BODY), 200))
    *most, last = chunks(BODY)
    for chunk in most:
        fetch.take(chunk)
    with pytest.raises(WireError, match="not the one that was announced"):
        fetch.take(last)
