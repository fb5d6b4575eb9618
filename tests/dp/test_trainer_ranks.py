"""`PrivateTrainer` on two processes of torchrun."""

import numpy as np
import pytest
import trainer_ranks
from test_trainer import PLAN, private
from trainer_ranks import outcomes

from trustnlp.dp.distributed import Ranks
from trustnlp.errors import GuaranteeError


class TestSeveralProcesses:
    @pytest.mark.parametrize("name", ["plain", "resumed"])
    def test_two_processes_do_what_one_does(self, name, tmp_path):
        alone = trainer_ranks.plain(tmp_path) if name == "plain" else trainer_ranks.layerwise(tmp_path)
        for rank in outcomes():
            assert np.allclose(rank[name]["weights"], alone["weights"], rtol=0, atol=1e-6)
            assert rank[name]["spent"] == PLAN.steps

    @pytest.mark.parametrize("name", ["plain", "resumed", "crashed"])
    def test_all_ranks_have_the_same_bits_whatever_they_began_with(self, name):
        one, other = outcomes()
        assert one[name]["weights"] == other[name]["weights"]

    def test_losses_evaluation_and_epsilon_are_those_of_one_process(self, tmp_path):
        alone = trainer_ranks.plain(tmp_path)
        for rank in outcomes():
            assert rank["plain"]["training loss"] == pytest.approx(alone["training loss"], rel=1e-5)
            assert rank["plain"]["evaluation"] == pytest.approx(alone["evaluation"], rel=1e-5)
            assert rank["plain"]["epsilons"] == alone["epsilons"]

    def test_rank_0_alone_writes(self):
        found = outcomes()[0]
        assert found["lines"] == dict.fromkeys(("plain", "resumed", "crashed"), 1 + PLAN.steps)
        assert "plain/checkpoint-8/privacy.safetensors" in found["files"]

    def test_a_crash_loses_steps_on_all_ranks_and_spends_none_twice(self):
        for rank in outcomes():
            assert rank["crashed"]["begun"]["spent"] == 7
            assert rank["crashed"]["spent"] == PLAN.steps
            assert rank["crashed"]["weights"] != rank["crashed"]["begun"]["weights"]

    def test_dropout_and_masks_of_ranks_are_independent(self):
        one, other = outcomes()
        assert one["crashed"]["chance"] != other["crashed"]["chance"]

    def test_a_second_run_in_the_same_folder_is_refused_by_all(self):
        one, other = (rank["refused"]["folder"] for rank in outcomes())
        assert "10 of 10 steps spent" in one
        assert "rank 0 has failed" in other

    def test_other_data_on_one_rank_are_refused_before_anything_is_spent(self):
        for rank in outcomes():
            assert "differ in their data" in rank["refused"]["data"]
            assert rank["refused"]["spent"] == 0

    def test_processes_that_trainer_does_not_know_of(self, tmp_path, monkeypatch):
        trainer = private(tmp_path)
        monkeypatch.setattr(Ranks, "of_process", lambda device: Ranks(0, 2))
        with pytest.raises(GuaranteeError, match=r"2 processes were joined.*start them by torchrun"):
            trainer.train()
