"""The regimes that `assess` can train under: one function each, joined by its name in REGIMES.

Every regime takes the same Setting and returns the same Trained, so whatever measures one measures all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from trustnlp import models
from trustnlp.dp import Ledger, PrivacyPlan, PrivateStep, Statement
from trustnlp.models.training import History, PlainStep, ShuffledBatches, fit
from trustnlp.progress import Progress
from trustnlp.results import Direction, Finding, Verdict
from trustnlp.studies import federated_regimes, recipes
from trustnlp.studies.regime import Regime, Setting, Trained, built, evaluation_of, trained


def plain(setting: Setting, folder: Path, progress: Progress, name: str) -> Trained:
    """Ordinary training: shuffled batches, Adam, the best epoch on the validation split."""
    recipe = recipes.plain(setting.model, setting.quick)
    model = built(setting)
    sampler = ShuffledBatches(len(setting.train), recipe.batch_size, recipe.epochs, setting.streams)
    step = PlainStep(
        model,
        torch.optim.Adam(model.parameters(), recipe.learning_rate),
        schedule=recipe.schedule(sampler.steps),
        clip_grad_norm=recipes.CLIP_GRAD_NORM,
    )
    history = fit(
        model,
        model.encode(setting.train, for_training=True),
        sampler,
        step,
        streams=setting.streams,
        evaluate=evaluation_of(model, setting.valid),
        patience=recipe.patience if setting.valid else None,
        folder=folder,
        progress=progress,
        stage=name,
    )
    return trained(model, folder, {"history": _summary(history), "recipe": asdict(recipe)})


def private(setting: Setting, folder: Path, progress: Progress, name: str) -> Trained:
    """DP-SGD by a plan that spends the budget; no early stopping, as the validation split has no guarantee."""
    recipe = setting.private_recipe
    plan = private_plan(setting)
    ledger = Ledger.open(folder / "ledger.jsonl", plan)
    model, step = _private_step(setting, ledger)
    history = fit(
        model,
        model.encode(setting.train, for_training=True),
        plan.sampler(setting.streams),
        step,
        streams=setting.streams,
        evaluate=evaluation_of(model, setting.valid),
        folder=folder,
        checkpoint_every=recipes.CHECKPOINT_EVERY,
        progress=progress,
        stage=name,
    )
    statement = plan.statement()
    facts = {
        "history": _summary(history),
        "recipe": {**asdict(recipe), "clipping": recipe.clipping.as_dict()},
        "statement": statement.as_dict(),
    }
    return trained(model, folder, facts, epsilon_finding(ledger, statement, setting.epsilon))


def private_plan(setting: Setting) -> PrivacyPlan:
    """The plan that spends the setting's budget by its model's recipe."""
    recipe = setting.private_recipe
    return PrivacyPlan.for_budget(
        epsilon=setting.epsilon,
        delta=setting.delta,
        examples=len(setting.train),
        expected_batch=recipe.batch_size,
        epochs=recipe.epochs,
        clipping=recipe.clipping,
    )


def _private_step(setting: Setting, ledger: Ledger) -> tuple[models.NLUModel, PrivateStep]:
    recipe = setting.private_recipe
    model = built(setting, recipe.options)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, recipe.learning_rate)
    return model, ledger.plan.step(model, optimizer, streams=setting.streams, ledger=ledger)


def _summary(history: History) -> dict[str, Any]:
    return {"epochs": history.epochs, "steps": history.steps, "best_epoch": history.best_epoch}


REGIMES: Mapping[str, Regime] = {
    "plain": Regime(plain, built),
    "private": Regime(private, lambda setting: _private_step(setting, Ledger.in_memory(private_plan(setting)))),
    "federated": Regime(federated_regimes.federated, federated_regimes.population),
    "federated-private": Regime(federated_regimes.federated_private, federated_regimes.plan),
}


def epsilon_finding(ledger: Ledger, statement: Statement, target: float) -> Finding:
    """The budget that the ledger has spent, against the target that was asked for."""
    spent = ledger.spent_epsilon()
    return Finding(
        "epsilon",
        "Privacy budget spent",
        spent,
        unit="epsilon",
        n=ledger.plan.examples,
        direction=Direction.LOWER,
        ideal=0.0,
        verdict=Verdict.WITHIN_BUDGET if spent <= target else Verdict.OVER_BUDGET,
        source="privacy loss distribution of the ledger's steps (dp-accounting)",
        details={"target": target, **_spending(statement)},
    )


def _spending(statement: Statement) -> dict[str, Any]:
    plan = statement.plan
    return {
        "delta": plan.delta,
        "sigma": plan.noise_multiplier,
        "clipping": plan.clipping.as_dict(),
        "sample_rate": plan.sample_rate,
        "steps": plan.steps,
        "unit": plan.unit,
        "adjacency": plan.adjacency,
        "sampler": plan.sampling,
        "accountant": plan.accountant,
        "epsilon_rdp": statement.epsilon_rdp,
        "attack_ceiling": {str(fpr): tpr for fpr, tpr in statement.ceilings.items()},
        "statement": str(statement),
    }
