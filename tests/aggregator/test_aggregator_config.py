from __future__ import annotations

from pathlib import Path

import pytest

from aggregator.config import AggregatorConfig, load
from aggregator.fold.fedasync import FedAsync
from aggregator.fold.fedavg import FedAvg
from aggregator.fold.fedbuff import FedBuff
from aggregator.fold.rate_corrected_fedbuff import RateCorrectedFedBuff
from aggregator.fold.refereed import Refereed, careful
from aggregator.fold.slots import Slots
from fieldfold.errors import ConfigError

LEAST = 'federation = "plant"\n[broker]\nurl = "mqtts://localhost:8883"\n'


def load_text(folder: Path, text: str) -> AggregatorConfig:
    path = folder / "aggregator.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def test_federation_and_broker_are_enough(tmp_path: Path) -> None:
    config = load_text(tmp_path, LEAST)
    assert config.federation == "plant"
    assert config.method == Slots()
    assert config.evaluation is None


@pytest.mark.parametrize(
    ("table", "method"),
    [
        ('method = "fedavg"\nclients_per_round = 5', FedAvg(clients_per_round=5)),
        ('method = "fedasync"\nstaleness = "hinge"\nb = 2', FedAsync(staleness="hinge", b=2)),
        ('method = "fedbuff"\nbuffer_size = 4', FedBuff(buffer_size=4)),
        (
            'method = "rate-corrected-fedbuff"\nserver_learning_rate = 0.5',
            RateCorrectedFedBuff(server_learning_rate=0.5),
        ),
    ],
)
def test_the_method_is_one_line(tmp_path: Path, table: str, method: object) -> None:
    assert load_text(tmp_path, f"{LEAST}[fold]\n{table}\n").method == method


def test_trust_is_one_word_for_a_method_and_who_guards_against_liars_waits_for_two_thirds(tmp_path: Path) -> None:
    table = "[normalisation]\nnodes = 9\n"
    assert load_text(tmp_path, f'trust = "fleet"\n{LEAST}{table}').method == Slots()
    assert load_text(tmp_path, f'trust = "auto"\n{LEAST}{table}').method == Refereed(start=6)
    assert load_text(tmp_path, f'trust = "hostile"\n{LEAST}{table}').method == careful(start=6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('trust = "all"\n' + LEAST, "trust: invalid enum value 'all'"),
        (f'trust = "hostile"\n{LEAST}[fold]\nmethod = "ace"', "says both trust and [fold]"),
        (LEAST + '[fold]\nmethod = "fedprox"', "fold.method: invalid value 'fedprox'"),
        (LEAST + '[fold]\nmethod = "fedavg"', "fold.clients_per_round: is missing"),
        (LEAST + '[fold]\nmethod = "fedbuff"\nbufer_size = 3', "fold.bufer_size: no such key"),
        (LEAST + "[verify]\nmax_norm = 0", "verify.max_norm: expected a number > 0"),
        (LEAST + '[release]\nprofile = "tiny"', "release: no codec profile is named 'tiny'"),
        (LEAST + '[release]\nprofile = "unbiased"', "release: the profile unbiased is for updates"),
        (LEAST + "[release]\nsnapshot_every = 0", "release.snapshot_every: expected a whole number >= 1"),
        (LEAST + "[normalisation]\nnodes = -1", "normalisation.nodes: expected a whole number >= 0"),
        (LEAST + '[evaluation]\nfiles = "a.csv"', "evaluation.files: expected a list, got text"),
        ('federation = "plant"\n', "broker: is missing"),
        (LEAST.replace("mqtts://", "http://"), "broker.url: "),
    ],
)
def test_each_mistake_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    assert said in caught.value.reason
