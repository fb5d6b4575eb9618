"""Private training: a plan, the step and sampler made from it, and the ledger that counts what was released.

plan = PrivacyPlan.for_budget(epsilon=8, delta=1e-6, examples=len(train), expected_batch=256, epochs=5)
step = plan.step(model, optimizer, streams=streams)
for draw in plan.sampler(streams):
    step(train, draw)
print(plan.statement())
"""

from typing import TYPE_CHECKING, Any

from trustnlp.dp.adaptive_thresholds import Quantile
from trustnlp.dp.automatic_clipping import AutomaticClipping
from trustnlp.dp.book_keeping import BookKeeping
from trustnlp.dp.clipping import Clip, ClippedSum, Unit, per_unit_clipped_sum
from trustnlp.dp.engine import PrivateStep
from trustnlp.dp.flat_clipping import FlatClipping
from trustnlp.dp.layerwise_clipping import LayerwiseClipping
from trustnlp.dp.ledger import Ledger
from trustnlp.dp.micro_batches import MicroBatchClipping
from trustnlp.dp.plan import PrivacyPlan
from trustnlp.dp.sampling import PoissonSampler
from trustnlp.dp.statement import Statement
from trustnlp.dp.user_units import ByUser

if TYPE_CHECKING:
    from trustnlp.dp.trainer import PrivateTrainer

__all__ = [
    "AutomaticClipping",
    "BookKeeping",
    "ByUser",
    "Clip",
    "ClippedSum",
    "FlatClipping",
    "LayerwiseClipping",
    "Ledger",
    "MicroBatchClipping",
    "PoissonSampler",
    "PrivacyPlan",
    "PrivateStep",
    "PrivateTrainer",
    "Quantile",
    "Statement",
    "Unit",
    "per_unit_clipped_sum",
]


def __getattr__(name: str) -> Any:
    """`PrivateTrainer`, whose import takes seconds, is imported where it is first used."""
    if name == "PrivateTrainer":
        from trustnlp.dp.trainer import PrivateTrainer

        return PrivateTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
