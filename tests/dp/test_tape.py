import pytest
import torch
from rows import normal

from trustnlp.dp.tape import Kept, Tape, UnsupportedUseError


def tape(examples):
    return Tape(examples, torch.device("cpu"))


class TestKept:
    def test_a_tensor_written_to_is_refused(self):
        x = normal(3)
        kept, view = Kept(x), Kept(x[:2])
        assert torch.equal(kept(), x)
        x.add_(1)
        for each in (kept, view):
            with pytest.raises(UnsupportedUseError, match="overwritten"):
                each()

    def test_half_precision_comes_back_as_single_and_whole_numbers_as_they_are(self):
        assert Kept(normal(3).bfloat16())().dtype is torch.float32
        assert Kept(normal(3))().dtype is torch.float64
        assert Kept(torch.arange(3))().dtype is torch.int64


class TestTape:
    def test_the_gradient_of_an_output_is_kept(self):
        watching, x = tape(2), normal(2, 3).requires_grad_()
        use, output = watching.watch(x, x * 2)
        watching.in_backward = True
        (output**2).sum().backward()
        assert torch.equal(use.value(), x)
        assert torch.equal(use.gradient(), 4 * x)

    def test_what_is_not_trained_before_it_does_not_matter(self):
        watching, x = tape(2), normal(2, 3)
        use, output = watching.watch(x, x.clone())
        watching.in_backward = True
        (output**2).sum().backward()
        assert torch.equal(use.gradient(), 2 * x)

    def test_one_row_for_all_is_given_to_each(self):
        watching, row = tape(4), normal(1, 3)
        use, output = watching.watch(row, row.clone())
        watching.in_backward = True
        (output * normal(4, 3, seed=1)).sum().backward()
        assert torch.equal(use.gradient(), normal(4, 3, seed=1))
        assert use.value().shape == (4, 3)

    @pytest.mark.parametrize("shapes", [((3, 2), (3, 2)), ((8, 2), (8, 2)), ((4,), (4,)), ((1, 4), (4, 4)), ((), ())])
    def test_other_first_dimensions_than_the_batch_are_refused(self, shapes):
        with pytest.raises(UnsupportedUseError, match="batch of 4 examples"):
            tape(4).watch(*(torch.ones(shape) for shape in shapes))

    def test_gradients_taken_by_the_loss_are_refused(self):
        x = normal(2, 3).requires_grad_()
        _, output = tape(2).watch(x, x * 2)
        with pytest.raises(UnsupportedUseError, match="takes gradients itself"):
            torch.autograd.grad(output.sum(), x)

    def test_a_second_backward_is_refused(self):
        watching, x = tape(2), normal(2, 3).requires_grad_()
        _, output = watching.watch(x, x * 2)
        watching.in_backward = True
        output.sum().backward(retain_graph=True)
        with pytest.raises(UnsupportedUseError, match="twice"):
            output.sum().backward()

    def test_without_gradients_there_is_nothing_to_keep(self):
        with torch.no_grad():
            use, output = tape(2).watch(normal(2, 3), normal(2, 3))
        assert use.gradient is None
        assert not output.requires_grad
