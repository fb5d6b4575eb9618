import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from trustnlp.errors import RunError
from trustnlp.progress import silent
from trustnlp.results import Verdict
from trustnlp.studies import distributed_training
from trustnlp.studies.distributed_training import STUDY, _claim, _difference, _speed_up, _team, _Training
from trustnlp.studies.study import Request

TRAINING = _Training("table", "bilstm", limit=100, seed=0, steps=7, cuda=False)
ONE = np.array([3.0, 4.0], np.float32)


def findings(times, ranks=(ONE, ONE), cuda=False):
    found = [_speed_up(np.array(times), replace(TRAINING, cuda=cuda)), _difference(ONE, ranks)]
    return [replace(f, regime=f.id, details={**f.details, "cell": {"model": "bilstm"}}) for f in found]


class TestClaim:
    def test_fast_and_the_same(self):
        assert _claim(findings([1.9] * 7)).verdict is Verdict.REPRODUCED

    def test_slow_on_separate_devices(self):
        assert _claim(findings([1.2] * 7, cuda=True)).verdict is Verdict.NOT_REPRODUCED

    def test_slow_on_one_machine_or_noisy(self):
        for found in (findings([1.2] * 7), findings([1.2, 1.9] * 4, cuda=True)):
            assert _claim(found).verdict is Verdict.INSUFFICIENT_EVIDENCE

    @pytest.mark.parametrize("ranks", [(ONE + 0.1, ONE + 0.1), (ONE, ONE + 1e-6)])
    def test_another_model_or_ranks_that_differ(self, ranks):
        claim = _claim(findings([1.9] * 7, ranks))
        assert claim.verdict is Verdict.NOT_REPRODUCED
        assert not claim.details["same_model"]

    def test_the_slowest_cell_decides(self):
        found = [*findings([1.9] * 7), *findings([1.0] * 7, cuda=True)]
        assert _claim(found).value == 1.0

    def test_a_known_difference(self):
        moved = ONE + np.array([0.0, 0.05], np.float32)
        assert _difference(ONE, (moved, moved)).value == pytest.approx(0.01, rel=1e-5)


def test_two_processes_train_the_model_of_one(table, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed_training, "_QUICK_ROUNDS", 6)
    request = Request(data=(str(table),), models=("bilstm",), quick=True)
    threads = torch.get_num_threads()
    results = STUDY.run(request, tmp_path / "run", progress=silent)
    assert torch.get_num_threads() == threads
    assert {f.id for f in results} == {"claim", "process-speed-up", "weights-difference"}
    difference = next(f for f in results if f.id == "weights-difference")
    assert difference.details["same_bits_on_all_ranks"]
    assert 0 <= difference.value <= 1e-5
    assert json.loads((tmp_path / "run" / "results.json").read_text())["run"]["study"]["system"] == "S13"


def test_processes_that_end_are_noticed():
    with (
        pytest.raises(RunError, match="a process has ended"),
        _team(replace(TRAINING, corpus="no such corpus")) as team,
    ):
        team.step(0)
