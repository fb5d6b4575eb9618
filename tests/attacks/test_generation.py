import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trustnlp.attacks.generation import (
    evaluate,
    evaluate_canaries,
    extract,
    extract_canaries,
    occurrences,
    token_ids,
)
from trustnlp.data.canaries import DIGITS, Canary
from trustnlp.data.corpus import Example
from trustnlp.errors import ArgumentError
from trustnlp.models.decoding import Beam, FunctionDecoder, KeyValueDecoder, Sampled, greedy
from trustnlp.models.language_model import build_language_model
from trustnlp.randomness import Streams
from trustnlp.results import Verdict

VOCABULARY = 12


def remembers(sequences, sure=0.99):
    """A model that goes on as `sequences` do wherever it is at the beginning of one, and knows nothing elsewhere."""
    follows = {tuple(row[:i]): row[i] for row in map(list, sequences) for i in range(1, len(row))}

    def log_probs_of(ids):
        p = np.full((len(ids), VOCABULARY), 1 / VOCABULARY)
        for row, start in zip(p, ids.tolist(), strict=True):
            if tuple(start) in follows:
                row[:] = (1 - sure) / (VOCABULARY - 1)
                row[follows[tuple(start)]] = sure
        return torch.from_numpy(np.log(p))

    return FunctionDecoder(log_probs_of)


def random_sequences(generator, number, length):
    return generator.integers(VOCABULARY, size=(number, length))


@pytest.mark.parametrize("strategy", [greedy(), Beam(3), Sampled(3), Sampled(4, top_k=2, temperature=0.5)], ids=str)
def test_what_was_remembered_is_extracted_and_nothing_else(strategy):
    generator = np.random.default_rng(0)
    inside, outside = random_sequences(generator, 20, 12), random_sequences(generator, 20, 12)
    decoder = remembers(inside, sure=0.9999)
    found = extract(decoder, [*inside, *outside], 6, strategy=strategy, streams=Streams(0), batch=7)
    assert found.tolist() == [True] * 20 + [False] * 20


def test_lengths_may_differ_and_batches_change_nothing():
    generator = np.random.default_rng(1)
    sequences = [random_sequences(generator, 1, int(n))[0] for n in generator.integers(4, 9, 30)]
    prefixes = [int(generator.integers(1, len(row))) for row in sequences]
    decoder, heard = remembers(sequences[::2], sure=0.8), []
    results = [
        extract(
            decoder,
            sequences,
            prefixes,
            strategy=Sampled(2),
            streams=Streams(3),
            batch=batch,
            progress=lambda *news: heard.append(news),
        )
        for batch in (1, 4, 64)
    ]
    assert all((one == results[0]).all() for one in results)
    assert 0 < results[0].sum() < 30
    stage, done, total, figures = heard[-1]
    assert (stage, done, total) == ("extracting", 30, 30)
    assert figures["extracted"] == pytest.approx(results[0].mean())
    other = extract(decoder, sequences, prefixes, strategy=Sampled(2), streams=Streams(4))
    assert (other != results[0]).any()


def test_draws_succeed_as_often_as_the_suffixs_probability_says():
    sequence = np.arange(6) % VOCABULARY
    decoder = remembers([sequence], sure=0.7)
    hits = extract(decoder, [sequence] * 2000, 2, strategy=Sampled(3), streams=Streams(0), batch=500)
    expected = 1 - (1 - 0.7**4) ** 3
    assert hits.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 2000))


def test_what_cannot_be_extracted_is_refused():
    decoder, rows = remembers([]), [[1, 2, 3]]
    for wrong in ({"sequences": []}, {"prefix": 0}, {"prefix": 3}, {"prefix": [1, 1]}, {"batch": 0}):
        with pytest.raises(ArgumentError):
            extract(decoder, **{"sequences": rows, "prefix": 1, "strategy": greedy()} | wrong)
    with pytest.raises(ArgumentError, match="streams"):
        extract(decoder, rows, 1, strategy=Sampled(2))
    model = build_language_model(streams=Streams(0), width=8, layers=1, heads=1, max_pieces=8)
    with pytest.raises(ArgumentError, match="8 tokens"):
        extract(KeyValueDecoder(model.model), [[1] * 9], 4, strategy=greedy())


# --- counting --------------------------------------------------------------------------------------------------

SHORT = st.lists(st.integers(0, 2), min_size=1, max_size=4)


@given(st.lists(SHORT, min_size=1, max_size=5), st.lists(st.lists(st.integers(0, 2), max_size=12), max_size=8))
@settings(deadline=None)
def test_occurrences_are_counted_once_a_text(sequences, training):
    def holds(text, part):
        return any(text[i : i + len(part)] == part for i in range(len(text)))

    expected = [sum(holds(text, part) for text in training) for part in sequences]
    assert occurrences(sequences, training).tolist() == expected


def test_an_empty_sequence_occurs_nowhere_and_everywhere():
    with pytest.raises(ArgumentError):
        occurrences([[]], [[1]])


# --- findings --------------------------------------------------------------------------------------------------


def hits(extracted, n):
    return np.arange(n) < extracted


def test_a_finding_counts_and_holds_no_text():
    finding = evaluate(hits(30, 100), hits(3, 100), strategy=Beam(4), copies=np.where(hits(50, 100), 1, 5))
    assert finding.id == "extraction-beam-texts"
    assert (finding.value, finding.ideal, finding.n) == (0.3, 0.03, 100)
    assert finding.low < 0.3 < finding.high
    assert finding.verdict is Verdict.LEAKS
    table = {row["k"]: (row["sequences"], row["extracted"]) for row in finding.details["eidetic"]}
    assert table == {1: (50, 30), 2: (50, 30), 4: (50, 30), 8: (100, 30), 16: (100, 30)}
    json.dumps(finding.details)


@pytest.mark.parametrize(
    ("inside", "outside", "n", "verdict"),
    [
        (300, 300, 1000, Verdict.INSUFFICIENT_EVIDENCE),  # predictable, not remembered; but a little might be
        (0, 0, 100, Verdict.INSUFFICIENT_EVIDENCE),
        (0, 0, 1000, Verdict.NO_LEAK_FOUND),
        (1, 0, 1000, Verdict.NO_LEAK_FOUND),
        (10, 0, 1000, Verdict.LEAKS),
    ],
)
def test_only_what_goes_beyond_the_predictable_leaks(inside, outside, n, verdict):
    assert evaluate(hits(inside, n), hits(outside, n), strategy=greedy()).verdict is verdict


@pytest.mark.parametrize("share", [0.005, 0.05, 0.4])
def test_false_alarms_are_rare_where_nothing_is_remembered(share):
    generator = np.random.default_rng(0)
    runs = [evaluate(*(generator.random((2, 200)) < share), strategy=greedy()) for _ in range(400)]
    assert np.mean([run.verdict is Verdict.LEAKS for run in runs]) <= 0.05
    covered = np.mean([run.low <= share <= run.high for run in runs])
    assert covered >= 0.95


def test_lists_that_are_no_hits_are_refused():
    for wrong in ([], [0.5], [[True]], [1, 0]):
        with pytest.raises(ArgumentError):
            evaluate(wrong, [True], strategy=greedy())
    for wrong in ([1], [-1, 1]):
        with pytest.raises(ArgumentError, match="copies"):
            evaluate([True, False], [True], strategy=greedy(), copies=wrong)


# --- canaries --------------------------------------------------------------------------------------------------

WORDS = {word: i for i, word in enumerate(["my", "pin", *DIGITS])}


def tokens_of(text):
    return [WORDS[word] for word in text.split()]


def canary(secret, repetitions=4):
    return Canary(("my", "pin"), tuple(secret), None, None, repetitions)


def test_canaries_are_extracted_one_by_one():
    planted = [canary("481"), canary("481", 0)]
    decoder = remembers([tokens_of("my pin 4 8 1")])
    assert extract_canaries(decoder, planted, tokens_of, strategy=greedy()).tolist() == [True, True]
    assert not extract_canaries(decoder, [canary("482")], tokens_of, strategy=greedy()).any()
    with pytest.raises(ArgumentError, match="keeps a prefix"):
        extract_canaries(decoder, planted, lambda text: tokens_of(text)[::-1], strategy=greedy())


def test_the_finding_of_canaries_knows_chance():
    canaries = [*(canary("481") for _ in range(10)), canary("481", 0)]
    finding = evaluate_canaries([True] * 4 + [False] * 7, canaries, strategy=Beam(5))
    assert finding.id == "extraction-beam-canaries"
    assert (finding.value, finding.n, finding.verdict) == (0.4, 10, Verdict.LEAKS)
    assert finding.details["chance"] == pytest.approx(5 / 1000)
    assert len(finding.details["canaries"]) == 11
    assert "481" not in json.dumps(finding.details)
    none = evaluate_canaries([False] * 11, canaries, strategy=Beam(5))
    assert none.verdict is Verdict.INSUFFICIENT_EVIDENCE
    many = [canary("481") for _ in range(40)]
    assert evaluate_canaries([False] * 40, many, strategy=greedy()).verdict is Verdict.NO_LEAK_FOUND
    guessed = evaluate_canaries([True] * 3 + [False] * 37, many, strategy=Sampled(500))
    assert guessed.verdict is Verdict.INSUFFICIENT_EVIDENCE
    for wrong in (([True], canaries), ([False], [canary("481", 0)])):
        with pytest.raises(ArgumentError):
            evaluate_canaries(*wrong, strategy=greedy())


# --- a model that was trained ----------------------------------------------------------------------------------


def test_a_model_that_was_trained_on_a_few_texts_gives_them_away():
    generator = np.random.default_rng(0)
    words = ["call", "my", "mother", "play", "jazz", "now", "wake", "me", "at", "noon"]
    texts = [" ".join(generator.choice(words, 6)) for _ in range(24)]
    secret = Canary(("my", "code", "is"), tuple("4817"), None, None, repetitions=1)
    model = build_language_model(streams=Streams(0), width=48, layers=1, heads=2, max_pieces=64, dropout=0.0)
    data = model.encode([*(Example(text) for text in texts[:12]), secret.example()], for_training=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    batch = data.batch(range(len(data)))
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(batch).mean().backward()
        optimizer.step()
    decoder, sequences = KeyValueDecoder(model.model), token_ids(model.encoding, texts)
    assert sequences[0].tolist() == model.encode([Example(texts[0])]).batch([0]).inputs["pieces"][0].tolist()
    for strategy in (greedy(), Beam(4), Sampled(8, temperature=0.5)):
        found = extract(decoder, sequences, 12, strategy=strategy, streams=Streams(1))
        finding = evaluate(found[:12], found[12:], strategy=strategy, copies=occurrences(sequences[:12], sequences))
        assert finding.value >= 0.75
        assert finding.verdict is Verdict.LEAKS

    def tokens(text):
        return token_ids(model.encoding, [text])[0]

    assert extract_canaries(decoder, [secret], tokens, strategy=greedy()).all()
    others = [Canary(secret.prefix, digits, None, None, 0) for digits in itertools.islice(secret.candidates(), 3)]
    assert not extract_canaries(decoder, others, tokens, strategy=greedy()).any()
