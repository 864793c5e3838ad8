"""Names of splits in practice: `Train`, `training_set`, `seg_test`, `val2017`, `holdout`."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

_SPLIT_OF_WORD = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "heldout"), "test"),
    **dict.fromkeys(("eval", "evaluation"), "eval"),
}
_SET_WORDS = ("set", "split", "subset", "part", "data", "dataset", "folder", "dir", "samples")
_IMAGE_WORDS = ("files", "image", "images", "img", "imgs", "photo", "photos", "pictures")
_PLAIN_WORDS = (*_SET_WORDS, *_IMAGE_WORDS)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]+")
_GLUED = re.compile(rf"({'|'.join(_SPLIT_OF_WORD)})(?:{'|'.join(_PLAIN_WORDS)})")


class SplitName(NamedTuple):
    """``split`` is train, val, test or eval; ``bare``: the name contains nothing else."""

    split: str
    bare: bool


def read_split_name(name: str) -> SplitName | None:
    """Return the split that the name of a folder or cell means, or None.

    ``eval`` may be val or test; `settle_eval` decides. A name with both train and val, such as
    `trainval`, means train.
    """
    text = unicodedata.normalize("NFC", name)
    text = re.sub(r"(?i)(hold|held)[ _-]?out", "holdout", text)
    text = re.sub(r"(?i)train[ _-]?val(?![a-z])", "train", text)
    words = [_unglue(word.lower()) for word in _WORD.findall(text)]
    splits = {_SPLIT_OF_WORD[word] for word in words if word in _SPLIT_OF_WORD}
    if len(splits) != 1:
        return None
    others = [word for word in words if word not in _SPLIT_OF_WORD and word not in _PLAIN_WORDS]
    return SplitName(splits.pop(), not others)


def is_plain_name(name: str) -> bool:
    """Return whether a name only says that there are images of a split: `test1`, `images`."""
    words = [_unglue(word.lower()) for word in _WORD.findall(name)]
    return bool(words) and all(word in _SPLIT_OF_WORD or word in _PLAIN_WORDS for word in words)


def settle_eval(splits: dict[str, str]) -> dict[str, str]:
    """Return splits by name without ``eval``: test, or val if another split is test."""
    other = "val" if "test" in splits.values() else "test"
    return {name: other if split == "eval" else split for name, split in splits.items()}


def _unglue(word: str) -> str:
    glued = _GLUED.fullmatch(word)
    return glued[1] if glued else word
