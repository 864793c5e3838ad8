import hashlib
import io
import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from rootstock.data import candidates
from rootstock.data.decode import decode_grey
from rootstock.data.duplicates import group_duplicates, thumbnail
from rootstock.data.limits import DecodeLimits
from tests.data.folders import photo


def groups(contents, bits=3):
    names = [hashlib.sha256(content).hexdigest() for content in contents]
    thumbs = [thumbnail(levels(content)) for content in contents]
    return group_duplicates(names, thumbs, bits=bits).tolist()


def levels(content):
    return decode_grey(content, DecodeLimits()).levels


def again(content, *, side=None, quality=70):
    image = Image.open(io.BytesIO(content)).convert("RGB")
    buffer = io.BytesIO()
    image.resize((side or image.width,) * 2).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def flat(value):
    buffer = io.BytesIO()
    noise = np.random.default_rng(value).integers(0, 3, (40, 40, 3))
    Image.fromarray((noise + value).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_equal_files_are_one_group():
    first, second, third = groups([photo(1), photo(2), photo(1)])
    assert first == third != second


def test_smaller_or_compressed_copy_is_near_duplicate():
    found = groups([photo(1, side=200), again(photo(1, side=200)), again(photo(1), side=90)])
    assert len(set(found)) == 1


@pytest.mark.parametrize("side", [20, 28, 36, 44, 52, 72, 90, 197, 442])
def test_copy_of_odd_size_has_nearly_same_thumbnail(side):
    picture = levels(photo(1, side=225))
    copy = picture.resize((side, side), Image.Resampling.BICUBIC)
    thumbs = [thumbnail(each) for each in (picture, copy)]
    one, other = (np.frombuffer(thumb, np.uint8).astype(int) for thumb in thumbs)
    assert np.abs(one - other).mean() < 1.5


def test_different_pictures_stay_apart():
    assert len(set(groups([photo(seed) for seed in range(200)]))) == 200


def test_flat_pictures_do_not_collapse_into_one_group():
    assert len(set(groups([flat(value) for value in range(40, 80)]))) == 40


def test_same_pictures_give_same_ids_in_any_order():
    contents = [photo(1), photo(2), photo(1)]
    assert groups(contents) == groups(contents[::-1])[::-1]


def test_no_images_are_no_groups():
    assert group_duplicates([], [], bits=3).tolist() == []


def grey(rows):
    """Return a thumbnail of 16 x 16 grey levels."""
    return np.broadcast_to(rows, (16, 16)).astype(np.uint8).tobytes()


def test_equal_hashes_with_other_greys_are_two_pictures():
    rising, faint = grey(np.arange(16) * 16), grey(np.arange(16) * 2)
    assert len(set(group_duplicates(["a" * 64, "b" * 64], [rising, faint], bits=3))) == 2


def test_hash_bits_are_rising_grey_levels():
    greys = np.random.default_rng(0).integers(0, 256, (50, 16, 16), dtype=np.uint8)
    hashes = candidates._hash(greys.reshape(50, 256))
    bits = [rising(grey) for grey in greys.tolist()]
    for i, j in itertools.combinations(range(50), 2):
        apart = sum(a != b for a, b in zip(bits[i], bits[j], strict=True))
        assert int(hashes[i] ^ hashes[j]).bit_count() == apart


def rising(grey):
    """Return 64 booleans, computed with integers and without a matrix."""
    bits = []
    for upper, lower in zip(grey[::2], grey[1::2], strict=True):
        fine = [a + b for a, b in zip(upper, lower, strict=True) for _ in range(9)]
        wide = [round(Fraction(sum(fine[start : start + 16]), 32)) for start in range(0, 144, 16)]
        bits += [right > left for left, right in itertools.pairwise(wide)]
    return bits


def test_copy_of_member_joins_group_in_any_order():
    ramp = np.arange(16) * 15
    one, near, alien = grey(ramp + 1), grey(ramp), grey(np.roll(ramp, 5))
    images = [("3" * 64, one), ("1" * 64, near), ("2" * 64, alien), ("3" * 64, one)]
    whole = int("1" * 15, 16)
    for order in itertools.permutations(images):
        found = group_duplicates(*zip(*order, strict=True), bits=3).tolist()
        ids = dict(zip([sha[0] for sha, _ in order], found, strict=True))
        assert ids == {"3": whole, "1": whole, "2": int("2" * 15, 16)}
        assert found.count(whole) == 3


def test_equal_borders_still_differ_in_every_hash_quarter():
    """Otherwise all pairs of a set of digits would be compared."""
    rng = np.random.default_rng(0)
    hashes = candidates._hash(np.stack([bordered(rng) for _ in range(2_000)]))
    for start in range(0, 64, 16):
        assert len(np.unique(hashes >> np.uint64(start) & np.uint64(0xFFFF))) >= 8


def bordered(rng):
    thumb = np.full((16, 16), 255)
    thumb[4:12, 4:12] = rng.integers(0, 256, (8, 8))
    return thumb.ravel().astype(np.uint8)


def ids(thumbs, **options):
    return group_duplicates(shas(len(thumbs)), thumbs, bits=3, **options).tolist()


def shas(count):
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]


def scene(count, *, noise=0.6):
    """Return thumbnails of one scene under a fixed camera."""
    random = np.random.default_rng(0)
    base = np.asarray(levels(photo(1, side=64)).resize((16, 16)), float)
    shots = base + random.normal(0, noise, (count, 16, 16))
    return [shot.clip(0, 255).astype(np.uint8).tobytes() for shot in shots]


def test_turned_picture_is_a_copy_only_within_class():
    square = np.frombuffer(thumbnail(levels(photo(1))), np.uint8).reshape(1, 16, 16)
    thumbs = [np.ascontiguousarray(candidates.turn(square, way)).tobytes() for way in range(8)]
    assert len(set(ids(thumbs))) == 1
    mixed = ids(thumbs, strata=["left"] * 4 + ["right"] * 4)
    assert len(set(mixed[:4])) == len(set(mixed[4:])) == 1
    assert mixed[0] != mixed[4]
    upright = ids([thumbs[0], thumbs[0]], strata=["left", "right"])
    assert len(set(upright)) == 1


def test_candidates_that_are_not_verified_are_no_copies():
    nothing = ids(scene(40), verify=lambda pairs: np.zeros(len(pairs.first), bool))
    assert len(set(nothing)) == 40


def test_any_number_of_copies_forms_one_group():
    assert len(set(ids(scene(700)))) == 1


def test_gradual_changes_do_not_form_a_chain():
    """Neighbours are copies; the core of a group must be a copy of each member."""
    place = {number: number for number in range(60)}

    def verify(pairs):
        steps = [abs(place[a] - place[b]) for a, b in zip(pairs.first, pairs.second, strict=True)]
        return np.array(steps) <= 2

    sizes = Counter(ids(scene(60), verify=verify))
    assert max(sizes.values()) <= 5


@pytest.mark.parametrize("count", [300, 1200])
def test_work_grows_with_images_not_with_pairs(count):
    compared = []

    def verify(pairs):
        compared.append(len(pairs.first))
        return np.zeros(len(pairs.first), bool)

    ids(scene(count), verify=verify)
    assert sum(compared) <= 4 * count
