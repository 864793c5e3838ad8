"""The key file, and the rate of each caller."""

import pytest

from rootstock.errors import ConfigError
from rootstock.service.http.keys import KeyRing, RateLimit, make_key
from tests.service.conftest import make_client


def test_a_file_of_keys_holds_no_key(keys):
    path, made = keys
    assert path.stat().st_mode & 0o777 == 0o600
    assert not any(key in path.read_text() for key in made)
    assert KeyRing.read(path).find(made[0]).name == "shop"
    assert KeyRing.read(path).find(made[0] + "x") is None


def test_a_name_is_given_once(keys):
    with pytest.raises(ConfigError, match="already has a key named 'shop'"):
        make_key("shop", "admin", keys[0])


@pytest.mark.parametrize("line", ["shop", "shop predict abc", f"shop boss {'0' * 64}"])
def test_a_wrong_line_is_named(tmp_path, line):
    (tmp_path / "keys").write_text(f"# ours\n{line}\n")
    with pytest.raises(ConfigError, match="line 2 is not NAME ROLE SHA256"):
        KeyRing.read(tmp_path / "keys")


def test_a_missing_file_of_keys_ends_the_start(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        make_client(keys=tmp_path / "none")


def test_a_bucket_fills_again(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("rootstock.service.http.keys.time.monotonic", lambda: now[0])
    limit = RateLimit(2.0, 1)
    assert limit.wait("a") == 0
    assert limit.wait("a") == pytest.approx(0.5)
    now[0] = 0.5
    assert limit.wait("a") == 0
