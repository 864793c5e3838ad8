"""Recognise folders that are splits, and read them.

A name is not enough: `train` next to `bus` may be a class. A split contains class folders, and the
other splits have class names in common with the training split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rootstock.data.entry import Entry, count, fold_label, shorten
from rootstock.data.split_names import is_plain_name, read_split_name, settle_eval
from rootstock.data.tree import Folder
from rootstock.errors import DataError
from rootstock.system.escape import list_names

LAYOUT_HINT = "expected root/<class>/*.jpg, root/train/<class>/*.jpg, or a CSV with path,label"
_UNLABELLED_NAMES = ("unknown", "unlabeled", "unlabelled", "all")
_USUAL_NAMES = ("train", "training", "val", "valid", "validation", "test")


def find_splits(folder: Folder, where: Path, *, certain: bool, need_train: bool) -> dict[str, str]:
    """Return the split of each folder below ``folder`` that is one; empty if they are classes.

    ``certain``: they are splits, even if they could be classes.
    Raises:
        DataError: both readings are possible, or ``need_train`` and there is no training split.
    """
    found = {name: one for name in folder.folders if (one := read_split_name(name))}
    splits = settle_eval({name: one.split for name, one in found.items()})
    if not splits and not certain:
        return {}
    deep = [name for name in splits if folder.folders[name].folders]
    train = [name for name in deep if splits[name] == "train"]
    all_named = len(splits) == len(folder.folders)
    if all_named and deep and not need_train:
        return splits
    if certain or (all_named and "train" not in splits.values()):
        if train:
            return splits
        text = f"{where} has {list_names(sorted(splits)) or 'no splits'} but no train folder"
        raise DataError(f"{text} with class folders in it", hint=LAYOUT_HINT)
    bare = {name for name, one in found.items() if one.bare}
    if train:
        known = _labels(folder, train)
        partners = [name for name in deep if splits[name] != "train"]
        agree = any(_labels(folder, [name]) & known for name in partners)
        if agree or bare & set(train) or all_named and len(splits) == 1:
            return splits
        doubtful = set(splits.values()) != {"train"}
    else:
        doubtful = any(splits[name] != "train" for name in bare)
        doubtful = doubtful or all_named and len(splits) > 1
    if doubtful:
        raise _two_readings(folder, where, list(splits))
    return {}


def _two_readings(folder: Folder, where: Path, names: Sequence[str]) -> DataError:
    flat = [name for name in names if not folder.folders[name].folders]
    lack = f" (without class folders in {shorten(flat)})" if flat else ""
    others = sorted(set(folder.folders) - set(names))
    company = f" next to {shorten(others)}" if others else ""
    return DataError(
        f"{where} is ambiguous: {shorten(names)} may be splits{lack}, or classes{company}",
        hint="for splits, put class folders into train/, val/ and test/; for classes, set "
        "data.layout to `classes`",
    )


def read_splits(
    folder: Folder, prefix: str, splits: Mapping[str, str], warnings: list[str]
) -> Iterator[Entry]:
    """Yield the images of ``splits``; ``prefix`` is the path of ``folder`` from the root.

    Adds warnings about unusual and ignored parts to ``warnings``.
    """
    others = sorted(set(folder.folders) - set(splits))
    if others:
        warnings.append(f"folders next to train/val/test are ignored: {shorten(others)}")
    warnings += [f"the folder {prefix}{name} is empty and is ignored" for name in folder.empty]
    unusual = [f"{name} as {one}" for name, one in splits.items() if _is_unusual(name, splits)]
    if unusual:
        warnings.append(f"these folders are read as splits: {list_names(unusual)}")
    known = _labels(folder, [name for name, split in splits.items() if split == "train"])
    for name, split in splits.items():
        below, home = _unwrap(folder.folders[name], known)
        place = f"{prefix}{name}/{below}"
        if home.files:
            warnings.append(
                f"ignored {count(len(home.files), 'file')} directly in {place}, which have no "
                f"label: {shorten(home.files, most=3)}"
            )
        warnings += [
            f"the class folder {place}{label} is empty and is ignored" for label in home.empty
        ]
        if split != "train" and _is_unlabelled(home, known):
            warnings.append(
                f"ignored {count(home.n_images, 'file')} in {place}, which have no label"
            )
            continue
        for label, images in home.folders.items():
            for path in images.paths():
                yield Entry(f"{place}{label}/{path}", label, split)


def _is_unlabelled(home: Folder, known: set[str]) -> bool:
    """Return whether all images are in one folder that is not a class, such as `test/unknown/`."""
    if len(home.folders) != 1 or home.files:
        return False
    (name,) = home.folders
    named = is_plain_name(name) or name.lower() in _UNLABELLED_NAMES
    return named and fold_label(name) not in known


def _is_unusual(name: str, splits: Mapping[str, str]) -> bool:
    return name.lower() not in _USUAL_NAMES or list(splits.values()).count(splits[name]) > 1


def read_inner_splits(classes: Mapping[str, Folder]) -> dict[str, str]:
    """Return splits by folder name if every class folder contains only splits."""
    if any(one.files or not one.folders for one in classes.values()):
        return {}
    names = {name for one in classes.values() for name in one.folders}
    found = {name: read_split_name(name) for name in sorted(names)}
    if not all(one and one.bare for one in found.values()):
        return {}
    splits = settle_eval({name: one.split for name, one in found.items() if one})
    return splits if "train" in splits.values() else {}


def _labels(folder: Folder, splits: Sequence[str]) -> set[str]:
    """Return the folded names of the classes in ``splits``."""
    homes = [_unwrap(folder.folders[name], set())[1] for name in splits]
    return {fold_label(label) for home in homes for label in home.folders}


def _unwrap(folder: Folder, known: set[str]) -> tuple[str, Folder]:
    """Return the folder that holds a split's classes, such as `seg_train/seg_train/`.

    A folder with the name of a class in ``known`` is a class.
    """
    below = ""
    while not folder.files and len(folder.folders) == 1:
        ((name, only),) = folder.folders.items()
        if not only.folders or fold_label(name) in known:
            break
        below, folder = f"{below}{name}/", only
    return below, folder
