"""Scores of tiny models against one forward pass for each question; texts against tokens written by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from small_transformers import SPECIAL, bert_config, gpt2_config, tokenizer
from trustnlp import models
from trustnlp.errors import ArgumentError, ModelError
from trustnlp.fairness.scorer import Asked, Kind, Tokens, open_scorer
from trustnlp.models.masked_language_model import open_word_pieces
from trustnlp.randomness import Streams

WORDS = ["the", "man", "woman", "nurse", "cook", "##s", "##ing", "is", "was", "kind", "loud", ".", ","]
PIECES = [*SPECIAL, "[MASK]", *WORDS]
TEXTS = [
    "the man cooks",
    "the woman cooks",
    "the nurse is kind .",
    "the man cooks",
    "loud",
    "the man is loud , was kind",
]
WIDE = {"initializer_range": 0.5}  # far from 0, so that every token in sight shows


def made(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


@pytest.fixture(scope="module")
def word_pieces(tmp_path_factory):
    path = tmp_path_factory.mktemp("pieces") / "vocab.txt"
    path.write_text("\n".join(PIECES))
    return path


@pytest.fixture(scope="module")
def bert(word_pieces):
    """Made by somebody who never heard of this package; tells two sentences apart by types."""
    return made(lambda: BertForMaskedLM(bert_config(PIECES, 24, **WIDE))), open_word_pieces(word_pieces)


@pytest.fixture(scope="module")
def gpt2():
    """With nothing of its own around a text."""
    plain = Tokenizer(WordLevel({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]"))  # noqa: S106
    plain.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made(lambda: GPT2LMHeadModel(gpt2_config(PIECES, 24, bos_token_id=3, eos_token_id=3, **WIDE))), plain


@pytest.fixture(scope="module", params=["bert", "gpt2", "ours masked", "ours causal"])
def model(request, bert, gpt2, word_pieces):
    """What to give to `open_scorer`, the model within, and its mask."""
    if request.param == "bert":
        return bert, bert[0], 4
    if request.param == "gpt2":
        return gpt2, gpt2[0], None
    if request.param == "ours masked":
        ours = models.build_masked_language_model(word_pieces, streams=Streams(0), width=16, heads=2).eval()
        return (ours,), ours.model, 4
    ours = models.build_language_model(streams=Streams(0), width=16, heads=2).eval()
    return (ours,), ours.model, None


@torch.no_grad()
def naive(model, mask, asked, position, token):
    """One forward pass for one token."""
    ids = torch.tensor([asked.ids])
    if mask is not None:
        ids[0, list(asked.positions) if asked.together else position] = mask
    logits = model(input_ids=ids).logits[0].double()
    return float(logits[position - (mask is None)].log_softmax(-1)[token])


def everywhere(scorer, text, together=False):
    ids = scorer.tokens(text).ids
    return Asked(ids, tuple(range(1, len(ids))), together)


class TestScores:
    @pytest.mark.parametrize("batch_tokens", [1, 40, 2048])
    def test_log_probabilities(self, model, batch_tokens):
        given_, inner, mask = model
        scorer = open_scorer(*given_, batch_tokens=batch_tokens)
        asked = [everywhere(scorer, text) for text in TEXTS]
        asked += [Asked(each.ids, each.positions[1:0:-1]) for each in asked if len(each.ids) > 3]
        if mask is not None:
            asked += [everywhere(scorer, text, together=True) for text in TEXTS]
        for each, found in zip(asked, scorer.log_probabilities(asked), strict=True):
            expected = [naive(inner, mask, each, at, each.ids[at]) for at in each.positions]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)

    def test_candidates(self, bert):
        scorer = open_scorer(*bert)
        asked = [Asked(scorer.tokens(text).ids, (1 + i % 2,)) for i, text in enumerate(TEXTS)]
        ids = [6, 7, 5]
        found = scorer.candidates(asked, ids)
        expected = [[naive(bert[0], 4, each, each.positions[0], token) for token in ids] for each in asked]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        assert scorer.candidates([], ids).shape == (0, 3)

    def test_representations(self, model):
        given_, inner, _ = model
        scorer = open_scorer(*given_)
        asked = [Asked(scorer.tokens(text).ids, (0, 1)[: 1 + i % 2]) for i, text in enumerate(TEXTS)]
        for each, found in zip(asked, scorer.representations(asked), strict=True):
            with torch.no_grad():
                states = inner(input_ids=torch.tensor([each.ids]), output_hidden_states=True).hidden_states[-1][0]
            np.testing.assert_allclose(found, states[list(each.positions)].mean(0), rtol=0, atol=1e-5)

    @settings(max_examples=15, deadline=None)
    @given(st.permutations(range(len(TEXTS))))
    def test_company_and_order_never_show(self, bert, order):
        scorer = open_scorer(*bert, batch_tokens=30)
        asked = [everywhere(scorer, text) for text in TEXTS]
        alone = [scorer.log_probabilities([each])[0] for each in asked]
        found = scorer.log_probabilities([asked[i] for i in order])
        for i, values in zip(order, found, strict=True):
            np.testing.assert_allclose(values, alone[i], rtol=0, atol=1e-5)

    def test_nothing_asked(self, model):
        scorer = open_scorer(*model[0])
        assert scorer.log_probabilities([]) == []
        (none,) = scorer.log_probabilities([Asked(scorer.tokens("loud").ids, ())])
        assert none.shape == (0,)

    def test_two_sentences_have_types(self, bert):
        scorer = open_scorer(*bert)
        asked = Asked(scorer.tokens("the man", "is kind").ids, (2, 4, 5))
        assert asked.ids == (2, 5, 6, 3, 12, 14, 3)
        types = torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
        for at, found in zip(asked.positions, scorer.log_probabilities([asked])[0], strict=True):
            ids = torch.tensor([asked.ids])
            ids[0, at] = 4
            with torch.no_grad():
                logits = bert[0](input_ids=ids, token_type_ids=types).logits[0, at].double()
            assert found == pytest.approx(float(logits.log_softmax(-1)[asked.ids[at]]), abs=1e-4)


class TestTokens:
    def test_masked(self, bert):
        scorer = open_scorer(*bert)
        assert scorer.kind is Kind.MASKED
        expected = Tokens((2, 5, 6, 9, 10, 3), ((0, 0), (0, 3), (5, 8), (9, 13), (13, 14), (0, 0)))
        assert scorer.tokens("The  man cooks") == expected
        assert scorer.tokens("the man", "is").spans == ((0, 0), (0, 3), (4, 7), (0, 0), (8, 10), (0, 0))

    def test_causal_after_its_beginning(self, gpt2):
        scorer = open_scorer(*gpt2)
        assert scorer.kind is Kind.CAUSAL
        assert scorer.tokens("the man", "is") == Tokens((3, 5, 6, 12), ((0, 0), (0, 3), (4, 7), (8, 10)))

    def test_a_beginning_that_the_tokenizer_puts_there(self, gpt2):
        model, plain = gpt2
        own = Tokenizer.from_str(plain.to_str())
        own.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)])
        assert open_scorer(model, own).tokens("man").ids == (2, 6)

    def test_without_a_beginning_the_first_token_cannot_be_asked_about(self, gpt2):
        model = made(lambda: GPT2LMHeadModel(gpt2_config(PIECES, 24, bos_token_id=None, eos_token_id=None)))
        scorer = open_scorer(model, gpt2[1])
        asked = scorer.tokens("the man")
        assert asked.ids == (5, 6)
        with pytest.raises(ArgumentError, match=r"'positions' must be from 1 to 1, .* got 0"):
            scorer.log_probabilities([Asked(asked.ids, (0,))])
        (found,) = scorer.log_probabilities([Asked(asked.ids, (1,))])
        assert found == pytest.approx(naive(model, None, asked_at(asked, 1), 1, 6), abs=1e-4)

    def test_spans_begin_behind_the_space(self):
        scorer = open_scorer(models.build_language_model(streams=Streams(0), width=16, heads=2))
        text = "é a"
        assert scorer.tokens(text).spans == ((0, 0), (0, 1), (0, 1), (1, 2), (2, 3))

    def test_spans_of_pieces_with_their_space(self, tmp_path):
        (tmp_path / "merges.txt").write_text("a b\nĠ ab\n")
        ours = models.build_language_model(tmp_path, streams=Streams(0), width=16, heads=2)
        assert open_scorer(ours).tokens("ab ab").spans == ((0, 0), (0, 2), (3, 5))

    @pytest.mark.parametrize(("count", "fits"), [(22, True), (23, False)])
    def test_as_long_as_the_model_reads(self, bert, count, fits):
        scorer = open_scorer(*bert)
        text = " ".join(["man"] * count)
        if fits:
            assert len(scorer.tokens(text).ids) == 24
        else:
            with pytest.raises(ArgumentError, match=r"'text' must be at most 24 tokens .* got 25; shorten or split it"):
                scorer.tokens(text)
            with pytest.raises(ArgumentError, match="'ids' must be at most 24 tokens"):
                scorer.log_probabilities([Asked((5,) * 25, (1,))])

    def test_positions_from_behind_the_padding(self, word_pieces):
        """RoBERTa's first position is pad + 1, so that of 24 positions there is room for 22 tokens."""
        size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
        config = RobertaConfig(vocab_size=len(PIECES), max_position_embeddings=24, pad_token_id=1, **size, **WIDE)
        model = made(lambda: RobertaForMaskedLM(config))
        scorer = open_scorer(model, open_word_pieces(word_pieces))
        longest = everywhere(scorer, " ".join(["man"] * 20))
        found = scorer.log_probabilities([longest, everywhere(scorer, "the man")])[0]
        assert found[3] == pytest.approx(naive(model, 4, longest, 4, 6), abs=1e-4)
        with pytest.raises(ArgumentError, match="at most 22 tokens"):
            scorer.tokens(" ".join(["man"] * 21))


def asked_at(tokens, *positions):
    return Asked(tokens.ids, positions)


class TestOpening:
    @pytest.mark.parametrize("kind", list(Kind))
    def test_a_folder_by_somebody_else(self, bert, gpt2, tmp_path, kind):
        model, pieces = bert if kind is Kind.MASKED else gpt2
        model.save_pretrained(tmp_path)
        special = {"unk_token": "[UNK]", "pad_token": "[PAD]"}
        PreTrainedTokenizerFast(tokenizer_object=pieces, **special).save_pretrained(tmp_path)
        there, here = open_scorer(str(tmp_path)), open_scorer(model, pieces)
        assert (there.kind, there.name) == (kind, tmp_path.name)
        assert there.tokens("the man cooks") == here.tokens("the man cooks")
        asked = [everywhere(here, text) for text in TEXTS]
        for one, other in zip(here.log_probabilities(asked), there.log_probabilities(asked), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_a_folder_of_ours(self, word_pieces, tmp_path):
        ours = models.build_masked_language_model(word_pieces, streams=Streams(0), width=16, heads=2)
        models.save(ours, tmp_path)
        here, there = open_scorer(ours), open_scorer(tmp_path)
        assert there.kind is Kind.MASKED
        asked = [everywhere(here, text) for text in TEXTS]
        for one, other in zip(here.log_probabilities(asked), there.log_probabilities(asked), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_transformers_own_tokenizer(self, bert):
        fast = tokenizer(PIECES)
        scorer = open_scorer(bert[0], fast)
        assert scorer.tokens("the man").ids == (2, 5, 6, 3)
        assert fast.backend_tokenizer.truncation is None

    def test_no_tokenizer_or_one_too_many(self, bert, word_pieces):
        with pytest.raises(ArgumentError, match="'tokenizer' must be given"):
            open_scorer(bert[0])
        ours = models.build_masked_language_model(word_pieces, streams=Streams(0), width=16, heads=2)
        with pytest.raises(ArgumentError, match="'tokenizer' must be left out"):
            open_scorer(ours, bert[1])

    def test_a_tokenizer_without_places(self, bert):
        with pytest.raises(ModelError, match=r"dict does not tell where .*fast tokenizer"):
            open_scorer(bert[0], {"the": 1})

    def test_a_tokenizer_of_a_larger_model(self, bert):
        with pytest.raises(ModelError, match=r"the tokenizer knows 19 tokens, its model 18; give the tokenizer"):
            open_scorer(bert[0], tokenizer([*PIECES, "more"]))

    def test_a_masked_model_without_mask(self, bert):
        pieces = [piece for piece in PIECES if piece != "[MASK]"]
        with pytest.raises(ModelError, match=r"no mask .*use a masked language model"):
            open_scorer(bert[0], tokenizer(pieces))

    def test_no_language_model(self, bert):
        size = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": len(PIECES)}
        heads = {"encoder_attention_heads": 1, "decoder_attention_heads": 1}
        for model in (
            BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)),
            BartForConditionalGeneration(BartConfig(**size, **heads)),
        ):
            with pytest.raises(ModelError, match="no masked or causal language model"):
                open_scorer(model, bert[1])


class TestRefusals:
    def test_masked_questions_to_a_causal_model(self, gpt2):
        scorer = open_scorer(*gpt2)
        asked = everywhere(scorer, "the man")
        with pytest.raises(ModelError, match=r"GPT2LMHeadModel is a causal model.*use a masked"):
            scorer.candidates([Asked(asked.ids, (1,))], [5])
        with pytest.raises(ModelError, match="causal model, which has no masks"):
            scorer.log_probabilities([Asked(asked.ids, asked.positions, together=True)])

    @pytest.mark.parametrize("position", [-1, 4])
    def test_positions_that_are_not_there(self, bert, position):
        scorer = open_scorer(*bert)
        ids = scorer.tokens("the man").ids
        for ask in (scorer.log_probabilities, scorer.representations, lambda asked: scorer.candidates(asked, [5])):
            with pytest.raises(ArgumentError, match=f"'positions' must be from 0 to 3, .* got {position}"):
                ask([Asked(ids, (position,))])

    def test_other_than_one_position_for_candidates(self, bert):
        scorer = open_scorer(*bert)
        ids = scorer.tokens("the man").ids
        for positions in ((), (1, 2)):
            with pytest.raises(ArgumentError, match="'positions' must be one"):
                scorer.candidates([Asked(ids, positions)], [5])
        with pytest.raises(ArgumentError, match="'ids' must be tokens of"):
            scorer.candidates([Asked(ids, (1,))], [len(PIECES)])

    def test_a_mean_of_nothing(self, bert):
        scorer = open_scorer(*bert)
        with pytest.raises(ArgumentError, match="'positions' must be not empty"):
            scorer.representations([Asked((2, 5, 3), ())])
