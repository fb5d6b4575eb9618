"""ILPS against one forward pass for each term of its definition, and against planted preferences."""

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

from small_transformers import SPECIAL, bert_config
from trustnlp.errors import ArgumentError, ModelError
from trustnlp.fairness.ilps import ProbabilityTest, _filled, ilps, preferences
from trustnlp.fairness.scorer import Kind, Tokens, open_scorer
from trustnlp.models.masked_language_model import open_word_pieces
from trustnlp.results import Verdict

JOBS_A, JOBS_B = ("smith", "pilot", "engineer", "boss", "welder"), ("nurse", "maid", "dancer", "typist", "actor")
GROUPS = (("he", "she"), ("man", "woman"))
PIECES = [
    *SPECIAL,
    "[MASK]",
    "he",
    "she",
    "man",
    "woman",
    "is",
    "a",
    "an",
    "was",
    "the",
    ".",
    "pilot",
    "smith",
    "nurse",
]
PIECES += ["engine", "##er", "boss", "weld", "maid", "danc", "typ", "##ist", "actor", "law", "##yer"]
TEST = ProbabilityTest("Jobs", GROUPS, JOBS_A, JOBS_B, ("{group} is a {attribute} .", "the {attribute} was {group}"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    path = tmp_path_factory.mktemp("pieces") / "vocab.txt"
    path.write_text("\n".join(PIECES))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForMaskedLM(bert_config(PIECES, 24, initializer_range=0.5)).eval()
    return model, open_word_pieces(path)


@torch.no_grad()
def naive(model, pieces, answer):
    """log p(answer) at the first gap marked ?, every _ a mask, by one forward pass."""
    ids = [PIECES.index("[CLS]"), *(PIECES.index({"?": "[MASK]", "_": "[MASK]"}.get(p, p)) for p in pieces)]
    ids.append(PIECES.index("[SEP]"))
    logits = model(input_ids=torch.tensor([ids])).logits[0, 1 + pieces.index("?")].double()
    return float(logits.log_softmax(-1)[PIECES.index(answer)])


def test_preferences_are_their_definition(bert):
    found = preferences(open_scorer(*bert), TEST, ["engineer", "nurse"])
    assert found.shape == (2, 2, 2)
    sentences = {
        (0, 0): ("? is an engine ##er .", "? is an _ _ ."),  # both pieces of a word are masked
        (0, 1): ("the engine ##er was ?", "the _ _ was ?"),
        (1, 0): ("? is a nurse .", "? is a _ ."),
        (1, 1): ("the nurse was ?", "the _ was ?"),
    }
    for (attribute, template), (seen, hidden) in sentences.items():
        for number, pair in enumerate(GROUPS):
            first, second = (naive(bert[0], seen.split(), word) - naive(bert[0], hidden.split(), word) for word in pair)
            assert found[attribute, number, template] == pytest.approx(first - second, abs=1e-4)


def test_the_finding_is_the_difference_of_the_lists(bert):
    scorer = open_scorer(*bert)
    [found] = ilps(scorer, [TEST], generator=np.random.default_rng(0))
    a, b = (preferences(scorer, TEST, jobs) for jobs in (JOBS_A, JOBS_B))
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert (found.id, found.unit, found.ideal, found.n) == ("ilps-jobs", "nats", 0, 10)
    assert found.details["attributes_a"]["pilot"] == pytest.approx(a[1].mean())
    assert found.details["pairs"]["man / woman"] == pytest.approx(a[:, 1].mean() - b[:, 1].mean())
    last = TEST.templates[1]
    assert found.details["templates"][last] == pytest.approx(a[:, :, 1].mean() - b[:, :, 1].mean())
    assert found.low <= found.value <= found.high
    assert 0 < found.details["p_two_sided"] <= 1
    assert found == ilps(scorer, [TEST], generator=np.random.default_rng(0))[0]


class Known:
    """A scorer whose tokens are words; it knows he from she by the attribute, if that is not masked."""

    kind = Kind.MASKED
    name = "known"

    def __init__(self, gap, seed=0):
        self.gap, self.seed, self.words = gap, seed, []

    def tokens(self, text, pair=None):
        spans, start = [(0, 0)], 0
        for word in text.split(" "):
            spans.append((start, start + len(word)))
            start += len(word) + 1
            self.words += [word] if word not in self.words else []
        return Tokens((-1, *(self.words.index(word) for word in text.split(" "))), tuple(spans))

    def log_probabilities(self, asked):
        found = []
        for each in asked:
            word = self.words[each.ids[each.positions[0]]].lower()
            value = -2.0 if word == "he" else -2.5  # what it expects without the attribute
            if not each.together:
                job = next(self.words[number] for number in each.ids[1:] if self.words[number][:3] in ("aaa", "bbb"))
                noise = np.random.default_rng([self.seed, *job.encode()]).normal() / 2
                lean = (self.gap / 2 if job.startswith("aaa") else -self.gap / 2) + noise
                value += lean / 2 if word == "he" else -lean / 2
            found.append(np.array([value] * len(each.positions)))
        return found


def planted(gap, seed=0, n=10):
    jobs = [tuple(f"{letter * 3}{number}" for number in range(n)) for letter in "ab"]
    test = ProbabilityTest("planted", (("he", "she"),), *jobs, ("{group} is the {attribute}",))
    return ilps(Known(gap, seed), [test], generator=np.random.default_rng(seed))[0]


def test_a_planted_preference_is_measured_in_nats():
    found = planted(2.0)
    assert found.low < 2.0 < found.high
    assert found.verdict is Verdict.DISPARITY
    assert found.details["p_two_sided"] < 0.01
    assert found.details["effect_size"] > 1
    values = [planted(gap).value for gap in (-1.0, 0.0, 0.5, 1.0)]
    assert values == sorted(values)


def coverage(gap, runs, n):
    return np.mean([(found := planted(gap, seed, n)).low <= gap <= found.high for seed in range(runs)])


def test_intervals_cover_quick():
    assert 0.90 <= coverage(0.0, 100, 12) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 24])
@pytest.mark.parametrize("gap", [0.0, 2.0])
def test_intervals_cover(gap, n):
    assert 0.93 <= coverage(gap, 1000, n) <= 0.97


def test_too_few_attributes_are_insufficient_evidence(bert):
    few = ProbabilityTest("few", GROUPS, JOBS_A[:4], JOBS_B, TEST.templates)
    none = ProbabilityTest("none", GROUPS, (), JOBS_B, TEST.templates)
    for found in ilps(open_scorer(*bert), [few, none], generator=np.random.default_rng(0)):
        assert found.verdict is Verdict.INSUFFICIENT_EVIDENCE
        assert found.value is None


def test_sentences():
    assert _filled("{group} is a {attribute}.", "he", "nurse") == ("He is a nurse.", (0, 2), (8, 13))
    text, group, attribute = _filled("A {attribute} saw {group}.", "her", "actor")
    assert (text, text[slice(*group)], text[slice(*attribute)]) == ("An actor saw her.", "her", "actor")
    assert _filled("the {attribute} is {group}", "he", "actor")[0] == "The actor is he"


@pytest.mark.parametrize("template", ["{group} works.", "{group} {attribute} {attribute}", "none"])
def test_templates_need_their_two_fields(template):
    with pytest.raises(ArgumentError, match=r"one {group} and one {attribute}"):
        ProbabilityTest("t", GROUPS, JOBS_A, JOBS_B, (template,))


def test_a_split_group_word_is_refused_with_the_mend(bert):
    test = ProbabilityTest("t", (("engineer", "nurse"),), JOBS_A, JOBS_B, TEST.templates)
    with pytest.raises(ModelError, match="splits the group word 'engineer' into 2 pieces; use pairs"):
        ilps(open_scorer(*bert), [test], generator=np.random.default_rng(0))


@pytest.mark.parametrize("change", [{"pairs": (("he", "xyz"),)}, {"attributes_a": (*JOBS_A, "xyz")}])
def test_a_word_that_is_not_known_is_refused(bert, change):
    fields = {"pairs": GROUPS, "attributes_a": JOBS_A, "attributes_b": JOBS_B, "templates": TEST.templates}
    test = ProbabilityTest("t", **{**fields, **change})
    with pytest.raises(ModelError, match="does not know 'xyz'"):
        ilps(open_scorer(*bert), [test], generator=np.random.default_rng(0))


def test_a_causal_model_is_refused():
    scorer = Known(1.0)
    scorer.kind = Kind.CAUSAL
    with pytest.raises(ModelError, match="use a masked language model"):
        ilps(scorer, [TEST], generator=np.random.default_rng(0))
