"""Time of scoring StereoSet and CrowS-Pairs, beside one sentence at a time and lm-evaluation-harness, in one run.

    TRUSTNLP_DATA=FOLDER python benchmarks/fairness_scoring.py [--quick] [--items N] [--rounds N] [--json FILE]

The model has the shape of GPT-2 small, with weights drawn at random, and reads with GPT-2's tokenizer. All contestants
answer the same question, the natural log-likelihood of each sentence (of StereoSet's second sentences: given the
first), and take turns. Seconds are on the wall, cutting texts into tokens included; so is finding out whether the model
reads trees, which the scorer does once. A ratio is that of one sentence at a time to the contestant in the same round,
by the wall and, since others may compute on the machine, by the processor.

The target is a third of the time, and log-probabilities of tokens that are equal to 1e-4. lm-evaluation-harness, where
it is installed, tells sums over sentences alone, which are compared as a mean over the sentence's tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from trustnlp import models
from trustnlp.data.crows_pairs import read_crows_pairs
from trustnlp.data.stereoset import KINDS, read_stereoset
from trustnlp.fairness.scorer import Asked, Tokens, open_scorer
from trustnlp.models.language_model import BEGIN
from trustnlp.randomness import Streams

TARGET, EXACT = 3.0, 1e-4
PLAIN, OURS, HARNESS = "one at a time", "trustnlp", "lm-evaluation-harness"
SHAPE = {"width": 768, "layers": 12, "heads": 12, "max_pieces": 1024, "dropout": 0.0}
TINY = {"width": 16, "layers": 2, "heads": 2}
QUICK = 40
Text = tuple[str, str]  # what is given, and what is scored
Contestant = Callable[[Sequence[Text]], list[np.ndarray]]


def stereo_set(folder: Path, items: int | None) -> list[Text]:
    """Each sentence, those of the second kind after their context."""
    read = read_stereoset(folder / "stereoset" / "dev.json")
    chosen = [item for kind in KINDS for item in [each for each in read if each.kind == kind][:items]]
    return [
        (item.context if item.kind == "intersentence" else "", sentence)
        for item in chosen
        for sentence in (item.stereotype, item.anti_stereotype, item.unrelated)
    ]


def crows_pairs(folder: Path, items: int | None) -> list[Text]:
    pairs = read_crows_pairs(folder / "crows-pairs" / "crows_pairs_anonymized.csv")[:items]
    return [("", sentence) for pair in pairs for sentence in (pair.more, pair.less)]


def contestants(model: models.LanguageModel) -> dict[str, Contestant]:
    """By name; lm-evaluation-harness where it is installed."""
    found = {PLAIN: lambda texts: one_at_a_time(model, texts), OURS: lambda texts: scored(model, texts)}
    try:
        found[HARNESS] = harness(model)
    except ImportError:
        print(f"{HARNESS} is not installed: pip install lm-eval", file=sys.stderr)
    return found


def scored(model: models.LanguageModel, texts: Sequence[Text]) -> list[np.ndarray]:
    scorer = open_scorer(model)
    read = [scorer.tokens(given, text) if given else scorer.tokens(text) for given, text in texts]
    asked = [Asked(tokens.ids, positions(tokens, given)) for tokens, (given, _) in zip(read, texts, strict=True)]
    return scorer.log_probabilities(asked)


def positions(tokens: Tokens, given: str) -> tuple[int, ...]:
    """Those of the scored text's tokens, the space before it included where that is a token."""
    return tuple(i for i, span in enumerate(tokens.spans) if span[1] > len(given))


@torch.no_grad()
def one_at_a_time(model: models.LanguageModel, texts: Sequence[Text]) -> list[np.ndarray]:
    """As anybody would write it first: a forward pass and a log-softmax for each sentence."""
    found = []
    pieces = transformers.PreTrainedTokenizerFast(tokenizer_object=_pieces(model))
    for given, text in texts:
        ids = torch.tensor([pieces(f"{given} {text}" if given else text)["input_ids"]])
        skipped = len(pieces(given)["input_ids"]) if given else 1
        log_p = model.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, :-1].log_softmax(-1)
        found.append(log_p.gather(1, ids[0, 1:, None])[skipped - 1 :, 0].numpy())
    return found


def harness(model: models.LanguageModel) -> Contestant:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    pieces = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_pieces(model, ends=False), eos_token=BEGIN, bos_token=BEGIN, pad_token=BEGIN
    )
    runner = HFLM(pretrained=model.model, tokenizer=pieces, batch_size=64, device="cpu", add_bos_token=False)

    def score(texts: Sequence[Text]) -> list[np.ndarray]:
        asked = [
            Instance("loglikelihood", {}, (BEGIN + given, f" {text}" if given else text), number)
            for number, (given, text) in enumerate(texts)
        ]
        return [np.array([total]) for total, _ in runner.loglikelihood(asked, disable_tqdm=True)]

    return score


def _pieces(model: models.LanguageModel, ends: bool = True) -> Any:
    from tokenizers import Tokenizer, processors

    pieces = Tokenizer.from_str(model.encoding.to_json())
    pieces.no_truncation()
    if not ends:
        pieces.post_processor = processors.ByteLevel(trim_offsets=False)
    return pieces


def measure(model: models.LanguageModel, texts: Sequence[Text], rounds: int) -> dict[str, Any]:
    """Rows of all contestants, on the same texts."""
    running = contestants(model)
    wall: dict[str, list[float]] = {name: [] for name in running}
    processor: dict[str, list[float]] = {name: [] for name in running}
    answers: dict[str, list[np.ndarray]] = {}
    for contestant in running.values():
        contestant(texts[:4])  # warms up
    for round in range(rounds):
        for name, contestant in running.items():
            begun = time.perf_counter(), time.process_time()
            answers[name] = contestant(texts)
            wall[name].append(time.perf_counter() - begun[0])
            processor[name].append(time.process_time() - begun[1])
            print(f"round {round + 1}, {name}: {wall[name][-1]:.1f} s", file=sys.stderr, flush=True)
    return {
        name: {
            "seconds": statistics.median(wall[name]),
            "ratio": statistics.median(a / b for a, b in zip(wall[PLAIN], wall[name], strict=True)),
            "processor_ratio": statistics.median(a / b for a, b in zip(processor[PLAIN], processor[name], strict=True)),
            "largest_difference": largest_difference(answers[PLAIN], answers[name]),
        }
        for name in running
    }


def largest_difference(plain: list[np.ndarray], other: list[np.ndarray]) -> float:
    """Of a token's log-probability; of the mean over tokens where only the sum is known."""
    pairs = [
        (one, found) if len(one) == len(found) else (one.sum() / len(one), found.sum() / len(one))
        for one, found in zip(plain, other, strict=True)
    ]
    return max(float(np.abs(one.astype(np.float64) - found).max()) for one, found in pairs)


def hardware() -> dict[str, Any]:
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def show(found: dict[str, Any]) -> str:
    where = found["hardware"]
    lines = [
        f"PyTorch {where['torch']}, {where['machine']}, {where['cores']} cores, {where['threads']} threads; "
        f"{found['sentences']:,} sentences, {found['rounds']} rounds",
        "",
        "| contestant | seconds | times faster | by the processor | largest difference |",
        "|---|---|---|---|---|",
    ]
    for name, row in found["contestants"].items():
        times = f"{row['seconds']:.1f} | {row['ratio']:.2f} | {row['processor_ratio']:.2f}"
        lines.append(f"| {name} | {times} | {row['largest_difference']:.1e} |")
    return "\n".join([*lines, "", f"{TARGET:g} times faster, equal to {EXACT:g}: {found['met']}"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} items of each kind")
    parser.add_argument("--items", type=int, help="so many items of each kind; all unless said otherwise")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, help="of PyTorch")
    parser.add_argument("--tiny", action="store_true", help="a toy model, whose figures mean nothing")
    parser.add_argument("--json", type=Path, help="where figures are written")
    options = parser.parse_args(arguments)
    if "TRUSTNLP_DATA" not in os.environ:
        parser.error("set TRUSTNLP_DATA to the folder with stereoset, crows-pairs and tokenizers/gpt2")
    if options.threads:
        torch.set_num_threads(options.threads)
    folder = Path(os.environ["TRUSTNLP_DATA"])
    items = options.items or (QUICK if options.quick else None)
    texts = stereo_set(folder, items) + crows_pairs(folder, items)
    shape = TINY if options.tiny else SHAPE
    model = models.build_language_model(folder / "tokenizers" / "gpt2", streams=Streams(0), **shape).eval()
    rows = measure(model, texts, options.rounds)
    found = {
        "hardware": hardware(),
        "sentences": len(texts),
        "rounds": options.rounds,
        "target": TARGET,
        "exact": EXACT,
        "met": rows[OURS]["ratio"] >= TARGET and rows[OURS]["largest_difference"] <= EXACT,
        "contestants": rows,
    }
    print(show(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
