"""Attacks on checkpoints that were trained and saved by plain PyTorch and Hugging Face code."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from small_checkpoints import LABELS, classifier, language_model, masked, rows, tagger, tags_of, write
from trustnlp import data, models
from trustnlp.attacks import risk
from trustnlp.data.corpus import Example
from trustnlp.errors import ArgumentError, CorpusError, GuaranteeError, ModelError
from trustnlp.models import many
from trustnlp.randomness import Streams
from trustnlp.report.gate import Policy, State, gate
from trustnlp.results import Results, Tone, Verdict
from trustnlp.studies import assess, attack_membership
from trustnlp.studies.attack_membership import Promise, Request, run, run_callable

SIZE = 120
MEMBERS, NONMEMBERS, OTHERS = rows(SIZE, 3)
STRICT = Path(__file__).parents[2] / "docs" / "strict.toml"


def ids(*attacks: str) -> set[str]:
    figures = ("auc", "tpr-at-1pct-fpr", "tpr-at-0-1pct-fpr")
    return {f"membership-{attack}-{figure}" for attack in attacks for figure in figures}


ALWAYS = {"blind-classifier-auc", "epsilon-ladder", "epsilon-lower-bound-one-run-approximate", "risk-by-length"}
OF_LABELS = {"risk-by-label", "risk-by-group"}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        "classifier": classifier(MEMBERS, root / "classifier"),
        "reference": classifier(OTHERS, root / "reference"),
        "tagger": tagger(MEMBERS, root / "tagger"),
        "language": language_model(MEMBERS, root / "language"),
        "other-language": language_model(OTHERS, root / "other-language"),
        "masked": masked(root / "masked"),
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("files")
    return write(root / "in.csv", MEMBERS, "text", "label"), write(root / "out.csv", NONMEMBERS, "text", "label")


@pytest.fixture
def request_of(checkpoints: dict[str, Path], files: tuple[Path, Path]) -> Request:
    return Request(str(checkpoints["classifier"]), *files, seed=1)


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains shadows in this process, where `hasty` holds; the results would be the same in others."""
    monkeypatch.setattr(many, "_cores", lambda: 1)


class TestClassifiers:
    def test_an_overfitted_one_leaks_by_every_attack(
        self, request_of: Request, checkpoints: dict[str, Path], tmp_path: Path
    ) -> None:
        stages = []
        asked = replace(request_of, references=(str(checkpoints["reference"]),))
        results = run(asked, tmp_path / "run", progress=lambda stage, *_: stages.append(stage), command="c")
        found = {finding.id: finding for finding in results}
        assert set(found) == ids("loss", "reference", "gap", "robustness") | ALWAYS | OF_LABELS
        for attack in ("loss", "reference", "gap", "robustness"):
            assert found[f"membership-{attack}-auc"].verdict is Verdict.LEAKS
        assert found["membership-loss-auc"].low > 0.8
        assert found["membership-loss-tpr-at-0-1pct-fpr"].verdict is Verdict.INSUFFICIENT_EVIDENCE  # 120 are too few
        assert found["blind-classifier-auc"].verdict is not Verdict.BIASED_SPLIT
        assert found["epsilon-ladder"].verdict is Verdict.LEAKS
        assert found["epsilon-ladder"].value == found["epsilon-lower-bound-one-run-approximate"].value > 1
        assert found["epsilon-ladder"].details["attack"] == "reference"
        assert {finding.regime for finding in results} == {"", "audited"}
        assert set(stages) == {"attack"}
        assert results.run["corpus"] == {"name": "Attack on classifier", "members": SIZE, "nonmembers": SIZE}
        assert Results.load(tmp_path / "run").findings == results.findings

    def test_nothing_that_is_written_holds_a_text(self, request_of: Request, tmp_path: Path) -> None:
        run(request_of, tmp_path / "run")
        names = {path.name for path in (tmp_path / "run").iterdir()}
        assert names == {"request.json", "results.json", "risk.json", "risk.key"}
        written = "".join(path.read_text() for path in (tmp_path / "run").iterdir())
        assert not any(text in written for text, _ in MEMBERS + NONMEMBERS)
        told, unknown = risk.look_up(tmp_path / "run", [MEMBERS[0][0], "nobody said this"])
        assert told[0]["inside"] is not None
        assert unknown == ()

    def test_one_that_learned_other_texts_does_not_leak_these(
        self, request_of: Request, checkpoints: dict[str, Path], tmp_path: Path
    ) -> None:
        results = run(replace(request_of, model=str(checkpoints["reference"])), tmp_path / "run")
        assert Tone.BAD not in {finding.verdict.tone for finding in results}
        assert results.get("epsilon-ladder", "audited").value == 0

    @pytest.mark.usefixtures("hasty", "one_core")
    def test_shadow_models(self, request_of: Request, tmp_path: Path) -> None:
        corpus = data.load(request_of.members or "")
        ours = models.build("bilstm", corpus, streams=Streams(0), buckets=64, width=8, hidden=8)
        models.save(ours, tmp_path / "ours")  # never trained
        others = write(tmp_path / "others.csv", OTHERS, "text", "label")
        asked = replace(request_of, model=str(tmp_path / "ours"), shadows=6, population=others)
        results = run(asked, tmp_path / "run")
        assert set(ids("loss", "lira", "per-example", "rmia")) < {finding.id for finding in results}
        assert not any(finding.verdict is Verdict.LEAKS for finding in results)
        assert results.get("epsilon-ladder", "audited").details["attack"] == "lira"

        weights = tmp_path / "run/shadows/shadow-0/model.safetensors"
        before = weights.stat().st_mtime_ns
        assert run(asked, tmp_path / "run").findings == results.findings
        assert weights.stat().st_mtime_ns == before  # nothing was trained again

    def test_an_untrained_folder_of_ours_is_attacked_too(self, request_of: Request, tmp_path: Path) -> None:
        corpus = data.load(request_of.members or "")
        models.save(models.build("bilstm", corpus, streams=Streams(0), buckets=64, width=8, hidden=8), tmp_path / "m")
        results = run(replace(request_of, model=str(tmp_path / "m")), tmp_path / "run")
        assert results.get("membership-loss-auc", "audited").verdict is not Verdict.LEAKS


def test_a_tagger_is_attacked_by_words(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def tagged(name: str, given: list[tuple[str, str]]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps({"text": text, "tags": list(tags_of(text))}) + "\n" for text, _ in given))
        return path

    sides = tagged("in.jsonl", MEMBERS), tagged("out.jsonl", NONMEMBERS)
    results = run(Request(str(checkpoints["tagger"]), *sides, seed=1), tmp_path / "run")
    assert {finding.id for finding in results} == ids("loss", "word") | ALWAYS
    for attack in ("loss", "word"):
        assert results.get(f"membership-{attack}-auc", "audited").verdict is Verdict.LEAKS


def test_a_language_model_is_attacked_by_tokens(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    sides = (write(tmp_path / "in.csv", MEMBERS, "text"), write(tmp_path / "out.csv", NONMEMBERS, "text"))
    asked = Request(str(checkpoints["language"]), *sides, seed=1, references=(str(checkpoints["other-language"]),))
    results = run(asked, tmp_path / "run")
    attacks = ("loss", "reference", "zlib", "min-k", "min-k-plus-plus", "reference-ratio", "error-zone")
    assert {finding.id for finding in results} == ids(*attacks) | ALWAYS | {"risk-by-group"}
    for attack in attacks:
        assert results.get(f"membership-{attack}-auc", "audited").verdict is Verdict.LEAKS
    assert "arXiv" in results.get("membership-min-k-auc", "audited").source


class TestLadder:
    def test_a_promise_that_the_attack_refutes_is_violated(self, request_of: Request, tmp_path: Path) -> None:
        results = run(replace(request_of, epsilon=0.5, delta=1e-5), tmp_path / "run")
        found = results.get("epsilon-ladder", "audited")
        assert found.verdict is Verdict.VIOLATED
        assert found.details["target"] == 0.5
        assert found.details["promised_by"] == "the request"

    def test_a_promise_that_holds_is_consistent_where_the_audit_could_have_told(
        self, request_of: Request, checkpoints: dict[str, Path], tmp_path: Path
    ) -> None:
        other = replace(request_of, model=str(checkpoints["reference"]), epsilon=1.0, delta=1e-5)
        verdicts = {
            epsilon: run(replace(other, epsilon=epsilon), tmp_path / f"{epsilon}")
            .get("epsilon-ladder", "audited")
            .verdict
            for epsilon in (1.0, 50.0)
        }
        assert verdicts == {1.0: Verdict.CONSISTENT, 50.0: Verdict.UNINFORMATIVE}


@pytest.mark.usefixtures("hasty", "one_core")
def test_a_model_of_an_assess_run(table: Path, tmp_path: Path) -> None:
    assessed = assess.run(assess.Request(data=str(table), seed=3, regimes=("plain",)), tmp_path / "assessed")
    results = run(Request(run=tmp_path / "assessed", shadows=6, seed=1), tmp_path / "run")
    assert ids("loss", "reference", "lira", "per-example", "rmia", "gap", "robustness") < {f.id for f in results}
    for attack in ("loss", "reference"):  # the same texts, the same models
        here, there = (each.get(f"membership-{attack}-auc", "plain") for each in (results, assessed))
        assert (here.value, here.low, here.high) == (there.value, there.low, there.high)


class TestCallables:
    def test_losses_of_a_function(self) -> None:
        memorised = {text for text, _ in MEMBERS}

        def losses_of(texts: list[str]) -> list[float]:
            return [sum(map(ord, text)) % 97 / 97 + (text not in memorised) for text in texts]

        sides = [text for text, _ in MEMBERS], [text for text, _ in NONMEMBERS]
        results = run_callable(losses_of, *sides)
        assert {finding.id for finding in results} == ids("loss") | ALWAYS
        assert results.get("membership-loss-auc", "audited").value == 1.0
        compared = run_callable(losses_of, *sides, references=[lambda texts: np.ones(len(texts))])
        assert ids("reference") < {finding.id for finding in compared}
        promised = run_callable(losses_of, *sides, promise=Promise(0.1, 1e-6, "a letter"))
        assert promised.get("epsilon-ladder", "audited").verdict is Verdict.VIOLATED

    def test_scores_of_labels_of_a_function(self, tmp_path: Path) -> None:
        known = dict(MEMBERS)

        def scores(texts: list[str]) -> list[list[float]]:
            return [[3.0 * (known.get(text) == label) for label in LABELS] for text in texts]

        sides = ([Example(*row) for row in given] for given in (MEMBERS, NONMEMBERS))
        results = run_callable(scores, *sides, labels=LABELS, out=tmp_path)
        assert ids("loss", "gap", "robustness") | {"risk-by-label"} < {finding.id for finding in results}
        assert results.get("membership-gap-auc", "audited").verdict is Verdict.LEAKS
        assert Results.load(tmp_path).findings == results.findings

    def test_a_function_that_answers_nan_or_another_shape(self) -> None:
        sides = [text for text, _ in MEMBERS], [text for text, _ in NONMEMBERS]
        with pytest.raises(GuaranteeError, match=f"NaN or infinite for {SIZE} of {SIZE} members"):
            run_callable(lambda texts: [float("nan")] * len(texts), *sides)
        with pytest.raises(ArgumentError, match="'answer' must be a function that answers shape"):
            run_callable(lambda texts: 1.0, *sides)

    def test_the_how_to_is_right(self, capsys: pytest.CaptureFixture[str]) -> None:
        page = (Path(__file__).parents[2] / "docs/how-to/review-a-model.md").read_text()
        (script,) = (part.split("```")[0] for part in page.split("```python\n")[1:])
        exec(compile(script, "the how-to", "exec"), {})  # noqa: S102
        assert "leaks" in capsys.readouterr().out


# --- what is refused -------------------------------------------------------------------------------------------


def refused(request: Request, out: Path, error: type[Exception], message: str) -> str:
    """The message of the refusal, which leaves nothing behind."""
    with pytest.raises(error, match=message) as found:
        run(request, out)
    assert not out.exists()
    return str(found.value)


@pytest.mark.parametrize("disguise", [str, str.upper, lambda text: f"  {text.replace(' ', '  ')} "])
def test_texts_on_both_sides_are_refused_and_not_shown(request_of: Request, tmp_path: Path, disguise: Any) -> None:
    shared = [(disguise(text), label) for text, label in MEMBERS[:3]]
    spoiled = write(tmp_path / "out.csv", NONMEMBERS + shared, "text", "label")
    asked = replace(request_of, nonmembers=spoiled)
    said = refused(asked, tmp_path / "run", GuaranteeError, "3 texts are both members and non-members")
    assert not any(text.lower() in said.lower() for text, _ in MEMBERS[:3])


def test_too_few_non_members_for_the_asked_fpr(request_of: Request, tmp_path: Path) -> None:
    said = refused(replace(request_of, fpr=0.001), tmp_path / "run", GuaranteeError, "'fpr' must be at least 1/120")
    assert said.endswith(
        "the smallest that 120 non-members resolve, got 0.001; give at least 1000 non-members, or a larger fpr"
    )
    assert run(replace(request_of, fpr=0.01), tmp_path / "run").findings


def test_a_model_that_answers_nan(request_of: Request, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    broken = Path(shutil.copytree(checkpoints["classifier"], tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    save_file(
        {name: torch.full_like(each, float("nan")) for name, each in weights.items()},
        broken / "model.safetensors",
        {"format": "pt"},
    )
    message = f"NaN or infinite for {SIZE} of {SIZE} members, .*; mend the model"
    refused(replace(request_of, model=str(broken)), tmp_path / "run", GuaranteeError, message)


class TestLabels:
    @pytest.mark.parametrize("side", ["members", "nonmembers"])
    def test_labels_that_do_not_match(self, request_of: Request, tmp_path: Path, side: str) -> None:
        texts = MEMBERS if side == "members" else NONMEMBERS
        strange = write(tmp_path / "strange.csv", [(texts[0][0], "karaoke"), *texts[1:]], "text", "label")
        message = rf"1 of {SIZE} (non-)?members have no loss under this model"
        refused(replace(request_of, **{side: strange}), tmp_path / "run", GuaranteeError, message)
        bare = write(tmp_path / "bare.csv", texts, "text")
        message = r"members have no label, .*; give each its label"
        refused(replace(request_of, **{side: bare}), tmp_path / "run", CorpusError, message)

    def test_a_text_too_short_for_a_language_model(
        self, checkpoints: dict[str, Path], files: tuple[Path, Path], tmp_path: Path
    ) -> None:
        short = write(tmp_path / "out.csv", [*NONMEMBERS, ("rain", "")], "text")
        asked = Request(str(checkpoints["language"]), files[0], short, seed=1)
        refused(asked, tmp_path / "run", GuaranteeError, rf"1 of {SIZE + 1} non-members have no loss")


@pytest.mark.parametrize("content", ["", "text,label\n"])
@pytest.mark.parametrize("side", ["members", "nonmembers", "population"])
def test_an_empty_file(request_of: Request, tmp_path: Path, side: str, content: str) -> None:
    (tmp_path / "empty.csv").write_text(content)
    asked = replace(request_of, **{side: tmp_path / "empty.csv"})
    refused(asked, tmp_path / "run", CorpusError, r"empty.csv: no text in this file")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("code", r"wants its own code run \(auto_map\); use a model whose class is part of transformers"),
        ("pickle", r"has only pickled weights \(pytorch_model.bin\), which can run code when they are read"),
        ("head", r"no task head that can be audited \(BertForMaskedLM\)"),
    ],
)
def test_a_checkpoint_that_is_not_safe_to_open(
    request_of: Request, checkpoints: dict[str, Path], tmp_path: Path, spoil: str, message: str
) -> None:
    folder = Path(shutil.copytree(checkpoints["masked" if spoil == "head" else "classifier"], tmp_path / "spoilt"))
    if spoil == "code":
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {"AutoModelForSequenceClassification": "code.Model"}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    elif spoil == "pickle":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    for asked in (replace(request_of, model=str(folder)), replace(request_of, references=(str(folder),))):
        refused(asked, tmp_path / "run", ModelError, message)
    assert not (tmp_path / "ran").exists()


def test_shadows_of_a_language_model(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    sides = (write(tmp_path / "in.csv", MEMBERS, "text"), write(tmp_path / "out.csv", NONMEMBERS, "text"))
    asked = Request(str(checkpoints["language"]), *sides, seed=1, shadows=6, shadow_model="bilstm")
    refused(asked, tmp_path / "run", ModelError, "shadow models answer labels or tags, and this model does not")


def test_a_biased_split_is_told_and_fails_the_strict_policy(
    request_of: Request, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    later = [(f"dear {text} thanks", label) for text, label in NONMEMBERS]
    biased = write(tmp_path / "later.csv", later, "text", "label")
    asked = replace(request_of, model=str(checkpoints["reference"]), nonmembers=biased)
    results = run(asked, tmp_path / "run")
    assert results.get("blind-classifier-auc").verdict is Verdict.BIASED_SPLIT
    outcome = gate(results, Policy.load(STRICT))
    assert outcome.status == 1
    (row,) = (row for row in outcome.rows if row.rule.finding == "blind-classifier-auc")
    assert row.state is State.BROKEN


def test_the_module_names_what_it_offers() -> None:
    assert attack_membership.__all__ == ["Promise", "Request", "attack", "run", "run_callable"]
