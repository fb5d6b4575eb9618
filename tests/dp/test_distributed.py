import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ranks
import torch
from ranks import REFUSALS, TRAININGS, outcomes, trained

from trustnlp.dp.distributed import Ranks
from trustnlp.errors import GuaranteeError


class TestTraining:
    @pytest.mark.parametrize("name", TRAININGS)
    def test_two_processes_do_what_one_does(self, name):
        alone = trained(TRAININGS[name])
        tolerance = 1e-6 if name == "float32" else 1e-12
        for rank in outcomes():
            assert np.allclose(rank[name]["weights"], alone["weights"], rtol=0, atol=tolerance)
            assert np.allclose(rank[name]["losses"], alone["losses"], equal_nan=True, rtol=1e-5)
            assert rank[name]["spent"] == ranks.PLAN.steps

    @pytest.mark.parametrize("name", TRAININGS)
    def test_all_ranks_have_the_same_bits(self, name):
        one, other = outcomes()
        assert one[name]["weights"] == other[name]["weights"]

    def test_some_draws_are_empty_leave_a_rank_without_work_or_are_uneven(self):
        few, more = (
            {len(draw.indices) for draw in TRAININGS[name].plan.sampler(ranks.STREAMS)}
            for name in ("few or no examples", "flat")
        )
        assert {0, 1} <= few
        assert {3, 5} & more

    def test_it_goes_on_from_the_ledger_that_rank_0_alone_writes(self):
        for rank in outcomes():
            assert np.allclose(rank["resumed"]["weights"], trained(TRAININGS["flat"])["weights"], rtol=0, atol=1e-12)
            assert rank["resumed"]["lines"] == 1 + ranks.PLAN.steps
            assert rank["resumed"]["spent"] == ranks.PLAN.steps

    def test_a_secret_is_shared(self):
        one, other = outcomes()
        assert one["secret"] == other["secret"]
        assert len(set(one["secret"]["bytes"])) > 1


SAID = {
    "data": "differ in their data",
    "size": "the data has 21",
    "draws": "differ in their draw",
    "plan": "differ in their plan",
    "weights": "differ in their weights",
    "failure": "ValueError: no memory",
    "ledger": "rank 1 has a ledger of 1 steps, rank 0 one of 0",
    "disk": "No such file",
}
HEARD_OF_IT = ("size", "failure", "disk")  # one rank raises, and the others hear of it


class TestRefusals:
    @pytest.mark.parametrize("name", REFUSALS)
    def test_all_ranks_refuse(self, name):
        said = [rank[f"refusal {name}"]["said"] for rank in outcomes()]
        assert any(SAID[name] in words for words in said)
        others = [words for words in said if SAID[name] not in words]
        assert len(others) == (1 if name in HEARD_OF_IT else 0)
        assert all("has failed, and the others must not go on" in words for words in others)

    @pytest.mark.parametrize("name", sorted({*REFUSALS} - {"failure", "ledger"}))
    def test_before_anything_is_spent(self, name):
        assert [rank[f"refusal {name}"]["spent"] for rank in outcomes()] == [0, 0]

    def test_processes_that_were_not_joined(self, monkeypatch):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(GuaranteeError, match="torchrun has started 2 processes"):
            ranks.prepared(TRAININGS["flat"])
        monkeypatch.setenv("WORLD_SIZE", "1")
        ranks.prepared(TRAININGS["flat"])


class TestLosingARank:
    @pytest.mark.parametrize("how", ["asleep", "killed"])
    def test_the_other_one_gives_up_within_the_limit(self, how):
        found = outcomes()[0][how]
        assert "UnreachableRankError: rank 0 has lost another one" in found["said"]
        assert found["seconds"] < 10


class TestRanks:
    @pytest.mark.parametrize("size", [1, 2, 3, 7])
    @pytest.mark.parametrize("count", [0, 1, 5, 14])
    def test_every_unit_is_in_exactly_one_share_and_shares_are_even(self, size, count):
        shares = [Ranks(rank, size).mine(range(count)) for rank in range(size)]
        assert sorted(unit for share in shares for unit in share) == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1

    def test_chance_is_every_ranks_own_and_goes_on_alike_afterwards(self):
        inside, after = [], []
        for rank in range(2):
            with torch.random.fork_rng():
                torch.manual_seed(3)
                with Ranks(rank, 2).own_chance(torch.device("cpu")):
                    inside.append(torch.rand(4))
                after.append(torch.rand(4))
        assert not torch.equal(*inside)
        assert torch.equal(*after)

    def test_a_process_of_its_own_waits_for_nobody(self):
        alone = Ranks.of_process(torch.device("cpu"))
        assert alone.alone
        tensor = torch.arange(3.0)
        assert torch.equal(alone.add({"a": tensor})["a"], tensor)
        assert torch.equal(alone.scatter(tensor, 3), tensor)
        assert len(alone.secret(32)) == 32
        with pytest.raises(KeyError), alone.together():
            raise KeyError


def test_the_how_to_runs(tmp_path):
    page = (Path(__file__).parents[2] / "docs/how-to/train-on-several-processes.md").read_text()
    script, _ = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    (tmp_path / "train.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Guarantee: (") == 1
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 1 + 8  # 1,609 texts, 200 a draw
    assert (tmp_path / "model").is_dir()
