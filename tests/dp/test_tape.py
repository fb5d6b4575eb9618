from weakref import WeakValueDictionary

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

    def test_the_end_is_told_when_the_last_call_has_its_gradient(self):
        told, x = [], normal(2, 3).requires_grad_()
        watching = Tape(
            2, torch.device("cpu"), finished=lambda: told.append([use.gradient is not None for use in uses])
        )
        (one, first), (two, second) = watching.watch(x, x * 2), watching.watch(x, x * 3)
        uses = one, two
        watching.in_backward = True
        (first.sin() + second).sum().backward()
        assert told == [[True, True]]

    def test_what_is_closed_is_forgotten_and_takes_nothing_more(self):
        watching, x = tape(2), normal(2, 3).requires_grad_()
        use, output = watching.watch(x, x * 2)
        watching.in_backward = True
        output.sum().backward(retain_graph=True)
        watching.close()
        assert use.gradient is None
        assert not hasattr(use, "value")
        with pytest.raises(UnsupportedUseError, match="twice"):
            output.sum().backward()

    def test_layers_that_read_one_tensor_share_its_record(self):
        shared, x = WeakValueDictionary(), normal(2, 4, 3)
        tapes = [Tape(2, torch.device("cpu"), shared=shared) for _ in range(3)]
        uses = [each.watch(value, normal(2, 4, 3))[0] for each, value in zip(tapes, (x, x, x.clone()), strict=True)]
        assert uses[0].value is uses[1].value
        assert [use.value.shared for use in uses] == [True, True, False]
        assert torch.allclose(uses[0].value.products(), x @ x.mT)
        assert uses[0].value.products() is uses[1].value.products()

    def test_the_same_memory_written_to_in_between_is_another_tensor(self):
        shared, x = WeakValueDictionary(), normal(2, 4, 3)
        watching = Tape(2, torch.device("cpu"), shared=shared)
        one = watching.watch(x, normal(2, 4, 3))[0]
        x.mul_(2)
        other = watching.watch(x, normal(2, 4, 3))[0]
        assert one.value is not other.value
        assert not other.value.shared
