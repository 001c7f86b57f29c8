"""Have BatchNormalization see the batch of all replicas."""

import keras

from keras_transfer import _keras


def synchronize_batch_norm(model: keras.Model) -> keras.Model:
    """Have each BatchNormalization of `model` normalize by the batch of all replicas.

    By default a replica takes mean and variance from its own share of the batch, so
    several replicas do not train as one, least of all with few examples on each. The
    moving averages also differ from replica to replica; Keras saves and evaluates
    those of the first. Synchronized, each layer adds up count, sum and sum of squares
    over the replicas, and all replicas do and hold what one would:

        mean = sum x / n,  variance = sum x^2 / n - mean^2

    with both sums over the `n` positions of the whole batch. It costs three
    all-reduces a layer and step. A frozen BatchNormalization, the default below the
    head in `GradualUnfreezing` and `FrozenBackbone`, uses its moving averages and
    needs none of this. The switch is the layer's own argument `synchronized`, which is
    changed in place. Files keep it with the layer's config; a keras-hub backbone makes
    its layers anew from a config of its own, so call this again after loading one.

    Args:
        model: A model that holds `keras.layers.BatchNormalization`, at any depth,
            those of keras-hub and keras-cv included.

    Returns:
        `model` itself.

    Raises:
        ValueError: If there is no BatchNormalization in `model`, or one that gets a
            mask, under which Keras does not add up; `model` is then as it was.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        layers = [keras.layers.Dense(3), keras.layers.BatchNormalization()]
        model = keras.Sequential([keras.Input((4,)), *layers])
        kt.distribute.synchronize_batch_norm(model)
        assert model.layers[1].synchronized
        ```

    Reference:
        Peng et al. 2018, MegDet: A Large Mini-Batch Object Detector, arXiv:1711.07240,
        section 3.3.
    """
    kind = keras.layers.BatchNormalization
    found = [each for each in _keras.flat_layers(model) if isinstance(each, kind)]
    if not found:
        raise ValueError(
            f"There is no BatchNormalization in {model.name!r}: there is nothing to "
            "synchronize."
        )
    masked = [each.name for each in found if _keras.sees_mask(each)]
    if masked:
        raise ValueError(
            f"{masked} get a mask, and Keras does not add up statistics under one. "
            "Freeze them (layer.trainable = False), or use LayerNormalization."
        )
    for layer in found:
        layer.synchronized = True
    if model.train_function is not None:
        _keras.remake_functions(model, "train")  # the present one was traced without
    return model
