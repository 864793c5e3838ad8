"""Damaged, foreign, or absurd tables: read, or rejected quickly with a hint."""

import io
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rootstock.data.layout import find_images
from tests.data.folders import write_classes
from tests.refusals import find_refusal

PATHS = ["img/ant/0.png", "img/bee/0.png"]
GOOD = b"path,label\nimg/ant/0.png,ant\nimg/bee/0.png,bee\n"
NOT_TEXT = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff\xfe", b"b"]).buffers())
FIRST = b"path,label\nimg/ant/0.png,"

CSV = {
    "empty": b"",
    "one line end": b"\n",
    "line ends": b"\n\n\n",
    "byte order mark": b"\xef\xbb\xbf",
    "UTF-16": GOOD.decode().encode("utf-16"),
    "UTF-16 without mark": GOOD.decode().encode("utf-16-le"),
    "UTF-32": GOOD.decode().encode("utf-32"),
    "Latin-1": "path,label\nimg/ant/0.png,thé\n".encode("latin-1"),
    "Latin-1 in the header": "path,label,thé\nimg/ant/0.png,x,y\n".encode("latin-1"),
    "zero in a path": b"path,label\nimg/ant/0.png\0,ant\n",
    "zero in a label": FIRST + b"a\0nt\n",
    "zero in the header": b"path,label,\0\nimg/ant/0.png,a,b\n",
    "zeros": bytes(5000),
    "only a header": b"path,label\n",
    "header without its end": b"path,label",
    "quote without its end": b'path,label\n"img/ant/0.png,ant\n',
    "quote without its end in the header": b'path,"label\nimg/ant/0.png,ant\n',
    "quotes inside": b'path,label\n"img/ant/0.png"x,"a"nt\n',
    "a cell too many": FIRST + b"ant,x\n",
    "a cell too few": b"path,label\nimg/ant/0.png\n",
    "two columns path": b"path,path,label\nx,x,y\n",
    "two columns path after blanks": b"path, path,label\nx,y,z\n",
    "two other columns": b"a,a,path,label\n1,2,img/ant/0.png,ant\n",
    "columns without names": b",,path,label\n1,2,img/ant/0.png,ant\n",
    "long label": FIRST + b"x" * 2_000_000,
    "long path": b"path,label\n" + b"x" * 2_000_000 + b",ant\n",
    "deep path": b"path,label\n" + b"a/" * 100_000 + b",ant\n",
    "path of dots": b"path,label\n" + b"../" * 100_000 + b",ant\n",
    "long name": b"path,label\n" + b"x" * 300 + b",ant\n",
    "long header": b"path,label," + b"x" * 2_000_000 + b"\nimg/ant/0.png,a,b\n",
    "long quoted header": b'"' + b"x" * 200_000 + b'",path,label\n1,img/ant/0.png,a\n',
    "columns": b"path,label" + b",c" * 20_000 + b"\n",
    "commas": b"," * 200_000,
    "quotes": b'"' * 100_001,
    "cell larger than a block": b'path,label\n"' + b"x\n" * 1_000_000 + b'",ant\n',
    "this folder": b"path,label\n.,ant\n",
    "root": b"path,label\n/,ant\n",
    "folder above": b"path,label\n..,ant\n",
    "a folder": b"path,label\nimg/ant,ant\n",
    "slash at the end": b"path,label\nimg/ant/0.png/,ant\n",
    "two slashes first": b"path,label\n//img/ant/0.png,ant\n",
    "backslash": b"path,label\n\\,ant\n",
    "drive": b"path,label\nC:,ant\n",
    "address": b"path,label\nfile:///etc/passwd,ant\n",
    "home": b"path,label\n~/x.png,ant\n",
    "blank path": b"path,label\n   ,ant\n",
    "escape in a label": FIRST + b"\x1b[31mred\n",
    "blank of zero width": FIRST + "\u200b\n".encode(),
    "blank that does not break": FIRST + "\u00a0\n".encode(),
    "unknown split": b"path,label,split\nimg/ant/0.png,ant,maybe\n",
    "long split": b"path,label,split\nimg/ant/0.png,ant," + b"x" * 1_000_000,
    "no training split": b"path,label,split\nimg/ant/0.png,ant,test\n",
    "archive": b"PK\x03\x04" + bytes(100),
    "Parquet": b"PAR1" + bytes(64) + b"PAR1",
    "JSON": b'[{"path":"x","label":"y"}]',
    "HTML": b"<!DOCTYPE html><html>",
    "half a character": b"path,label\nimg/\xed\xa0\x80.png,ant\n",
    "end in a character": FIRST + b"\xe2\x82",
    "one image twice": b"path,label\n" + b"img/ant/0.png,ant\n" * 2,
    "one image in two spellings": b"path,label\nimg/ant/0.png,ant\nIMG/ant/0.png,bee\n",
}


def parquet(**columns):
    table = pa.table({"path": PATHS, "label": ["a", "b"]} | columns)
    pq.write_table(table, file := io.BytesIO())
    return file.getvalue()


def replaced(old, new):
    content = parquet(**{old.decode(): ["a", "b"]})
    assert old in content
    return content.replace(old, new)


def renamed(*names):
    table = pa.table([PATHS, PATHS, ["a", "b"]], names=names)
    pq.write_table(table, file := io.BytesIO())
    return file.getvalue()


WHOLE = parquet()
PARQUET = {
    "empty": b"",
    "only magic": b"PAR1PAR1",
    "cut at the end": WHOLE[:-4],
    "cut in the middle": WHOLE[: len(WHOLE) // 2],
    "huge footer": WHOLE[:-8] + b"\xff\xff\xff\x7fPAR1",
    "no footer": WHOLE[:-8] + bytes(4) + b"PAR1",
    "damaged footer": WHOLE[:-30] + b"\x99" * 22 + WHOLE[-8:],
    "damaged column": WHOLE[:60] + bytes(20) + WHOLE[80:],
    "CSV": GOOD,
    "zeros": bytes(1000),
    "no rows": parquet(path=pa.array([], "string"), label=pa.array([], "string")),
    "no labels": parquet(label=pa.nulls(2)),
    "no paths": parquet(path=pa.nulls(2)),
    "numbers": parquet(label=[1, 2]),
    "not a number": parquet(label=[1.5, float("nan")]),
    "truth values": parquet(label=[True, False]),
    "lists": parquet(label=[["a"], ["b"]]),
    "bytes": parquet(label=[b"\xff", b"x"]),
    "many bytes": parquet(label=pa.array([b"\xff", b"b"], "large_binary")),
    "words": parquet(label=pa.array(["a", "b"]).dictionary_encode()),
    "bytes as words": parquet(label=pa.array([b"\xff", b"b"]).dictionary_encode()),
    "dates far away": parquet(label=pa.array([2**30, 1], "date32")),
    "times far away": parquet(label=pa.array([2**62, -(2**62)], pa.timestamp("us"))),
    "times nowhere": parquet(label=pa.array([0, 1], pa.timestamp("us", tz="Mars/X"))),
    "durations": parquet(label=pa.array([1, 2], pa.duration("s"))),
    "half precision": parquet(label=pa.array([1, 2], "float16")),
    "numbers as paths": parquet(path=[1, 2]),
    "zero in a path": parquet(path=["a\0b", "x"]),
    "label not UTF-8": parquet(label=NOT_TEXT),
    "path not UTF-8": parquet(path=NOT_TEXT),
    "split not UTF-8": parquet(split=NOT_TEXT),
    "numbers as splits": parquet(split=[1, 2]),
    "no splits": parquet(split=pa.nulls(2)),
    "two columns path": renamed("path", "path", "label"),
    "two columns path after blanks": renamed("path", "path ", "label"),
    "column name not UTF-8": replaced(b"QQQQQQQQ", b"\xff\xfe" * 4),
    "long column name": parquet(**{"x" * 1_000_000: [1, 2]}),
    "escape in a column name": parquet(**{"\x1b[31m": [1, 2]}),
}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(pytest.param("t.csv", content, id=f"csv {name}") for name, content in CSV.items()),
        *(pytest.param("t.parquet", one, id=f"parquet {name}") for name, one in PARQUET.items()),
    ],
)
def test_odd_table_is_read_or_rejected_with_hint(tmp_path, name, content):
    root = write_classes(tmp_path / "set", {"img/ant": 1, "img/bee": 1})
    (root / name).write_bytes(content)
    start = time.monotonic()
    refusal = find_refusal(lambda: find_images(root / name))
    assert refusal is None or (refusal.hint and len(str(refusal)) < 9_000)
    find_images(root)  # next to class folders it is an ignored file
    assert time.monotonic() - start < 10
