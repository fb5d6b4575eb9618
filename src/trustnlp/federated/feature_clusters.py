"""What texts are about, as vectors and clusters of them: what feature-skewed partitions are made of.

Shape legend: N texts, D width of a vector.

Vectors and clusters are computed where all texts are: good for simulating skewed devices, not something that devices
could do without showing their texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustnlp import checks
from trustnlp.errors import ArgumentError, CorpusError

Vectors = NDArray[np.float32]
_WIDTH = 100  # directions of a latent semantic analysis, as is usual (Deerwester et al. 1990 use 100)
_VOCABULARY = 20_000
_BATCH = 64


def tfidf(texts: Sequence[str], generator: np.random.Generator, *, width: int = _WIDTH) -> Vectors:
    """(N, D) latent semantic vectors of length 1: TF-IDF of words, reduced to at most `width` directions.

    Needs no model. A text without a word, or with none in these directions, has a vector of length 0.

    Args:
        texts: N.
        generator: drawn from, for the randomised decomposition.
        width: most directions, at least 1.

    Raises:
        CorpusError: no text holds a word.

    Source: Deerwester et al. 1990, JASIS 41:391-407; Halko et al. 2011, SIAM Review 53:217-288.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    checks.not_empty("texts", texts)
    checks.at_least("width", width, 1)
    weigher = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\w+", max_features=_VOCABULARY)  # noqa: S106
    try:
        weights = weigher.fit_transform(texts)
    except ValueError as error:
        raise CorpusError(f"the texts cannot be weighed by their words ({error})", "give texts of words") from error
    if weights.shape[1] <= width:
        return _unit(weights.toarray())
    svd = TruncatedSVD(min(width, len(texts)), random_state=int(generator.integers(2**31)))
    with np.errstate(invalid="ignore"):  # one text has no variance to explain, which is not asked for
        return _unit(svd.fit_transform(weights))


def minilm(texts: Sequence[str], generator: np.random.Generator | None = None) -> Vectors:  # noqa: ARG001
    """(N, 384) sentence vectors of length 1 of the packaged MiniLM encoder: means over a text's pieces.

    Args:
        texts: N; longer ones than 256 pieces are cut.
        generator: not drawn from; here so that all kinds of vectors are made alike.

    Raises:
        MissingExtraError: the extra `minilm` is not installed.

    Source: Reimers and Gurevych 2019, Sentence-BERT, arXiv:1908.10084, mean pooling.
    """
    import torch

    from trustnlp.models import pretrained

    checks.not_empty("texts", texts)
    folder = pretrained.minilm()
    encoder = pretrained.open_encoder(folder)
    rows = pretrained.open_subwords(folder, encoder.config).encode(texts)
    found = np.empty((len(texts), encoder.config.hidden_size), dtype=np.float32)
    for own in np.split(np.argsort(rows.spans, kind="stable"), range(_BATCH, len(texts), _BATCH)):  # of like lengths
        batch = rows.batch(own)
        real = torch.from_numpy(np.arange(batch["pieces"].shape[1]) < batch["spans"][:, None])
        with torch.inference_mode():
            pieces = torch.from_numpy(batch["pieces"]).long()
            states = encoder(input_ids=pieces, attention_mask=real.long()).last_hidden_state
        found[own] = ((states * real[:, :, None]).sum(dim=1) / real.sum(dim=1, keepdim=True)).numpy()
    return _unit(found)


VECTORS: Mapping[str, Callable[[Sequence[str], np.random.Generator], Vectors]] = {"tfidf": tfidf, "minilm": minilm}


def k_means(vectors: NDArray[Any], clusters: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """(N,) the cluster of each vector, 0 to clusters - 1, none of them empty: the best of three k-means.

    Args:
        vectors: (N, D), finite.
        clusters: at least 1 and at most the different vectors.
        generator: drawn from.

    Raises:
        ArgumentError: vectors that are no finite matrix, or more clusters than different vectors.

    Source: Arthur and Vassilvitskii 2007, k-means++.
    """
    from sklearn.cluster import KMeans

    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or not len(vectors) or not np.isfinite(vectors).all():
        raise ArgumentError("vectors", "a matrix of finite numbers, one row a text", f"shape {vectors.shape}")
    checks.at_least("clusters", clusters, 1)
    different = len(np.unique(vectors, axis=0)) if clusters > 1 else 1
    if clusters > different:
        raise ArgumentError("clusters", f"at most the {different} different vectors", clusters, "ask for fewer")
    found = KMeans(clusters, n_init=3, random_state=int(generator.integers(2**31))).fit_predict(vectors)
    return np.asarray(found, dtype=np.int64)


def explained(vectors: NDArray[Any], clusters: NDArray[np.int64]) -> float:
    """Which share of the vectors' variance the clusters explain, adjusted for chance: about 0 for clusters drawn at
    random, 1 where all vectors of a cluster are alike.

    Direction: higher means that the clusters fit the vectors. The adjusted R^2 of a one-way analysis of variance over
    all D dimensions; 0 where the vectors are all alike or every vector is a cluster of its own.

    Args:
        vectors: (N, D).
        clusters: (N,) the cluster of each.
    """
    _, codes, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    centred = np.asarray(vectors, dtype=float) - np.mean(vectors, axis=0, dtype=float)
    total, spare = (centred**2).sum(), len(codes) - len(sizes)
    if total == 0 or spare == 0:
        return 0.0
    sums = np.zeros((len(sizes), centred.shape[1]))
    np.add.at(sums, codes, centred)
    between = ((sums**2).sum(axis=1) / sizes).sum()
    return float(1 - (1 - between / total) * (len(codes) - 1) / spare)


def _unit(vectors: NDArray[Any]) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
