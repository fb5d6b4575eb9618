"""Fairness figures of a model: one module per metric, each with its ideal value, interval and verdict."""

from trustnlp.fairness.counterfactual_fairness import counterfactual_probability_change
from trustnlp.fairness.flip_rate import counterfactual_flip_rate
from trustnlp.fairness.group_gap import label_error_gap, slot_f1_gap
from trustnlp.fairness.identity_terms import GENDER, IdentityTerms, identity_terms
from trustnlp.fairness.metric import Metric, Notion, Scope

__all__ = [
    "GENDER",
    "IdentityTerms",
    "Metric",
    "Notion",
    "Scope",
    "counterfactual_flip_rate",
    "counterfactual_probability_change",
    "identity_terms",
    "label_error_gap",
    "slot_f1_gap",
]
