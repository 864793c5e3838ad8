"""The start of the studio: its imports, and its errors."""

import subprocess
import sys

import pytest

from rootstock.cli.main import main
from rootstock.errors import ConfigError
from rootstock.studio.serve import read_settings


def test_it_starts_without_what_only_some_pages_need():
    code = (
        "import sys, rootstock.studio.app;"
        "print([name for name in ('torch', 'mlflow', 'ray', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": "0.0.0.0"}, "can be reached from other machines"),
        ({"port": 99_999}, "port: Input should be less than or equal to 65535"),
    ],
)
def test_a_wrong_setting_is_named(options, said):
    with pytest.raises(ConfigError, match=said):
        read_settings(options)


def test_settings_come_from_variables_too(monkeypatch):
    monkeypatch.setenv("ROOTSTOCK_STUDIO_PORT", "8300")
    monkeypatch.setenv("ROOTSTOCK_STUDIO_HOSTS", "Studio.example, other")
    settings = read_settings({})
    assert settings.port == 8300
    assert settings.names == {"studio.example", "other"}


@pytest.mark.integration
def test_command_refuses_folder_that_is_not_project(tmp_path):
    with pytest.raises(SystemExit, match="is not a project"):
        main(["studio", str(tmp_path), "--port", "0"])
