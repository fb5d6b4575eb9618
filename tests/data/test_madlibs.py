import os
from pathlib import Path

import pytest

from trustnlp.data.madlibs import ToxicityItem, read_madlibs
from trustnlp.errors import CorpusError

DATA = os.environ.get("TRUSTNLP_DATA")


@pytest.mark.parametrize(
    "content",
    [
        'Text,Label,Template\n"hug, x",NOT_BAD,t1\nhate x,BAD,t2\n',
        'template,toxicity,phrase\nt1,nontoxic,"hug, x"\nt2,toxic,hate x\n',
        'rev_id,comment,toxic\nt1,"hug, x",False\nt2,hate x,True\n',
    ],
)
def test_all_forms_say_the_same(tmp_path, content):
    (tmp_path / "a.csv").write_text(content)
    assert read_madlibs(tmp_path / "a.csv") == (ToxicityItem("hug, x", False, "t1"), ToxicityItem("hate x", True, "t2"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Text,Label\nx,BAD\n", ":2: the columns are 'Text', 'Label'; they must be Text, Label, Template"),
        ("Text,Label,Template\nx,WORSE,t\n", ":2: 'Label' is 'WORSE'"),
        ("Text,Label,Template\n,BAD,t\n", ":2: the row has no text 'Text'"),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(CorpusError, match=message):
        read_madlibs(tmp_path / "a.csv")


@pytest.mark.skipif(DATA is None, reason="needs $TRUSTNLP_DATA/madlibs")
def test_the_original_files():
    names = ("bias_madlibs_77k.csv", "toxicity_fuzzed_testset.csv", "toxicity_nonfuzzed_testset.csv")
    assert [len(read_madlibs(Path(DATA) / "madlibs" / name)) for name in names] == [76_564, 1_492, 1_492]
