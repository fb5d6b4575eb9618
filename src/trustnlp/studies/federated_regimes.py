"""The federated regimes: texts stay on devices, one device a user; with and without user-level privacy.

Where a corpus names no users, texts are spread over simulated devices of unequal activity, which the facts of the run
say. Privacy of such devices would protect nobody, so `federated-private` needs a corpus with users.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from trustnlp import models
from trustnlp.dp import accounting
from trustnlp.dp.ledger import FILE_NAME, Ledger
from trustnlp.errors import GuaranteeError
from trustnlp.federated import partition, private_rounds
from trustnlp.federated.device_plan import FALSE_POSITIVE_RATES, text_epsilon
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.partition import Partition
from trustnlp.federated.poisson_activity import PoissonActivity
from trustnlp.federated.population import Partitioned
from trustnlp.federated.selection import Activity
from trustnlp.federated.simulator import History, simulate
from trustnlp.federated.user_privacy import UserPrivacy
from trustnlp.progress import Progress
from trustnlp.results import Direction, Finding, Verdict
from trustnlp.studies import recipes
from trustnlp.studies.regime import Setting, Trained, built, evaluation_of, trained

MOST_SIMULATED = 100  # devices, where no users are known
FEWEST_TEXTS = 20  # of a simulated device, on average
UNIFORM = PoissonActivity(gamma=0.0)


def population(setting: Setting) -> Partition:
    """Which texts are on which device: one device a user, or simulated ones.

    Raises:
        GuaranteeError: some texts have a user and others none.
    """
    users = [example.user for example in setting.train]
    if not any(users):
        devices = max(1, min(MOST_SIMULATED, len(users) // FEWEST_TEXTS))
        return partition.activity(len(users), devices, 1.0, setting.streams.numpy("devices"))
    if not all(users):
        raise GuaranteeError(
            f"{sum(user is None for user in users)} of {len(users)} texts have no user, so nobody knows whose device "
            "they are on",
            "name a user for each, or for none",
        )
    return partition.by_user(users)


def federated(setting: Setting, folder: Path, progress: Progress, name: str) -> Trained:
    """FedAvg with devices selected by activity, which with equal weights has the objective of all texts."""
    devices = population(setting)
    algorithm = _algorithm(recipes.federated(setting.model, setting.quick), len(devices))
    model = built(setting)
    history = simulate(
        Partitioned(model.encode(setting.train, for_training=True), devices.devices),
        model,
        algorithm,
        selection=Activity(),
        streams=setting.streams,
        evaluate=_evaluate(model, setting),
        folder=folder,
        progress=progress,
        stage=name,
    )
    return trained(model, folder, _facts(history, algorithm, devices))


def federated_private(setting: Setting, folder: Path, progress: Progress, name: str) -> Trained:
    """FedAvg under a plan of user-level privacy; who is drawn does not depend on activity.

    Guarantee: epsilon and delta of the setting for one user with all texts, add-remove.
    """
    devices, promised = population(setting), plan(setting)
    recipe = recipes.federated_private(setting.model, len(devices), setting.quick)
    algorithm = _algorithm(recipe, len(devices))
    model = built(setting, recipe.options)
    history = simulate(
        Partitioned(model.encode(setting.train, for_training=True), devices.devices),
        model,
        algorithm,
        selection=UNIFORM,
        privacy=promised,
        streams=setting.streams,
        evaluate=_evaluate(model, setting),
        folder=folder,
        progress=progress,
        stage=name,
    )
    facts = _facts(history, algorithm, devices) | {"statement": promised.statement().as_dict()}
    ledger = private_rounds.read_ledger(folder / FILE_NAME)
    return trained(model, folder, facts, epsilon_finding(ledger, setting.epsilon))


def plan(setting: Setting) -> UserPrivacy:
    """The plan that spends the setting's budget.

    Raises:
        GuaranteeError: the corpus names no users, or no noise reaches the budget.
    """
    devices = population(setting)
    if devices.method != "user":
        raise GuaranteeError(
            "the corpus names no users, so there is nobody whom user-level privacy would protect",
            "give --column user=NAME, or use the regime 'private', which protects single texts",
        )
    recipe = recipes.federated_private(setting.model, len(devices), setting.quick)
    delta = min(setting.delta, 1 / len(devices) ** 1.1)
    algorithm = _algorithm(recipe, len(devices))
    return private_rounds.plan_for(
        setting.epsilon, delta, algorithm, UNIFORM, devices.sizes, clip_norm=recipe.clip_norm
    )


def _algorithm(recipe: recipes.FederatedRecipe, devices: int) -> FedAvg:
    return FedAvg(recipe.rounds, min(recipe.cohort, devices), recipe.local)


def _evaluate(model: models.NLUModel, setting: Setting) -> Any:
    found = evaluation_of(model, setting.valid)
    return None if found is None else lambda _: found()


def _facts(history: History, algorithm: FedAvg, devices: Partition) -> dict[str, Any]:
    sizes = devices.sizes
    return {
        "history": {"rounds": [_round(record) for record in history.rounds if record.figures]},
        "recipe": asdict(algorithm),
        "devices": {
            "count": len(devices),
            "method": devices.method,
            "simulated": devices.method != "user",
            "texts": {"least": int(sizes.min()), "median": float(np.median(sizes)), "most": int(sizes.max())},
        },
    }


def _round(record: Any) -> dict[str, float]:
    return {"round": record.number + 1, **record.figures}


def epsilon_finding(ledger: Ledger, target: float, beside: tuple[accounting.Event, ...] = ()) -> Finding:
    """The budget that the ledger's rounds have spent for the user with the highest rate.

    Args:
        target: what may be spent.
        beside: what else was released of the same users, such as an evaluation on their devices.
    """
    promised: UserPrivacy = ledger.plan
    events, statement = (*ledger.events(), *beside), promised.statement()
    spent, of_text = accounting.epsilon(events, promised.delta), text_epsilon(events, promised.delta)
    return Finding(
        "epsilon",
        "Privacy budget spent",
        spent,
        unit="epsilon",
        n=promised.devices,
        direction=Direction.LOWER,
        ideal=0.0,
        verdict=Verdict.WITHIN_BUDGET if spent <= target else Verdict.OVER_BUDGET,
        source="privacy loss distribution of the ledger's rounds (dp-accounting)",
        details={
            "target": target,
            "delta": promised.delta,
            "sigma": promised.noise_multiplier,
            "sample_rate": promised.largest_rate,
            "steps": ledger.spent,
            "unit": "user",
            "text_epsilon": of_text if math.isfinite(of_text) else None,  # files have no infinity
            "adjacency": promised.adjacency,
            "sampler": promised.selection,
            "accountant": "pld",
            "epsilon_rdp": accounting.rdp_epsilon(events, promised.delta) if events else 0.0,
            "attack_ceiling": {str(fpr): accounting.attack_ceiling(events, fpr) for fpr in FALSE_POSITIVE_RATES},
            "statement": str(statement),
        },
    )
