import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trustnlp.errors import RunError
from trustnlp.models.state import load_state, save_state

NUMBERS = st.one_of(
    st.integers(-(2**60), 2**60), st.floats(allow_nan=False), st.none(), st.booleans(), st.text(max_size=5)
)
NESTED = st.recursive(
    NUMBERS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.text(max_size=4), NESTED, max_size=4))
def test_plain_values_come_back(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    save_state(path, state)
    assert load_state(path) == state


def test_tensors_come_back_bit_for_bit_even_when_shared(tmp_path):
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    state = {
        "a": {"b/c": weight, "tied": weight},
        "t": [weight.T, torch.tensor(3.5)],
        "0": torch.tensor([1], dtype=torch.int64),
    }
    save_state(tmp_path / "s", state)
    found = load_state(tmp_path / "s")
    assert torch.equal(found["a"]["b/c"], weight)
    assert torch.equal(found["a"]["tied"], weight)
    assert torch.equal(found["t"][0], weight.T)
    assert found["t"][1].item() == 3.5
    assert found["0"].dtype == torch.int64


def test_names_that_could_be_confused(tmp_path):
    state = {"a": {"b": torch.zeros(1)}, "a/b": torch.ones(1), "text": "0/a/b", "pair": ["tensor", "0/a/b"]}
    save_state(tmp_path / "s", state)
    found = load_state(tmp_path / "s")
    assert (found["a"]["b"].item(), found["a/b"].item()) == (0, 1)
    assert (found["text"], found["pair"]) == (state["text"], state["pair"])


def test_other_values_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(TypeError):
        save_state(tmp_path / "s", {"a": object()})
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_a_run_error(tmp_path):
    with pytest.raises(RunError, match="cannot be read as a checkpoint"):
        load_state(tmp_path / "absent")
