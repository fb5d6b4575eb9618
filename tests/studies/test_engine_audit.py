"""The audit of the engine: consistent for the engine as it is, violated where a bug that audits can see is planted.

A bug is seen where it gives away far more than the promise. What spends a little too much, or needs another neighbour
than a missing example to show, is for the invariants of tests/dp/test_mutations.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from trustnlp.dp.clipping import Clipping
from trustnlp.dp.noise import ChunkedNoise
from trustnlp.dp.plan import PrivacyPlan
from trustnlp.errors import ArgumentError
from trustnlp.randomness import Streams
from trustnlp.results import Results, Verdict
from trustnlp.studies import engine_audit
from trustnlp.studies.engine_audit import Request, audit

SMALL = Request(canaries=991, steps=4, seed=1)


def verdicts(request: Request = SMALL) -> Iterator[Verdict]:
    """Of the designs in turn: where one has shown a violation, the next need not be tried."""
    return (audit(request, rate, Streams(request.seed or 0)).verdict for rate in (1.0, 0.5))


def with_noise(patch: pytest.MonkeyPatch, change: Callable) -> None:
    """Lets noise be released by `change(release, sums, block, stds, divisor)`."""
    real = ChunkedNoise.release_

    def release_(self, sums, block, stds, divisor, parts=None):
        change(partial(real, self, parts=parts), sums, block, stds, divisor)

    patch.setattr(ChunkedNoise, "release_", release_)


def a_quarter_of_the_noise(patch):
    def less(release, sums, block, stds, divisor):
        release(sums, block, {name: std / 4 for name, std in stds.items()}, divisor)

    with_noise(patch, less)


def noise_off_by_the_root_of_the_batch(patch):
    def averaged(release, sums, block, stds, divisor):
        release(sums, block, {name: std / divisor**0.5 for name, std in stds.items()}, divisor)

    with_noise(patch, averaged)


def no_noise_in_the_last_layer(patch):
    def forgetful(release, sums, block, stds, divisor):
        release(sums, block, {**stds, list(sums)[-1]: 1e-12}, divisor)

    with_noise(patch, forgetful)


def noise_added_to_a_copy(patch):
    def copied(release, sums, block, stds, divisor):
        release({name: tensor.clone() for name, tensor in sums.items()}, block, stds, divisor)
        for tensor in sums.values():
            tensor.div_(divisor)

    with_noise(patch, copied)


def no_clipping(patch):
    patch.setattr(Clipping, "factors", lambda self, norms, thresholds: torch.ones_like(norms))


def one_stream(patch, change: Callable) -> None:
    real = Streams.torch

    def torch_(self, name, *index, device="cpu"):
        return real(self, *change(name, *index), device=device)

    patch.setattr(Streams, "torch", torch_)


def noise_shared_between_layers(patch):
    one_stream(patch, lambda name, *index: ("noise", *index))


def noise_shared_between_steps(patch):
    one_stream(patch, lambda name, *index: (name, 0, *index[1:]))


def noise_of_a_fixed_seed(patch):
    patch.setattr(Streams, "torch", lambda self, name, *index, device="cpu": FIXED(name, *index, device=device))


FIXED = Streams(0).torch


def one_step_of_many_charged(patch):
    real = PrivacyPlan.events
    patch.setattr(PrivacyPlan, "events", lambda self, steps=None: real(self, 1))


BUGS = [
    a_quarter_of_the_noise,
    noise_off_by_the_root_of_the_batch,
    no_noise_in_the_last_layer,
    noise_added_to_a_copy,
    no_clipping,
    noise_shared_between_layers,
    noise_shared_between_steps,
    noise_of_a_fixed_seed,
]


@pytest.mark.parametrize("mechanism", ["exact", "automatic", "layerwise", "microbatch"])
def test_the_engine_is_consistent(mechanism):
    assert set(verdicts(Request(mechanism=mechanism, canaries=991, steps=4, seed=2))) == {Verdict.CONSISTENT}


def test_secure_noise_is_consistent():
    assert set(verdicts(Request(noise="secure", canaries=991, steps=4, seed=3))) == {Verdict.CONSISTENT}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_a_violation(bug, monkeypatch):
    bug(monkeypatch)
    assert Verdict.VIOLATED in verdicts()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
def test_half_of_the_noise_is_a_violation_to_thousands_of_canaries(seed, monkeypatch):
    def less(release, sums, block, stds, divisor):
        release(sums, block, {name: std / 2 for name, std in stds.items()}, divisor)

    with_noise(monkeypatch, less)
    found = audit(Request(canaries=7_999), 1.0, Streams(seed))
    print(f"\nat least {found.value:.2f}")
    assert found.verdict is Verdict.VIOLATED


def test_steps_that_are_not_charged_are_a_violation(monkeypatch):
    one_step_of_many_charged(monkeypatch)
    assert Verdict.VIOLATED in verdicts(Request(canaries=991, steps=16, seed=1))


def test_it_shows_a_part_of_what_was_promised():
    found = audit(Request(canaries=1_999, steps=4, seed=5), 1.0, Streams(5))
    assert 0.2 < (found.value or 0) < 2.0
    assert found.details["target"] == pytest.approx(2.0, rel=0.02)


def test_a_run_is_written_and_repeats(tmp_path: Path):
    request = Request(canaries=159, steps=2, seed=4)
    first = engine_audit.run(request, tmp_path / "a")
    again = engine_audit.run(request, tmp_path / "b")
    assert first.findings == again.findings == Results.load(tmp_path / "a").findings
    assert {finding.regime for finding in first.findings} == {"full draws", "Poisson draws"}


@pytest.mark.parametrize("wrong", [{"canaries": 1000}, {"canaries": 15}, {"steps": 1}, {"mechanism": "none"}])
def test_what_cannot_be_audited_is_refused(wrong):
    with pytest.raises(ArgumentError):
        Request(**wrong)
