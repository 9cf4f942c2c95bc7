"""Which topics a subscription covers (MQTT 5, section 4.7); used by the in-memory broker and to check filters."""

from __future__ import annotations

from fieldfold.errors import LinkError

MAX_TOPIC_BYTES = 256


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a message on `topic` belongs to a subscription to `topic_filter`.

    `+` stands for one level, a last `#` for any number including none; neither opens topics that begin with `$`.
    """
    wanted, given = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in {"+", "#"}:
        return False
    if wanted[-1] == "#":
        wanted = wanted[:-1]
        if len(given) < len(wanted):
            return False
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(w in {"+", g} for w, g in zip(wanted, given, strict=True))


def check_filter(topic_filter: str) -> None:
    """Raises LinkError for a filter that no broker takes."""
    levels = topic_filter.split("/")
    misplaced = any(len(level) > 1 and ("+" in level or "#" in level) for level in levels)
    if not _is_plain(topic_filter) or misplaced or "#" in levels[:-1]:
        raise LinkError(f"{topic_filter!r} is not a topic filter", "use + for one level and # only at the end")


def check_topic(topic: str) -> None:
    """Raises LinkError for a topic that cannot be published to, or is longer than every broker takes."""
    if not _is_plain(topic) or "+" in topic or "#" in topic:
        raise LinkError(
            f"{topic!r} is not a topic to publish to", f"use at most {MAX_TOPIC_BYTES} bytes and no wildcards"
        )


def _is_plain(text: str) -> bool:
    try:
        size_bytes = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return False
    return 0 < size_bytes <= MAX_TOPIC_BYTES and "\0" not in text
