import json

from trustnlp.dp import PrivacyPlan

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

    def test_its_dictionary_is_json_with_the_same_figures(self):
        statement = PLAN.statement()
        record = json.loads(json.dumps(statement.as_dict()))
        assert record["epsilon"] == PLAN.epsilon() <= record["epsilon_rdp"]
        assert record["sample_rate"] == 0.05
        assert [c["fpr"] for c in record["attack_ceilings"]] == [0.001, 0.01]
        assert all(c["fpr"] < c["tpr"] < 1 for c in record["attack_ceilings"])
        assert record["text"] == str(statement)
