import numpy as np
import pytest
import torch

from trustnlp.errors import ArgumentError
from trustnlp.randomness import Streams


def test_same_seed_same_bits() -> None:
    assert np.array_equal(Streams(3).numpy("noise", 7).random(5), Streams(3).numpy("noise", 7).random(5))
    first, second = (torch.rand(5, generator=Streams(3).torch("noise", 7)) for _ in range(2))
    assert torch.equal(first, second)


def test_streams_differ_by_seed_name_index_and_family() -> None:
    streams = Streams(3)
    keys = [
        streams.key("noise"),
        streams.key("noise", 0),
        streams.key("noise", 1),
        streams.key("noise", 1, 0),
        streams.key("sampling", 0),
        Streams(4).key("noise", 0),
        streams.child("reference", 0).key("noise", 0),
        streams.child("reference", 1).key("noise", 0),
    ]
    assert len(set(keys)) == len(keys)


def test_drawing_from_one_stream_never_moves_another() -> None:
    streams = Streams(0)
    expected = streams.numpy("sampling").random()
    streams.numpy("noise").random(1000)
    assert streams.numpy("sampling").random() == expected


def test_the_global_generators_are_left_alone() -> None:
    before = torch.random.get_rng_state()
    torch.rand(3, generator=Streams(0).torch("init"))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ArgumentError, match="'seed'"):
        Streams(-1)


def test_the_keys_are_what_they_have_always_been() -> None:
    # Golden value: int.from_bytes(hashlib.sha256(b"0/noise/1").digest()[:8], "little") >> 1. A change of it would
    # silently change every published figure.
    assert Streams(0).key("noise", 1) == 7999921939291604395
