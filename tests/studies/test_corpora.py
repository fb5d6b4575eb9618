from pathlib import Path

import pytest

from trustnlp.errors import CorpusError
from trustnlp.studies import corpora


def test_the_synthetic_corpus_is_the_same_every_time_and_smaller_when_quick() -> None:
    one, again = (corpora.load("synthetic", limit=300) for _ in range(2))
    assert one.digest == again.digest
    assert len(one.train) + len(one.valid) + len(one.test) <= 300
    whole, quick = (corpora.load("synthetic", limit=6_000, quick=quick) for quick in (False, True))
    assert len(quick.train) < len(whole.train)


def test_a_file_of_ones_own(table: Path) -> None:
    assert corpora.load(str(table), limit=200_000).labels == ("alarm", "music", "phone")


def test_texts_without_labels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_text("text\n" + "\n".join(f"some text {n}" for n in range(40)))
    with pytest.raises(CorpusError, match="neither labels nor tags"):
        corpora.load(str(path), limit=100)


@pytest.mark.parametrize("examples", [2, 100, 13_084, 10**7])
def test_delta_is_below_one_over_n(examples: int) -> None:
    assert corpora.delta_for(examples) < 1 / examples
    assert corpora.delta_for(examples) <= 1e-5
