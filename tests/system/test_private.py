import os

import pytest

from rootstock.errors import ConfigError
from rootstock.system.private import close_to_others


def test_the_cache_of_dvc_is_closed_to_other_users(tmp_path):
    folder = tmp_path / ".rootstock/dvc"
    close_to_others(folder)
    assert not folder.stat().st_mode & 0o007
    folder.chmod(0o777)
    close_to_others(folder)
    assert folder.stat().st_mode & 0o777 == 0o770


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_cache_that_another_user_made_is_refused(tmp_path):
    (tmp_path / "dvc").mkdir()
    (tmp_path / "dvc").chmod(0o777)
    os.chown(tmp_path / "dvc", 65534, 65534)
    with pytest.raises(ConfigError, match=r"another user[\s\S]*rm -r"):
        close_to_others(tmp_path / "dvc")
