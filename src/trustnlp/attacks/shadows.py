"""Shadow models: trainings like the target's, each on a random half of the texts, so that what membership does to a
text's loss can be seen instead of guessed.

    inside = design(len(pool), 16, streams.numpy("shadows"))
    training = NLUTraining("bilstm", corpus, pool, streams, learning_rate=5e-3, batch_size=32, epochs=10)
    shadows = train(inside, partial(nlu_job, training), folder, identity={"corpus": corpus.digest, …})

A text's loss under the models that were trained on it, beside its loss under the others, is what LiRA and RMIA rank by.
Every text is inside exactly half of the models, so all have as much to compare (Carlini et al. 2022, arXiv:2112.03570,
section VI; there the halves are drawn in just this way).

None of them may serve as a target for the rest: of those, a text that it was trained on is inside one fewer, and this
count alone would tell members, though losses knew nothing. Train targets of their own, or leave out pairs of opposites.

Shape legend: K shadow models, N texts of the pool.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trustnlp import checks, files
from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import ArgumentError, GuaranteeError, RunError
from trustnlp.models import PlainStep, ShuffledBatches, build, fit
from trustnlp.models.encoded import Split
from trustnlp.models.evaluation import losses
from trustnlp.models.heads import NLUModel
from trustnlp.models.many import Job, run_jobs
from trustnlp.models.protocol import Batch
from trustnlp.progress import Progress, silent
from trustnlp.randomness import Streams

FILE_NAME = "shadows.npz"
_IDENTITY = "shadows.json"
_FORMAT = "trustnlp shadows 1"
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Shadows:
    """What shadow models say of a pool of texts.

    Args:
        inside: (K, N) bool, which texts each model was trained on.
        losses: (K, N) float64, each text's loss under each model, in nats.

    Raises:
        ArgumentError: not two tables of one shape and these types.
        GuaranteeError: a loss is NaN or infinite.
    """

    inside: Mask
    losses: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name, kind in (("inside", np.bool_), ("losses", np.float64)):
            table = getattr(self, name)
            if not isinstance(table, np.ndarray) or table.dtype != kind or table.ndim != 2 or table.size == 0:
                raise ArgumentError(name, f"a (K, N) array of {kind.__name__}", _described(table))
        if self.inside.shape != self.losses.shape:
            raise ArgumentError("losses", f"of the shape of 'inside', {self.inside.shape}", self.losses.shape)
        bad = int((~np.isfinite(self.losses)).any(axis=0).sum())
        if bad:
            reason = f"{bad} of {self.losses.shape[1]} texts have a loss that is NaN or infinite"
            raise GuaranteeError(reason, "leave them out of the pool, or mend the training")

    def save(self, path: str | Path) -> None:
        """Writes both tables, and nothing else, as a file that holds no code and no text."""
        with files.whole(path) as part, part.open("wb") as out:
            np.savez_compressed(out, inside=self.inside, losses=self.losses)

    @classmethod
    def load(cls, path: str | Path) -> Shadows:
        """What `save` wrote, bit for bit.

        Raises:
            RunError: there is no such file, or it is not one of `save`.
        """
        try:
            with Path(path).open("rb") as source, np.load(source, allow_pickle=False) as held:
                return cls(held["inside"], held["losses"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise RunError(f"{path} cannot be read as shadows ({error})", "delete it and train them again") from error


def design(examples: int, shadows: int, generator: np.random.Generator) -> Mask:
    """(K, N) which of `examples` texts each of `shadows` models is trained on: each text by exactly half of them.

    Which half is uniform and independent from text to text, so a model's training set is a random half, give or take.

    Raises:
        ArgumentError: fewer than 2 texts, or a number of models that is odd or below 2.
    """
    checks.at_least("examples", examples, 2)
    if checks.at_least("shadows", shadows, 2) % 2:
        raise ArgumentError("shadows", "even, as each text is inside half of them", shadows)
    order = generator.random((shadows, examples)).argsort(axis=0)
    return order < shadows // 2


def train(
    inside: Mask,
    job_of: Callable[[int, Mask], Job],
    folder: str | Path,
    *,
    identity: Mapping[str, Any],
    way: str = "auto",
    workers: int | None = None,
    progress: Progress = silent,
    stage: str = "shadow models",
) -> Shadows:
    """Trains all shadow models, or those that `folder` has not; writes `shadows.npz` there as well.

    Args:
        inside: (K, N) bool, as `design` makes it.
        job_of: the job that trains model k on the texts where its mask (N,) is true and gives `losses`, (N,) float64.
        folder: of these shadows alone.
        identity: what else the losses depend on, such as the corpus's digest, the recipe and the seed; JSON values.
            A folder that holds shadows of another design or identity is refused.
        way, workers, progress, stage: as for `run_jobs`.

    Raises:
        ArgumentError: `inside` is not a (K, N) array of bool, or a job gives no float64 losses of the pool.
        GuaranteeError: a loss is NaN or infinite.
        RunError: the folder holds other shadows, or a job failed.
    """
    folder = Path(folder)
    if not isinstance(inside, np.ndarray) or inside.dtype != np.bool_ or inside.ndim != 2 or inside.size == 0:
        raise ArgumentError("inside", "a (K, N) array of bool", _described(inside))
    _claim(folder, inside, identity)
    jobs = [job_of(number, mask) for number, mask in enumerate(inside)]
    found = run_jobs(jobs, folder, way=way, workers=workers, progress=progress, stage=stage)
    shadows = Shadows(inside, np.stack([_losses(given, inside.shape[1]) for given in found]))
    shadows.save(folder / FILE_NAME)
    return shadows


def _losses(given: Mapping[str, NDArray[Any]], examples: int) -> NDArray[np.float64]:
    found = given.get("losses")
    # Attacks rank by losses that float32 rounds to 0, so nothing is converted that may have been rounded.
    if found is None or found.dtype != np.float64 or found.shape != (examples,):
        raise ArgumentError("job_of", f"of jobs that give 'losses' ({examples},) in float64", _described(found))
    return found


def _claim(folder: Path, inside: Mask, identity: Mapping[str, Any]) -> None:
    """Makes the folder one of these shadows, or raises where it is one of others."""
    digest = hashlib.sha256(np.packbits(inside).tobytes()).hexdigest()
    wanted = {"format": _FORMAT, "shape": list(inside.shape), "inside": digest, "identity": dict(identity)}
    path = folder / _IDENTITY
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        files.write_json(path, wanted)
        return
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error})", "give an empty folder") from error
    if held != json.loads(json.dumps(wanted)):
        raise RunError(f"{folder} holds other shadow models", "give another folder, or delete it to train these")


def _described(value: Any) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


# --- the library's own models ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class NLUTraining:
    """How each shadow of one of the library's own models is trained: by Adam, to the last epoch.

    Args:
        model: as for `models.build`.
        schema: the corpus whose labels and tags are learned.
        pool: the N texts; every one has a label and tags that `schema` knows. Give texts that occur once: a text whose
            twin is inside is never truly outside.
        streams: shadow k draws its weights, batches and dropout from the child `shadow` at k.
        learning_rate, batch_size, epochs: of the training.
        schedule: from the number of steps to the factor of the learning rate at each, such as `Recipe.schedule`.
        clip_grad_norm: see `PlainStep`.
        options: of the model.
    """

    model: str
    schema: Corpus
    pool: Sequence[Example]
    streams: Streams
    learning_rate: float
    batch_size: int
    epochs: int
    schedule: Callable[[int], Callable[[int], float]] | None = None
    clip_grad_norm: float | None = 5.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, streams: Streams) -> NLUModel:
        """A model with weights of `streams`."""
        return build(self.model, self.schema, streams=streams, **self.options)

    @cached_property
    def encoded(self) -> Split:
        """The pool, encoded once in each process for all of its shadows."""
        return self.build(self.streams).encode(self.pool, for_training=True)


def nlu_job(training: NLUTraining, number: int, inside: Mask) -> Job:
    """The job that trains shadow `number` on the texts where `inside` (N,) is true; gives `losses` (N,), in nats."""
    return Job(f"shadow-{number:04d}", partial(_trained_losses, training, number, inside))


def _trained_losses(training: NLUTraining, number: int, inside: Mask, folder: Path) -> dict[str, NDArray[np.float64]]:
    del folder  # a training of a minute is done again, not gone on with
    streams = training.streams.child("shadow", number)
    model = training.build(streams)
    data = _Rows(training.encoded, np.flatnonzero(inside))
    sampler = ShuffledBatches(len(data), training.batch_size, training.epochs, streams)
    step = PlainStep(
        model,
        torch.optim.Adam(model.parameters(), training.learning_rate),
        schedule=training.schedule(sampler.steps) if training.schedule else None,
        clip_grad_norm=training.clip_grad_norm,
    )
    fit(model, data, sampler, step, streams=streams)
    return {"losses": losses(model, training.encoded)}


@dataclass(frozen=True, eq=False)
class _Rows:
    """Some rows of a split, as a split of their own."""

    split: Split
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Batch:
        """The examples at `indices` of these rows."""
        return self.split.batch(self.rows[np.asarray(indices, dtype=np.int64)])
