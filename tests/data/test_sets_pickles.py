"""The reader of pickles: what genuine files hold comes out, and nothing else is ever done."""

from __future__ import annotations

import os
import pickle
import struct
import time

import numpy as np
import pytest

from pointlift.core.errors import FileFormatError
from pointlift.data.sets.pickle_writing import pickled_array, pickled_int, pickled_text
from pointlift.data.sets.pickles import read_pickle

CLOUD = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
GENUINE = [
    [[CLOUD, CLOUD + 1], [np.array([3], np.int32), np.array([0], np.int32)]],
    {"train": [(CLOUD, 1, 22), (CLOUD[:2], np.int64(4), -3)], "test": []},
    [CLOUD, CLOUD],
    (np.asfortranarray(CLOUD.astype(np.float64)), np.zeros((0, 3)), np.array([True, False]), np.arange(3, dtype=">i2")),
    {"a": 1.5, "b": "héllo\n'\"", "c": None, "d": b"\x00\xff", "e": 2**70, "f": (True, [], ()), 7: -1},
]


def written(path, data: bytes):
    path.write_bytes(data)
    return path


def same(one, two) -> bool:
    if isinstance(one, np.ndarray):
        return isinstance(two, np.ndarray) and one.dtype == two.dtype and np.array_equal(one, two)
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[k], two[k]) for k in one)
    return one == (bytes(two) if isinstance(two, memoryview) else two)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("held", GENUINE, ids=["cache", "fold", "shared", "kinds", "plain"])
def test_what_python_writes_is_read(held, protocol, tmp_path):
    assert same(held, read_pickle(written(tmp_path / "a.pkl", pickle.dumps(held, protocol))))


@pytest.mark.parametrize("old", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_the_module_names_of_numpy_1_and_2(old, tmp_path):
    data = pickle.dumps(CLOUD, 2).replace(b"numpy._core.multiarray", old)
    assert same(CLOUD, read_pickle(written(tmp_path / "a.pkl", data)))


def test_python_2_wrote_array_data_as_strings(tmp_path):
    raw = CLOUD.tobytes()
    data = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03"
        b"(K\x01K\x05K\x06\x86cnumpy\ndtype\nq\x04U\x02f4K\x00K\x01\x87Rq\x05"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(raw)) + raw + b"tb."
    )
    assert same(CLOUD, pickle.loads(data, encoding="latin1"))  # noqa: S301  our own bytes
    assert same(CLOUD, read_pickle(written(tmp_path / "a.pkl", data)))
    text = "".join(f"\\x{b:02x}" for b in raw)
    zero = (
        "cnumpy.core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\np1\n(I0\ntp2\nS'b'\np3\ntp4\nRp5\n"
        "(I1\n(I5\nI6\ntp6\ncnumpy\ndtype\np7\n(S'f4'\np8\nI0\nI1\ntp9\nRp10\n"
        f"(I3\nS'<'\np11\nNNNI-1\nI-1\nI0\ntp12\nbI00\nS'{text}'\np13\ntp14\nb."
    )
    assert same(CLOUD, read_pickle(written(tmp_path / "b.pkl", zero.encode())))


def test_arrays_are_views_of_the_file(tmp_path):
    found = read_pickle(written(tmp_path / "a.pkl", pickle.dumps(CLOUD, 3)))
    assert not found.flags.owndata
    assert not found.flags.writeable


@pytest.mark.parametrize("array", [CLOUD, np.array([7], np.int32), np.zeros((2, 0)), np.array([1, 2], np.uint8)])
def test_what_we_write_is_read_by_python_and_by_us(array, tmp_path):
    data = b"\x80\x03" + b"".join(pickled_array(array)) + b"."
    assert b"_core" not in data
    assert same(array, pickle.loads(data))  # noqa: S301  our own bytes
    assert same(array, read_pickle(written(tmp_path / "a.pkl", data)))
    assert pickle.loads(pickled_int(-5) + b".") == -5  # noqa: S301
    assert pickle.loads(b"\x80\x03" + pickled_text("é") + b".") == "é"  # noqa: S301


class Calls:
    """Pickles to a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _attacks(marker: str) -> dict[str, bytes]:
    command = f"touch {marker}"
    shell = pickle.dumps(Calls(os.system, command), 2)
    object_array = pickle.dumps(np.array([None, "x"], dtype=object), 3)
    nested = np.zeros(1, np.dtype([("a", "<f4")]))
    huge = pickle.dumps(np.zeros(4, np.float32), 3).replace(b"K\x04\x85", b"J\xff\xff\xff\x7f\x85")
    return {
        "os.system": shell,
        "os.system, protocol 0": pickle.dumps(Calls(os.system, command), 0),
        "os.system, protocol 4": pickle.dumps(Calls(os.system, command), 4),
        "eval": pickle.dumps(Calls(eval, f"__import__('os').system({command!r})"), 2),
        "inside a cache": pickle.dumps([[Calls(os.system, command)], [0]], 3),
        "getattr": pickle.dumps(Calls(getattr, "", "format"), 2),
        "INST": f"(S'{command}'\nios\nsystem\n.".encode(),
        "OBJ": b"(cos\nsystem\nS'" + command.encode() + b"'\no.",
        "NEWOBJ": b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00a\x85\x81.",
        "EXT": b"\x80\x02\x82\x01.",
        "persistent id": b"Pabc\n.",
        "out of band": b"\x80\x05\x97.",
        "objects": object_array,
        "compound type": pickle.dumps(nested, 3),
        "numpy.load": b"\x80\x02cnumpy\nload\nX\x01\x00\x00\x00a\x85R.",
        "dtype of objects": b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00O8K\x00K\x01\x87R.",
        "reconstruct something else": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\n"
        b"K\x00\x85C\x01b\x87R.",
        "reconstruct a large array": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"J\x00\x00\x00\x7f\x85C\x01b\x87R.",
        "a call of ndarray": b"\x80\x02cnumpy\nndarray\nJ\x00\x00\x00\x7f\x85\x85R.",
        "a large shape": huge,
        "a negative shape": huge.replace(b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff"),
        "bytes of a number": b"\x80\x02c__builtin__\nbytes\nJ\x00\x00\x00\x7f\x85R.",
        "BUILD of a list": b"\x80\x02]}b.",
        "unfinished array in a list": b"\x80\x02]cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"K\x00\x85C\x01b\x87Ra.",
        "two values": b"K\x01K\x02.",
        "protocol 9": b"\x80\x09N.",
    }  # fmt: skip


@pytest.mark.parametrize("attack", _attacks("x"))
def test_known_attacks_are_refused(attack, tmp_path):
    path = written(tmp_path / "modelnet40_test_8192pts_fps.dat", _attacks(f"{tmp_path}/owned")[attack])
    with pytest.raises(FileFormatError, match=r"modelnet40_test_8192pts_fps\.dat") as info:
        read_pickle(path)
    assert not (tmp_path / "owned").exists()
    assert len(str(info.value)) < 500


BOMBS = {
    "a huge frame": b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
    "a huge string": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.",
    "a huge bytearray": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
    "a huge BINBYTES": b"B\xff\xff\xff\xff.",
    "a negative string": b"T\xff\xff\xff\xff.",
    "a huge integer": b"\x8b\xff\xff\xff\x7f.",
    "an integer of many digits": b"I" + b"9" * 100_000 + b"\n.",
    "a far memo": b"N" + b"r\xff\xff\xff\xff" + b"0N..",
    "a memo that is not there": b"h\x05.",
    "no mark": b"Nt.",
    "an empty stack": b"0.",
    "no end": b"]" * 1000,
    "a line without end": b"I" + b"1" * 1000,
    "a tuple of itself, 60 times": b"N" + b"q\x00h\x00\x86" * 60 + b"q\x00}h\x00Ns.",
    "deep tuples": b")" + b"\x85" * 100_000 + b".x",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_cost_nothing(bomb, tmp_path):
    path = written(tmp_path / "a.pkl", BOMBS[bomb])
    begun = time.process_time()
    if bomb in ("a far memo", "deep tuples"):  # harmless: memory is that of the file's instructions
        read_pickle(path)
    else:
        with pytest.raises(FileFormatError, match=r"a\.pkl"):
            read_pickle(path)
    assert time.process_time() - begun < 2


def test_a_repeated_text_does_not_grow(tmp_path):
    once = b"X" + struct.pack("<I", 50_000) + b"a" * 50_000
    encoded = b"\x80\x02c_codecs\nencode\nq\x01" + once + b"q\x02X\x06\x00\x00\x00latin1q\x03\x86q\x04R0"
    again = b"h\x01h\x04R"
    with pytest.raises(FileFormatError, match="more text"):
        read_pickle(written(tmp_path / "a.pkl", encoded + again * 5000 + b"."))


def test_every_cut_of_a_genuine_file_is_refused(tmp_path):
    whole = pickle.dumps(GENUINE[0], 2)
    for size in range(len(whole)):
        with pytest.raises(FileFormatError):
            read_pickle(written(tmp_path / "a.pkl", whole[:size]))


def test_changed_bytes_are_read_or_refused(tmp_path):
    rng = np.random.default_rng(0)
    wholes = [pickle.dumps(held, protocol) for held in GENUINE[:2] for protocol in (0, 2, 3, 4)]
    refused = 0
    for _ in range(1000):
        data = bytearray(wholes[rng.integers(len(wholes))])
        for at in rng.integers(len(data), size=rng.integers(1, 4)):
            data[at] = rng.integers(256)
        try:
            read_pickle(written(tmp_path / "a.pkl", bytes(data)))
        except FileFormatError:
            refused += 1
    assert 100 < refused < 1000
