"""The digits: parts are disjoint, seeded and stratified."""

import types

import numpy as np
import pytest
import sklearn.datasets

from keras_transfer.data import digits

FROM_TRAIN, FROM_GAP, FROM_TEST = 0, 128, 255


@pytest.fixture
def flat_photographs(monkeypatch):
    """Replace the photographs with one gray value for each region of columns.

    A blended image over black is the digit, and over white it is 1 - digit. Over the
    gap it is different from both. So the images show the digit and the region.
    """
    photographs = np.full((2, 427, 640, 3), FROM_GAP, "uint8")
    photographs[:, :, slice(*digits.TRAIN_COLUMNS)] = FROM_TRAIN
    photographs[:, :, slice(*digits.TEST_COLUMNS)] = FROM_TEST
    bunch = types.SimpleNamespace(images=list(photographs))
    monkeypatch.setattr(sklearn.datasets, "load_sample_images", lambda: bunch)


def parts_as_plain_digits():
    source, target = digits.load_source(), digits.load_target()
    return {
        "source train": source.train[0],
        "source test": source.test[0],
        "target train": target.train[0],
        "target unlabeled": target.unlabeled,
        "target test": 1 - target.test[0],
    }


def as_keys(images):
    return [image.tobytes() for image in np.round(images * 1000).astype("int16")]


def test_every_digit_is_in_exactly_one_part(flat_photographs):
    # This compares pixels, so a digit with two indices also fails.
    parts = {name: as_keys(each) for name, each in parts_as_plain_digits().items()}
    together = [key for keys in parts.values() for key in keys]
    assert len(set(together)) == len(together) == 1797
    assert set(together) == set(
        as_keys(np.repeat(digits._digits()[0][..., None], 3, -1))
    )


def test_photograph_regions_of_train_and_test_do_not_overlap(flat_photographs):
    # A pixel from the gap or the other region would give an image that is not a digit.
    every = set(as_keys(np.repeat(digits._digits()[0][..., None], 3, -1)))
    for images in parts_as_plain_digits().values():
        assert every.issuperset(as_keys(images))


def test_the_gap_is_wider_than_a_patch():
    assert digits.TEST_COLUMNS[0] - digits.TRAIN_COLUMNS[1] > digits.SIZE


def test_target_is_the_absolute_difference_of_digit_and_patch(monkeypatch):
    gray = types.SimpleNamespace(images=[np.full((427, 640, 3), 51, "uint8")] * 2)
    monkeypatch.setattr(sklearn.datasets, "load_sample_images", lambda: gray)
    images = digits.load_target().unlabeled
    assert images.max() == pytest.approx(0.8)  # full ink, 1 - 0.2
    assert np.isclose(images[:, 0, 0], 0.2).mean() > 0.9  # corners have no ink


def test_patches_differ_and_come_from_both_photographs():
    corners = digits.load_target().test[0][:, 0, 0]
    assert len(np.unique(corners, axis=0)) > 400
    china, flower = (
        image / 255 for image in sklearn.datasets.load_sample_images().images
    )
    means = (china.mean(), flower.mean())
    patches = digits.load_target().test[0].mean(axis=(1, 2, 3))
    assert patches.min() < means[1] < means[0] < patches.max()


def test_target_train_has_ten_labels_in_each_class():
    _, labels = digits.load_target().train
    assert np.bincount(labels).tolist() == [10] * 10


def test_target_test_is_stratified_and_has_over_500_images():
    images, labels = digits.load_target().test
    assert len(images) == len(labels) == 550
    assert np.bincount(labels).tolist() == [55] * 10


def test_source_is_stratified():
    source = digits.load_source()
    assert np.bincount(source.test[1]).tolist() == [15] * 10
    assert np.bincount(source.train[1]).min() >= 64


def test_labels_belong_to_their_digits(flat_photographs):
    plain, labels = digits._digits()
    known = dict(zip(as_keys(np.repeat(plain[..., None], 3, -1)), labels, strict=True))
    source, target = digits.load_source(), digits.load_target()
    flipped = (1 - target.test[0], target.test[1])
    for images, labels in (*source, target.train, flipped):
        assert [known[key] for key in as_keys(images)] == labels.tolist()


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("load", [digits.load_source, digits.load_target])
def test_images_are_float32_rgb_between_0_and_1(load, part):
    images, labels = getattr(load(), part)
    assert images.dtype == np.float32
    assert images.shape[1:] == (16, 16, 3)
    assert images.min() >= 0
    assert images.max() <= 1
    assert labels.dtype == np.int64


def test_the_same_seed_gives_the_same_data():
    first, second = digits.load_target(seed=3), digits.load_target(seed=3)
    np.testing.assert_array_equal(first.train[0], second.train[0])
    np.testing.assert_array_equal(first.unlabeled, second.unlabeled)
    np.testing.assert_array_equal(first.test[0], second.test[0])
    np.testing.assert_array_equal(
        digits.load_source().train[0], digits.load_source().train[0]
    )


def test_the_seed_only_changes_which_train_images_have_labels():
    first, second = digits.load_target(seed=0), digits.load_target(seed=1)
    np.testing.assert_array_equal(first.test[0], second.test[0])
    np.testing.assert_array_equal(first.test[1], second.test[1])
    assert set(as_keys(first.train[0])) != set(as_keys(second.train[0]))
    pools = [
        sorted(as_keys(np.concatenate([each.train[0], each.unlabeled])))
        for each in (first, second)
    ]
    assert pools[0] == pools[1]


def test_unlabeled_has_all_other_train_images():
    assert digits.load_target().unlabeled.shape == (300, 16, 16, 3)
    everything = digits.load_target(labels_per_class=40)
    assert everything.unlabeled.shape == (0, 16, 16, 3)
    assert everything.train[0].shape == (400, 16, 16, 3)


@pytest.mark.parametrize("count", [0, 41, 2.5, "ten"])
def test_bad_labels_per_class_raises(count):
    with pytest.raises(ValueError, match="1 to 40"):
        digits.load_target(labels_per_class=count)
