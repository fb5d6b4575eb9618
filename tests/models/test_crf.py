"""The CRF against going through all sequences of tags."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from trustnlp.models.crf import Counts, LinearChainCRF


def crf_of(tags: int, seed: int = 0, scale: float = 1.0) -> LinearChainCRF:
    crf, generator = LinearChainCRF(tags).double(), torch.Generator().manual_seed(seed)
    for parameter in crf.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return crf


@torch.no_grad()
def score(crf: LinearChainCRF, scores: Tensor, path: tuple[int, ...]) -> Tensor:
    """The definition, for one sequence with scores (T, S)."""
    each = sum(scores[step, tag] for step, tag in enumerate(path))
    pairs = sum(crf.transitions[pair] for pair in itertools.pairwise(path))
    return crf.start[path[0]] + each + pairs + crf.end[path[-1]]


def paths(tags: int, length: int) -> list[tuple[int, ...]]:
    return list(itertools.product(range(tags), repeat=length))


@st.composite
def cases(draw) -> tuple[LinearChainCRF, Tensor, Tensor, Tensor]:
    """A CRF, scores (B, T, S), tags (B, T) and lengths (B,)."""
    count, seed = draw(st.integers(1, 4)), draw(st.integers(0, 999))
    lengths = torch.tensor(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), int(lengths.max()) + draw(st.integers(0, 1)))
    scores = 2 * torch.randn(*shape, count, generator=generator, dtype=torch.float64)
    tags = torch.randint(0, count, shape, generator=generator)
    return crf_of(count, seed, draw(st.sampled_from([0.5, 5.0, 150.0, 1e4]))), scores, tags, lengths


@settings(max_examples=40, deadline=None)
@given(cases())
def test_the_loss_is_minus_the_log_of_the_share_among_all_sequences(case):
    crf, scores, tags, lengths = case
    found = crf(scores, tags, lengths)
    for row, length in enumerate(lengths.tolist()):
        every = torch.stack([score(crf, scores[row], path) for path in paths(scores.shape[2], length)])
        gold = score(crf, scores[row], tuple(tags[row, :length].tolist()))
        torch.testing.assert_close(found[row], every.logsumexp(0) - gold, rtol=1e-10, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_decoding_finds_the_best_of_all_sequences(case):
    crf, scores, _, lengths = case
    found = crf.decode(scores, lengths)
    for row, length in enumerate(lengths.tolist()):
        best = max(paths(scores.shape[2], length), key=lambda path, row=row: float(score(crf, scores[row], path)))
        assert tuple(found[row, :length].tolist()) == best


def test_decoding_within_what_is_allowed():
    crf, scores = crf_of(3), torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(1)).double()
    allowed = torch.tensor([[1, 0, 1], [1, 0, 0], [0, 1, 1], [0, 1, 1]], dtype=torch.bool)
    fitting = [p for p in paths(3, 4) if allowed[3, p[0]] and all(allowed[pair] for pair in itertools.pairwise(p))]
    best = max(fitting, key=lambda path: float(score(crf, scores[0], path)))
    assert tuple(crf.decode(scores, torch.tensor([4]), allowed)[0].tolist()) == best
    assert tuple(crf.decode(scores, torch.tensor([4]))[0].tolist()) not in fitting


@settings(max_examples=40, deadline=None)
@given(cases())
def test_the_surplus_is_each_examples_gradient(case):
    crf, scores, tags, lengths = case
    found = crf.surplus(scores, tags, lengths)
    losses = crf(scores, tags, lengths)
    for row in range(len(lengths)):
        gradients = torch.autograd.grad(losses[row], [getattr(crf, n) for n in Counts._fields], retain_graph=True)
        for counts, gradient in zip(found, gradients, strict=True):
            torch.testing.assert_close(counts[row], gradient, rtol=1e-9, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(cases())
def test_what_stands_at_padding_is_never_read(case):
    crf, scores, tags, lengths = case
    beyond = torch.arange(scores.shape[1]) >= lengths[:, None]
    spoilt = scores.masked_fill(beyond[:, :, None], 99.0).requires_grad_()
    losses = crf(spoilt, tags.masked_fill(beyond, -100), lengths)
    assert torch.equal(losses, crf(scores, tags, lengths))
    (gradient,) = torch.autograd.grad(losses.sum(), spoilt)
    assert not gradient[beyond].any()


def test_a_new_one_is_a_softmax_at_every_position():
    crf, scores = LinearChainCRF(4), torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    tags, lengths = torch.tensor([[0, 3, 1], [2, 2, 0]]), torch.tensor([3, 2])
    single = F.cross_entropy(scores.mT, tags, reduction="none")
    single[1, 2] = 0
    torch.testing.assert_close(crf(scores, tags, lengths), single.sum(1))
    assert torch.equal(crf.decode(scores, lengths)[0], scores[0].argmax(-1))
