from datetime import UTC, datetime
from pathlib import Path

import pytest

from trustnlp.data import tei
from trustnlp.data.corpus import Example
from trustnlp.data.tabular import Options
from trustnlp.errors import MalformedCorpusError

PEOPLE = """
<person xml:id="Ann" sex="FEMALE"/><person xml:id="Bea" sex=" FEMALE"/><person xml:id="Cid" sex="MALE"/>
<person xml:id="Dot" sex="MAE"/><person xml:id="Eve"/><personGrp xml:id="ALL" sex="UNKNOWN"/>
"""
EVENTS = '<event type="print" when="1623"/><event type="written" when="1970"/>'


def write(folder: Path, speeches: str, people: str = PEOPLE, events: str = EVENTS, before: str = "") -> Path:
    path = folder / "play.xml"
    header = f"<teiHeader><listPerson>{people}</listPerson></teiHeader><standOff>{events}</standOff>"
    body = f"<text><body>{speeches}</body></text>"
    path.write_text(f'{before}<TEI xmlns="http://www.tei-c.org/ns/1.0">{header}{body}</TEI>', encoding="utf-8")
    return path


def read(path: Path, **options) -> list[Example]:
    return [example for _, example in tei.read(path, Options(**options))]


def test_a_speech_is_what_is_said_by_whom_and_when(tmp_path: Path) -> None:
    speech = """<sp who="#Ann"><speaker>ANN </speaker><l>Now, <stage>aside</stage>fair</l><l>hour</l>
      <p><lb/>draws <q>on a</q>pace<lb/>and</p><stage>She goes.</stage></sp>"""
    assert read(write(tmp_path, speech)) == [
        Example("Now, fair hour draws on apace and", user="play/Ann", group="female", time=0.0)
    ]


@pytest.mark.parametrize(
    ("who", "user", "group"),
    [
        ("#Cid", "play/Cid", "male"),
        ("#Dot", "play/Dot", "unknown"),
        ("#Eve", "play/Eve", "unknown"),
        ("#ALL", "play/ALL", "unknown"),
        ("#Nobody", "play/Nobody", "unknown"),
        ("#Bea #Ann", "play/Ann+Bea", "female"),
        ("#Cid #Ann", "play/Ann+Cid", "unknown"),
        ("", "play/unknown", "unknown"),
    ],
)
def test_speakers_and_their_gender(tmp_path: Path, who: str, user: str, group: str) -> None:
    (found,) = read(write(tmp_path, f'<sp who="{who}"><l>Well</l></sp>'))
    assert (found.user, found.group) == (user, group)


def test_the_year_is_that_of_writing(tmp_path: Path) -> None:
    speech = '<sp who="#Ann"><l>Well</l></sp>'
    (found,) = read(write(tmp_path, speech, events='<event type="written" when="1595-02"/>'))
    assert found.time == datetime(1595, 1, 1, tzinfo=UTC).timestamp()
    assert read(write(tmp_path, speech, events='<event type="print" when="1623"/>'))[0].time is None


def test_a_speech_without_words(tmp_path: Path) -> None:
    path = write(tmp_path, '<sp who="#Ann"><l>Well</l></sp><sp who="#Ann"><stage>Sings.</stage></sp>')
    with pytest.raises(MalformedCorpusError, match=r"play.xml:2: an empty text"):
        read(path)
    left_out: list[int] = []
    assert len(read(path, on_empty=lambda path, number: left_out.append(number))) == 1
    assert left_out == [2]


@pytest.mark.parametrize(
    "declared",
    [
        '<!DOCTYPE TEI [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>',
        '<!DOCTYPE TEI [<!ENTITY secret SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE TEI SYSTEM "http://localhost/tei.dtd">',
    ],
)
def test_entities_are_never_expanded(tmp_path: Path, declared: str) -> None:
    path = write(tmp_path, '<sp who="#Ann"><l>Well</l></sp>', before=declared)
    with pytest.raises(MalformedCorpusError, match="a document type declaration; remove it"):
        read(path)


def test_no_play(tmp_path: Path) -> None:
    with pytest.raises(MalformedCorpusError, match="no speech"):
        read(write(tmp_path, "<p>prose</p>"))
    (tmp_path / "torn.xml").write_text("<TEI>\n<sp>")
    with pytest.raises(MalformedCorpusError, match=r"torn.xml:2: not well-formed XML"):
        read(tmp_path / "torn.xml")
