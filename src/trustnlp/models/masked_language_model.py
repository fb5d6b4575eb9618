"""Masked language models: any of Transformers behind the contract of this room, and a small BERT from scratch.

A text's loss is that of its hidden pieces. Devlin et al. 2019, section 3.1: 15% of the pieces, at least one, are to be
predicted; of these 80% are replaced by the mask, 10% by another piece, and 10% are left as they are.

Which pieces are hidden follows from the model's seed, the text's place in its split, and the visit. For evaluation
there is one visit, so that a loss is the same each time; in training a visit is known by the seed that `fit` gives
dropout at each step. No text's masks depend on which others are in its batch.

Shape legend: B batch, P pieces, M hidden pieces, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from trustnlp import checks
from trustnlp.data.corpus import Example
from trustnlp.data.encoding import NO_TARGET, Ragged, Schema, Subwords
from trustnlp.errors import ArgumentError, ModelError
from trustnlp.models.encoded import Split
from trustnlp.models.evaluation import losses
from trustnlp.models.heads import cross_entropies, word_mask
from trustnlp.models.picked import answers_at
from trustnlp.models.protocol import Batch
from trustnlp.randomness import Streams

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import BertForMaskedLM

KIND = "masked-language-model"
MASKS = ("[MASK]", "<mask>")  # what public tokenizers call the mask
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
HIDDEN, MASKED, EXCHANGED = 0.15, 0.8, 0.1  # Devlin et al. 2019, section 3.1


class Masking:
    """Which pieces of a text are hidden, and what stands in their place.

    Args:
        tokenizer: its special pieces are never hidden and never stand in for another one.
        streams: same seed, same masks.

    Raises:
        ModelError: the tokenizer has no mask.
    """

    def __init__(self, tokenizer: Tokenizer, streams: Streams) -> None:
        self.piece = mask_of(tokenizer)
        special = {number for number, piece in tokenizer.get_added_tokens_decoder().items() if piece.special}
        self.streams = streams
        self._special = np.array(sorted({*special, self.piece}))
        self._plain = np.setdiff1d(np.array(sorted(tokenizer.get_vocab().values())), self._special)

    def can_hide(self, pieces: np.ndarray) -> np.ndarray:
        """Where a piece may be hidden: everywhere but at special ones."""
        return ~np.isin(pieces, self._special)

    def hide(self, pieces: np.ndarray, text: int, visit: int) -> tuple[np.ndarray, np.ndarray]:
        """The pieces as they are shown, and the places (M,), in order, of those to be predicted."""
        generator = self.streams.numpy("masks", text, visit)
        candidates = np.flatnonzero(self.can_hide(pieces))
        count = min(len(candidates), max(1, round(HIDDEN * len(candidates))))
        places = np.sort(generator.choice(candidates, count, replace=False))
        luck = generator.random(count)
        others = generator.choice(self._plain, count)
        kept = pieces[places]
        shown = pieces.copy()
        shown[places] = np.where(luck < MASKED, self.piece, np.where(luck < MASKED + EXCHANGED, others, kept))
        return shown, places


class MaskedSplit(Split):
    """Texts with hidden pieces: `pieces` (B, P) as they are shown, `places` (B, M) of those that are the target."""

    def __init__(self, examples: Sequence[Example], encoding: Subwords, masking: Masking, for_training: bool) -> None:
        inputs = encoding.encode([example.text for example in examples])
        rows = _rows(inputs)
        scored = np.array([masking.can_hide(row).any() for row in rows], dtype=bool)
        super().__init__(examples, inputs, Schema((), ()), for_training=for_training, scored=scored)
        self._rows, self._masking, self._training, self._pad = rows, masking, for_training, encoding.pad

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The texts at `indices`; `hidden` (B,) is how many pieces of each are to be predicted."""
        visit = torch.initial_seed() if self._training else 0
        chosen = [int(i) for i in indices]
        hidden = [self._masking.hide(self._rows[i], i, visit) for i in chosen]
        every = np.arange(len(chosen))
        shown, places = Ragged([row for row, _ in hidden]), Ragged([where for _, where in hidden])
        targets = Ragged([self._rows[i][where] for i, (_, where) in zip(chosen, hidden, strict=True)], np.int64)
        inputs = {
            "pieces": shown.padded(every, self._pad),
            "spans": shown.lengths,
            "places": places.padded(every),
            "hidden": places.lengths,
        }
        return Batch(
            {name: torch.from_numpy(array) for name, array in inputs.items()},
            {"pieces": torch.from_numpy(targets.padded(every, NO_TARGET))},
        )


def _rows(inputs: Any) -> list[np.ndarray]:
    batches = (inputs.batch(np.array([i])) for i in range(len(inputs.spans)))
    return [batch["pieces"][0, : int(batch["spans"][0])] for batch in batches]


class MaskedLanguageModel(nn.Module):
    """A masked language model; a text's loss is the mean negative log-likelihood of its hidden pieces, in nats.

    A text of special pieces alone has no loss.

    Args:
        model: of Transformers, with logits (B, P, V).
        encoding: its tokenizer.
        streams: masks are drawn from its stream `masks`.
        config: all that is needed to build the same model again, JSON-able; empty where that is not known.

    Raises:
        ModelError: the tokenizer has no mask.
    """

    def __init__(
        self, model: nn.Module, encoding: Subwords, streams: Streams, config: Mapping[str, Any] | None = None
    ) -> None:
        from tokenizers import Tokenizer

        super().__init__()
        self.model = model
        self.encoding = encoding
        self.masking = Masking(Tokenizer.from_str(encoding.to_json()), streams)
        self.config = dict(config or {})

    def encode(self, examples: Sequence[Example], for_training: bool = False) -> MaskedSplit:
        """The texts, ready for `loss`; labels and tags are not read.

        Raises:
            ModelError: `for_training`, and a text without a piece that can be hidden.
        """
        return MaskedSplit(examples, self.encoding, self.masking, for_training)

    def figures(self, encoded: Split) -> dict[str, float]:
        """`loss`, the mean over texts in nats a hidden piece; `score`, its exponential, a probability in [0, 1].

        Masks are the same at each evaluation. Texts without loss are left out.
        """
        found = losses(self, encoded)
        mean = float(found[np.isfinite(found)].mean())
        return {"loss": mean, "score": math.exp(-mean)}

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        """`pieces` (B, M, V): scores at the places of hidden pieces."""
        places = batch.inputs["places"].long()
        rows = torch.arange(len(places), device=places.device)[:, None].expand_as(places)
        pieces = batch.inputs["pieces"]
        mask = word_mask(batch.inputs["spans"], pieces.shape[1]).long()
        found = answers_at(self.model, rows, places, input_ids=pieces.long(), attention_mask=mask)
        return {"pieces": found}

    def loss(self, batch: Batch) -> Tensor:
        """(B,) mean negative log-likelihood per hidden piece, in nats."""
        return cross_entropies(self.logits(batch), batch.targets)


# --- from scratch ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MaskedLanguageModelOptions:
    """Size and regularisation of a masked language model trained from scratch.

    Args:
        width: of the hidden states; embedding and head share their weights.
        layers, heads: how many of each.
        max_pieces: longer texts are cut here; as many positions are learned.
        dropout: of hidden states and attention.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    max_pieces: int = 128
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads"):
            checks.at_least(name, getattr(self, name), 1)
        checks.at_least("max_pieces", self.max_pieces, 3)
        if self.width % self.heads:
            raise ArgumentError("width", f"a multiple of 'heads' ({self.heads})", self.width)
        checks.within("dropout", self.dropout, 0, 1)


def build_masked_language_model(
    vocabulary: str | Path, *, streams: Streams, lower_case: bool = True, **options: Any
) -> MaskedLanguageModel:
    """A model in the shape of BERT, with weights drawn from the stream `init`.

    Args:
        vocabulary: **public** word pieces, see `open_word_pieces`.
        streams: same seed, same weights and masks; the global generator is left as it was.
        lower_case: whether texts are put in lower case, and accents taken off, before they are cut into pieces.
        options: fields of `MaskedLanguageModelOptions`.

    Raises:
        ArgumentError: an option that the model does not have, or a value out of range.
        ModelError: no vocabulary there.
    """
    known = tuple(MaskedLanguageModelOptions.__dataclass_fields__)
    for name in options:
        checks.one_of("options", name, known)
    pieces = open_word_pieces(vocabulary, lower_case).to_str()
    size = asdict(MaskedLanguageModelOptions(**options))
    config = {"kind": KIND, "options": size, "seed": streams.key("masked-language-model")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(streams.key("init"))
        return rebuild(config, pieces)


def rebuild(config: Mapping[str, Any], tokenizer: str | None) -> MaskedLanguageModel:
    """The model of a `MaskedLanguageModel.config`, with weights from the global generator, to be loaded from elsewhere.

    Args:
        config: as `build_masked_language_model` made it.
        tokenizer: the text of `tokenizer.json`.
    """
    from tokenizers import Tokenizer

    options = MaskedLanguageModelOptions(**config["options"])
    pieces = Tokenizer.from_str(tokenizer or "")
    pad = pieces.token_to_id("[PAD]") or 0
    encoding = Subwords(pieces, max_pieces=options.max_pieces, pad=pad)
    return MaskedLanguageModel(_bert(options, pieces.get_vocab_size(), pad), encoding, Streams(config["seed"]), config)


def _bert(options: MaskedLanguageModelOptions, vocabulary: int, pad: int) -> BertForMaskedLM:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        intermediate_size=4 * options.width,
        max_position_embeddings=options.max_pieces,
        type_vocab_size=1,  # it never sees pairs of sentences
        hidden_dropout_prob=options.dropout,
        attention_probs_dropout_prob=options.dropout,
        pad_token_id=pad,
    )
    return BertForMaskedLM(config)


# --- opening ---------------------------------------------------------------------------------------------------


def open_word_pieces(source: str | Path, lower_case: bool = True) -> Tokenizer:
    """A WordPiece tokenizer (Wu et al. 2016, as BERT uses it) that puts [CLS] before and [SEP] behind a text.

    Args:
        source: a list of pieces, one a line, such as BERT's `vocab.txt`; or a folder with one.
        lower_case: see `build_masked_language_model`; it must be what the pieces were made for.

    Raises:
        ModelError: no such file, or pieces without BERT's five special ones.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    path = Path(source).expanduser()
    path = path / "vocab.txt" if path.is_dir() else path
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = f"{str(path)!r} cannot be read as word pieces ({error})"
        raise ModelError(reason, "give a file with one piece a line, such as BERT's vocab.txt") from None
    numbers = {piece: number for number, piece in enumerate(lines)}
    lacking = [piece for piece in SPECIAL if piece not in numbers]
    if lacking or len(numbers) < len(lines):
        reason = f"{str(path)!r} lacks {', '.join(lacking)}" if lacking else f"{str(path)!r} names a piece twice"
        raise ModelError(reason, "give each piece one line, [PAD], [UNK], [CLS], [SEP] and [MASK] among them")
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(piece, numbers[piece]) for piece in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def mask_of(tokenizer: Tokenizer) -> int:
    """The number of the tokenizer's mask, `[MASK]` or `<mask>`.

    Raises:
        ModelError: it has none.
    """
    for name in MASKS:
        number = tokenizer.token_to_id(name)
        if number is not None:
            return int(number)
    raise ModelError("the tokenizer has no mask ([MASK] or <mask>)", "use a masked language model with its tokenizer")


def load_masked_language_model(source: str | Path) -> MaskedLanguageModel:
    """The masked language model at `source`, a Hugging Face folder or hub name, or a folder that trustnlp wrote.

    Args:
        source: needs safetensors weights and a fast tokenizer with a mask.

    Raises:
        ModelError: it is no masked language model, or cannot be opened, or is not safe to open.
    """
    from transformers import AutoModelForMaskedLM

    from trustnlp.models import checkpoint
    from trustnlp.models.pretrained import open_config, open_subwords, open_weights

    if checkpoint.is_ours(source):
        ours = checkpoint.load(source)
        if not isinstance(ours, MaskedLanguageModel):
            raise ModelError(f"{str(source)!r} is a {type(ours).__name__}", "give a masked language model")
        return ours
    config = open_config(source)
    architectures = config.architectures or []
    if not any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in architectures) or config.is_encoder_decoder:
        reason = f"{str(source)!r} has no head of a masked language model ({', '.join(architectures) or 'no head'})"
        raise ModelError(reason, "give one such as BertForMaskedLM")
    model, lacking = open_weights(source, AutoModelForMaskedLM)
    if lacking:
        raise ModelError(
            f"{str(source)!r} lacks weights that its architecture needs, such as {min(lacking)!r}",
            "give the whole checkpoint; weights drawn at random would make every figure meaningless",
        )
    return MaskedLanguageModel(model, open_subwords(source, config), Streams(0)).eval()
