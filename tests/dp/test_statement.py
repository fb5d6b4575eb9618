import json
from dataclasses import replace

from trustnlp.dp import MicroBatchClipping, PrivacyPlan

PLAN = PrivacyPlan(examples=1000, expected_batch=50, steps=60, noise_multiplier=2.0, delta=1e-5)


class TestStatement:
    def test_it_names_everything_the_guarantee_rests_on(self):
        text = str(PLAN.statement())
        for word in ("example", "add-remove", "poisson", "PLD", "RDP", "sigma = 2", "q = 0.05", "60 steps", "1e-05"):
            assert word in text
        assert f"{PLAN.epsilon():.4g}" in text
        assert "constant 50" in text

    def test_it_says_honestly_that_the_noise_can_be_computed_from_the_seed(self):
        assert "keep the seed secret" in str(PLAN.statement())

    def test_secure_noise_is_described_as_such(self):
        text = str(replace(PLAN, noise="secure").statement())
        assert "AES-256" in text
        assert "never stored" in text
        assert "compute the noise and the draws again" not in text
        assert "keep the seed secret" in text  # of which the draws are made

    def test_it_says_whom_it_protects_and_whom_not(self):
        assert "Somebody with several examples is not protected as a whole" in str(PLAN.statement())
        text = str(replace(PLAN, unit="user").statement())
        assert "for one user, neighbours by add-remove of one user" in text
        assert "each of 1000 users" in text
        assert "Who appears under two names" in text

    def test_truncation_is_described_with_its_rate(self):
        plan = replace(PLAN, sampling="truncated-poisson", largest_batch=70)
        text = str(plan.statement())
        assert "of more than 70 a random subset of 70 is kept" in text
        assert "random subset" not in str(PLAN.statement())

    def test_decay_is_described_from_first_to_last(self):
        text = str(replace(PLAN, noise_decay=0.5).statement())
        assert "sigma = 2 in the first epoch of 20 steps, 0.5 times as much in each epoch" in text
        assert "0.5 in the last" in text

    def test_micro_batches_stand_beside_exact_clipping(self):
        text = str(replace(PLAN, clipping=MicroBatchClipping(5, 0.7)).statement())
        assert "by 2 C, and noise of 2 sigma C" in text
        assert "10 times the noise of exact clipping" in text
        assert "Beside exact" not in str(PLAN.statement())

    def test_its_dictionary_is_json_with_the_same_figures(self):
        statement = PLAN.statement()
        record = json.loads(json.dumps(statement.as_dict()))
        assert record["epsilon"] == PLAN.epsilon() <= record["epsilon_rdp"]
        assert record["sample_rate"] == 0.05
        assert [c["fpr"] for c in record["attack_ceilings"]] == [0.001, 0.01]
        assert all(c["fpr"] < c["tpr"] < 1 for c in record["attack_ceilings"])
        assert record["text"] == str(statement)
