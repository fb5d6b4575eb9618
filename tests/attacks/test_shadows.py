"""Shadow models: a balanced design, the losses that separate trainings would give, folders that are not mixed up."""

import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trustnlp import models
from trustnlp.attacks.shadows import FILE_NAME, Mask, NLUTraining, Shadows, design, nlu_job, train
from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import ArgumentError, GuaranteeError, ModelError, RunError
from trustnlp.models.many import Job
from trustnlp.randomness import Streams

WORDS = ["jazz", "rain", "alarm", "song", "river", "stone", "paper", "glass", "train", "door", "milk", "bread"]
SMALL = {"buckets": 256, "width": 16, "char_width": 4, "char_filters": 0, "hidden": 16, "word_dropout": 0.0}


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pool(size: int = 60) -> tuple[Example, ...]:
    """Random texts with random labels, which can only be memorised."""
    draw = generator(1)
    texts = sorted({" ".join(draw.choice(WORDS, 5)) for _ in range(size)})
    return tuple(Example(text, str(draw.choice(["music", "alarm", "phone"]))) for text in texts)


@pytest.fixture(scope="module")
def training() -> NLUTraining:
    examples = pool()
    return NLUTraining(
        "bilstm", Corpus("random", examples), examples, Streams(5), 2e-2, batch_size=8, epochs=12, options=SMALL
    )


def telling(number: int, inside: Mask) -> Job:
    """Models whose losses are known: 10 where inside, and their own number elsewhere."""
    return Job(f"shadow-{number}", lambda folder: {"losses": np.where(inside, 10.0, float(number))})


@given(st.integers(2, 60), st.integers(1, 12), st.integers(0, 10))
@settings(max_examples=50, deadline=None)
def test_every_text_is_inside_exactly_half_of_the_models(examples: int, pairs: int, seed: int) -> None:
    inside = design(examples, 2 * pairs, generator(seed))
    assert inside.shape == (2 * pairs, examples)
    assert inside.dtype == np.bool_
    assert (inside.sum(axis=0) == pairs).all()


def test_halves_are_drawn_at_random_and_by_the_seed_alone() -> None:
    inside = design(4000, 6, generator(3))
    np.testing.assert_array_equal(inside, design(4000, 6, generator(3)))
    halves, counts = np.unique(inside, axis=1, return_counts=True)
    assert halves.shape[1] == 20  # all halves of six models
    assert abs(counts - 200).max() < 5 * np.sqrt(200)
    assert abs(inside.sum(axis=1) - 2000).max() < 5 * np.sqrt(1000)


@pytest.mark.parametrize(("examples", "shadows"), [(10, 3), (10, 0), (1, 4)])
def test_designs_that_cannot_be(examples: int, shadows: int) -> None:
    with pytest.raises(ArgumentError):
        design(examples, shadows, generator())


def test_losses_are_put_together_in_order(tmp_path: Path) -> None:
    inside = design(9, 4, generator())
    found = train(inside, telling, tmp_path, identity={"seed": 0}, way="serial")
    np.testing.assert_array_equal(found.inside, inside)
    np.testing.assert_array_equal(found.losses, np.where(inside, 10.0, np.arange(4.0)[:, None]))
    loaded = Shadows.load(tmp_path / FILE_NAME)
    np.testing.assert_array_equal(loaded.losses, found.losses)
    np.testing.assert_array_equal(loaded.inside, inside)


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    inside, done = design(9, 4, generator()), []

    def interrupted(number: int, mask: Mask) -> Job:
        def run(folder: Path) -> dict[str, np.ndarray]:
            if number == 2 and not (tmp_path / "again").exists():
                raise KeyboardInterrupt
            done.append(number)
            return {"losses": np.where(mask, 0.0, 1.0)}

        return Job(f"shadow-{number}", run)

    with pytest.raises(KeyboardInterrupt):
        train(inside, interrupted, tmp_path / "run", identity={}, way="serial")
    (tmp_path / "again").touch()
    train(inside, interrupted, tmp_path / "run", identity={}, way="serial")
    assert done == [0, 1, 2, 3]


def test_a_folder_of_other_shadows_is_refused(tmp_path: Path) -> None:
    inside = design(9, 4, generator())
    identity = {"corpus": "abc", "recipe": {"epochs": 3, "rates": (1, 2)}}
    train(inside, telling, tmp_path, identity=identity, way="serial")
    train(inside, telling, tmp_path, identity=identity, way="serial")
    with pytest.raises(RunError, match="other shadow models"):
        train(inside, telling, tmp_path, identity={**identity, "corpus": "abd"}, way="serial")
    with pytest.raises(RunError, match="other shadow models"):
        train(design(9, 4, generator(1)), telling, tmp_path, identity=identity, way="serial")


def test_only_exact_and_finite_losses_are_taken(tmp_path: Path) -> None:
    inside = design(5, 2, generator())

    def giving(losses: np.ndarray, folder: str) -> Shadows:
        def job(number: int, mask: Mask) -> Job:
            return Job(f"shadow-{number}", lambda _: {"losses": losses})

        return train(inside, job, tmp_path / folder, identity={}, way="serial")

    with pytest.raises(ArgumentError, match=r"float64, got 'float32 of shape \(5,\)'"):
        giving(np.zeros(5, np.float32), "rounded")
    with pytest.raises(ArgumentError, match=r"'losses' \(5,\)"):
        giving(np.zeros(4), "short")
    with pytest.raises(GuaranteeError, match="1 of 5 texts"):
        giving(np.array([0, 1, np.nan, 2, 3]), "unknown")
    assert giving(np.full(5, 1e-14), "tiny").losses.max() == 1e-14


def test_tables_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="of the shape of 'inside'"):
        Shadows(np.ones((2, 3), bool), np.ones((2, 4)))
    with pytest.raises(ArgumentError, match="array of bool"):
        Shadows(np.ones((2, 3)), np.ones((2, 3)))  # type: ignore[arg-type]
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(RunError, match="cannot be read as shadows"):
        Shadows.load(tmp_path / "text.npz")


def test_a_shadow_is_the_training_that_its_half_alone_would_give(training: NLUTraining, tmp_path: Path) -> None:
    inside = design(len(training.pool), 2, generator())[0]
    found = pickle.loads(pickle.dumps(nlu_job(training, 3, inside))).run(tmp_path)["losses"]  # noqa: S301

    streams = training.streams.child("shadow", 3)
    model = models.build("bilstm", training.schema, streams=streams, **SMALL)
    half = model.encode([example for example, mine in zip(training.pool, inside, strict=True) if mine])
    step = models.PlainStep(model, torch.optim.Adam(model.parameters(), 2e-2), clip_grad_norm=5.0)
    models.fit(model, half, models.ShuffledBatches(len(half), 8, 12, streams), step, streams=streams)
    np.testing.assert_array_equal(found, models.losses(model, model.encode(training.pool)))
    assert found.dtype == np.float64


def test_membership_shows_in_the_losses(training: NLUTraining, tmp_path: Path) -> None:
    inside = design(len(training.pool), 4, generator())
    shadows = train(inside, partial(nlu_job, training), tmp_path, identity={"seed": 5}, way="serial")
    assert np.median(shadows.losses[inside]) < 0.5 * np.median(shadows.losses[~inside])
    assert len({row.tobytes() for row in shadows.losses}) == 4


def test_a_schedule_and_an_unlearnable_pool(training: NLUTraining, tmp_path: Path) -> None:
    from dataclasses import replace

    inside = design(len(training.pool), 2, generator())[0]
    still = replace(training, schedule=lambda steps: lambda step: 0.0)
    untrained = nlu_job(still, 0, inside).run(tmp_path)["losses"]
    fresh = still.build(still.streams.child("shadow", 0))
    np.testing.assert_array_equal(untrained, models.losses(fresh, fresh.encode(still.pool)))
    foreign = replace(training, pool=(*training.pool, Example("jazz", "weather")))
    with pytest.raises(ModelError, match="'weather'"):
        nlu_job(foreign, 0, np.append(inside, True)).run(tmp_path)
