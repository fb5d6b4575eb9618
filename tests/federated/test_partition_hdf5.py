import builtins
import json

import numpy as np
import pytest

from trustnlp.errors import CorpusNotFoundError, MalformedCorpusError, MissingExtraError
from trustnlp.federated import partition_hdf5
from trustnlp.federated.partition_hdf5 import reading, writing

h5py = pytest.importorskip("h5py")


@pytest.fixture
def path(tmp_path):
    place = tmp_path / "some.h5"
    with writing(place) as file:
        file["json"] = json.dumps({"a": [1]})
        file["list"] = "[1]"
        file["text"] = "grüß"
        file["words"] = np.array(["a", "ß"], dtype=h5py.string_dtype("utf-8"))
        file["whole"] = [3, 1, 2]
        file["empty"] = []
        file["half"] = [0.5]
        file["one"] = 7
        file["nan"] = float("nan")
        file["nothing"] = h5py.Empty("f8")
        file["latin"] = np.array(b"gr\xfc\xdf", dtype=h5py.string_dtype("ascii", 4))
        file["numbered/10"] = file["numbered/2"] = file["numbered/0"] = 1
        file["named/01"] = 1
    return place


def test_what_is_there_is_read(path):
    with reading(path) as file:
        assert file.json("json") == {"a": [1]}
        assert file.text("text") == "grüß"
        assert file.words("words") == ["a", "ß"]
        assert file.integers("whole").tolist() == [3, 1, 2]
        assert file.integers("empty").tolist() == []
        assert file.number("one") == 7
        assert file.numbers("numbered") == [0, 2, 10]
        assert file.names("numbered") == ("0", "10", "2")
        assert file.names("whole") == file.names("absent") == ()
        assert [file.is_list(name) for name in ("words", "text")] == [True, False]
        assert "one" in file.names("")


@pytest.mark.parametrize(
    ("method", "name", "reason"),
    [
        ("text", "absent", "there is no 'absent'"),
        ("text", "text/below", "there is no 'text/below'"),
        ("text", "numbered", "there is no 'numbered'"),
        ("text", "words", "'words' is not the text"),
        ("text", "one", "'one' is not the text"),
        ("text", "nothing", "'nothing' is not the text"),
        ("text", "latin", "'latin' is not UTF-8"),
        ("words", "text", "'text' is not the text"),
        ("integers", "half", "'half' does not hold whole numbers"),
        ("integers", "words", "'words' is not the number"),
        ("integers", "one", "'one' is not the number"),
        ("number", "nan", "'nan' is not a finite number"),
        ("json", "text", "'text' is not JSON"),
        ("json", "list", "'list' is not a JSON object"),
        ("numbers", "named", "the names in 'named' are not"),
    ],
)
def test_what_is_not_as_asked_for_is_refused(path, method, name, reason):
    with reading(path) as file, pytest.raises(MalformedCorpusError, match=reason):
        getattr(file, method)(name)


def test_only_what_the_file_holds_itself_is_read(tmp_path):
    """A link or a storage elsewhere would put other files of this machine into a corpus."""
    other = tmp_path / "other.h5"
    with writing(other) as file:
        file["theirs"] = "s"
        file["numbers"] = [1]
    layout = h5py.VirtualLayout(shape=(1,), dtype="i8")
    layout[:] = h5py.VirtualSource(str(other), "numbers", shape=(1,))
    (tmp_path / "raw").write_bytes(bytes(8))
    with writing(tmp_path / "links.h5") as file:
        file["far"] = h5py.ExternalLink(str(other), "theirs")
        file["group"] = h5py.ExternalLink(str(other), "/")
        file["soft"] = h5py.SoftLink("/far")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("raw", (1,), "i8", external=[(str(tmp_path / "raw"), 0, 8)])
        file["pointer"] = np.array([file["raw"].ref], dtype=h5py.ref_dtype)
    with reading(tmp_path / "links.h5") as file:
        for name in ("far", "group/theirs", "soft"):
            with pytest.raises(MalformedCorpusError, match="is a link to elsewhere"):
                file.text(name)
        for name in ("virtual", "raw"):
            with pytest.raises(MalformedCorpusError, match="stored elsewhere"):
                file.integers(name)
        with pytest.raises(MalformedCorpusError, match="is not the number"):
            file.integers("pointer")


def test_what_is_too_large_is_refused_before_it_is_read(tmp_path, path, monkeypatch):
    with writing(tmp_path / "bomb.h5") as file:
        file.create_dataset("zeros", (10**12,), "i8", chunks=(10**6,), compression="gzip")
    with reading(tmp_path / "bomb.h5") as file, pytest.raises(MalformedCorpusError, match="too large"):
        file.integers("zeros")
    with reading(path) as file, pytest.raises(MalformedCorpusError, match="'text' is too long: 6 bytes"):
        file.text("text", longest=5)
    monkeypatch.setattr(partition_hdf5, "MOST_EXAMPLES", 2)
    with reading(path) as file, pytest.raises(MalformedCorpusError, match="at most 2 whole numbers"):
        file.numbers("numbered")


def test_deep_json_is_refused(tmp_path):
    with writing(tmp_path / "deep.h5") as file:
        file["deep"] = "[" * 200_000
    with reading(tmp_path / "deep.h5") as file, pytest.raises(MalformedCorpusError, match="is not JSON"):
        file.json("deep")


def test_files_that_are_absent_or_no_hdf5(tmp_path):
    with pytest.raises(CorpusNotFoundError, match="there is no file"), reading(tmp_path / "absent.h5"):
        pass
    (tmp_path / "text.h5").write_text("no HDF5 at all")
    with pytest.raises(MalformedCorpusError, match="not an HDF5 file, or damaged"), reading(tmp_path / "text.h5"):
        pass


def test_a_file_that_is_cut_off(path):
    whole = path.read_bytes()
    for end in range(0, len(whole), len(whole) // 20):
        path.write_bytes(whole[:end])
        with pytest.raises(MalformedCorpusError), reading(path) as file:
            file.words("words")


def test_a_damaged_dataset_is_refused(path):
    with h5py.File(path, "r") as file:
        header = h5py.h5o.get_info(file["text"].id).addr
    whole = bytearray(path.read_bytes())
    whole[header] = 0xEE  # the version of the object's header
    path.write_bytes(whole)
    with reading(path) as file, pytest.raises(MalformedCorpusError, match="'text' is damaged"):
        file.text("text")


def test_a_name_that_is_no_text_is_refused(path):
    with writing(path, add=True) as file:
        file.create_group(b"numbered/\xff")
    with reading(path) as file, pytest.raises(MalformedCorpusError, match="a name in 'numbered' is not UTF-8"):
        file.numbers("numbered")


def test_without_the_extra(path, monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name == "h5py":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtraError, match=r"pip install \"trustnlp\[fednlp\]\""), reading(path):
        pass
