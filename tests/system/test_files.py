import os
import tempfile

import numpy as np
import pytest

from rootstock.errors import ArtifactError
from rootstock.system.files import read_json, sha256_file, write_atomic, write_json


def test_a_file_appears_whole_with_its_folder(tmp_path):
    write_json(tmp_path / "new/folder/x.json", {"ä": 1})
    assert read_json(tmp_path / "new/folder/x.json", made_by="index") == {"ä": 1}
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["x.json"]


def test_failed_write_keeps_only_the_old_file(tmp_path):
    write_json(tmp_path / "x.json", {"old": 1})

    def fail():
        with write_atomic(tmp_path / "x.json") as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert read_json(tmp_path / "x.json", made_by="index") == {"old": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_disk_full_is_reported_in_words(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match=r"x.json cannot be written: No space(.|\n)*free some"):
        write_json(tmp_path / "x.json", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_a_file_has_the_permissions_of_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        with write_atomic(tmp_path / "x") as temporary:
            # Like safetensors: a private file takes the name.
            descriptor, private = tempfile.mkstemp(dir=tmp_path)
            os.close(descriptor)
            os.replace(private, temporary)
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize(
    ("content", "message"), [("{", "is not valid JSON"), ("[1]", "must contain a JSON object")]
)
def test_damaged_json_says_which_stage_to_run(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ArtifactError, match=rf"{message}(.|\n)*run the stage `plan` again"):
        read_json(tmp_path / "x.json", made_by="plan")


def test_file_s_hash_is_that_of_its_content(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_file(tmp_path / "x").startswith("ba7816bf")


def test_disk_full_in_a_library_is_reported(tmp_path):
    resource = pytest.importorskip("resource")
    numpy = pytest.importorskip("safetensors.numpy")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    try:
        with pytest.raises(ArtifactError, match="cannot be written: File too large"):  # noqa: SIM117
            with write_atomic(tmp_path / "x.safetensors") as temporary:
                numpy.save_file({"a": np.zeros(9000)}, temporary)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert not list(tmp_path.iterdir())
