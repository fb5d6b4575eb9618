from pathlib import Path

import pytest

from trustnlp.data import bio
from trustnlp.errors import MalformedCorpusError


@pytest.mark.parametrize("tag", ["O", "B-city", "I-fromloc.city_name", "B-creative-work"])
def test_bio_tags(tag: str) -> None:
    assert bio.is_tag(tag)


@pytest.mark.parametrize("tag", ["", "o", "B", "B-", "PER", "S-PER", "E-PER", "NOUN", "B_city", "B-a b"])
def test_other_tags_are_refused_with_their_place(tag: str) -> None:
    with pytest.raises(MalformedCorpusError, match=r"f:7: .*is not a BIO tag; write B-slot, I-slot or O"):
        bio.check(Path("f"), 7, ["O", tag])
