import pytest
import torch

from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import ArgumentError
from trustnlp.models import bag_of_words
from trustnlp.models.evaluation import predict
from trustnlp.randomness import Streams

TEXTS = tuple(
    Example(f"{word} the {thing}", label)
    for word, label in (("play", "music"), ("call", "phone"), ("stop", "music"))
    for thing in ("song", "doctor", "band", "office", "radio")
)


def model(**options: str) -> bag_of_words.NLUModel:
    return bag_of_words.build(Corpus("c", TEXTS), streams=Streams(0), buckets=128, width=16, **options)


def test_a_text_is_the_mean_of_its_words_and_their_order_is_lost() -> None:
    net = model()
    texts = net.encode([Example("play the song"), Example("song the play"), Example("play")])
    batch = texts.batch([0, 1, 2])
    hidden = net.backbone(batch.inputs)
    torch.testing.assert_close(hidden.text[0], hidden.text[1])
    torch.testing.assert_close(hidden.text[0], hidden.words[0, :3].mean(0))
    torch.testing.assert_close(hidden.text[2], hidden.words[0, 0])  # padding does not count


def test_by_the_root_a_long_text_weighs_as_much_as_a_short_one() -> None:
    examples = [Example("play the song"), Example("play")]
    hidden, mean = (net.backbone(net.encode(examples).batch([0, 1]).inputs) for net in (model(pooling="root"), model()))
    torch.testing.assert_close(hidden.text[0], mean.text[0] * 3**0.5)
    torch.testing.assert_close(hidden.text[1], mean.text[1])


def test_another_pooling_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"pooling.*mean.*root.*max"):
        model(pooling="max")


def test_the_same_streams_give_the_same_weights() -> None:
    one, two = model(), model()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_it_learns() -> None:
    net = model()
    data = net.encode(TEXTS, for_training=True)
    optimizer = torch.optim.SGD(net.parameters(), 2.0)
    for _ in range(60):
        optimizer.zero_grad()
        net.loss(data.batch(range(len(TEXTS)))).mean().backward()
        optimizer.step()
    assert predict(net, data).accuracy == 1.0
