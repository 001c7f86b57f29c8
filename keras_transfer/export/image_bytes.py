"""ImageBytes: decode, resize and scale encoded images in the graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_transfer._arguments import one_of
from keras_transfer.export.request import Entry
from keras_transfer.export.request import fitted
from keras_transfer.export.request import raw_entry

INTERPOLATIONS = ("bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5")


@dataclasses.dataclass(frozen=True)
class ImageBytes:
    """Decodes, resizes and scales images in the graph, for `kt.export_serving`.

    An image file is decoded to values `v` from 0 to 255 and resized to the height and
    width of the model's input. The input of the model is then

        x = v * scale + offset

    or `scale(v)` if `scale` is a function. The range of values that a model needs
    cannot be read from the model, so `scale` has no default. Use 1 for raw values (many
    models of keras.applications scale them inside), `1 / 255` for values from 0 to 1,
    and `1 / 127.5` with an offset of -1 for values from -1 to 1. The files can be JPEG,
    PNG, GIF (only the first frame is used) or BMP. The orientation in the metadata of a
    photo is ignored. Images are resized as by
    `keras.utils.image_dataset_from_directory`, without antialiasing and cropping.

    Args:
        scale: Factor, as one number or one number for each channel, or a function of a
            float32 tensor `(batch, height, width, channels)`, such as the
            `preprocess_input` of a model of keras.applications.
        offset: Number that is added after scaling, as one number or one number for
            each channel. Defaults to 0.0.
        size: Height and width in pixels. Defaults to None, which uses the size of the
            model's input.
        channels: 3 for color, 1 for grayscale. Defaults to 3.
        interpolation: `"bilinear"`, `"nearest"`, `"bicubic"`, `"area"`, `"lanczos3"`
            or `"lanczos5"`. Defaults to `"bilinear"`.

    Example:
        ```python
        import keras_transfer as kt

        zero_to_one = kt.export.ImageBytes(scale=1 / 255)
        minus_one_to_one = kt.export.ImageBytes(scale=1 / 127.5, offset=-1)
        ```

    Raises:
        ValueError: If an argument is out of range, or an offset is combined with a
            function.

    Reference:
        TensorFlow, `tf.io.decode_image` and `tf.image.resize`; TensorFlow Serving,
        "RESTful API", for bytes as `{"b64": ...}`.
    """

    scale: float | Sequence[float] | Callable
    offset: float | Sequence[float] = 0.0
    size: tuple[int, int] | None = None
    channels: int = 3
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(
                f"channels is {self.channels!r}. Pass 3 for color, 1 for grayscale."
            )
        one_of("interpolation", self.interpolation, INTERPOLATIONS)
        if callable(self.scale) and self.offset != 0.0:
            raise ValueError(
                f"offset is {self.offset!r}, but scale is a function, which ignores "
                "an offset. Add the offset inside the function."
            )
        for name, value in (("scale", self.scale), ("offset", self.offset)):
            count = len(value) if isinstance(value, Sequence) else 1
            if count not in (1, self.channels):
                raise ValueError(
                    f"{name} is {value!r}: {count} numbers for {self.channels} "
                    "channels. Pass one number, or one number for each channel."
                )

    def entry(self, plain: Entry) -> Entry:
        """Return the entry for image files of a model whose own entry is `plain`.

        Raises:
            ValueError: If the model does not take one image, or the size is unknown.
        """
        if len(plain.specs) != 1:
            raise ValueError(
                f"The model has the inputs {sorted(plain.specs)}, but ImageBytes gives "
                "one input. Export a model whose only input is the image."
            )
        (spec,) = plain.specs.values()
        shape = tuple(spec.shape[1:])
        if len(shape) != 3 or shape[2] not in (None, self.channels):
            raise ValueError(
                f"The model takes inputs of shape {shape} per example, but ImageBytes "
                f"gives (height, width, {self.channels}). Set channels, or export a "
                "model that takes images with channels last."
            )
        size = self.size or shape[:2]
        if None in size:
            raise ValueError(
                f"The model takes images of any size, {shape}, but all images of a "
                "batch need the same size. Pass size=(height, width) to ImageBytes."
            )

        def prepare(tensors: dict[str, tf.Tensor]) -> object:
            pixels = decoded(tensors["image_bytes"], size, self._resized)
            return fitted(self._scaled(pixels), plain, "ImageBytes")

        return raw_entry({"image_bytes": bytes_spec()}, prepare)

    def _resized(self, image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
        if self.channels == 1:
            image = tf.image.rgb_to_grayscale(image)
        pixels = tf.image.resize(image, size, method=self.interpolation)
        return tf.cast(pixels, tf.float32)

    def _scaled(self, pixels: tf.Tensor) -> tf.Tensor:
        if callable(self.scale):
            return self.scale(pixels)
        scale, offset = (tf.constant(x, "float32") for x in (self.scale, self.offset))
        return pixels * scale + offset


def image_entries(preprocessor: keras.Layer, plain: Entry) -> dict[str, Entry]:
    """Return the entries of an image Task, whose preprocessor resizes and scales.

    `serving_default` takes what the Task's `predict` takes, images of the same size
    with values from 0 to 255. `image_bytes` takes files of images of different sizes.
    """
    what = f"The preprocessor {type(preprocessor).__name__}"
    (name,) = plain.specs
    size = tuple(plain.specs[name].shape[1:3])
    if None in size:
        size = tuple(preprocessor.image_converter.image_size or size)
    if None in size:
        raise ValueError(
            "The Task takes images of any size, but all images of a batch need the "
            "same size. Set the image_size of its image_converter."
        )

    def prepare(tensors: dict[str, tf.Tensor]) -> object:
        return fitted(preprocessor(tensors[name]), plain, what)

    def prepare_bytes(tensors: dict[str, tf.Tensor]) -> object:
        def resize(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
            return tf.cast(preprocessor(image), tf.float32)

        return fitted(decoded(tensors["image_bytes"], size, resize), plain, what)

    files = {"image_bytes": bytes_spec()}
    images = tf.TensorSpec((None, None, None, 3), tf.float32, name=name)
    return {
        "serving_default": raw_entry({name: images}, prepare, preprocessor),
        "preprocessed": plain,
        "image_bytes": raw_entry(files, prepare_bytes, preprocessor),
    }


def bytes_spec() -> tf.TensorSpec:
    """Return the spec of a tensor of encoded images."""
    # TensorFlow Serving's REST API expects that the name of binary data ends in
    # "_bytes".
    return tf.TensorSpec((None,), tf.string, name="image_bytes")


def decoded(
    files: tf.Tensor,
    size: tuple[int, int],
    resize: Callable[[tf.Tensor, tuple[int, int]], tf.Tensor],
) -> tf.Tensor:
    """Decode and resize images to one batch of float32.

    The images are processed one by one, because their sizes differ.
    """
    shape = tf.TensorShape((*size, None))

    def read(file: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(resize(pixels_of(file), size), shape)

    return tf.map_fn(read, files, fn_output_signature=tf.TensorSpec(shape, tf.float32))


def pixels_of(file: tf.Tensor) -> tf.Tensor:
    """Return one encoded image as uint8 `(height, width, 3)`."""
    image = tf.io.decode_image(file, channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))
