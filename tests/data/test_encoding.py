import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from trustnlp.data.corpus import Example
from trustnlp.data.encoding import CHARACTERS, NO_TARGET, HashedWords, Ragged, Schema, Subwords, Targets
from trustnlp.errors import ArgumentError

WORDS = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=30)
TEXTS = st.lists(WORDS, min_size=1, max_size=8).map(" ".join)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(-5, 5), max_size=5), min_size=1, max_size=6), st.data())
def test_ragged_rows_come_back_padded(rows, data):
    indices = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6)), dtype=np.int64)
    padded = Ragged(rows).padded(indices, fill=9)
    assert padded.shape == (len(indices), max([1, *(len(rows[i]) for i in indices)]))
    for found, i in zip(padded, indices, strict=True):
        assert found.tolist() == rows[i] + [9] * (padded.shape[1] - len(rows[i]))


class TestHashedWords:
    def test_golden_buckets(self):
        # blake2b(b"rain", digest_size=16, person=b"trustnlp words"): two little-endian 64-bit words, modulo 8192.
        assert HashedWords().bucket_ids("rain") == [7079, 5418]

    def test_case_is_folded_in_buckets_but_kept_in_characters(self):
        encoding = HashedWords()
        assert encoding.bucket_ids("Rain") == encoding.bucket_ids("rain")
        assert encoding.char_ids("Rain") != encoding.char_ids("rain")

    def test_the_same_in_another_process(self):
        code = "from trustnlp.data.encoding import HashedWords; print(HashedWords().bucket_ids('cañon'))"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={})
        assert found.stdout.strip() == str(HashedWords().bucket_ids("cañon"))

    @settings(deadline=None)
    @given(TEXTS, TEXTS)
    def test_a_word_is_encoded_without_regard_to_other_texts(self, one, other):
        encoding = HashedWords(buckets=50)
        alone = encoding.encode([one]).batch(np.array([0]))
        together = encoding.encode([other, one]).batch(np.array([1]))
        for name, array in alone.items():
            np.testing.assert_array_equal(array, together[name])

    @settings(deadline=None)
    @given(st.lists(TEXTS, min_size=1, max_size=5), st.data())
    def test_batches_equal_a_slow_reference(self, texts, data):
        encoding = HashedWords(buckets=50, hashes=3, max_words=5, max_chars=6)
        chosen = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=5))
        batch = encoding.encode(texts).batch(np.array(chosen))
        for row, index in enumerate(chosen):
            words = texts[index].split()[:5]
            assert batch["lengths"][row] == len(words)
            for column, word in enumerate(words):
                assert batch["words"][row, column].tolist() == encoding.bucket_ids(word)
                chars = batch["chars"][row, column].tolist()
                assert [i for i in chars if i] == encoding.char_ids(word)
                assert all(1 <= i < CHARACTERS for i in encoding.char_ids(word))
            assert not batch["chars"][row, len(words) :].any()

    def test_long_words_keep_both_ends(self):
        ids = HashedWords(max_chars=6).char_ids
        assert ids("abcXXXXdef") == ids("abcdef")
        assert len(ids("a" * 100)) == 6

    def test_marks_are_split_only_where_asked(self):
        assert HashedWords().words("Don't stop!") == ["Don't", "stop!"]
        assert HashedWords(split_marks=True).words("Don't stop!") == ["Don", "'", "t", "stop", "!"]

    def test_long_texts_are_cut(self):
        assert HashedWords(max_words=3).encode(["a b c d e"]).words.tolist() == [3]

    @pytest.mark.parametrize("name", ["buckets", "hashes", "max_words", "max_chars"])
    def test_sizes_must_be_positive(self, name):
        with pytest.raises(ArgumentError, match=f"'{name}' must be a whole number >= 1, got 0"):
            HashedWords(**{name: 0})


def wordpiece() -> Tokenizer:
    names = ["[UNK]", "[CLS]", "[SEP]", "play", "jazz", "##y", "rain", "##ing", "'", "s"]
    found = Tokenizer(models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))  # noqa: S106
    found.normalizer = normalizers.BertNormalizer()
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 1), ("[SEP]", 2)]
    found.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return found


def byte_level() -> Tokenizer:
    """As GPT-2's: a piece carries the space before it, and nothing is put at the ends."""
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.post_processor = processors.ByteLevel(trim_offsets=False)
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    found.train_from_iterator(["play jazz play jazz raining rain"], trainer)
    return found


class TestSubwords:
    def test_words_are_read_at_their_first_piece(self):
        batch = Subwords(wordpiece()).encode(["play jazzy rain's raining"]).batch(np.array([0]))
        # [CLS] play jazz ##y rain ' s rain ##ing [SEP]
        assert batch["pieces"][0].tolist() == [1, 3, 4, 5, 6, 8, 9, 6, 7, 2]
        assert batch["first"][0].tolist() == [1, 2, 4, 7]
        assert (batch["lengths"][0], batch["spans"][0]) == (4, 10)

    def test_agrees_with_the_library_on_words_split_beforehand(self):
        texts = ["play jazzy raining", "rain", "raining raining jazz"]
        found = Subwords(wordpiece()).encode(texts)
        for i, text in enumerate(texts):
            ids = wordpiece().encode(text.split(), is_pretokenized=True).word_ids
            first = [ids.index(word) for word in range(len(text.split()))]
            assert found.batch(np.array([i]))["first"][0].tolist() == first

    @settings(deadline=None)
    @given(st.lists(st.sampled_from(["play", "jazz", "raining", "xyz", "é"]), min_size=1, max_size=6))
    def test_byte_level_pieces_begin_with_a_space(self, words):
        tokenizer = byte_level()
        text = " ".join(words)
        batch = Subwords(tokenizer).encode([text]).batch(np.array([0]))
        starts = [sum(len(word) + 1 for word in words[:i]) for i in range(len(words))]
        offsets = tokenizer.encode(text).offsets
        for first, start in zip(batch["first"][0], starts, strict=True):
            assert offsets[first][0] in (start, start - 1)

    def test_a_word_without_pieces_is_read_at_the_first_one(self):
        batch = Subwords(wordpiece()).encode(["play \x00 rain"]).batch(np.array([0]))
        assert batch["first"][0].tolist() == [1, 0, 2]

    def test_long_texts_are_cut(self):
        found = Subwords(wordpiece(), max_pieces=4).encode(["play rain jazz play"])
        assert found.spans.tolist() == [4]
        assert found.words.tolist() == [2]

    def test_each_piece_tells_its_place(self):
        text = "play raining"
        places = Subwords(wordpiece(), max_pieces=4).places(text)
        assert [text[start:end] for start, end in places] == ["", "play", "rain", ""]

    def test_the_given_tokenizer_is_left_as_it_was(self):
        given = wordpiece()
        Subwords(given, max_pieces=4)
        assert given.truncation is None


class TestTargets:
    SCHEMA = Schema(("music", "weather"), ("O", "B-city"))

    def test_ids_and_completeness(self):
        examples = [
            Example("rain in rome", "weather", ("O", "O", "B-city")),
            Example("sing", "karaoke", ("O",)),
            Example("rain today", "weather", ("O", "B-day")),
            Example("rain today", None, ("O", "O")),
            Example("rain today", "weather"),
        ]
        targets = Targets(self.SCHEMA, examples, np.array([3, 1, 2, 2, 2]))
        batch = targets.batch(np.arange(5))
        assert batch["label"].tolist() == [1, NO_TARGET, 1, NO_TARGET, 1]
        assert batch["tags"][0].tolist() == [0, 0, 1]
        assert batch["tags"][2].tolist() == [0, NO_TARGET, NO_TARGET]
        assert targets.complete.tolist() == [True, False, False, False, False]

    def test_words_beyond_those_seen_have_no_target(self):
        targets = Targets(self.SCHEMA, [Example("a b c", "music", ("O", "O", "O"))], np.array([2]))
        assert targets.batch(np.array([0]))["tags"].shape == (1, 2)

    def test_only_what_the_schema_has(self):
        example = [Example("a", "music", ("O",))]
        assert set(Targets(Schema(("music",), ()), example, np.array([1])).batch(np.array([0]))) == {"label"}
        assert set(Targets(Schema((), ("O",)), example, np.array([1])).batch(np.array([0]))) == {"tags"}


@pytest.mark.parametrize("split_marks", [False, True])
@given(st.text(max_size=40))
def test_places_are_those_of_the_words(split_marks, text):
    encoding = HashedWords(max_words=5, split_marks=split_marks)
    assert [text[start:end] for start, end in encoding.places(text)] == encoding.words(text)
