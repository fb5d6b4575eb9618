import numpy as np
import pytest

from trustnlp import models
from trustnlp.data.canaries import Canary
from trustnlp.data.corpus import Corpus, Example
from trustnlp.models.evaluation import Predictions
from trustnlp.randomness import Streams
from trustnlp.results import Verdict
from trustnlp.studies import measures
from trustnlp.uncertainty import proportion, ratio

STREAMS = Streams(0)


def predictions(**more) -> Predictions:
    rows = next(value for value in more.values() if value is not None)
    empty = {"labels": None, "tags": None, "gold_labels": None, "gold_tags": None, "losses": np.zeros(len(rows))}
    return Predictions(**empty | more)


class TestUtility:
    def test_accuracy_is_the_share_of_right_labels(self) -> None:
        found = predictions(labels=tuple("aabb" * 5), gold_labels=tuple("abbb" * 5))  # 3 of 4
        (finding,) = measures.utility(found, dataset="d")
        exact = proportion(15, 20)
        assert (finding.id, finding.value, finding.n) == ("label-accuracy", 0.75, 20)
        assert (finding.low, finding.high) == (exact.low, exact.high)
        assert finding.details == {"dataset": "d"}

    def test_slot_f1_is_that_of_whole_slots(self) -> None:
        # A: found city, missed day. B: found day, invented city. C: the city cut short: invented and missed.
        gold = (("B-city", "O", "B-day"), ("O", "B-day"), ("B-city", "I-city"))
        answered = (("B-city", "O", "O"), ("B-city", "B-day"), ("B-city", "O"))
        (finding,) = measures.utility(predictions(tags=answered, gold_tags=gold), dataset="d")
        assert (finding.id, finding.n) == ("slot-f1", 3)
        assert finding.value == pytest.approx(2 * 2 / (2 * 2 + 2 + 2))  # 2 found, 2 invented, 2 missed
        interval = ratio([2, 2, 0], [3, 3, 2])
        assert (finding.low, finding.high) == (interval.low, interval.high)

    def test_slot_f1_agrees_with_the_ratio_of_its_interval(self) -> None:
        # The value is seqeval's, the interval that of our own counts: it must be of the same figure.
        generator = np.random.default_rng(0)
        names = ["O", "O", "B-x", "I-x", "B-y", "I-y"]
        draw = tuple(tuple(generator.choice(names, 6)) for _ in range(400))
        kept = tuple(tuple(np.where(generator.random(6) < 0.8, row, "O")) for row in draw)
        (finding,) = measures.utility(predictions(tags=kept, gold_tags=draw), dataset="d")
        hits, invented, missed = measures.span_counts(draw, kept).sum(0)
        assert finding.value == pytest.approx(2 * hits / (2 * hits + invented + missed), abs=1e-12)
        assert finding.low < finding.value < finding.high

    def test_texts_of_one_user_are_one_unit(self) -> None:
        # Every user is either always right or always wrong: 40 texts tell no more than the 4 users.
        found = predictions(labels=("a",) * 40, gold_labels=tuple("a" * 30 + "b" * 10))
        (alone,) = measures.utility(found, dataset="d")
        (unknown,) = measures.utility(found, dataset="d", users=[None] * 40)
        (grouped,) = measures.utility(found, dataset="d", users=[f"u{i // 10}" for i in range(40)])
        assert unknown == alone
        assert (grouped.value, grouped.n) == (0.75, 4)
        interval = ratio([10, 10, 10, 0], [10, 10, 10, 10])
        assert (grouped.low, grouped.high) == pytest.approx((interval.low, interval.high))
        assert grouped.high - grouped.low > 2 * (alone.high - alone.low)

    @pytest.mark.parametrize("rows", [1, 3])
    def test_without_two_texts_that_have_slots_there_is_no_figure(self, rows: int) -> None:
        gold = (("B-city",), *[("O",)] * (rows - 1))
        (finding,) = measures.utility(predictions(tags=gold, gold_tags=gold), dataset="d")
        assert finding.value is None
        assert finding.verdict is Verdict.INSUFFICIENT_EVIDENCE

    def test_what_has_no_gold_answer_or_no_slots_is_left_out(self) -> None:
        assert measures.utility(predictions(labels=("a", "b")), dataset="d") == []
        parts_of_speech = predictions(tags=(("NOUN",),), gold_tags=(("VERB",),))
        assert measures.utility(parts_of_speech, dataset="d") == []


def corpus() -> Corpus:
    texts = [(f"{verb} {who} number {i}", label) for i in range(20) for verb, who, label in
             (("call", "her", "phone"), ("call", "him", "phone"), ("play", "it", "music"))]  # fmt: skip
    return Corpus("small", tuple(Example(text, label, group="ab"[i % 2]) for i, (text, label) in enumerate(texts)))


class Scripted(models.LabelModel):
    """Answers by rule; the loss of a text is what `loss_of` says."""

    def __init__(self, label_of, loss_of=len) -> None:
        built = models.build("bilstm", corpus(), streams=STREAMS, buckets=8, width=2, hidden=2, char_filters=0)
        super().__init__(built.encoding, built.schema)
        self.label_of, self.loss_of = label_of, loss_of


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions come from the script of a `Scripted` model."""

    def answers(model: Scripted, examples: list[Example]) -> Predictions:
        labels = tuple(model.label_of(example.text) for example in examples)
        gold = tuple(example.label for example in examples)
        losses = np.array([model.loss_of(example.text) for example in examples], dtype=float)
        return Predictions(labels, None, gold if None not in gold else None, None, losses)

    monkeypatch.setattr(measures, "answers", answers)


@pytest.mark.usefixtures("scripted")
class TestFairness:
    def findings(self, model: Scripted, examples: tuple[Example, ...]) -> dict:
        found = measures.answers(model, examples)
        findings = measures.fairness(model, examples, found, dataset="d", protected_group="g")
        return {finding.id: finding for finding in findings}

    def test_a_gap_between_groups_and_a_flip_by_gender(self) -> None:
        examples = corpus().train
        wrong_for_b = {example.text for example in examples if example.group == "b"}
        gap = self.findings(Scripted(lambda text: "music" if text in wrong_for_b else "phone"), examples)
        rates = [
            np.mean([e.label != ("music" if e.group == "b" else "phone") for e in examples if e.group == g])
            for g in "ab"
        ]
        assert gap["label-error-gap"].value == pytest.approx(abs(rates[0] - rates[1]))
        by_gender = self.findings(Scripted(lambda text: "phone" if " her " in text else "music"), examples)
        assert by_gender["counterfactual-flip-rate"].value == 1.0
        constant = self.findings(Scripted(lambda text: "phone"), examples)
        assert constant["counterfactual-flip-rate"].value == 0.0

    def test_without_groups_there_is_no_gap(self) -> None:
        examples = tuple(Example(example.text, example.label) for example in corpus().train)
        assert set(self.findings(Scripted(lambda text: "phone"), examples)) == {"counterfactual-flip-rate"}

    def test_users_are_the_units_where_they_are_known(self) -> None:
        examples = tuple(
            Example(e.text, e.label, group=e.group, user=f"u{i // 3}") for i, e in enumerate(corpus().train)
        )
        found = self.findings(Scripted(lambda text: "phone"), examples)
        assert found["counterfactual-flip-rate"].n == 20


def test_slot_gaps_are_measured_where_tags_are_slots() -> None:
    examples = [Example("to rome", None, ("O", "B-city"), group="ab"[i % 2]) for i in range(80)]
    answered = tuple(("O", "B-city" if e.group == "a" else "O") for e in examples)
    found = predictions(tags=answered, gold_tags=tuple(e.tags for e in examples))
    (finding,) = measures.fairness(None, examples, found, dataset="d", protected_group="g")
    assert (finding.id, finding.value) == ("slot-f1-gap", 1.0)


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize(("knows", "exposure"), [(True, 10 * np.log2(10) / 10), (False, 0.0)])
def test_canaries_are_scored_among_all_candidates(knows: bool, exposure: float) -> None:
    canaries = [Canary(("code", str(i)), (str(i),), "phone", None, 1) for i in range(5)]
    secrets = {canary.example().text for canary in canaries}
    model = Scripted(lambda text: "phone", lambda text: 0.0 if knows == (text in secrets) else 1.0)
    calls = []
    found = measures.canary_findings(
        lambda examples: measures.answers(model, examples).losses,
        canaries,
        lambda *call: calls.append(call),
        "plain canaries",
    )
    mean = next(finding for finding in found if finding.id == "canary-exposure")
    assert mean.value == pytest.approx(exposure)
    assert [call[:3] for call in calls] == [("plain canaries", done, 5) for done in range(1, 6)]


def test_labels_of_texts_are_the_models_answers() -> None:
    small = corpus()
    model = models.build("bilstm", small, streams=STREAMS, buckets=64, width=8, hidden=8)
    texts = [example.text for example in small.train]
    assert measures.labels_of(model, texts) == models.predict(model, model.encode(small.train)).labels
