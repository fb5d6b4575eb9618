import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import Calls, Loss, Rows, assert_one_backward_is_exact, normal, random_weights, whole
from torch import nn
from transformers.pytorch_utils import Conv1D

SIZES = st.integers(1, 4)
CLIPS = st.sampled_from([0.1, 1.0, 1e9])
VOCABULARY = 5


@st.composite
def cases(draw, make, rows):
    """A layer of any size, called once or twice on examples of any length, parts of it frozen."""
    width, out, seed = draw(SIZES), draw(SIZES), draw(st.integers(0, 99))
    layer = random_weights(make(width, out), seed)
    examples = draw(st.integers(1, 5))
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=2))
    data = Rows({f"x{i}": rows(examples, length, width, seed + i) for i, length in enumerate(lengths)})
    frozen = draw(st.lists(st.booleans(), min_size=8, max_size=8))
    for parameter, still in zip(layer.parameters(), frozen, strict=False):
        parameter.requires_grad_(not still)
    next(layer.parameters()).requires_grad_(True)
    return Calls(layer), data, draw(CLIPS), draw(st.integers(1, 6))


def check(case):
    model, data, clip_norm, physical_batch = case
    assert_one_backward_is_exact(model, data, clip_norm, physical_batch=physical_batch)


def vectors(examples, length, width, seed):
    return normal(examples, length, width, seed=seed)


def ids(examples, length, width, seed):
    return whole(examples, length, below=VOCABULARY, seed=seed)


def wide(examples, length, width, seed):
    """Layer norm makes 0 of a single number, and what is left is rounding alone."""
    return normal(examples, length, width + 1, seed=seed)


def channels(examples, length, width, seed):
    return normal(examples, width, length + 4, seed=seed)


LAYERS = {
    "linear": (nn.Linear, vectors),
    "linear without bias": (lambda d, p: nn.Linear(d, p, bias=False), vectors),
    "linear of one vector": (nn.Linear, lambda n, t, d, seed: normal(n, d, seed=seed)),
    "linear over windows": (nn.Linear, lambda n, t, d, seed: normal(n, t, 2, d, seed=seed)),
    "transposed linear": (lambda d, p: Conv1D(p, d), vectors),
    "convolution": (lambda d, p: nn.Conv1d(d, p, 3, padding=1), channels),
    "sparse convolution": (lambda d, p: nn.Conv1d(d, p, 2, stride=2, dilation=2, bias=False), channels),
    "embedding": (lambda d, p: nn.Embedding(VOCABULARY, p), ids),
    "embedding with padding": (lambda d, p: nn.Embedding(VOCABULARY, p, padding_idx=-2), ids),
    "large embedding": (lambda d, p: nn.Embedding(50, 20), ids),
    "embedding of one id": (lambda d, p: nn.Embedding(VOCABULARY, p), lambda n, t, d, seed: ids(n, 1, d, seed)[:, 0]),
    "layer norm": (lambda d, p: nn.LayerNorm(d + 1), wide),
    "layer norm without bias": (lambda d, p: nn.LayerNorm(d + 1, bias=False), wide),
    "layer norm of two dimensions": (lambda d, p: nn.LayerNorm((2, d)), lambda n, t, d, seed: normal(n, t, 2, d)),
    "RMS norm": (lambda d, p: nn.RMSNorm(d, eps=1e-3), vectors),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_called_once_or_twice(name):
    @settings(max_examples=15, deadline=None)
    @given(cases(*LAYERS[name]))
    def run(case):
        check(case)

    run()


@pytest.mark.parametrize(("length", "inputs", "outputs"), list(itertools.product([1, 7, 40], [3, 30], [4, 50])))
def test_both_forms_of_the_norm_of_a_linear_layer(length, inputs, outputs):
    """From pairs of positions where texts are short, from matrices where they are long."""
    model = Calls(random_weights(nn.Linear(inputs, outputs)))
    assert_one_backward_is_exact(model, Rows({"x": normal(4, length, inputs)}))


@pytest.mark.parametrize(("length", "vocabulary", "width"), [(2, 9, 4), (9, 5, 3), (12, 90, 3), (1, 1, 1)])
def test_all_forms_of_the_norm_of_an_embedding(length, vocabulary, width):
    """From pairs of positions, from dense matrices, from sums over equal ids."""
    model = Calls(random_weights(nn.Embedding(vocabulary, width)))
    assert_one_backward_is_exact(model, Rows({"ids": whole(5, length, below=vocabulary)}))


class TestLayersBetweenLayers:
    """Gradients flow through layers whose own parameters autograd takes for constants."""

    @settings(max_examples=15, deadline=None)
    @given(
        st.integers(1, 5), st.integers(1, 6), st.integers(0, 99), CLIPS, st.lists(st.booleans(), min_size=7, max_size=7)
    )
    def test_a_stack(self, examples, length, seed, clip_norm, frozen):
        def loss(self, batch):
            hidden = self.embedding(batch.inputs["ids"])
            hidden = hidden + self.second(self.norm(self.first(hidden)).relu_())
            return self.head(hidden.mean(1)).logsumexp(-1)

        model = Loss(
            loss,
            embedding=nn.Embedding(VOCABULARY, 4),
            first=nn.Linear(4, 6),
            norm=nn.LayerNorm(6),
            second=nn.Linear(6, 4),
            head=nn.Linear(4, 3, bias=False),
        )
        random_weights(model, seed)
        for parameter, still in zip(model.parameters(), frozen, strict=False):
            parameter.requires_grad_(not still)
        model.head.weight.requires_grad_(True)
        data = Rows({"ids": whole(examples, length, below=VOCABULARY, seed=seed)})
        assert_one_backward_is_exact(model, data, clip_norm, physical_batch=2)

    def test_a_layer_applied_to_its_own_output(self):
        model = Loss(
            lambda self, batch: self.layer(self.layer(batch.inputs["x"]).sin()).sum((1, 2)), layer=nn.Linear(3, 3)
        )
        assert_one_backward_is_exact(random_weights(model), Rows({"x": normal(4, 5, 3)}))

    def test_positions_that_all_examples_share(self):
        def loss(self, batch):
            tokens = batch.inputs["ids"]
            positions = self.positions(torch.arange(tokens.shape[1])[None])
            return (self.tokens(tokens) + positions).sin().sum((1, 2))

        model = random_weights(Loss(loss, tokens=nn.Embedding(7, 3), positions=nn.Embedding(9, 3)))
        assert_one_backward_is_exact(model, Rows({"ids": whole(5, 6, below=7)}))

    @pytest.mark.parametrize("inner", [nn.Linear(3, 3), Conv1D(3, 3), nn.LayerNorm(3)])
    @pytest.mark.parametrize("examples", [1, 4])
    def test_an_output_changed_in_place(self, inner, examples):
        """The hook of a view is lost when the view is written to, and some layers give views."""
        model = Loss(
            lambda self, batch: self.inner(self.first(batch.inputs["x"]).relu_()).relu_().sum((1, 2)),
            first=nn.Linear(3, 3),
            inner=inner,
        )
        assert_one_backward_is_exact(random_weights(model), Rows({"x": normal(examples, 5, 3)}))

    @pytest.mark.parametrize("layer", [nn.Linear(3, 3), nn.LayerNorm(3)])
    def test_a_part_of_an_output_changed_in_place(self, layer):
        def loss(self, batch):
            output = self.layer(self.layer(batch.inputs["x"]))
            output[..., :2].relu_()
            return output.sin().sum((1, 2))

        assert_one_backward_is_exact(random_weights(Loss(loss, layer=layer)), Rows({"x": normal(4, 5, 3)}))

    def test_a_layer_that_is_not_called_and_one_that_leads_nowhere(self):
        def loss(self, batch):
            self.idle(batch.inputs["x"])
            return self.layer(batch.inputs["x"]).sin().sum((1, 2))

        layers = {name: nn.Linear(3, 3) for name in ("idle", "layer", "absent")}
        assert_one_backward_is_exact(random_weights(Loss(loss, **layers)), Rows({"x": normal(4, 5, 3)}))

    def test_two_layers_with_the_same_weights(self):
        model = Loss(
            lambda self, batch: self.one(self.two(batch.inputs["x"]).sin()).sin().sum((1, 2)),
            one=nn.Linear(3, 3),
            two=nn.Linear(3, 3),
        )
        model.two.weight, model.two.bias = model.one.weight, model.one.bias
        assert_one_backward_is_exact(random_weights(model), Rows({"x": normal(4, 5, 3)}))


class TestTiedRule:
    @settings(max_examples=25, deadline=None)
    @given(
        st.integers(1, 5), st.integers(1, 8), st.integers(1, 5), st.integers(0, 99), CLIPS, st.booleans(), st.booleans()
    )
    def test_the_cross_term_counts(self, examples, length, width, seed, clip_norm, bias, padding):
        def loss(self, batch):
            ids = batch.inputs["ids"]
            scores = self.head(self.embedding(ids).cumsum(1).sin())[:, :-1]
            return nn.functional.cross_entropy(scores.mT, ids[:, 1:], reduction="none").sum(1) + 0 * scores.sum((1, 2))

        embedding = nn.Embedding(VOCABULARY, width, padding_idx=0 if padding else None)
        model = Loss(loss, embedding=embedding, head=nn.Linear(width, VOCABULARY, bias=bias))
        model.head.weight = embedding.weight
        random_weights(model, seed)
        data = Rows({"ids": whole(examples, length, below=VOCABULARY, seed=seed)})
        assert_one_backward_is_exact(model, data, clip_norm, physical_batch=3)

    @pytest.mark.parametrize("reached", ["embedding", "head"])
    def test_one_of_the_two_alone(self, reached):
        def loss(self, batch):
            if reached == "embedding":
                return self.embedding(batch.inputs["ids"]).sin().sum((1, 2))
            return self.head(batch.inputs["x"]).sin().sum((1, 2))

        model = Loss(loss, embedding=nn.Embedding(5, 3), head=nn.Linear(3, 5))
        model.head.weight = model.embedding.weight
        assert_one_backward_is_exact(random_weights(model), Rows({"ids": whole(4, 3, below=5), "x": normal(4, 2, 3)}))
