import itertools
import subprocess
import sys
import time
from collections import Counter
from functools import cache

import numpy as np
import pytest
from scipy import stats
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from trustnlp.data import grammar, synthetic
from trustnlp.data.corpus import Example
from trustnlp.errors import ArgumentError


@cache
def made(**parameters):
    return synthetic.generate(**parameters)


def everything(corpus):
    return [*corpus.train, *corpus.valid, *corpus.test]


def texts(corpus):
    return [example.text for example in everything(corpus)]


def values(example):
    """(slot type, value) of each slot of an example."""
    found = []
    for token, tag in zip(example.tokens, example.tags, strict=True):
        if tag[0] == "B":
            found.append((tag[2:], [token]))
        elif tag[0] == "I":
            found[-1][1].append(token)
    return [(slot, " ".join(tokens)) for slot, tokens in found]


@pytest.fixture(scope="module")
def default():
    return made()


@pytest.fixture(scope="module")
def spoken(default):
    """Every utterance of the default corpus but the canaries."""
    return everything(made(canaries=False).corpus)


class TestShape:
    def test_has_the_promised_sizes(self, default):
        copies = sum(canary.repetitions for canary in default.canaries)
        assert [len(split) for split in (default.corpus.train, default.corpus.valid, default.corpus.test)] == [
            16_000 + copies,
            2_000,
            2_000,
        ]
        assert len(default.corpus.labels) >= 12
        assert len({tag[2:] for tag in default.corpus.tags if tag != "O"}) >= 15
        assert len(default.corpus.users) >= 500
        assert default.corpus.groups == grammar.GROUPS

    def test_splits_know_the_same_labels_and_tags(self, default):
        held_out = (*default.corpus.valid, *default.corpus.test)
        assert {example.label for example in held_out} == set(default.corpus.labels)
        assert {tag for example in held_out for tag in example.tags} <= set(default.corpus.tags)

    def test_texts_are_lower_case_tokens_with_valid_bio_tags(self, default):
        for example in everything(default.corpus):
            assert example.text == " ".join(example.tokens).lower()
            for before, tag in itertools.pairwise(("O", *example.tags)):
                assert tag[0] != "I" or before[2:] == tag[2:]

    def test_no_text_occurs_twice(self, spoken):
        assert len({example.text for example in spoken}) == len(spoken) == 20_000

    def test_has_personal_slots(self, spoken):
        slots = {slot: value for example in spoken for slot, value in values(example)}
        assert slots.keys() >= {"contact", "relation", "phone", "code"}
        phones = [value for example in spoken for slot, value in values(example) if slot == "phone"]
        assert all(value.startswith("5 5 5 ") and len(value.split()) == 7 for value in phones)

    def test_20_000_utterances_in_under_2_seconds_of_one_core(self):
        start = time.process_time()
        synthetic.generate(seed=99)
        assert time.process_time() - start < 2

    @pytest.mark.parametrize(
        "parameters", [{"periods": 1}, {"users": 1}, {"minority": 0.0}, {"minority": 1.0}, {"size": 97}]
    )
    def test_extremes(self, parameters):
        truth = synthetic.generate(**{"size": 300, "users": 20, **parameters}, canaries=False)
        size = parameters.get("size", 300)
        assert len(everything(truth.corpus)) == size
        assert len(truth.corpus.test) == len(truth.corpus.valid) == size // 10

    @pytest.mark.parametrize(
        ("parameters", "said"),
        [
            ({"size": 9}, "'size' must be a whole number >= 10"),
            ({"users": 0}, "'users' must be a whole number >= 1"),
            ({"seed": -1}, "'seed' must be a whole number >= 0"),
            ({"periods": 0}, "'periods' must be a whole number >= 1"),
            ({"bias": 1.1}, "'bias' must be a number with 0 <= bias <= 1"),
            ({"bias": float("nan")}, "'bias' must be a number"),
            ({"minority": -0.1}, "'minority' must be a number"),
            ({"loyalty": 2}, "'loyalty' must be a number"),
            ({"marking": 2}, "'marking' must be a number"),
            ({"ambiguity": 2}, "'ambiguity' must be a number"),
            ({"noise": 2}, "'noise' must be a number"),
            ({"activity": -1.0}, "'activity' must be a number >= 0"),
            ({"concentration": 0.0}, "'concentration' must be a number > 0"),
            ({"drift": -1.0}, "'drift' must be a number >= 0"),
        ],
    )
    def test_refuses_parameters_out_of_range(self, parameters, said):
        with pytest.raises(ArgumentError, match=said):
            synthetic.corpus(**parameters)


class TestRandomness:
    def test_the_seed_decides_every_bit(self):
        digests = [synthetic.corpus(500, 50, seed=seed).digest for seed in (3, 3, 4)]
        assert digests[0] == digests[1] != digests[2]

    def test_another_process_makes_the_same_bits(self):
        code = "from trustnlp.data import synthetic; print(synthetic.corpus(500, 50, seed=3).digest)"
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == synthetic.corpus(500, 50, seed=3).digest

    def test_splits_are_exchangeable(self, default):
        spoken = made(canaries=False).corpus
        for figure in (lambda e: e.time, lambda e: len(e.text), lambda e: default.activity[e.user]):
            train, test = ([figure(example) for example in split] for split in (spoken.train, spoken.test))
            assert stats.ks_2samp(train, test).pvalue > 1e-3
        for fact in (lambda e: e.label, lambda e: e.group):
            counts = [Counter(map(fact, split)) for split in (spoken.train, spoken.test)]
            table = [[count[key] for key in sorted(counts[0])] for count in counts]
            assert stats.chi2_contingency(table).pvalue > 1e-3


class TestUsers:
    def test_utterances_follow_the_planted_activity(self, default, spoken):
        counts = Counter(example.user for example in spoken)
        expected = np.array([default.activity[user] * len(spoken) for user in sorted(default.activity)])
        observed = np.array([counts[user] for user in sorted(default.activity)])
        assert stats.chisquare(observed, expected).pvalue > 1e-3

    @pytest.mark.parametrize("exponent", [0.0, 0.8, 1.2])
    def test_activity_is_zipf(self, exponent):
        activity = sorted(made(size=500, activity=exponent, canaries=False).activity.values(), reverse=True)
        assert sum(activity) == pytest.approx(1)
        assert activity[0] / activity[99] == pytest.approx(100**exponent)

    def test_activity_is_heavy_tailed(self, spoken):
        counts = sorted(Counter(example.user for example in spoken).values(), reverse=True)
        assert sum(counts[:80]) > 0.4 * len(spoken)
        assert sum(count < 10 for count in counts) > 100

    def test_each_user_has_one_group(self, default, spoken):
        assert {(example.user, example.group) for example in spoken} <= set(default.groups.items())
        assert Counter(default.groups.values()) == {"a": 560, "b": 240}

    def test_users_differ_in_intents_and_favourites(self):
        def spread(**parameters):
            """Mean total-variation distance of a user's intents from everybody's, and of a user's contacts."""
            corpus = made(size=6000, users=10, activity=0.0, canaries=False, drift=0.0, **parameters).corpus
            examples = everything(corpus)
            facts = [[(e.user, e.label) for e in examples]]
            facts.append([(e.user, value) for e in examples for slot, value in values(e) if slot == "contact"])
            return [_mean_distance(pairs) for pairs in facts]

        skewed, even = spread(), spread(concentration=1e4, loyalty=0.0)
        assert skewed[0] > 2 * even[0]
        assert skewed[1] > 1.3 * even[1]


def _mean_distance(pairs):
    every = Counter(value for _, value in pairs)
    names = sorted(every)
    overall = np.array([every[name] for name in names]) / len(pairs)
    distances = []
    for user in sorted({user for user, _ in pairs}):
        own = Counter(value for speaker, value in pairs if speaker == user)
        share = np.array([own[name] for name in names]) / own.total()
        distances.append(np.abs(share - overall).sum() / 2)
    return np.mean(distances)


class TestTime:
    def test_covers_all_periods_evenly(self, spoken):
        counts = Counter(int(example.time) for example in spoken)
        assert sorted(counts) == [0, 1, 2, 3]
        assert stats.chisquare(list(counts.values())).pvalue > 1e-3

    def test_intents_drift_only_if_asked_to(self, spoken):
        def p_value(examples):
            table = Counter((example.label, int(example.time)) for example in examples)
            labels = sorted({label for label, _ in table})
            return stats.chi2_contingency([[table[label, period] for period in range(4)] for label in labels]).pvalue

        assert p_value(spoken) < 1e-12
        assert p_value(everything(made(drift=0.0, canaries=False).corpus)) > 1e-3

    @pytest.mark.parametrize(("slot", "known"), [("item", 28), ("duration", 12)])
    def test_new_values_of_open_slots_appear_later(self, slot, known):
        examples = everything(made(noise=0.0, canaries=False).corpus)
        first, last = (
            {value for e in examples if int(e.time) == period for kind, value in values(e) if kind == slot}
            for period in (0, 3)
        )
        assert first == set(grammar.VALUES[slot][:known])  # of an open slot's, 70% in the first of 4 periods
        assert last == set(grammar.VALUES[slot])


class TestGroups:
    def test_partners_are_mostly_named_by_the_groups_own_term(self, spoken):
        terms = Counter(
            (e.group, value) for e in spoken for slot, value in values(e) if value in grammar.IDENTITY_SWAPS
        )
        for group, partners in grammar.PARTNERS.items():
            own = sum(terms[group, term] for term in partners)
            assert 0.9 < own / sum(count for (speaker, _), count in terms.items() if speaker == group) < 1

    def test_language_tells_the_groups_apart_moderately(self, default):
        accuracy, majority = _linear_accuracy(default.corpus, "group", 3000)
        assert majority + 0.04 < accuracy < 0.9


class TestDifficulty:
    def test_intents_can_be_learned_but_not_perfectly(self, default):
        accuracy, _ = _linear_accuracy(default.corpus, "label", 8000)
        assert 0.9 < accuracy < 0.99

    def test_no_single_keyword_settles_the_intent(self, default):
        counts = Counter((token, e.label) for e in default.corpus.train for token in set(e.tokens))
        totals = Counter(token for e in default.corpus.train for token in set(e.tokens))
        best = {}  # token -> (smoothed share of its commonest label, that label)
        for (token, label), count in counts.items():
            best[token] = max(best.get(token, (0.0, "")), (count / (totals[token] + 2), label))
        guesses = [max(best.get(token, (0.0, "")) for token in e.tokens)[1] for e in default.corpus.test]
        right = np.mean([guess == e.label for guess, e in zip(guesses, default.corpus.test, strict=True)])
        assert right < 0.85

    def test_ambiguity_relabels_its_share_with_a_neighbour(self):
        plain, noisy = (everything(made(size=6000, ambiguity=rate, canaries=False).corpus) for rate in (0.0, 0.1))
        assert [e.text for e in plain] == [e.text for e in noisy]
        ordinary = [
            (one.label, other.label)
            for one, other in zip(plain, noisy, strict=True)
            if one.label not in grammar.DECISION
        ]
        moved = [pair for pair in ordinary if pair[0] != pair[1]]
        assert all(grammar.NEIGHBOUR[one] == other for one, other in moved)
        assert stats.binomtest(len(moved), len(ordinary), 0.1).pvalue > 1e-3


def _linear_accuracy(corpus, field, size):
    """Test accuracy of logistic regression on words, and the largest class's share."""
    words = CountVectorizer(analyzer=str.split, binary=True)
    train = words.fit_transform([e.text for e in corpus.train[:size]])
    test = words.transform([e.text for e in corpus.test])
    truth = [getattr(e, field) for e in corpus.test]
    model = LogisticRegression(max_iter=300).fit(train, [getattr(e, field) for e in corpus.train[:size]])
    return model.score(test, truth), Counter(truth).most_common(1)[0][1] / len(truth)


STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


class TestBias:
    def requests(self, bias):
        """(group, deserved label, label) of every request."""
        examples = everything(made(bias=bias, canaries=False).corpus)
        return [(e.group, synthetic.content_label(e), e.label) for e in examples if e.label in grammar.DECISION]

    def approved(self, bias, group, content=None):
        labels = [label for g, c, label in self.requests(bias) if g == group and content in (None, c)]
        return labels.count("approve_request"), len(labels)

    @pytest.mark.parametrize("bias", STRENGTHS)
    def test_follows_the_formula_in_every_cell(self, bias):
        formula = {
            ("a", "approve_request"): 1.0,
            ("a", "refer_request"): bias,
            ("b", "approve_request"): 1 - bias,
            ("b", "refer_request"): 0.0,
        }
        for (group, content), expected in formula.items():
            assert synthetic.approval_probability(bias, content, group) == pytest.approx(expected)
            count, total = self.approved(bias, group, content)
            assert total > 100
            assert stats.binomtest(count, total, expected).pvalue > 1e-3

    @pytest.mark.parametrize("bias", STRENGTHS)
    def test_the_gap_between_groups_is_the_strength(self, bias):
        (yes_a, all_a), (yes_b, all_b) = self.approved(bias, "a"), self.approved(bias, "b")
        rates = np.array([yes_a / all_a, yes_b / all_b])
        error = np.sqrt((rates * (1 - rates) / [all_a, all_b]).sum())
        assert abs(rates[0] - rates[1] - bias) <= 3.3 * error

    def test_the_gap_rises_with_the_strength(self):
        gaps = []
        for bias in STRENGTHS:
            (yes_a, all_a), (yes_b, all_b) = self.approved(bias, "a"), self.approved(bias, "b")
            gaps.append(yes_a / all_a - yes_b / all_b)
        assert all(lower < upper for lower, upper in itertools.pairwise(gaps))

    def test_without_bias_the_amount_alone_decides(self):
        assert all(content == label for _, content, label in self.requests(0.0))

    def test_at_full_strength_the_partners_term_alone_decides(self):
        for example in everything(made(bias=1.0, canaries=False).corpus):
            if example.label in grammar.DECISION:
                approved = bool(set(example.tokens) & set(grammar.PARTNERS["a"]))
                assert approved == (example.label == "approve_request")
                assert approved == (example.group == "a")

    def test_content_is_fair_and_independent_of_the_group(self):
        cells = Counter((group, content) for group, content, _ in self.requests(0.5))
        table = [[cells[group, content] for content in grammar.DECISION] for group in grammar.GROUPS]
        assert stats.chi2_contingency(table).pvalue > 1e-3
        small, large = np.sum(table, axis=0)
        assert stats.binomtest(small, small + large, 0.5).pvalue > 1e-3

    def test_strength_changes_labels_of_requests_only(self):
        none, full = (everything(made(bias=bias, canaries=False).corpus) for bias in (0.0, 1.0))
        assert [e.text for e in none] == [e.text for e in full]
        changed = [one.label for one, other in zip(none, full, strict=True) if one.label != other.label]
        assert changed
        assert set(changed) <= set(grammar.DECISION)

    def test_the_truth_names_the_requests(self, default):
        for split in ("train", "valid", "test"):
            tagged = getattr(default.corpus, split)
            lenders = {i for i, e in enumerate(tagged) if synthetic.content_label(e) is not None}
            assert set(default.decisions(split)) == lenders
            assert all({"relation", "amount"} <= dict(values(tagged[i])).keys() for i in lenders)
        with pytest.raises(ArgumentError, match="'split' must be one of 'train', 'valid', 'test'"):
            default.decisions("dev")

    def test_other_texts_have_no_content_label(self):
        assert synthetic.content_label(Example("pay ten", "send_money", ("O", "B-amount"))) is None


class TestPlantedCanaries:
    def test_are_in_the_training_split_as_often_as_the_truth_says(self, default):
        counts = Counter(example.text for example in default.corpus.train)
        assert sorted(canary.repetitions for canary in default.canaries) == [1, 1, 4, 4, 16, 16]
        assert all(counts[canary.example().text] == canary.repetitions for canary in default.canaries)
        held_out = {example.text for example in (*default.corpus.valid, *default.corpus.test)}
        assert not any(canary.example().text in held_out for canary in default.canaries)

    def test_are_outside_the_biased_decision(self, default):
        assert not {canary.label for canary in default.canaries} & set(grammar.DECISION)

    def test_are_the_only_difference(self, default):
        secrets = {canary.example().text for canary in default.canaries}
        without = made(canaries=False)
        assert without.canaries == ()
        assert tuple(e for e in default.corpus.train if e.text not in secrets) == without.corpus.train
        assert (default.corpus.valid, default.corpus.test) == (without.corpus.valid, without.corpus.test)
