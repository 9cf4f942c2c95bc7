"""`fieldfold broker export`: the same rights in the words of EMQX, HiveMQ and AWS IoT Core, no more and no less."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from broker_config.acl import standing_rules
from broker_config.cli import broker
from broker_config.export import EXPORTS
from broker_config.initialise import initialise
from broker_config.rights import AGGREGATOR, ME, NODE, OBSERVER, Role, site
from fieldfold.link.session import LinkConfig

FEDERATION = "turbofan"
ROLES = (NODE, AGGREGATOR, OBSERVER)
ARN = "arn:aws:iot:REGION:ACCOUNT:"


def topics(rights: tuple[str, ...], me: str, *, everything: str = "#") -> set[str]:
    return {f"fieldfold/{FEDERATION}/{right}".replace(ME, me).replace("#", everything) for right in rights}


def test_mosquittos_rules_hold_the_table() -> None:
    rules = set(standing_rules().splitlines())

    for right in NODE.writes:
        assert f"pattern write fieldfold/+/{right.replace(ME, '%u')}" in rules
    for role in (AGGREGATOR, OBSERVER):
        assert {f"topic write fieldfold/+/{right}" for right in role.writes} <= rules


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_emqx_allows_what_the_table_grants_and_denies_the_rest(role: Role) -> None:
    text = EXPORTS["emqx"](FEDERATION)
    who = "all" if role is NODE else f'{{username, "{role.name}"}}'
    rules = re.findall(r"^\{allow, (.*), (publish|subscribe), \[([^]]*)\]\}\.$", text, re.MULTILINE)

    granted = {action: set(re.findall(r'"([^"]+)"', listed)) for whom, action, listed in rules if whom == who}

    assert granted.get("publish", set()) == topics(role.writes, "${username}")
    assert granted["subscribe"] == topics(role.reads, "${username}")
    assert text.endswith("{deny, all}.\n")
    assert text.index("(aggregator|observer|broker)") < text.index("{allow, all,")


def test_emqx_takes_the_name_from_the_certificate_and_listens_with_tls_alone() -> None:
    settings, _, _ = EXPORTS["emqx"](FEDERATION).partition("%% --")

    for line in ("verify = verify_peer", "fail_if_no_peer_cert = true", "peer_cert_as_username = cn"):
        assert line in settings
    for listener in ("tcp", "ws", "wss"):
        assert f"listeners.{listener}.default.enable = false" in settings
    assert "no_match = deny" in settings


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_hivemqs_roles_are_the_tables(role: Role) -> None:
    tree = ET.fromstring(EXPORTS["hivemq"](FEDERATION))  # noqa: S314 - it is our own
    [found] = [each for each in tree.iterfind("roles/role") if each.findtext("id") == role.name]

    granted: dict[str | None, set[str | None]] = {"PUBLISH": set(), "SUBSCRIBE": set()}
    for permission in found.iterfind("permissions/permission"):
        granted[permission.findtext("activity")].add(permission.findtext("topic"))

    assert granted["PUBLISH"] == topics(role.writes, "${{username}}")
    assert granted["SUBSCRIBE"] == topics(role.reads, "${{username}}")
    assert role.name in {each.findtext("roles/id") for each in tree.iterfind("users/user")}


def policies(federation: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(EXPORTS["aws"](federation))["policies"]
    return found


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_awss_policies_are_the_tables(role: Role) -> None:
    me = "${iot:Certificate.Subject.CommonName}"
    granted = {
        each["Action"]: {resource.removeprefix(ARN) for resource in each["Resource"]}
        for name, policy in policies(FEDERATION).items()
        for each in policy["Statement"]
        if each["Effect"] == "Allow" and name.startswith(f"fieldfold-{FEDERATION}-{role.name}-")
    }

    def resources(kind: str, rights: tuple[str, ...], plus: str) -> set[str]:
        return {f"{kind}/{each.replace('+', plus)}" for each in topics(rights, me, everything="*")}

    assert granted.pop("iot:Publish", set()) == resources("topic", role.writes, "*")
    assert granted.pop("iot:RetainPublish", set()) == resources("topic", role.retains, "*")
    assert granted.pop("iot:Receive") == resources("topic", role.reads, "*")
    assert granted.pop("iot:Subscribe") == resources("topicfilter", role.reads, "+")
    clients = granted.pop("iot:Connect")
    assert f"client/fieldfold-{FEDERATION}-{me if role is NODE else role.name}" in clients
    assert not any("*" in each for each in clients)
    assert granted == {}
    assert set(role.retains) <= set(role.writes)


def test_awss_policies_are_as_short_as_it_takes_them() -> None:
    for each in policies("a" * 63).values():
        text = json.dumps(each).replace("REGION", "ap-southeast-1").replace("ACCOUNT", "123456789012")
        assert len("".join(text.split())) <= 2048


def test_a_site_has_the_rights_of_its_gateways_where_a_broker_takes_them() -> None:
    sites = [site("site-north", ["press-07", "press-08"])]
    theirs = {f"fieldfold/{FEDERATION}/node/{name}/update" for name in ("press-07", "press-08")}

    emqx, hivemq, aws = (EXPORTS[name](FEDERATION, sites) for name in ("emqx", "hivemq", "aws"))

    rules = re.findall(r'^\{allow, \{username, "site-north"\}, publish, \[([^]]*)\]\}\.$', emqx, re.MULTILINE)
    assert theirs <= set(re.findall(r'"([^"]+)"', rules[0])) == topics(sites[0].writes, "")
    assert "(aggregator|observer|site-north|broker)" in emqx
    roles = {role.findtext("id"): role for role in ET.fromstring(hivemq).iter("role")}  # noqa: S314 - see above
    granted = {each.findtext("topic") for each in roles["site-north"].iter("permission")}
    assert theirs <= granted == topics((*sites[0].writes, *sites[0].reads), "")
    assert "site-north has no policies here" in json.loads(aws)["notes"][-1]


def test_the_defaults_keep_below_awss_limits() -> None:
    config = LinkConfig(url="mqtts://broker.plant")

    assert config.message_bytes < 128 * 1024
    assert config.messages_per_s < 100
    assert config.bytes_per_s < 512 * 1024
    assert 30 <= config.keepalive_s <= 1200


def test_the_command_prints_it_for_the_folders_federation(tmp_path: Path) -> None:
    initialise(tmp_path / "broker", federation="kilns")

    for name in EXPORTS:
        done = CliRunner().invoke(broker, ["export", str(tmp_path / "broker"), "--for", name])
        assert done.output == EXPORTS[name]("kilns")
    assert CliRunner().invoke(broker, ["export", "--for", "emqx", "--federation", "Kilns"]).exit_code != 0
