from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from scipy import stats

from trustnlp import models
from trustnlp.attacks import exposure, inversion
from trustnlp.attacks.blanks import frozen
from trustnlp.attacks.inversion import Guess, Search, evaluate, exhaustive, invert, of_many
from trustnlp.attacks.relaxations import Annealed, Fixed, GumbelStraightThrough
from trustnlp.data import canaries
from trustnlp.data.canaries import COLOURS, DIGITS, Canary
from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import ArgumentError, GuaranteeError, ModelError
from trustnlp.models.heads import NLUModel
from trustnlp.randomness import Streams
from trustnlp.results import Direction, Verdict

STREAMS = Streams(7)
SMALL = {"buckets": 256, "width": 16, "char_filters": 8, "hidden": 24, "dropout": 0.0, "word_dropout": 0.0}
SAID = Corpus(
    "said",
    tuple(
        Example(f"{verb} {thing} {end}", label, ("O", f"B-{label}", "O"))
        for verb, label in (("play", "music"), ("call", "phone"))
        for thing in ("jazz", "mother", "rock", "him", "her", "blues")
        for end in ("now", "please", "again", "at 7", "at 3")[:3]
    ),
)


def learned(*planted: Canary, seed: int = 0, epochs: int = 40, **options: object) -> NLUModel:
    """A small model that has learned a corpus with the canaries by heart."""
    corpus = canaries.plant(SAID, planted, np.random.default_rng(seed))
    model = models.build("bilstm", corpus, streams=Streams(seed), **(SMALL | options))
    data = model.encode(corpus.train, for_training=True)
    batches = models.ShuffledBatches(len(data), 16, epochs, Streams(seed))
    models.fit(
        model, data, batches, models.PlainStep(model, torch.optim.Adam(model.parameters(), 0.01)), streams=Streams(seed)
    )
    return model


def canary(prefix: str, *secret: str, alphabet: tuple[str, ...] = DIGITS) -> Canary:
    words = tuple(prefix.split())
    return Canary(words, secret, "ask", ("O",) * len(words) + ("B-pin",) + ("I-pin",) * (len(secret) - 1), 8, alphabet)


CODE = canary("my pin code is", "4", "0", "7")
COLOUR = canary("the vault opens with", "pink", "white", alphabet=COLOURS)
OTHER = canary("elsewhere stood", "1", "1", "5")


@pytest.fixture(scope="module")
def leaky() -> NLUModel:
    return learned(CODE, COLOUR)


@pytest.fixture(scope="module")
def with_crf() -> NLUModel:
    return learned(CODE, crf=True)


# A planted secret is found


@pytest.mark.parametrize("relaxation", [Fixed(1.0), Annealed(), GumbelStraightThrough()], ids=str)
def test_a_secret_learned_by_heart_is_read_out(leaky, relaxation):
    found = invert(leaky, CODE, search=Search(relaxation=relaxation, patience=40), streams=STREAMS)
    assert found.secret == ("4", "0", "7")
    assert (found.exact, found.hamming, found.candidates, found.repetitions) == (True, 0.0, 10, 8)
    assert found.loss == pytest.approx(found.true_loss) == pytest.approx(exhaustive(leaky, CODE).min(), rel=1e-3)
    assert exposure.of_canary(exhaustive(leaky, CODE), CODE).rank == 1


def test_so_it_is_behind_a_crf(with_crf):
    assert invert(with_crf, CODE, search=Search(patience=40), streams=STREAMS).exact


@pytest.mark.parametrize("objective", ["label", "tags"])
def test_half_of_the_loss_finds_what_it_likes_best(leaky, objective):
    found, losses = (
        invert(leaky, CODE, search=Search(objective=objective), streams=STREAMS),
        exhaustive(leaky, CODE, objective=objective),
    )
    assert found.true_loss == pytest.approx(losses[407], rel=1e-3)
    assert found.loss == pytest.approx(losses[int("".join(found.secret))], rel=1e-3)
    assert (losses <= found.loss).mean() < 0.05  # of 1,000 secrets


def test_words_of_the_whole_corpus_may_be_candidates(leaky):
    words = canaries.vocabulary(canaries.plant(SAID, [CODE, COLOUR], np.random.default_rng(0)))
    assert len(words) == 24
    found = invert(leaky, COLOUR, candidates=words, search=Search(patience=40), streams=STREAMS)
    assert found.candidates == len(words)
    assert found.exact


def test_a_guess_is_made_without_the_secret(leaky):
    wrong = replace(CODE, secret=("0", "0", "0"))
    found = [invert(leaky, one, search=Search(steps=40), streams=STREAMS) for one in (CODE, wrong)]
    assert found[0].secret == found[1].secret == ("4", "0", "7")
    assert (found[1].exact, found[1].hamming) == (False, pytest.approx(2 / 3))
    assert found[0].loss == found[1].loss < found[1].true_loss


def test_the_words_with_the_lowest_loss_are_chosen(leaky):
    one, many = (Search(restarts=restarts, steps=1, descents=0) for restarts in (1, 50))
    alone = [invert(leaky, CODE, search=one, streams=Streams(seed)) for seed in range(6)]
    assert len({found.loss for found in alone}) > 1
    together = invert(leaky, CODE, search=many, streams=Streams(0))
    assert together.loss < np.median([found.loss for found in alone])
    every = exhaustive(leaky, CODE)
    assert every.min() <= together.loss


@pytest.mark.parametrize("secret", [CODE, COLOUR], ids=["digits", "colours"])
def test_exchanging_words_leads_from_near_a_secret_to_it(leaky, secret):
    every = exhaustive(leaky, secret)
    for seed in range(6):
        begun = Search(restarts=1, steps=1, descents=0)
        without = invert(leaky, secret, search=begun, streams=Streams(seed))
        found = invert(leaky, secret, search=replace(begun, descents=1), streams=Streams(seed))
        assert found.loss <= without.loss
        assert found.loss == pytest.approx(every.min(), rel=1e-3)


def test_words_of_large_vocabularies_are_exchanged_one_by_one():
    words = torch.tensor([5, 0, 2])
    alone = {tuple(one.tolist()) for one in inversion._exchanges(words, 200)}
    assert alone == {(n, 0, 2) for n in range(200)} | {(5, n, 2) for n in range(200)} | {(5, 0, n) for n in range(200)}
    pairs = inversion._exchanges(words, 10)
    assert (pairs != words).sum(1).max() == 2
    assert len({tuple(one.tolist()) for one in pairs}) == 1 + 3 * 9 + 3 * 81


# A model that knows nothing is guessed at by chance


def test_a_fresh_model_gives_chance():
    guesses = []
    for seed in range(4):
        made = canaries.design(
            SAID, generator=np.random.default_rng(seed), repetitions=(0,), per_count=24, length=1, label="music"
        )
        model = models.build("bilstm", SAID, streams=Streams(seed), **SMALL)
        guesses += of_many(model, made, search=Search(steps=60), streams=Streams(seed))
    exact, hamming = evaluate(guesses, models=np.repeat(range(4), 24).tolist())
    assert exact.details["p_value"] > 0.01
    assert hamming.details["p_value"] > 0.01
    assert exact.value == pytest.approx(0.1, abs=0.08)
    assert len({guess.secret for guess in guesses}) > 1


# Many at once


def test_many_are_searched_as_one_by_one(leaky):
    every = [COLOUR, CODE, OTHER]
    together = of_many(leaky, every, search=Search(steps=60), streams=STREAMS)
    alone = [invert(leaky, one, search=Search(steps=60), streams=STREAMS) for one in every]
    for one, other in zip(together, alone, strict=True):
        assert replace(one, loss=0, true_loss=0) == replace(other, loss=0, true_loss=0)
        assert (one.loss, one.true_loss) == pytest.approx((other.loss, other.true_loss), rel=1e-9)


@pytest.mark.parametrize("relaxation", [Annealed(), GumbelStraightThrough()], ids=str)
def test_same_seed_same_guess(leaky, relaxation):
    search = Search(relaxation=relaxation, steps=30)
    searches = [invert(leaky, CODE, search=search, streams=Streams(seed)) for seed in (1, 1, 2)]
    assert searches[0] == searches[1]
    assert searches[0].steps == 30


def test_the_global_generator_is_not_drawn_from(leaky):
    before = torch.get_rng_state()
    invert(leaky, CODE, search=Search(relaxation=GumbelStraightThrough(), steps=2), streams=STREAMS)
    assert torch.equal(torch.get_rng_state(), before)


def test_patience_ends_a_search(leaky):
    assert invert(leaky, CODE, search=Search(steps=500, patience=20), streams=STREAMS).steps < 200


# The exhaustive oracle


@pytest.mark.parametrize("one", [CODE, COLOUR], ids=["code", "colour"])
def test_all_secrets_are_scored_as_their_texts_are(leaky, one):
    def loss_of(examples):
        return models.losses(leaky, leaky.encode(examples))

    found, expected = exhaustive(leaky, one), exposure.score_candidates(loss_of, one)
    assert found.shape == (one.space,)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)  # the texts are read in float32
    assert exposure.of_canary(found, one) == exposure.of_canary(expected, one)


def test_in_one_precision_they_are_the_same(with_crf, monkeypatch):
    exact = frozen(with_crf)
    monkeypatch.setattr(inversion, "frozen", lambda model, dtype: model)
    expected = exposure.score_candidates(lambda texts: models.losses(exact, exact.encode(texts)), CODE)
    np.testing.assert_allclose(exhaustive(exact, CODE), expected, rtol=1e-9)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"search": Search(objective="both")}, "'objective' must be one of"),
        ({"candidates": ["4"]}, "'candidates' must be two or more distinct words"),
        ({"candidates": ["4", "0", "7", "7"]}, "'candidates' must be two or more distinct words"),
        ({"candidates": ["4", "0", "7 7"]}, "'candidates' must be two or more distinct words"),
        (
            {"candidates": ["4", "0", "8"]},
            "'candidates' must be words among which are those of the secret, got '3 words",
        ),
    ],
)
def test_arguments_that_break_their_rule(leaky, arguments, said):
    with pytest.raises(ArgumentError, match=said):
        invert(leaky, CODE, streams=STREAMS, **arguments)


@pytest.mark.parametrize("name", ["restarts", "steps", "patience"])
def test_a_search_takes_at_least_one_of_each(name):
    with pytest.raises(ArgumentError, match=f"'{name}' must be a whole number >= 1"):
        Search(**{name: 0})


def test_a_label_that_the_model_never_learned(leaky):
    with pytest.raises(ModelError, match="cannot answer the label of the canary 'my pin code is'"):
        invert(leaky, replace(CODE, label="new"), streams=STREAMS)
    with pytest.raises(ModelError, match="cannot answer the label"):
        exhaustive(leaky, replace(CODE, label="new"))


def test_a_search_that_is_lost(leaky):
    lost = Search(relaxation=lambda scores, share, noise: scores.softmax(-1) * torch.nan)
    with pytest.raises(GuaranteeError, match="left the finite numbers"):
        invert(leaky, CODE, search=lost, streams=STREAMS)


def test_nothing_to_search(leaky):
    with pytest.raises(ArgumentError, match="'canaries' must be not empty"):
        of_many(leaky, [], streams=STREAMS)


def test_the_guess_shows_no_secret(leaky):
    found = invert(leaky, CODE, search=Search(steps=120), streams=STREAMS)
    assert "secret" not in repr(found)
    assert "'4'" not in repr(found)


# Findings


def guess(right: int, length: int = 4, alphabet: int = 10) -> Guess:
    return Guess(("4",) * length, 0.1, 0.1, 9, right == length, 1 - right / length, alphabet, alphabet, 1)


def test_shares_and_their_exact_interval():
    exact, hamming = evaluate([guess(4)] * 3 + [guess(1)] * 5)
    low, high = stats.binomtest(3, 8).proportion_ci(method="exact")
    assert (exact.id, exact.value, exact.low, exact.high) == ("inversion-exact-match", 3 / 8, low, high)
    assert (exact.n, exact.ideal, exact.direction, exact.verdict) == (8, 0.0, Direction.LOWER, Verdict.LEAKS)
    assert exact.details["chance"] == pytest.approx(1e-4)
    assert exact.details["p_value"] == pytest.approx(stats.binom.sf(2, 8, 1e-4))
    assert (hamming.id, hamming.value, hamming.ideal) == ("inversion-hamming", pytest.approx(5 / 8 * 3 / 4), 0.9)
    assert hamming.direction is Direction.HIGHER
    assert hamming.details["p_value"] == pytest.approx(stats.binom.sf(16, 32, 0.1))
    assert hamming.verdict is Verdict.LEAKS


def test_secrets_of_other_lengths_and_alphabets_have_their_own_chance():
    exact, hamming = evaluate([guess(2, 2), guess(0, 1, alphabet=2), guess(0, 4)])
    assert exact.details["chance"] == pytest.approx((0.01 + 0.5 + 1e-4) / 3)
    assert exact.details["p_value"] == pytest.approx(1 - 0.99 * 0.5 * (1 - 1e-4))
    assert hamming.ideal == pytest.approx((0.9 + 0.5 + 0.9) / 3)


def test_no_guess_right_says_nothing_until_there_are_many():
    few, many = ([guess(0)] * 5 + [guess(1)] * 2 for _ in range(2))
    assert {finding.verdict for finding in evaluate(few)} == {Verdict.INSUFFICIENT_EVIDENCE}
    exact, hamming = evaluate(many * 30)
    assert exact.verdict is Verdict.NO_LEAK_FOUND
    assert hamming.verdict is Verdict.NO_LEAK_FOUND


def test_guesses_of_one_model_are_one_observation_of_the_interval():
    guesses = [guess(4)] * 10
    alone, shared = evaluate(guesses)[0], evaluate(guesses, models=["one"] * 10)[0]
    assert (alone.n, shared.n) == (10, 1)
    assert shared.low < 0.1 < 0.6 < alone.low
    assert shared.value == alone.value == 1
    assert shared.verdict is Verdict.LEAKS  # ten codes are no accident, though of one model


def test_models_weigh_the_same():
    exact, _ = evaluate([guess(4), guess(0), guess(0), guess(0)], models=["a", "b", "b", "b"])
    assert exact.value == 0.5


def test_figures_are_json():
    for finding in evaluate([guess(4), guess(0)], models=["a", "a"]):
        assert json.loads(json.dumps(asdict(finding)))["id"] == finding.id


def by_chance(generator: np.random.Generator, length: int) -> Guess:
    return guess(int(generator.binomial(length, 0.1)), length)


@pytest.mark.parametrize("length", [1, 2, 4])
def test_models_that_know_nothing_are_seldom_accused(length):
    generator = np.random.default_rng(length)
    runs = [evaluate([by_chance(generator, length) for _ in range(20)]) for _ in range(200)]
    for number in (0, 1):
        alarms = sum(run[number].verdict is Verdict.LEAKS for run in runs)
        assert alarms <= stats.binom.ppf(0.999, 200, 0.05)


@pytest.mark.parametrize("models_of_five", [False, True])
def test_intervals_cover_whatever_a_models_secrets_share(models_of_five):
    """Each model has learned all of its five secrets or none; the truth is that half of all models have."""
    generator, covered = np.random.default_rng(5), np.zeros(2)
    for _ in range(200):
        knows = generator.random(12) < 0.5
        guesses = [guess(4 if known else 0) for known in knows for _ in range(5 if models_of_five else 1)]
        found = evaluate(guesses, models=np.repeat(range(12), 5).tolist() if models_of_five else None)
        covered += [finding.low <= 0.5 <= finding.high for finding in found]
    assert (covered >= stats.binom.ppf(0.001, 200, 0.95)).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"guesses": []}, "'guesses' must be not empty"),
        ({"guesses": [guess(1)], "models": ["a", "b"]}, "'models' must be of one length"),
        ({"guesses": [guess(1)], "level": 1.0}, "'level' must be"),
        ({"guesses": [guess(1)], "margin": 0.0}, "'margin' must be"),
    ],
)
def test_findings_need_guesses(arguments, said):
    with pytest.raises(ArgumentError, match=said):
        evaluate(**arguments)
