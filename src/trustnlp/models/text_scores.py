"""How well answers in free text agree with references.

| score              | of                      | range    | source                                                  |
|--------------------|-------------------------|----------|---------------------------------------------------------|
| `exact_match`      | span question answering | [0, 1]   | Rajpurkar et al. 2016 (SQuAD), official script of v1.1  |
| `token_f1`         | span question answering | [0, 1]   | the same                                                |
| `rouge_l`          | summaries, replies      | [0, 1]   | Lin 2004, section 3.1, with beta 1                      |
| `bleu`, `chrf`     | translations            | [0, 100] | Papineni et al. 2002, Popović 2015, by sacreBLEU        |

Of all of them higher is better, and the ideal is the upper end.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from trustnlp import checks

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
TOKENIZERS = ("13a", "none", "char", "intl")


def normalised(text: str) -> str:
    """`text` as SQuAD compares it: in lower case, without ASCII punctuation, without articles, white space as blanks.

    The order is the official one: articles go after punctuation, so the `a` of `a.` does, too.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(answers: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Share of answers that are one of their references once `normalised`, in [0, 1]; higher is better, ideal 1.

    Args:
        answers: N of them.
        references: for each answer one or more right ones.

    Raises:
        ArgumentError: no answers, another number of references, or an answer without any.
    """
    return _mean(answers, references, lambda answer, right: float(normalised(answer) == normalised(right)))


def token_f1(answers: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean F1 of the bags of `normalised` tokens, of the best reference each; in [0, 1], higher is better, ideal 1.

    Args, Raises: as `exact_match`.
    """
    return _mean(answers, references, _f1)


def _mean(answers: Sequence[str], references: Sequence[Sequence[str]], score: Callable[[str, str], float]) -> float:
    checks.not_empty("answers", answers)
    checks.same_length(answers=answers, references=references)
    for several in references:
        checks.not_empty("references", several)
    best = [max(score(answer, right) for right in several) for answer, several in zip(answers, references, strict=True)]
    return float(np.mean(best))


def _f1(answer: str, reference: str) -> float:
    ours, theirs = normalised(answer).split(), normalised(reference).split()
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def rouge_l(answers: Sequence[str], references: Sequence[str]) -> float:
    """Mean F1 of the longest common subsequence, in [0, 1]; higher is better, ideal 1.

    Tokens are lower-cased runs of letters and digits, of any alphabet; there is no stemming.

    Raises:
        ArgumentError: no answers, or another number of references.
    """
    return _mean(answers, [[reference] for reference in references], _longest_common_f1)


def _longest_common_f1(answer: str, reference: str) -> float:
    ours, theirs = (re.findall(r"[^\W_]+", text.lower()) for text in (answer, reference))
    common = _longest_common(ours, theirs)
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def _longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, one row of the table at a time."""
    row = [0] * (len(other) + 1)
    for mine in one:
        left, above = 0, 0  # the entry at the left of this row, and that of the row before
        for place, yours in enumerate(other, start=1):
            above, diagonal = row[place], above
            left = diagonal + 1 if mine == yours else max(left, above)
            row[place] = left
    return row[-1]


def bleu(answers: Sequence[str], references: Sequence[str], *, tokenize: str = "13a") -> float:
    """BLEU of the whole corpus, in [0, 100]; higher is better, ideal 100.

    Args:
        answers: N translations.
        references: the right one of each.
        tokenize: sacreBLEU's name of how words are told apart; `none` for text that is tokenised already.

    Raises:
        ArgumentError: no answers, another number of references, or no such tokenizer.
    """
    from sacrebleu.metrics.bleu import BLEU

    _check_pairs(answers, references)
    checks.one_of("tokenize", tokenize, TOKENIZERS)
    found = BLEU(tokenize=tokenize, force=True).corpus_score(list(answers), [list(references)])
    return min(100.0, float(found.score))  # rounding may take it above


def chrf(answers: Sequence[str], references: Sequence[str]) -> float:
    """chrF2: F-score of character n-grams up to 6, recall counting twice; in [0, 100], higher is better, ideal 100.

    Raises:
        ArgumentError: no answers, or another number of references.
    """
    from sacrebleu.metrics.chrf import CHRF

    _check_pairs(answers, references)
    return float(CHRF().corpus_score(list(answers), [list(references)]).score)


def _check_pairs(answers: Sequence[str], references: Sequence[str]) -> None:
    checks.not_empty("answers", answers)
    checks.same_length(answers=answers, references=references)
