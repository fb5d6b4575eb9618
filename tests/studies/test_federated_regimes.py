"""Texts on devices; test_regimes trains every regime."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trustnlp import data
from trustnlp.data.corpus import Corpus
from trustnlp.dp import Ledger
from trustnlp.errors import GuaranteeError
from trustnlp.federated.user_privacy import UserPrivacy
from trustnlp.progress import silent
from trustnlp.randomness import Streams
from trustnlp.results import Verdict
from trustnlp.studies import federated_regimes, recipes
from trustnlp.studies.regime import Setting

pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture
def corpus(table: Path) -> Corpus:
    return data.load(table)


@pytest.fixture
def setting(corpus: Corpus) -> Setting:
    return Setting("bilstm", corpus, corpus.train[:200], corpus.valid, epsilon=8.0, delta=1e-3, streams=Streams(1))


def anonymous(setting: Setting, share: float = 1.0) -> Setting:
    count = int(share * len(setting.train))
    bare = tuple(replace(example, user=None) for example in setting.train[:count])
    return replace(setting, train=(*bare, *setting.train[count:]))


def test_one_device_a_user(setting: Setting) -> None:
    devices = federated_regimes.population(setting)
    assert devices.method == "user"
    assert len(devices) == len({example.user for example in setting.train})


def test_simulated_devices_where_nobody_is_named(setting: Setting, tmp_path: Path) -> None:
    devices = federated_regimes.population(anonymous(setting))
    assert (devices.method, len(devices)) == ("activity", 10)
    facts = federated_regimes.federated(anonymous(setting), tmp_path, silent, "federated").facts
    assert facts["devices"]["simulated"]
    assert facts["devices"]["texts"]["most"] == max(devices.sizes)


def test_some_texts_without_user_are_refused(setting: Setting) -> None:
    with pytest.raises(GuaranteeError, match="100 of 200 texts have no user"):
        federated_regimes.population(anonymous(setting, 0.5))


def test_privacy_of_users_needs_users(setting: Setting) -> None:
    with pytest.raises(GuaranteeError, match="names no users, so there is nobody whom"):
        federated_regimes.plan(anonymous(setting))


def test_the_budget_is_spent_for_a_user(setting: Setting, tmp_path: Path) -> None:
    trained = federated_regimes.federated_private(setting, tmp_path, silent, "federated-private")
    (found,) = trained.findings
    users = len({example.user for example in setting.train})
    assert 7.9 < found.value <= 8
    assert found.verdict is Verdict.WITHIN_BUDGET
    assert (found.n, found.details["unit"], found.details["adjacency"]) == (users, "user", "add-remove")
    assert found.details["sample_rate"] == pytest.approx(4 / users)
    assert "for one device with all its texts" in found.details["statement"]


def test_devices_learn(setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = replace(recipes.federated("bilstm").local, batch_size=8)
    monkeypatch.setattr(recipes, "federated", lambda *_: recipes.FederatedRecipe(25, 10, local))
    trained = federated_regimes.federated(setting, tmp_path, silent, "federated")
    rounds = trained.facts["history"]["rounds"]
    assert [one["round"] for one in rounds] == [10, 20, 25]
    assert rounds[-1]["accuracy"] > 0.8 > 1 / 3
    assert np.isfinite(rounds[-1]["loss"])


def test_a_text_without_a_guarantee_can_be_written_down() -> None:
    """Where noise is low, a text's epsilon is beyond any figure, and JSON has no infinity."""
    ledger = Ledger.in_memory(UserPrivacy(10, 30, 5.0, 1.0, 0.3, 0.05))
    for _ in range(30):
        ledger.spend()
    found = federated_regimes.epsilon_finding(ledger, 8.0)
    assert found.details["text_epsilon"] is None
    json.dumps(found.details, allow_nan=False)
