import pytest

from rootstock.data.split_names import read_split_name, settle_eval


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("TRAIN", "train"),
        ("Training", "train"),
        ("training_set", "train"),
        ("TrainImages", "train"),
        ("trainset", "train"),
        ("train2017", "train"),
        ("01_train", "train"),
        ("train_val", "train"),
        ("trainval", "train"),
        ("dev", "val"),
        ("Valid", "val"),
        ("validation-images", "val"),
        ("testing", "test"),
        ("testData", "test"),
        ("hold-out", "test"),
        ("HoldOut", "test"),
    ],
)
def test_usual_name_of_split_says_nothing_else(name, split):
    assert read_split_name(name) == (split, True)


@pytest.mark.parametrize(
    ("name", "split"),
    [("seg_train", "train"), ("crash test", "test"), ("cifar10-test", "test")],
)
def test_name_with_affix_may_be_split(name, split):
    assert read_split_name(name) == (split, False)


@pytest.mark.parametrize("name", ["trainer", "valley", "contest", "device", "train_or_test", "7"])
def test_other_names_are_no_splits(name):
    assert read_split_name(name) is None


def test_eval_is_what_the_other_splits_leave():
    assert settle_eval({"train": "train", "eval": "eval"})["eval"] == "test"
    assert settle_eval({"dev": "val", "eval": "eval"})["eval"] == "test"
    assert settle_eval({"test": "test", "eval": "eval"})["eval"] == "val"
