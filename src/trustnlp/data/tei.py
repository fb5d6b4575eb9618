"""Plays in TEI (the Text Encoding Initiative's XML, as DraCor publishes them): one example per speech.

    <person xml:id="Hamlet_Ham" sex="MALE">        group: the speakers' gender, 'unknown' where it is not told
    <event type="written" when="1599">             time: the start of that year, in seconds since 1970
    <sp who="#Hamlet_Ham"> <speaker>… <l>…         user: play and speakers; text: what is said, without directions

The speakers of a play are natural devices of very unequal activity. Files that declare a document type are refused:
no entity is ever expanded.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError  # parsing is done by defusedxml alone

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from trustnlp.data.corpus import Example
from trustnlp.data.tabular import Options, Placed
from trustnlp.errors import MalformedCorpusError

_TEI = "{http://www.tei-c.org/ns/1.0}"
_ID = "{http://www.w3.org/XML/1998/namespace}id"
_NOT_SAID = {f"{_TEI}speaker", f"{_TEI}stage", f"{_TEI}label", f"{_TEI}head"}
_LINES = {f"{_TEI}{name}" for name in ("l", "lb", "lg", "p", "ab")}
_GENDERS = ("male", "female")
_UNKNOWN = "unknown"


def read(path: Path, options: Options) -> Iterator[Placed]:
    """The speeches of a play in their order; several who speak together are one user.

    Args:
        path: a TEI file.
        options: what to do about a speech without words; its number is given in place of a line.

    Raises:
        MalformedCorpusError: no XML, a document type declaration, or no speeches.
    """
    play = _parsed(path)
    genders = _genders(play)
    time = _written(play)
    for number, speech in enumerate(play.iter(f"{_TEI}sp"), start=1):
        speakers = sorted({name.removeprefix("#") for name in speech.get("who", "").split()})
        text = " ".join("".join(_said(speech)).split())
        if not text:
            options.on_empty(path, number)
            continue
        heard = {genders.get(speaker, _UNKNOWN) for speaker in speakers}
        group = heard.pop() if len(heard) == 1 else _UNKNOWN
        user = f"{path.stem}/{'+'.join(speakers) or _UNKNOWN}"
        yield None, Example(text, user=user, group=group, time=time)


def _parsed(path: Path) -> Element:
    try:
        root: Element = parse(path, forbid_dtd=True).getroot()
    except DefusedXmlException:
        raise MalformedCorpusError(path, None, "a document type declaration", "remove it; none is read") from None
    except ParseError as error:
        raise MalformedCorpusError(path, error.position[0], "not well-formed XML", "save it again") from None
    if root.find(f".//{_TEI}sp") is None:
        raise MalformedCorpusError(path, None, "no speech (<sp>) in the namespace of TEI", "give a play in TEI")
    return root


def _genders(play: Element) -> dict[str, str]:
    people = [person for kind in ("person", "personGrp") for person in play.iter(f"{_TEI}{kind}")]
    told = {person.get(_ID, ""): person.get("sex", "").strip().lower() for person in people}
    return {name: gender for name, gender in told.items() if gender in _GENDERS}


def _written(play: Element) -> float | None:
    years = [event.get("when", "") for event in play.iter(f"{_TEI}event") if event.get("type") == "written"]
    if not years or not years[0][:4].isdecimal():
        return None
    return datetime(int(years[0][:4]), 1, 1, tzinfo=UTC).timestamp()


def _said(element: Element) -> Iterator[str]:
    yield element.text or ""
    for part in element:
        if part.tag not in _NOT_SAID:
            yield from _said(part)
        yield " " if part.tag in _LINES else ""
        yield part.tail or ""
