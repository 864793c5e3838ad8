import re
from pathlib import Path

import pytest

from rootstock.config import load as load_module
from rootstock.config.describe import describe_keys
from rootstock.config.load import load_config
from rootstock.config.schema import Config
from rootstock.errors import ConfigError

BROKEN = {
    "not yaml": ("data: [", r"not valid YAML"),
    "a list": ("- data", r"must hold sections such as `data:`"),
    "a bare word": ("hello", r"must hold sections such as `data:`, not hello"),
    "unknown section": ("dta: {root: x}", r"dta: no such key; did you mean data\?"),
    "unknown key": ("plan: {strategi: auto}", r"plan\.strategi: no such key; did you mean"),
    "guessed key": ("train: {epoch: 3}", r"train\.epoch: no such key; did you mean train\.epochs"),
    "unknown strategy": (
        "plan: {strategy: magic}",
        r"plan\.strategy: .*must be linear_probe, .* or auto, got magic",
    ),
    "negative seed": ("seed: -1", r"seed: must be a whole number from 0 to 2147483647, got -1"),
    "text for a number": ("seed: often", r"seed: must be a whole number from .*, got often"),
    "fraction of one": (
        "data: {val_fraction: 1.0}",
        r"data\.val_fraction: must be a number from 0 and below 1, got 1\.0",
    ),
    "tiny input": ("plan: {input_size: 8}", r"plan\.input_size: .*got 8"),
    "zero epochs": ("train: {epochs: 0}", r"train\.epochs: .*got 0"),
    "empty grid": (
        "train: {l2_grid: []}",
        r"train\.l2_grid: must be a list of 1 or more: .*got \[\]",
    ),
    "negative strength": ("train: {l2_grid: [-1]}", r"train\.l2_grid\.0: .*got -1"),
    "a slip in a value": (
        "train: {views: crop}",
        r"train\.views: must be one, flip or crops, got crop; did you mean crops\?",
    ),
    "a slip among several types": (
        "plan: {strategy: ful_finetune}",
        r"has a problem:\n  plan\.strategy: .*; did you mean full_finetune\?\n",
    ),
    "null for a word": ("search: {engine: null}", r"search\.engine: .*got null"),
    "unknown engine": (
        "search: {engine: slurm}",
        r"search\.engine: .*must be ray or sequential, got slurm",
    ),
    "name with a space": (
        "registry: {name: 'my model'}",
        r"registry\.name: .*text that matches .*got my model",
    ),
    "nested too deep": (
        "registry: {gate: {min_gain: luck}}",
        r"registry\.gate\.min_gain: must be a number, got luck",
    ),
    "too little to train on": (
        "data: {val_fraction: 0.5, test_fraction: 0.5}",
        r"data: .*together leave less than 10 % for training",
    ),
    "no medium": (
        "assess: {small_below: 50, large_from: 50}",
        r"assess: .*small_below must be less than large_from",
    ),
    "a key twice": ("seed: 1\nseed: 2", r"the key 'seed' is given twice(.|\n)*line 2"),
    "a nested key twice": ("data:\n  root: a\n  root: b", r"the key 'root' is given twice"),
    "section is a value": ("plan: auto", r"plan: must be a section of keys, got auto"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_parameter_file_is_explained(tmp_path, text, message):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "params.yaml")


def test_a_missing_parameter_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path / 'params.yaml'} does not exist")):
        load_config(tmp_path / "params.yaml")


def test_binary_in_the_parameter_file_is_an_error(tmp_path):
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(tmp_path / "params.yaml")


def test_all_problems_are_reported_at_once(tmp_path):
    (tmp_path / "params.yaml").write_text("seed: -1\ntrain: {epoch: 3}\n")
    with pytest.raises(ConfigError, match="2 problems") as caught:
        load_config(tmp_path / "params.yaml")
    assert "seed" in str(caught.value)
    assert "train.epoch" in str(caught.value)


def test_an_empty_file_means_the_defaults(tmp_path):
    (tmp_path / "params.yaml").write_text("")
    assert load_config(tmp_path / "params.yaml") == Config()


def test_overrides_are_typed_like_yaml():
    config = load_config(None, overrides=["train.epochs=7", "plan.flip=false", "seed=3"])
    assert (config.train.epochs, config.plan.flip, config.seed) == (7, False, 3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("train.epochs=[", "'train.epochs=\\[' has a value that is not valid"),
        ("nowhere.key=1", "nowhere: no such key"),
    ],
)
def test_a_broken_override_is_explained(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, overrides=[override])


def test_an_override_below_a_value_is_an_error(tmp_path):
    (tmp_path / "params.yaml").write_text("seed: 1")
    with pytest.raises(ConfigError, match="`seed` is a value, not a section"):
        load_config(tmp_path / "params.yaml", overrides=["seed.x=1"])


def test_params_yaml_has_every_key_with_its_default():
    path = Path(__file__).parents[2] / "params.yaml"
    assert load_config(path) == Config()
    written = path.read_text()
    assert all(f"{key.name.split('.')[-1]}:" in written for key in describe_keys())


@pytest.mark.integration
def test_dvc_experiment_changes_one_line_of_params_yaml(tmp_path):
    from dvc.utils.hydra import apply_overrides

    before = (Path(__file__).parents[2] / "params.yaml").read_text()
    copy = tmp_path / "params.yaml"
    copy.write_text(before)
    apply_overrides(str(copy), ["plan.strategy=full_finetune"])
    after = copy.read_text()
    assert after == before.replace("  strategy: auto", "  strategy: full_finetune")
    assert after != before


def test_every_key_has_a_description():
    assert all(key.meaning for key in describe_keys())
    assert "registry.gate.metric" in {key.name for key in describe_keys()}


def test_key_description_has_default_and_values():
    keys = {key.name: key for key in describe_keys()}
    assert keys["plan.max_params"].default is None
    assert keys["plan.max_params"].allowed == "a whole number from 1 on, or null"
    assert keys["train.learning_rates"].allowed == "a list: a number above 0 to 1, or auto"
    assert keys["train.class_weight"].allowed.endswith("balanced or balanced_sampling")
    assert keys["train.recompute"].allowed == "true or false"


def test_a_message_about_a_huge_value_stays_short(tmp_path):
    (tmp_path / "params.yaml").write_text(f"seed: {'9' * 4000}x\ntrain: {{views: {'a' * 10**6}}}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "params.yaml")
    assert len(str(caught.value)) < 1000


def test_a_message_about_a_thousand_problems_names_some(tmp_path):
    (tmp_path / "params.yaml").write_text("\n".join(f"key{n}: 1" for n in range(1000)))
    with pytest.raises(ConfigError, match="more than 20 problems(.|\n)*and more") as caught:
        load_config(tmp_path / "params.yaml")
    assert len(str(caught.value).splitlines()) < 30


def test_only_named_keys_are_compared_with_known_keys(tmp_path, monkeypatch):
    """A comparison of 20,000 keys took seven seconds."""
    compared = []
    guess = load_module.did_you_mean
    monkeypatch.setattr(
        load_module, "did_you_mean", lambda *words: compared.append(words) or guess(*words)
    )
    file = tmp_path / "params.yaml"
    file.write_text("".join(f"data_{number}_root: 1\n" for number in range(2_000)))
    with pytest.raises(ConfigError, match="more than 20 problems"):
        load_config(file)
    assert len(compared) == 21
