"""The studies by name: one module for each claim of docs/papers.md."""

from __future__ import annotations

from collections.abc import Mapping

from trustnlp.studies.canary_extraction import STUDY as CANARY_EXTRACTION
from trustnlp.studies.device_selection import STUDY as DEVICE_SELECTION
from trustnlp.studies.distributed_training import STUDY as DISTRIBUTED_TRAINING
from trustnlp.studies.federated_challenges import STUDY as FEDERATED_CHALLENGES
from trustnlp.studies.prediction_sensitivity import STUDY as PREDICTION_SENSITIVITY
from trustnlp.studies.privacy_ladder import STUDY as PRIVACY_LADDER
from trustnlp.studies.private_training import STUDY as PRIVATE_TRAINING
from trustnlp.studies.reference_attack import STUDY as REFERENCE_ATTACK
from trustnlp.studies.study import Study

STUDIES: Mapping[str, Study] = {
    study.name: study
    for study in (
        PRIVATE_TRAINING,
        DISTRIBUTED_TRAINING,
        REFERENCE_ATTACK,
        PRIVACY_LADDER,
        CANARY_EXTRACTION,
        DEVICE_SELECTION,
        FEDERATED_CHALLENGES,
        PREDICTION_SENSITIVITY,
    )
}
