import torch

from trustnlp.models.protocol import Batch, TextModel, batches


class Numbers:
    """Five examples, example i holding the number i."""

    def __len__(self) -> int:
        return 5

    def batch(self, indices: object) -> Batch:
        return Batch({"x": torch.tensor(list(indices))}, {})  # type: ignore[call-overload]


def test_batches_cover_every_example_once_in_order() -> None:
    found = [batch.inputs["x"].tolist() for batch in batches(Numbers(), 2)]
    assert found == [[0, 1], [2, 3], [4]]


def test_a_module_with_loss_and_logits_is_a_text_model() -> None:
    class Wrapped(torch.nn.Module):
        def loss(self, batch: Batch) -> torch.Tensor:
            return batch.inputs["x"].float()

        def logits(self, batch: Batch) -> dict[str, torch.Tensor]:
            return {"label": batch.inputs["x"].float()[:, None]}

    assert isinstance(Wrapped(), TextModel)
    assert not isinstance(torch.nn.Linear(1, 1), TextModel)


def test_a_batch_moves_all_its_tensors() -> None:
    batch = Batch({"x": torch.zeros(2)}, {"label": torch.zeros(2)}).to("meta")
    assert {tensor.device.type for tensor in (*batch.inputs.values(), *batch.targets.values())} == {"meta"}
    assert len(batch) == 2
