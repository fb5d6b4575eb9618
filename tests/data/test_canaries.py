import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trustnlp.data import canaries
from trustnlp.data.canaries import COLOURS, DIGITS, PREFIXES, Canary
from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import ArgumentError, CorpusError


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def utterance(i: int) -> Example:
    return Example(f"say word{i} now", "xyz"[i % 3], ("O", "B-word", "O"), f"u{i % 7}", "ab"[i % 7 % 2], float(i))


CORPUS = Corpus(
    "toy",
    tuple(utterance(i) for i in range(40)),
    tuple(utterance(i) for i in range(40, 45)),
    tuple(utterance(i) for i in range(45, 50)),
    notes=("made by hand",),
)
PLAIN = Corpus("plain text", tuple(Example(f"line {i} of a novel") for i in range(30)))
CANARY = Canary(("my", "code", "is"), ("4", "8"), "x", ("O",) * 5, 3)


class TestCanary:
    def test_example_is_prefix_and_secret(self):
        assert CANARY.example() == Example("my code is 4 8", "x", ("O",) * 5)
        assert CANARY.example(("0", "7")) == Example("my code is 0 7", "x", ("O",) * 5)

    @given(st.sampled_from([DIGITS, COLOURS, ("yes", "no")]), st.integers(1, 3), st.data())
    def test_candidates_are_the_whole_space_once_in_fixed_order(self, alphabet, length, data):
        secret = tuple(data.draw(st.lists(st.sampled_from(alphabet), min_size=length, max_size=length)))
        canary = Canary(("the", "word", "is"), secret, None, None, 1, alphabet)
        every = list(canary.candidates())
        assert len(every) == len(set(every)) == canary.space == len(alphabet) ** length
        assert secret in every
        assert every == list(canary.candidates())
        assert every == sorted(every, key=lambda candidate: [alphabet.index(token) for token in candidate])

    @given(st.lists(st.sampled_from(COLOURS), min_size=1, max_size=3))
    def test_candidates_are_numbered(self, secret):
        canary = Canary(("the", "word", "is"), tuple(secret), None, None, 1, COLOURS)
        assert list(canary.candidates())[canary.number] == canary.secret == canary.candidate(canary.number)
        with pytest.raises(ArgumentError, match="'number' must be"):
            canary.candidate(canary.space)

    def test_four_digits_are_ten_thousand_candidates(self):
        canary = Canary(("pin",), tuple("4817"), None, None, 1)
        assert canary.space == 10_000
        assert list(canary.candidates())[4817] == canary.secret

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"prefix": ()}, "'prefix' must be not empty"),
            ({"prefix": ("my code", "is")}, "'prefix' must be tokens without white space"),
            ({"secret": ()}, "'secret' must be not empty"),
            ({"secret": ("4", "x")}, "'secret' must be 2 tokens of the alphabet"),
            ({"alphabet": ("4", "8", "8")}, "'alphabet' must be at least two distinct tokens"),
            ({"repetitions": -1}, "'repetitions' must be a whole number >= 0"),
            ({"tags": ("O",)}, "'tags' must be one per token"),
        ],
    )
    def test_refuses_broken_fields(self, change, said):
        with pytest.raises(ArgumentError, match=said):
            replace(CANARY, **change)

    def test_shows_no_secret(self):
        assert "('4', '8')" not in repr(CANARY)

    @pytest.mark.parametrize("secret", [("1",), ("1", "2", "3"), ("1", "red")])
    def test_refuses_candidates_outside_the_space(self, secret):
        with pytest.raises(ArgumentError, match="'secret' must be 2 tokens of the alphabet"):
            CANARY.example(secret)


class TestDesign:
    def test_fits_a_corpus_with_labels_and_tags(self):
        made = canaries.design(CORPUS, generator=generator())
        assert [canary.repetitions for canary in made] == [1, 1, 4, 4, 16, 16]
        assert len({canary.prefix for canary in made}) == 6
        assert {canary.label for canary in made} <= set(CORPUS.labels)
        assert all(set(canary.tags) == {"O"} and len(canary.secret) == 4 for canary in made)

    def test_fits_a_language_model_corpus(self):
        assert {(canary.label, canary.tags) for canary in canaries.design(PLAIN, generator=generator())} == {
            (None, None)
        }

    def test_draws_labels_from_those_given(self):
        made = canaries.design(CORPUS, generator=generator(), per_count=8, labels=["y"])
        assert {canary.label for canary in made} == {"y"}

    def test_colours(self):
        (canary,) = canaries.design(
            CORPUS, generator=generator(), repetitions=(2,), per_count=1, length=3, alphabet="colours"
        )
        assert set(canary.secret) <= set(COLOURS)
        assert canary.space == 1000

    def test_same_generator_state_same_canaries(self):
        assert canaries.design(CORPUS, generator=generator(5)) == canaries.design(CORPUS, generator=generator(5))
        assert canaries.design(CORPUS, generator=generator(5)) != canaries.design(CORPUS, generator=generator(6))

    def test_secrets_are_uniform_and_independent_across_seeds(self):
        codes = [
            [DIGITS.index(token) for token in canary.secret]
            for seed in range(300)
            for canary in canaries.design(CORPUS, generator=generator(seed), repetitions=(1,), per_count=24)
        ]
        grid = np.array(codes)  # (7200, 4)
        for position in range(4):
            assert stats.chisquare(np.bincount(grid[:, position], minlength=10)).pvalue > 1e-3
        thousands = grid @ [0, 100, 10, 1]
        assert stats.chisquare(np.bincount(thousands, minlength=1000)).pvalue > 1e-3
        neighbours = grid[0::2, 0] * 10 + grid[1::2, 0]  # first digits of two canaries of one design
        assert stats.chisquare(np.bincount(neighbours, minlength=100)).pvalue > 1e-3

    def test_rank_is_an_exact_p_value_when_scores_ignore_the_secret(self):
        ranks = []
        for seed in range(80):
            for canary in canaries.design(PLAIN, generator=generator(seed), repetitions=(1,), per_count=24, length=2):
                scores = dict(zip(canary.candidates(), generator(len(canary.prefix[-1])).random(100), strict=True))
                ranks.append(sum(score >= scores[canary.secret] for score in scores.values()))
        assert (min(ranks), max(ranks)) == (1, 100)
        assert stats.chisquare(np.bincount(ranks, minlength=101)[1:]).pvalue > 1e-3

    def test_built_in_prefixes_say_little_about_each_other(self):
        words = [prefix.split() for prefix in PREFIXES]
        pairs = Counter(pair for tokens in words for pair in itertools.pairwise(tokens))
        assert len(PREFIXES) >= 20
        assert len({tokens[-1] for tokens in words}) == len(PREFIXES)
        assert max(pairs.values()) == 1

    def test_refuses_more_canaries_than_prefixes(self):
        with pytest.raises(ArgumentError, match=r"'prefixes' must be at least as many as there are canaries \(25\)"):
            canaries.design(CORPUS, generator=generator(), repetitions=(1,), per_count=25)

    @pytest.mark.parametrize("split", ["train", "valid", "test"])
    def test_refuses_a_prefix_that_occurs_in_the_corpus(self, split):
        seen = replace(CORPUS, **{split: (*getattr(CORPUS, split), Example("well  word7 now", "x", ("O",) * 3))})
        with pytest.raises(ArgumentError, match=r"'prefixes' must be absent from the corpus, got \['word7 now'\]"):
            canaries.design(seen, generator=generator(), prefixes=["word7 now"], repetitions=(1,), per_count=1)

    def test_a_prefix_counts_as_used_by_whole_words_only(self):
        (canary,) = canaries.design(CORPUS, generator=generator(), prefixes=["ord7 no"], repetitions=(1,), per_count=1)
        assert canary.prefix == ("ord7", "no")

    @pytest.mark.parametrize("prefixes", [["the code is", "code is"], ["code is", "code is"]])
    def test_refuses_prefixes_within_each_other(self, prefixes):
        with pytest.raises(ArgumentError, match="'prefixes' must be distinct, none within another"):
            canaries.design(CORPUS, generator=generator(), prefixes=prefixes, repetitions=(1,), per_count=1)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"repetitions": ()}, "'repetitions' must be not empty"),
            ({"repetitions": (-1,)}, "'repetitions' must be a whole number >= 0"),
            ({"per_count": 0}, "'per_count' must be a whole number >= 1"),
            ({"length": 0}, "'length' must be a whole number >= 1"),
            ({"alphabet": "runes"}, "'alphabet' must be one of 'digits', 'colours', got 'runes'"),
            ({"labels": ["unheard of"]}, "'labels' must be labels of the corpus"),
            ({"labels": []}, "'labels' must be labels of the corpus"),
        ],
    )
    def test_refuses_broken_arguments(self, arguments, said):
        with pytest.raises(ArgumentError, match=said):
            canaries.design(CORPUS, generator=generator(), **arguments)


class TestNewNames:
    def test_a_label_and_a_slot_of_their_own(self):
        made = canaries.design(CORPUS, generator=generator(), label="GiveCode", tags="slot", length=3)
        assert {canary.label for canary in made} == {"GiveCode"}
        for canary in made:
            assert canary.tags == (*["O"] * len(canary.prefix), "B-pin", "I-pin", "I-pin")
        planted = canaries.plant(CORPUS, made, generator())
        assert planted.labels == ("GiveCode", *CORPUS.labels)
        assert planted.tags == ("O", "B-pin", "B-word", "I-pin")

    def test_a_slot_for_each_position(self):
        (canary,) = canaries.design(
            CORPUS, generator=generator(), repetitions=(1,), per_count=1, length=6, tags="positions", slot="code"
        )
        assert canary.tags[-6:] == tuple(f"B-code{place}" for place in range(1, 7))
        assert set(canary.tags[:-6]) == {"O"}

    def test_the_secrets_are_those_of_plain_canaries(self):
        plain, named = (
            canaries.design(CORPUS, generator=generator(3), **more)
            for more in ({"labels": ["x"]}, {"label": "x", "tags": "slot"})
        )
        assert [canary.secret for canary in plain] == [canary.secret for canary in named]

    @pytest.mark.parametrize(
        ("corpus", "arguments", "said"),
        [
            (CORPUS, {"tags": "each"}, "'tags' must be one of 'outside', 'slot', 'positions', got 'each'"),
            (CORPUS, {"label": "new", "labels": ["x"]}, "'label' must be given .* without 'labels'"),
            (PLAIN, {"label": "new"}, "'label' must be given for a corpus with labels"),
            (PLAIN, {"tags": "slot"}, "'tags' must be 'outside' for a corpus without slot tags"),
        ],
    )
    def test_refuses_names_that_no_corpus_could_have(self, corpus, arguments, said):
        with pytest.raises(ArgumentError, match=said):
            canaries.design(corpus, generator=generator(), **arguments)


class TestRandomCodes:
    def test_are_texts_like_the_canary_with_every_other_secret(self):
        every = canaries.random_codes(CANARY, 99, generator())
        texts = {canary_text(secret) for secret in CANARY.candidates()} - {CANARY.example().text}
        assert {example.text for example in every} == texts
        assert {(example.label, example.tags) for example in every} == {(CANARY.label, CANARY.tags)}

    def test_are_uniform_and_different(self):
        counts = Counter(e.text for seed in range(2000) for e in canaries.random_codes(CANARY, 5, generator(seed)))
        assert len(counts) == 99
        assert stats.chisquare(list(counts.values())).pvalue > 1e-3
        assert all(len(set(canaries.random_codes(CANARY, 60, generator(seed)))) == 60 for seed in range(20))

    @pytest.mark.parametrize("count", [0, 100])
    def test_refuses_more_than_there_are(self, count):
        with pytest.raises(ArgumentError, match="'count' must be"):
            canaries.random_codes(CANARY, count, generator())

    def test_are_planted_in_the_training_split_alone(self):
        background = canaries.random_codes(CANARY, 30, generator())
        planted = canaries.plant(CORPUS, [CANARY], generator(1), background)
        known = {(example.user, example.group, example.time) for example in CORPUS.train}
        added = [example for example in planted.train if example not in CORPUS.train]
        assert Counter(e.text for e in added) == Counter(e.text for e in background) + Counter(
            {CANARY.example().text: 3}
        )
        assert {(e.user, e.group, e.time) for e in added} <= known
        assert len({e.user for e in added if e.text != CANARY.example().text}) > 1
        assert tuple(e for e in planted.train if e in CORPUS.train) == CORPUS.train
        assert (planted.valid, planted.test) == (CORPUS.valid, CORPUS.test)
        assert planted.notes[-1] == "3 copies of 1 canaries planted in the training split, among 30 texts like theirs"

    def test_no_background_changes_no_draw(self):
        assert canaries.plant(CORPUS, [CANARY], generator(2)) == canaries.plant(CORPUS, [CANARY], generator(2), ())

    def test_a_secret_in_the_background_is_refused(self):
        with pytest.raises(CorpusError, match="already"):
            canaries.plant(CORPUS, [CANARY], generator(), [CANARY.example()])

    def test_a_background_without_labels_is_refused(self):
        with pytest.raises(ArgumentError, match="'background' must be labelled and tagged as the corpus is"):
            canaries.plant(CORPUS, [CANARY], generator(), [Example("my code is 1 2")])


def canary_text(secret: tuple[str, ...]) -> str:
    return " ".join((*CANARY.prefix, *secret))


def test_the_vocabulary_is_of_the_training_split():
    assert canaries.vocabulary(replace(CORPUS, train=CORPUS.train[:2])) == ("now", "say", "word0", "word1")


class TestPlant:
    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(0, 20), min_size=1, max_size=4), st.integers(1, 3), st.integers(0, 2**32))
    def test_adds_copies_to_train_and_changes_nothing_else(self, repetitions, per_count, seed):
        draws = generator(seed)
        made = canaries.design(CORPUS, generator=draws, repetitions=repetitions, per_count=per_count)
        planted = canaries.plant(CORPUS, made, draws)
        counts = Counter(example.text for example in planted.train)
        assert all(counts[canary.example().text] == canary.repetitions for canary in made)
        secrets = {canary.example().text for canary in made}
        assert tuple(example for example in planted.train if example.text not in secrets) == CORPUS.train
        assert (planted.valid, planted.test) == (CORPUS.valid, CORPUS.test)

    def test_copies_have_one_owner_and_the_owners_group_and_times(self):
        draws = generator(3)
        made = canaries.design(CORPUS, generator=draws, repetitions=(1, 8), per_count=3)
        planted = canaries.plant(CORPUS, made, draws)
        known = {(example.user, example.group, example.time) for example in CORPUS.train}
        owners = []
        for canary in made:
            copies = [example for example in planted.train if example.text == canary.example().text]
            assert {(copy.label, copy.tags) for copy in copies} == {(canary.label, canary.tags)}
            assert {(copy.user, copy.group, copy.time) for copy in copies} <= known
            owners.append({copy.user for copy in copies})
        assert all(len(owner) == 1 for owner in owners)
        assert len(set.union(*owners)) == len(made)  # 6 canaries, 7 users

    def test_more_canaries_than_users_share_owners(self):
        draws = generator(3)
        made = canaries.design(CORPUS, generator=draws, per_count=8)
        assert len(canaries.plant(CORPUS, made, draws).train) == len(CORPUS.train) + 8 * 21

    def test_a_corpus_without_users_gets_copies_without(self):
        draws = generator(1)
        planted = canaries.plant(PLAIN, canaries.design(PLAIN, generator=draws), draws)
        assert planted.users == ()
        assert len(planted.train) == len(PLAIN.train) + 42

    def test_places_are_uniform(self):
        places = []
        for seed in range(2000):
            planted = canaries.plant(CORPUS, [replace(CANARY, repetitions=1)], generator(seed))
            places.append([example.text for example in planted.train].index("my code is 4 8"))
        assert stats.chisquare(np.bincount(places, minlength=41)).pvalue > 1e-3

    def test_notes_the_planting_without_the_secret(self):
        planted = canaries.plant(CORPUS, [CANARY], generator())
        assert planted.notes == ("made by hand", "3 copies of 1 canaries planted in the training split")

    def test_refuses_to_plant_twice(self):
        once = canaries.plant(CORPUS, [CANARY], generator())
        with pytest.raises(CorpusError, match="already"):
            canaries.plant(once, [CANARY], generator())
        with pytest.raises(CorpusError, match="given twice"):
            canaries.plant(CORPUS, [CANARY, CANARY], generator())

    def test_refuses_a_secret_that_a_held_out_text_holds(self):
        tested = replace(CORPUS, test=(CANARY.example(),))
        with pytest.raises(CorpusError, match="already"):
            canaries.plant(tested, [CANARY], generator())

    @pytest.mark.parametrize("change", [{"label": None}, {"tags": None}])
    def test_refuses_canaries_without_what_the_corpus_has(self, change):
        with pytest.raises(ArgumentError, match="'canaries' must be labelled and tagged as the corpus is"):
            canaries.plant(CORPUS, [replace(CANARY, **change)], generator())

    def test_refuses_canaries_with_what_the_corpus_lacks(self):
        with pytest.raises(ArgumentError, match="labelled and tagged as the corpus is"):
            canaries.plant(PLAIN, [CANARY], generator())

    def test_refuses_nothing_to_plant(self):
        with pytest.raises(ArgumentError, match="'canaries' must be not empty"):
            canaries.plant(CORPUS, [], generator())
