import numpy as np
import pytest
import torch
from small_questions import TINY, TRAIN, save_bert, tokenizer

from trustnlp.data.corpus import Example
from trustnlp.data.encoding import Subwords
from trustnlp.errors import ArgumentError, ModelError
from trustnlp.models import build_span_model
from trustnlp.models.span_readers import HashedContexts, PairContexts, ReaderOptions, questions
from trustnlp.randomness import Streams


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(params=["reader", "pretrained"])
def model(request, bert):
    if request.param == "reader":
        return build_span_model(streams=Streams(0), **TINY).eval()
    return build_span_model(bert, streams=Streams(0)).eval()


def test_an_example_without_a_question_is_refused():
    with pytest.raises(ModelError, match="example 1 asks no question"):
        questions([TRAIN[0], Example("no question")])


class TestHashedContexts:
    def test_words_and_marks_have_places(self):
        examples = [Example("Ada, in Rome.", question="Who?"), TRAIN[0]]
        found = HashedContexts(ReaderOptions(max_words=4).encoding, examples)
        assert found.places[0].tolist() == [[0, 3], [3, 4], [5, 7], [8, 12]]
        batch = found.batch(np.array([0, 1]))
        assert batch["words"].shape == (2, 4, 2)
        assert batch["question_lengths"].tolist() == [2, 4]
        assert batch["context"].all()

    def test_questions_of_one_context_share_it(self):
        asked = [
            Example("Ada met Bob.", question="Who?"),
            TRAIN[0],
            Example("Ada met Bob.", question="Whom did Ada meet?"),
        ]
        found = HashedContexts(ReaderOptions().encoding, asked)
        assert found.places[0] is found.places[2]
        batch, alone = found.batch(np.array([2, 1])), found.batch(np.array([2]))
        assert batch["question_lengths"].tolist() == [5, 5]
        assert np.array_equal(batch["words"][:1, :4], alone["words"])

    def test_the_context_ends_where_the_text_does(self):
        examples = [Example("Ada ran", question="Who?"), TRAIN[0]]
        found = HashedContexts(ReaderOptions().encoding, examples).batch(np.array([0, 1]))
        assert found["context"].sum(1).tolist() == [2, len(ReaderOptions().encoding.words(TRAIN[0].text))]


class TestPairContexts:
    def test_pieces_are_those_of_transformers(self):
        found = PairContexts(Subwords(tokenizer().backend_tokenizer, max_pieces=32), TRAIN)
        batch = found.batch(np.array([3]))
        theirs = tokenizer()(TRAIN[3].question, TRAIN[3].text, return_offsets_mapping=True, return_token_type_ids=True)
        assert batch["pieces"].tolist() == [theirs["input_ids"]]
        assert batch["types"].tolist() == [theirs["token_type_ids"]]
        inside = batch["context"][0]
        assert found.places[3][inside].tolist() == [list(place) for place in np.array(theirs["offset_mapping"])[inside]]
        assert not found.places[3][~inside].any()
        words = [TRAIN[3].text[start:end] for start, end in found.places[3][inside]]
        assert "".join(words) == TRAIN[3].text.replace(" ", "")

    def test_contexts_are_cut_before_questions(self):
        found = PairContexts(Subwords(tokenizer().backend_tokenizer, max_pieces=12), TRAIN[:1])
        pieces = " ".join(tokenizer().convert_ids_to_tokens(found.batch(np.array([0]))["pieces"][0].tolist()))
        assert pieces == "[CLS] where does ada live ? [SEP] ada lives in rome [SEP]"

    def test_a_long_question_leaves_half_of_the_room(self):
        long = Example("ada lives in rome", question="where " * 50)
        found = PairContexts(Subwords(tokenizer().backend_tokenizer, max_pieces=12), [long])
        pieces = " ".join(tokenizer().convert_ids_to_tokens(found.batch(np.array([0]))["pieces"][0].tolist()))
        assert pieces == "[CLS] where where where where where where [SEP] ada lives in [SEP]"


def test_padding_and_neighbours_never_show(model):
    examples = [*TRAIN[:3], Example("ada lives in oslo", question="live? " * 3)]
    encoded = model.encode(examples)
    with torch.no_grad():
        together = model.logits(encoded.batch(range(4)))
        for place in range(4):
            alone = model.logits(encoded.batch([place]))
            for name, scores in alone.items():
                width = scores.shape[1]
                torch.testing.assert_close(together[name][place, :width], scores[0], rtol=0, atol=1e-5)
                assert (together[name][place, width:] == torch.finfo(torch.float32).min).all()


def test_only_the_context_can_be_answered(model):
    batch = model.encode(TRAIN[:4]).batch(range(4))
    with torch.no_grad():
        scores = model.logits(batch)
    for found in scores.values():
        assert torch.equal(found > torch.finfo(torch.float32).min, batch.inputs["context"])


def test_the_question_is_read(model):
    first, other = TRAIN[0], Example(TRAIN[0].text, question="where does bob live?")
    with torch.no_grad():
        one, two = (model.logits(model.encode([each]).batch([0]))["start"] for each in (first, other))
    assert not torch.allclose(one, two)


def slowly(reader, encoding, example):
    """The reader's scores, word by word, without padding or batches."""
    ours, theirs = encoding.words(example.text), encoding.words(example.question)
    alone = HashedContexts(encoding, [example]).batch(np.array([0]))
    tensors = {name: torch.from_numpy(np.asarray(array)) for name, array in alone.items()}
    context = reader.words(tensors)[0]
    question = reader.words({name: tensors[f"question_{name}"] for name in ("words", "chars")})[0]
    importance = torch.softmax(torch.stack([reader.weight(q)[0] for q in question]), 0)
    rows = []
    for word, vector in zip(ours, context, strict=True):
        same = torch.tensor([float(word.lower() == other.lower()) for other in theirs])
        likeness = torch.stack([reader.likeness(vector).relu() @ reader.likeness(q).relu() for q in question])
        aligned = sum(weight * q for weight, q in zip(torch.softmax(likeness, 0), question, strict=True))
        rows.append(torch.cat([vector, aligned, same.max()[None], (same @ importance)[None]]))

    def both_ways(module, vectors):
        ahead, _ = module.forwards(vectors[None])
        back, _ = module.backwards(vectors.flip(0)[None])
        return torch.cat([ahead[0], back[0].flip(0)], -1)

    states, heard = both_ways(reader.reads, torch.stack(rows)), both_ways(reader.asks, question)
    summary = torch.softmax(reader.asked(heard)[:, 0], 0) @ heard
    return states @ reader.ends(summary).view(-1, 2)


def test_the_reader_against_one_that_goes_word_by_word():
    model = build_span_model(streams=Streams(0), **TINY).eval()
    examples = [*TRAIN[:2], Example("Ada, ADA and bob.", question="Where is ada?")]
    batch = model.encode(examples).batch(range(3))
    with torch.no_grad():
        found = model.reader(batch.inputs)
        for place, example in enumerate(examples):
            expected = slowly(model.reader, model.encoding, example)
            torch.testing.assert_close(found[place, : len(expected)], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"width": 0}, "width"), ({"hidden": 0}, "hidden"), ({"dropout": 2}, "dropout"), ({"char_filters": -1}, "char_")],
)
def test_bad_options(options, name):
    with pytest.raises(ArgumentError, match=f"'{name}"):
        ReaderOptions(**options)
