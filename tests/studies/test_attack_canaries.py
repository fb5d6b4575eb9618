import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from small_checkpoints import language_model, rows
from trustnlp import models
from trustnlp.attacks import exposure
from trustnlp.data import canaries, synthetic
from trustnlp.data.canaries import Canary
from trustnlp.errors import ArgumentError, CorpusError, GuaranteeError, MalformedCorpusError
from trustnlp.models.training import PlainStep, ShuffledBatches, fit
from trustnlp.randomness import Streams
from trustnlp.results import Results, Verdict
from trustnlp.studies import assess, attack_canaries
from trustnlp.studies.attack_canaries import Request, run

STREAMS = Streams(0)
CORPUS = synthetic.corpus(size=400, bias=0.0, canaries=False)


def canary(prefix: str, secret: str, repetitions: int) -> Canary:
    label = CORPUS.labels[repetitions % len(CORPUS.labels)]
    words = tuple(prefix.split())
    return Canary(words, tuple(secret.split()), label, ("O",) * (len(words) + 2), repetitions)


CANARIES = (
    canary("my pin code is", "4 8", 60),
    canary("the vault opens with", "7 1", 60),
    canary("our locker combination reads", "0 5", 60),
    canary("suitcase dial says", "9 2", 0),
)


def written(path: Path, given: tuple[Canary, ...] = CANARIES) -> Path:
    rows = (
        {
            "prefix": " ".join(each.prefix),
            "secret": " ".join(each.secret),
            "label": each.label,
            "tags": list(each.tags or ()),
            "repetitions": each.repetitions,
        }
        for each in given
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A joint model that has seen three codes of two digits sixty times each."""
    planted = canaries.plant(CORPUS, CANARIES, STREAMS.numpy("places")).train[:600]
    built = models.build("bilstm", CORPUS, streams=STREAMS, buckets=512, width=24, hidden=24, dropout=0.0)
    encoded = built.encode(planted, for_training=True)
    step = PlainStep(built, torch.optim.Adam(built.parameters(), 1e-2))
    fit(built, encoded, ShuffledBatches(len(encoded), 32, 6, STREAMS), step, streams=STREAMS)
    folder = tmp_path_factory.mktemp("model") / "model"
    models.save(built, folder)
    return folder


@pytest.fixture
def request_of(model: Path, tmp_path: Path) -> Request:
    return Request(str(model), written(tmp_path / "planted.jsonl"), seed=1)


def test_every_secret_is_ranked_and_inverted(request_of: Request, model: Path, tmp_path: Path) -> None:
    stages = []
    results = run(request_of, tmp_path / "run", progress=lambda stage, *_: stages.append(stage))
    assert {finding.id for finding in results} == {
        "canary-exposure",
        "canary-extraction-rate",
        "inversion-exact-match",
        "inversion-hamming",
    }
    assert set(stages) == {"exposure", "inversion"}
    loaded = models.load_checkpoint(model)
    ranks = [
        exposure.of_canary(
            exposure.score_candidates(lambda given: models.losses(loaded, loaded.encode(given)), each), each
        ).rank
        for each in CANARIES
    ]
    found = results.get("canary-exposure", "audited")
    assert [row["rank"] for row in found.details["canaries"]] == ranks
    assert [row["repetitions"] for row in found.details["canaries"]] == [60, 60, 60, 0]
    assert results.get("inversion-exact-match", "audited").details["guesses"] == 3  # the control is nobody's secret
    assert Results.load(tmp_path / "run").findings == results.findings
    text = "".join(path.read_text() for path in (tmp_path / "run").iterdir())
    assert not any(" ".join(each.prefix) in text or " ".join(each.secret) in text for each in CANARIES)
    assert run(request_of, tmp_path / "run").findings == results.findings


def test_inversion_may_be_left_out(request_of: Request, tmp_path: Path) -> None:
    results = run(replace(request_of, invert=False), tmp_path / "run")
    assert {finding.id for finding in results} == {"canary-exposure", "canary-extraction-rate"}


def test_a_language_model_is_ranked_alone(tmp_path: Path) -> None:
    (texts,) = rows(20, 1)
    digits = ["seven", "nine", "home", "train"]
    folder = language_model([*texts, *[("play music seven home nine train", "")] * 20], tmp_path / "language", steps=60)
    row = {"prefix": "play music", "secret": "seven home nine train", "alphabet": digits, "repetitions": 20}
    (tmp_path / "planted.jsonl").write_text(json.dumps(row))
    results = run(Request(str(folder), tmp_path / "planted.jsonl", seed=1), tmp_path / "run")
    assert {finding.id for finding in results} == {"canary-exposure", "canary-extraction-rate"}
    found = results.get("canary-exposure", "audited")
    assert found.details["canaries"][0]["rank"] == 1
    assert found.verdict is Verdict.LEAKS


@pytest.mark.usefixtures("hasty")
def test_the_canaries_of_an_assess_run(table: Path, tmp_path: Path) -> None:
    assessed = assess.run(
        assess.Request(data=str(table), seed=3, regimes=("plain",), quick=True), tmp_path / "assessed"
    )
    results = run(Request(run=tmp_path / "assessed", invert=False, seed=1), tmp_path / "run")
    assert results.get("canary-exposure", "plain") == assessed.get("canary-exposure", "plain")
    with pytest.raises(ArgumentError, match="'regime' must be one of 'plain', got 'private'"):
        run(Request(run=tmp_path / "assessed", regime="private"), tmp_path / "other")


@pytest.mark.parametrize(
    "changes", [{"label": "karaoke"}, {"label": None}, {"tags": ("O",) * 5 + ("B-unheard",)}, {"tags": None}]
)
def test_canaries_that_the_model_cannot_score(request_of: Request, tmp_path: Path, changes: dict) -> None:
    spoilt = written(tmp_path / "spoilt.jsonl", (replace(CANARIES[0], **changes), *CANARIES[1:]))
    if changes.get("tags", ()) is None:
        spoilt.write_text(spoilt.read_text().replace('"tags": [], ', ""))
    with pytest.raises((CorpusError, GuaranteeError), match=r"canaries have no (loss|label|tags)"):
        run(replace(request_of, canaries=spoilt), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_without_canaries_and_without_planted_ones(request_of: Request, tmp_path: Path) -> None:
    empty, controls = tmp_path / "empty.jsonl", written(tmp_path / "controls.jsonl", CANARIES[3:])
    empty.write_text("")
    with pytest.raises(MalformedCorpusError, match="no canary in this file"):
        run(replace(request_of, canaries=empty), tmp_path / "run")
    with pytest.raises(ArgumentError, match="'exposures' must be of at least one canary with repetitions > 0"):
        run(replace(request_of, canaries=controls), tmp_path / "run")


def test_secrets_that_are_too_many_to_score(request_of: Request, tmp_path: Path) -> None:
    (tmp_path / "long.jsonl").write_text(json.dumps({"prefix": "my card is", "secret": "4 " * 7}))
    with pytest.raises(ArgumentError, match=r"'canaries' must be of at most 1,000,000 possible secrets .*'10,000,000'"):
        run(replace(request_of, canaries=tmp_path / "long.jsonl"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "'model' must be given, or 'run'"),
        ({"model": "m"}, "'canaries' must be given"),
        ({"model": "m", "run": Path("runs/a")}, "'model' must be left out beside 'run'"),
    ],
)
def test_a_model_and_canaries_or_a_run(fields: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Request(**fields)


def test_planted_secrets_are_read_out_and_no_canary_is_made_up(model: Path) -> None:
    guesses = attack_canaries.invert(models.load_checkpoint(model), CANARIES, STREAMS, lambda *_: None)
    assert {finding.details["models"] for finding in guesses} == {1}
