import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.export import export_serving
from keras_transfer.export import ImageBytes
from tests import tiny
from tests.export import files
from tests.export import plain_tensorflow


def bytes_of(images):
    return {"image_bytes": np.array(files.encoded(images), dtype=object)}


def resnet():
    backbone = files.shaken(tiny.cv_resnet(), 0.05)
    return kt.models.TransferClassifier(backbone, 3)


def same_model():
    """Return a model that returns its input."""
    inputs = keras.Input((16, 16, 3))
    return keras.Model(inputs, keras.layers.Identity()(inputs))


def resized(images, **kwargs):
    return np.concatenate(
        [tf.image.resize(files.pillow(f), (16, 16), **kwargs)[None] for f in images]
    )


def test_a_resnet_takes_jpeg_and_png_in_plain_tensorflow(tmp_path):
    model = resnet()
    raw = ImageBytes(scale=1 / 127.5, offset=-1)
    pictures = files.pictures()
    folder = export_serving(
        model, tmp_path, samples=files.encoded(pictures), preprocessor=raw
    )
    request = bytes_of(pictures)
    x = resized(request["image_bytes"]) / 127.5 - 1
    requests = [
        ("image_bytes", request),
        ("serving_default", {"inputs": x.astype("float32")}),
    ]
    by_bytes, by_floats = plain_tensorflow.serve(folder, requests)
    right = model(x, training=False).numpy()
    scale = np.abs(right).max()
    assert np.abs(by_floats["outputs"] - right).max() < 1e-6 * scale
    # Two JPEG decoders can differ by some units of 255.
    assert np.abs(by_bytes["outputs"] - right).max() < 0.003 * scale
    assert np.abs(right[0] - right[1]).max() > 0.03 * scale


def test_scale_and_offset_of_each_channel(tmp_path):
    raw = ImageBytes(scale=(1.0, 0.5, 0.1), offset=(0.0, 1.0, 2.0))
    image = np.full((16, 16, 3), 100, "uint8")
    png = tf.io.encode_png(image).numpy()
    folder = export_serving(same_model(), tmp_path, samples=[png], preprocessor=raw)
    request = {"image_bytes": np.array([png], dtype=object)}
    nothing = {"image_bytes": np.array([], dtype=object)}
    answer, empty = plain_tensorflow.serve(
        folder, [("image_bytes", request), ("image_bytes", nothing)]
    )
    np.testing.assert_allclose(answer["outputs"][0, 3, 5], [100, 51, 12], rtol=1e-6)
    assert empty["outputs"].shape == (0, 16, 16, 3)


def test_a_function_of_keras_applications(tmp_path):
    function = keras.applications.resnet50.preprocess_input
    png = tf.io.encode_png(files.pictures(1)[0]).numpy()
    folder = export_serving(
        same_model(), tmp_path, samples=[png], preprocessor=ImageBytes(function)
    )
    request = {"image_bytes": np.array([png], dtype=object)}
    (answer,) = plain_tensorflow.serve(folder, [("image_bytes", request)])
    right = function(resized([png]))
    np.testing.assert_allclose(answer["outputs"], right, rtol=0, atol=1e-3)


def test_images_are_resized_as_by_image_dataset_from_directory(tmp_path):
    (tmp_path / "pictures").mkdir()
    path = tmp_path / "pictures" / "1.png"
    path.write_bytes(tf.io.encode_png(files.pictures(1)[0]).numpy())
    dataset = keras.utils.image_dataset_from_directory(
        tmp_path / "pictures", labels=None, image_size=(16, 16), verbose=False
    )
    folder = export_serving(
        same_model(),
        tmp_path / "model",
        samples=[path.read_bytes()],
        preprocessor=ImageBytes(1),
    )
    request = {"image_bytes": np.array([path.read_bytes()], dtype=object)}
    (answer,) = plain_tensorflow.serve(folder, [("image_bytes", request)])
    (batch,) = dataset
    np.testing.assert_allclose(answer["outputs"], batch, rtol=0, atol=1e-4)


def test_a_gray_image_for_models_of_color_and_gray_images(tmp_path):
    gray = files.pictures(1)[0][..., :1]
    png = tf.io.encode_png(gray).numpy()
    for channels in (1, 3):
        inputs = keras.Input((20, 30, channels))
        model = keras.Model(inputs, keras.layers.Identity()(inputs))
        folder = export_serving(
            model,
            tmp_path,
            channels,
            samples=[png],
            preprocessor=ImageBytes(1, channels=channels),
        )
        request = {"image_bytes": np.array([png], dtype=object)}
        (answer,) = plain_tensorflow.serve(folder, [("image_bytes", request)])
        right = np.broadcast_to(gray, (20, 30, channels))
        np.testing.assert_allclose(answer["outputs"][0], right, atol=1)


def image_task():
    import keras_hub

    converter = keras_hub.layers.ImageConverter(
        image_size=(16, 16), scale=1 / 255, offset=-0.5
    )
    return keras_hub.models.ImageClassifier(
        backbone=files.shaken(tiny.hub_resnet(), 0.05),
        num_classes=3,
        preprocessor=keras_hub.models.ImageClassifierPreprocessor(converter),
    )


def test_an_image_task_takes_images_as_predict_does_and_files(tmp_path):
    task = image_task()
    pictures = files.pictures(2)
    folder = export_serving(
        task, tmp_path, samples=files.encoded(pictures), features=True
    )
    signatures = tf.saved_model.load(str(folder)).signatures
    assert set(signatures) == {
        "serving_default",
        "preprocessed",
        "image_bytes",
        "features",
    }
    png = [tf.io.encode_png(each).numpy() for each in pictures]
    requests = [("image_bytes", {"image_bytes": np.array(png, dtype=object)})]
    requests += [
        ("serving_default", {"inputs": each[None].astype("float32")})
        for each in pictures
    ]
    by_bytes, *by_arrays = plain_tensorflow.serve(folder, requests)
    right = np.concatenate([task.predict(x[None], verbose=0) for x in pictures])
    np.testing.assert_allclose(by_bytes["outputs"], right, rtol=1e-6, atol=1e-5)
    got = np.concatenate([each["outputs"] for each in by_arrays])
    np.testing.assert_allclose(got, right, rtol=1e-6, atol=1e-5)


def test_arrays_are_refused_as_samples_of_image_files(tmp_path):
    with pytest.raises(ValueError, match="image files as bytes"):
        export_serving(
            same_model(),
            tmp_path / "x",
            samples=np.ones((2, 16, 16, 3)),
            preprocessor=ImageBytes(1),
        )
    assert files.everything(tmp_path) == []


@pytest.mark.parametrize(
    "shape, raw, match",
    [
        ((None, None, 3), ImageBytes(1), "any size"),
        ((3, 16, 16), ImageBytes(1), "channels"),
        ((6,), ImageBytes(1), "images"),
        ((16, 16, 3), ImageBytes(1, channels=1), "channels"),
        ((16, 16, 3), ImageBytes(1, size=(8, 8)), None),
    ],
)
def test_models_with_other_inputs_are_refused(tmp_path, shape, raw, match):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    with pytest.raises((ValueError, TypeError), match=match):
        export_serving(model, tmp_path / "x", preprocessor=raw)
    assert files.everything(tmp_path) == []


def test_a_size_for_a_model_of_any_size(tmp_path):
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    png = tf.io.encode_png(files.pictures(1)[0]).numpy()
    raw = ImageBytes(1, size=(10, 12))
    folder = export_serving(model, tmp_path, samples=[png], preprocessor=raw)
    request = {"image_bytes": np.array([png], dtype=object)}
    (answer,) = plain_tensorflow.serve(folder, [("image_bytes", request)])
    right = tf.image.resize(files.pillow(png), (10, 12)).numpy().mean((0, 1))
    np.testing.assert_allclose(answer["outputs"][0], right, rtol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(scale=1, channels=2),
        dict(scale=1, interpolation="cubic"),
        dict(scale=abs, offset=1),
        dict(scale=(1, 2)),
        dict(scale=1, offset=(1, 2)),
    ],
)
def test_image_bytes_refuses_invalid_arguments(arguments):
    with pytest.raises(ValueError, match=r"is|numbers|must be one of"):
        ImageBytes(**arguments)
