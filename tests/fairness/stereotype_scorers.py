"""A scorer over words whose probabilities are known: a token is a word or a mark, its log-probability a table's."""

import re

import numpy as np

from trustnlp.fairness.scorer import Kind, Tokens


class TableScorer:
    """Log-probability of a word: `table[word]`, -1 without an entry, plus `context` for each token that is seen."""

    name = "table"

    def __init__(self, kind=Kind.MASKED, table=None, context=0.0):
        self.kind = kind
        self.table = table or {}
        self.context = context
        self.words = ["<s>", "</s>"]
        self.asked = []

    def tokens(self, text, pair=None):
        whole = text if pair is None else f"{text} {pair}"
        found = list(re.finditer(r"un(?=\w)|\w+|[^\w\s]", whole))
        for match in found:
            if match[0] not in self.words:
                self.words.append(match[0])
        ids = [0, *(self.words.index(match[0]) for match in found)]
        spans = [(0, 0), *(match.span() for match in found)]
        return Tokens((*ids, 1), (*spans, (0, 0))) if self.kind is Kind.MASKED else Tokens(tuple(ids), tuple(spans))

    def log_probabilities(self, asked):
        self.asked += asked
        return [np.array([self._one(each, at) for at in each.positions]) for each in asked]

    def _one(self, asked, at):
        seen = at if self.kind is Kind.CAUSAL else len(asked.ids)
        return self.table.get(self.words[asked.ids[at]], -1.0) + self.context * seen
