"""For every test: one thread, and what more than one room needs: a corpus and recipes to train on within seconds."""

import csv
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # tests are collected by path, so this folder is not on it
torch.set_num_threads(1)  # the suite runs on all cores at once, and threads would only wait for each other

ACTIONS = {"play": "music", "wake": "alarm", "call": "phone"}
THINGS = ["jazz", "me", "my mother", "my father", "something loud", "him", "her", "at noon", "again", "softly", "twice"]
ENDINGS = ["please", "now", "today", "tonight", "for her", "for him", "at home", "in the car", "for my wife", ""]


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """330 distinct texts of 3 labels, 40 users and 2 groups, as a CSV file."""
    path = tmp_path_factory.mktemp("table") / "tickets.csv"
    generator = np.random.default_rng(0)
    with path.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["text", "label", "user", "group"])
        for action, label in ACTIONS.items():
            for thing in THINGS:
                for ending in ENDINGS:
                    user = int(generator.integers(40))
                    rows.writerow([f"{action} {thing} {ending}".strip(), label, f"u{user}", "ab"[user % 2]])
    return path


@pytest.fixture(scope="session")
def remembered_noise() -> Callable[..., float]:
    """The calibration of noise, which takes a second, done once for the same arguments."""
    from trustnlp.dp import accounting

    return functools.cache(accounting.calibrate)


def _hasty_private(model: str, examples: int, quick: bool = False, mechanism: str = "exact") -> object:
    from trustnlp.studies.recipes import MECHANISMS, PrivateRecipe

    return PrivateRecipe(5e-3, 16, 1, MECHANISMS[mechanism])


def _hasty_federated(*_: object) -> object:
    from trustnlp.federated.local_training import LocalTraining
    from trustnlp.studies.recipes import FederatedRecipe

    return FederatedRecipe(3, 4, LocalTraining(1.0, 8), options={"dropout": 0.0})


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, remembered_noise: Callable[..., float]) -> None:
    """One private epoch, two plain ones or three federated rounds, and secrets of two digits."""
    from trustnlp.dp import accounting
    from trustnlp.studies import assess, recipes
    from trustnlp.studies.recipes import Recipe

    monkeypatch.setattr(recipes, "plain", lambda model, quick=False: Recipe(5e-3, 32, 2))
    monkeypatch.setattr(recipes, "private", _hasty_private)
    monkeypatch.setattr(recipes, "federated", _hasty_federated)
    monkeypatch.setattr(recipes, "federated_private", _hasty_federated)
    monkeypatch.setattr(assess, "SECRET_LENGTH", 2)
    monkeypatch.setattr(accounting, "calibrate", remembered_noise)
