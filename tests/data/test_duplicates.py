import hashlib
import io

import numpy as np
from PIL import Image

from rootstock.data.decode import decode_picture
from rootstock.data.duplicates import group_duplicates, shrink, to_grey
from tests.data.folders import photo


def groups(contents, bits=3):
    names = [hashlib.sha256(content).hexdigest() for content in contents]
    thumbs = to_grey([shrink(decode_picture(content).upright) for content in contents])
    return group_duplicates(names, thumbs, bits=bits).tolist()


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


def test_a_smaller_or_compressed_copy_is_a_near_duplicate():
    found = groups([photo(1, side=200), again(photo(1, side=200)), again(photo(1), side=90)])
    assert len(set(found)) == 1


def test_a_copy_of_an_odd_size_has_nearly_the_same_thumbnail():
    picture = decode_picture(photo(1, side=225)).upright
    copies = [picture.resize((side, side), Image.Resampling.LANCZOS) for side in (90, 197, 442)]
    thumbs = to_grey([shrink(each) for each in (picture, *copies)])
    one, *others = [np.frombuffer(thumb, np.uint8).astype(int) for thumb in thumbs]
    assert max(np.abs(one - other).mean() for other in others) < 1


def test_thumbnails_are_as_grey_as_pillows():
    pictures = [decode_picture(photo(seed)).upright for seed in range(20)]
    thumbs = to_grey([shrink(picture) for picture in pictures])
    small = [picture.resize((16, 16), Image.Resampling.BOX) for picture in pictures]
    assert thumbs == [each.convert("L").tobytes() for each in small]


def test_different_pictures_stay_apart():
    assert len(set(groups([photo(seed) for seed in range(200)]))) == 200


def test_flat_pictures_do_not_collapse_into_one_group():
    assert len(set(groups([flat(value) for value in range(40, 80)]))) == 40


def test_the_same_pictures_give_the_same_ids_in_any_order():
    contents = [photo(1), photo(2), photo(1)]
    assert groups(contents) == groups(contents[::-1])[::-1]


def test_no_images_are_no_groups():
    assert group_duplicates([], [], bits=3).tolist() == []
