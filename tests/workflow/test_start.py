import pytest
import torch

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.errors import ConfigError, DataError
from rootstock.workflow.start import check_start
from tests.data.folders import write_classes


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("key", ["train.device", "features.device"])
def test_a_gpu_that_is_not_there_is_told_with_its_setting(key):
    config = load_config(None, overrides=[f"{key}=cuda"])
    with pytest.raises(ConfigError, match=f"{key}: device 'cuda' asked for, but there is no GPU"):
        check_start(config, None)


@pytest.mark.parametrize("key", ["train.device", "features.device"])
def test_an_unknown_device_is_told_with_its_setting(key):
    config = load_config(None, overrides=[f"{key}=gpu"])
    with pytest.raises(ConfigError, match=f"{key}: unknown device 'gpu'"):
        check_start(config, None)


@pytest.mark.parametrize("place", [".", "run1", "ants/run1", "../link/run1"])
def test_results_stay_out_of_the_folder_of_the_images(tmp_path, place):
    root = write_classes(tmp_path / "images", {"ants": 1})
    (tmp_path / "link").symlink_to(root)
    with pytest.raises(DataError, match="is in the folder of the images"):
        check_start(load_config(None, overrides=[f"data.root={root}"]), Paths(root / place))


def test_results_may_be_next_to_a_table(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\n")
    config = load_config(None, overrides=[f"data.root={tmp_path}/labels.csv"])
    check_start(config, Paths(tmp_path))
