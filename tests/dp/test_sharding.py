import numpy as np
import pytest
import torch
from ranks import SHARDED, TRAININGS, outcomes, trained
from small_text import Tagger, trainable
from torch import nn

from trustnlp.dp import per_unit_clipped_sum, sharding
from trustnlp.dp.distributed import Distributed, Ranks
from trustnlp.errors import GuaranteeError


@pytest.mark.parametrize("name", SHARDED)
def test_shards_do_what_one_process_does(name):
    alone = trained(TRAININGS[name])
    for rank in outcomes():
        found = rank[f"sharded {name}"]
        tolerance = 1e-6 if name == "float32" else 1e-12
        assert np.allclose(found["weights"], alone["weights"], rtol=0, atol=tolerance)
        assert np.allclose(found["losses"], alone["losses"], equal_nan=True, rtol=1e-5)


def test_each_rank_keeps_the_gradient_of_its_part_alone():
    sizes = [rank["shard sizes"] for rank in outcomes()]
    assert sum(size["held"] for size in sizes) == sizes[0]["whole"]
    assert max(size["held"] for size in sizes) < 0.6 * sizes[0]["whole"]


class Mesh:
    def __init__(self, size):
        self.size = lambda: size


class Placement:
    def __init__(self, dimension):
        self.is_shard = lambda dim: dim == dimension


def laid_out(model, placements, size):
    for parameter in model.parameters():
        parameter.placements, parameter.device_mesh = placements, Mesh(size)
    return trainable(model)


class TestDistribute:
    def test_a_process_of_its_own_keeps_its_function(self):
        assert sharding.distribute(per_unit_clipped_sum, Ranks(), trainable(Tagger())) is per_unit_clipped_sum

    def test_replicas_and_shards(self):
        kinds = [
            type(sharding.distribute(per_unit_clipped_sum, Ranks(0, 2), parameters))
            for parameters in (trainable(Tagger()), laid_out(Tagger(), (Placement(0),), 2))
        ]
        assert kinds == [Distributed, sharding.Sharded]

    @pytest.mark.parametrize(
        ("placements", "size"), [((Placement(1),), 2), ((Placement(0),), 4), ((Placement(0), Placement(1)), 2)]
    )
    def test_other_layouts_are_refused(self, placements, size):
        with pytest.raises(GuaranteeError, match="no clipped sum is known"):
            sharding.distribute(per_unit_clipped_sum, Ranks(0, 2), laid_out(Tagger(), placements, size))

    def test_a_model_in_part_sharded_is_refused(self):
        model = Tagger()
        laid_out(model.head, (Placement(0),), 2)
        with pytest.raises(GuaranteeError, match="some parameters are sharded and some are not"):
            sharding.distribute(per_unit_clipped_sum, Ranks(0, 2), trainable(model))


def test_what_is_not_sharded_is_left_as_it_is():
    model = nn.Linear(2, 2)
    parameters = trainable(model)
    noise = object()
    assert sharding.noise_of_parts(noise, parameters) is noise
    part = torch.ones(2, 2)
    assert sharding.as_gradient(part, model.weight) is part
    assert sharding.local(model.weight).data_ptr() == model.weight.data_ptr()
    with sharding.gathered(model):
        assert model.weight is parameters["weight"]
