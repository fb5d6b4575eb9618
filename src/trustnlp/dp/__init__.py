"""Private training: a plan, the step and sampler made from it, and the ledger that counts what was released.

plan = PrivacyPlan.for_budget(epsilon=8, delta=1e-6, examples=len(train), expected_batch=256, epochs=5)
step = plan.step(model, optimizer, streams=streams)
for draw in plan.sampler(streams):
    step(train, draw)
print(plan.statement())
"""

from trustnlp.dp.book_keeping import BookKeeping
from trustnlp.dp.clipping import ClippedSum, per_example_clipped_sum
from trustnlp.dp.engine import PrivateStep
from trustnlp.dp.ledger import Ledger
from trustnlp.dp.plan import PrivacyPlan
from trustnlp.dp.sampling import PoissonSampler
from trustnlp.dp.statement import Statement

__all__ = [
    "BookKeeping",
    "ClippedSum",
    "Ledger",
    "PoissonSampler",
    "PrivacyPlan",
    "PrivateStep",
    "Statement",
    "per_example_clipped_sum",
]
