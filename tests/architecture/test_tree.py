"""Names and places: tests mirror sources, heavy packages stay in few modules, public names are pinned."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "trustnlp"

# Package -> the modules that may import it. Adding a module here is a decision, not a convenience.
HOMES = {
    "cryptography": {"dp/secure_noise.py"},
    "dp_accounting": {"dp/accounting.py"},
    "seqeval": {"models/evaluation.py"},
    "sacrebleu": {"models/text_scores.py"},
    "defusedxml": {"data/tei.py"},
    "pyarrow": {"data/arrow_folder.py"},
    "matplotlib": {"report/plots.py"},
    "jinja2": {"report/page.py"},
    "pydantic": {"report/gate.py"},
    "h5py": {"federated/partition_hdf5.py"},
    "transformers": {
        "dp/trainer.py",
        "models/existing.py",
        "models/language_model.py",
        "models/masked_language_model.py",
        "models/pretrained.py",
        "models/pretrained_seq2seq.py",
        "models/transformer.py",
    },
}

PUBLIC = {
    "trustnlp.attacks": [
        "blind",
        "exposure",
        "false_alarms",
        "generation",
        "inversion",
        "label_only",
        "ladder",
        "language_scores",
        "lira",
        "lower_bound",
        "membership",
        "neighbours",
        "one_run",
        "population",
        "risk",
        "rmia",
        "secret_sharer",
        "shadows",
        "token_membership",
        "trade_off",
        "two_sample",
    ],
    "trustnlp.data": ["Corpus", "Example", "load"],
    "trustnlp.dp": [
        "AutomaticClipping",
        "BookKeeping",
        "ByUser",
        "Clip",
        "ClippedSum",
        "FlatClipping",
        "LayerwiseClipping",
        "Ledger",
        "MicroBatchClipping",
        "PoissonSampler",
        "PrivacyPlan",
        "PrivateStep",
        "PrivateTrainer",
        "Quantile",
        "Statement",
        "Unit",
        "per_unit_clipped_sum",
    ],
    "trustnlp.fairness": [
        "GENDER",
        "IdentityTerms",
        "Metric",
        "Notion",
        "Scope",
        "counterfactual_flip_rate",
        "counterfactual_probability_change",
        "identity_terms",
        "label_error_gap",
        "slot_f1_gap",
    ],
    "trustnlp.federated": [
        "Activity",
        "Algorithm",
        "Conditions",
        "FactorisedPrivacy",
        "FedAvg",
        "FedBuff",
        "FedDyn",
        "FedNova",
        "FedOpt",
        "FedProx",
        "Generated",
        "History",
        "ImplicitFeedback",
        "LocalTraining",
        "Log",
        "Moon",
        "Oort",
        "Partitioned",
        "PoissonActivity",
        "PowerOfChoice",
        "PseudoLabels",
        "Scaffold",
        "ServerSteps",
        "TopK",
        "Uniform",
        "UserPrivacy",
        "partition",
        "plan_for",
        "simulate",
    ],
    "trustnlp.models": [
        "History",
        "LabelModel",
        "LanguageModel",
        "MaskedLanguageModel",
        "NLUModel",
        "PlainStep",
        "Predictions",
        "Seq2SeqModel",
        "ShuffledBatches",
        "SpanModel",
        "build",
        "build_language_model",
        "build_masked_language_model",
        "build_seq2seq_model",
        "build_span_model",
        "evaluate",
        "fit",
        "load",
        "load_checkpoint",
        "load_masked_language_model",
        "load_seq2seq",
        "losses",
        "predict",
        "save",
    ],
    "trustnlp.report": ["render", "write"],
}


def modules(source: Path) -> list[Path]:
    return sorted(path for path in source.rglob("*.py") if path.name != "__init__.py")


def untested(source: Path, tests: Path) -> list[str]:
    """Modules without a test file at the mirrored place."""
    mirrored = {path: path.relative_to(source) for path in modules(source)}
    return [str(place) for place in mirrored.values() if not (tests / place.parent / f"test_{place.name}").exists()]


def strays(source: Path) -> list[str]:
    """Imports of heavy packages outside their homes."""
    found = []
    for path in source.rglob("*.py"):
        place = str(path.relative_to(source))
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            packages = {name.split(".")[0] for name in names} & set(HOMES)
            found += [f"{place} imports {package}" for package in packages if place not in HOMES[package]]
    return found


def exported(room: str) -> list[str]:
    return sorted(importlib.import_module(room).__all__)


def test_every_module_has_its_test() -> None:
    assert untested(SOURCE, ROOT / "tests") == []


def test_heavy_packages_stay_at_home() -> None:
    assert strays(SOURCE) == []


@pytest.mark.parametrize("room", PUBLIC)
def test_public_names_are_pinned(room: str) -> None:
    assert exported(room) == PUBLIC[room]


def test_a_module_without_test_is_found(tmp_path: Path) -> None:
    for place in ("src/room/new.py", "src/room/old.py", "tests/room/test_old.py"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    assert untested(tmp_path / "src", tmp_path / "tests") == ["room/new.py"]


@pytest.mark.parametrize("line", ["import dp_accounting.pld", "from dp_accounting import pld"])
def test_a_stray_import_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "dp").mkdir()
    (tmp_path / "dp/accounting.py").write_text(line)
    (tmp_path / "dp/engine.py").write_text(f"def f():\n    {line}\n")
    assert strays(tmp_path) == ["dp/engine.py imports dp_accounting"]


def test_a_new_public_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    room = importlib.import_module("trustnlp.dp")
    monkeypatch.setattr(room, "__all__", [*room.__all__, "Surprise"])
    assert exported("trustnlp.dp") != PUBLIC["trustnlp.dp"]
