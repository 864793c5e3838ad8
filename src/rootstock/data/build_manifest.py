"""Build the manifest from a layout: decode every image once, and decide its split."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import starmap
from pathlib import Path

import numpy as np

from rootstock.data.apply_corrections import apply_corrections
from rootstock.data.blank import decide_rendering
from rootstock.data.entry import describe_faults, explaining
from rootstock.data.groups import Duplicates, group_images, name_groups
from rootstock.data.inspect import Inspected
from rootstock.data.inspection_cache import FILE_COLUMNS, inspect_layout
from rootstock.data.label_corrections import Correction
from rootstock.data.layout import Layout
from rootstock.data.limits import DecodeLimits
from rootstock.data.manifest import REMOVED, ImageRow, Manifest
from rootstock.data.splits import assign_splits, recall_splits
from rootstock.data.target_rules import Settled, TargetRules
from rootstock.data.temporal import split_off_newest


def build_manifest(
    layout: Layout,
    *,
    rules: TargetRules,
    limits: DecodeLimits,
    val_fraction: float,
    test_fraction: float,
    near_duplicate_bits: int,
    duplicates: Duplicates = "near",
    group: str | None = None,
    time: str | None = None,
    recognised: str = "",
    min_per_class: int,
    seed: int,
    workers: int | None = None,
    cache_file: Path | None = None,
    on_inspected: Callable[[list[Inspected]], None] | None = None,
    previous: Manifest | None = None,
    corrections: Sequence[Correction] = (),
) -> Manifest:
    """Decode every image of ``layout`` once and decide its split.

    ``workers`` is the number of decoding processes; None: one per core. ``cache_file`` stores the
    results, so that the next run reads only files that are new or changed.
    ``duplicates`` sets which copies stay in one split, ``group`` which other images do, as in
    `name_groups`. ``time`` names the metadata column by which the newest images are the test split.
    ``recognised`` is the reason for choosing the task of ``rules``. ``on_inspected`` is called with
    the results before they are used.
    Images of ``previous`` keep their split if it was drawn with the same settings.
    ``corrections`` change targets and remove images. They change no split and no group: those
    depend on the targets before correction.
    Raises:
        DataError: nothing can be learned from these targets. ``min_per_class`` is the number of
          usable images that each stratum needs.
    """
    listed = [entry.target for entry in layout.entries]
    rules.check_texts(layout.root, [entry.target for entry in layout.entries if not entry.settled])
    names = name_groups(group, layout.entries)
    inspected = inspect_layout(
        layout, limits=limits, workers=workers, cache_file=cache_file, on_inspected=on_inspected
    )
    usable = [i for i, image in enumerate(inspected) if not image.reason]
    reasons = [image.reason for image in inspected]
    paths = [layout.entries[i].path for i in usable]
    with explaining(*describe_faults(layout.entries, reasons), *layout.warnings):
        settled = _settle(rules, layout, inspected, usable)
        targets = settled.texts
        corrected = apply_corrections(
            corrections, [inspected[i].sha256 for i in usable], paths, targets, rules
        )
    pairs = zip(usable, corrected.texts, strict=True)
    kept = {i: text for i, text in pairs if text is not None}
    still_listed = [kept.get(i, text) for i, text in enumerate(listed) if i in kept or reasons[i]]
    warnings = [*layout.warnings, *corrected.warnings, *rules.warn(still_listed)]
    with explaining(*describe_faults(layout.entries, reasons), *warnings):
        rules.check(layout.root, list(kept.values()), still_listed, min_per_class)
    warnings += settled.warnings
    strata = rules.strata(targets)
    together = group_images(
        layout.base,
        paths,
        [inspected[i] for i in usable],
        strata if rules.discrete else [""] * len(usable),
        [names[i] for i in usable],
        duplicates=duplicates,
        bits=near_duplicate_bits,
        limits=limits,
    )
    given = [layout.entries[i].split for i in usable]
    given_splits = tuple(sorted({entry.split for entry in layout.entries if entry.split}))
    settings = [seed, val_fraction, test_fraction, duplicates, near_duplicate_bits, group]
    if time is not None:
        given = split_off_newest(
            [layout.entries[i] for i in usable], together.groups, column=time, share=test_fraction
        )
        given_splits = tuple(sorted({*given_splits, "test"}))
        settings.append(time)
    drawn_by = json.dumps(settings)
    old_splits = recall_splits(
        previous,
        [(_storable(layout.entries[i].path), inspected[i].sha256) for i in usable],
        together.groups,
        given_splits=given_splits,
        drawn_by=drawn_by,
    )
    splits = assign_splits(
        together.groups,
        strata,
        given,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        old_splits=old_splits,
        balance=rules.balance(targets),
    )
    looked_at = [(path, inspected[i]) for i, path in zip(usable, paths, strict=True)]
    rendering, about_rendering = decide_rendering(looked_at, strata, splits)
    final_strata = dict(zip(kept, rules.strata(list(kept.values())), strict=True))
    kept_splits = [split for i, split in zip(usable, splits, strict=True) if i in kept]
    with explaining(*warnings):
        about_splits = rules.check_splits(layout.root, list(final_strata.values()), kept_splits)
    warnings += [*together.warnings, *about_splits, *about_rendering]
    strata = [final_strata.get(i, stratum) for i, stratum in zip(usable, strata, strict=True)]
    numbers = (together.groups.tolist(), together.pictures.tolist())
    cells = dict(zip(usable, zip(strata, splits, *numbers, strict=True), strict=True))
    decided = [cells.get(i, ("", "", 0, 0)) for i in range(len(inspected))]
    stratum_of, split_of, group_of, picture_of = zip(*decided, strict=True)
    files, all_targets, _, facts, _ = zip(*layout.entries, strict=True)
    columns = list(zip(*inspected, strict=True))[: len(FILE_COLUMNS)]
    before = dict(zip(usable, targets, strict=True))
    labels = [kept.get(i, before.get(i, text)) for i, text in enumerate(all_targets)]
    changed = [i for i, text in before.items() if kept.get(i) != text]
    originals = {_storable(files[i]): _storable(before[i]) for i in changed}
    reasons = [REMOVED if i in before and i not in kept else why for i, why in enumerate(reasons)]
    texts = [map(_storable, column) for column in (files, labels, stratum_of)]
    metadata = [json.dumps(dict(one), ensure_ascii=False) if one else "" for one in facts]
    stored = (texts[0], *columns, texts[1], texts[2], split_of, group_of, reasons, picture_of)
    rows = tuple(starmap(ImageRow, zip(*stored, metadata, strict=True)))
    found = rows, tuple(warnings), given_splits
    return Manifest(*found, rules.name, rendering, limits, drawn_by, recognised, originals)


def _settle(
    rules: TargetRules, layout: Layout, inspected: Sequence[Inspected], usable: Sequence[int]
) -> Settled:
    """Return the targets of the usable images as the manifest keeps them."""
    entries = layout.entries
    rows = [i for i in usable if not entries[i].settled]
    sizes = np.array([(inspected[i].width, inspected[i].height) for i in rows])
    texts, paths = [entries[i].target for i in rows], [entries[i].path for i in rows]
    found = rules.settle(layout.base, texts, paths, sizes)
    text_of = dict(zip(rows, found.texts, strict=True))
    return Settled([text_of.get(i, entries[i].target) for i in usable], found.warnings)


def _storable(text: str) -> str:
    """Return ``text`` with escapes for what UTF-8 cannot store, as in some file names."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
