"""BatchNormalization over the whole batch of all replicas."""

import keras

from keras_transfer import _keras


def synchronize_batch_norm(model: keras.Model) -> keras.Model:
    """Normalize over the batch of all replicas in each BatchNormalization of `model`.

    By default each replica computes mean and variance from its own share of the batch.
    Training then differs from training on one device, most of all with few examples
    on each replica. The moving averages also differ between replicas, and Keras saves
    and evaluates the averages of the first replica. A synchronized layer adds up the
    count, the sum and the sum of squares over all replicas. Every replica then gets
    the statistics that one device computes from the whole batch of `n` positions:

        mean = sum x / n,  variance = sum x^2 / n - mean^2

    This costs three all-reduces for each layer and step. A frozen BatchNormalization
    uses its moving averages and does not need this function. By default
    `GradualUnfreezing` and `FrozenBackbone` freeze it in the backbone. The function
    sets the layer's argument `synchronized`. A saved model keeps this setting, except
    in a keras-hub backbone, which rebuilds its layers from its own config. Call this
    function again after you load a keras-hub backbone.

    Args:
        model: `keras.Model` that contains `keras.layers.BatchNormalization` at any
            depth, including the layers of keras-hub and keras-cv.

    Returns:
        `model` itself.

    Raises:
        ValueError: If `model` has no BatchNormalization, or has one that gets a mask,
            which Keras cannot synchronize. In both cases `model` is unchanged.
        NotImplementedError: On JAX, where a layer sees the whole batch.

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
    instead = "On JAX a layer sees the whole batch already. Leave out this call."
    what = "kt.distribute.synchronize_batch_norm"
    _keras.check_backend("tensorflow", what, instead)
    kind = keras.layers.BatchNormalization
    norms = [layer for layer in _keras.flat_layers(model) if isinstance(layer, kind)]
    if not norms:
        raise ValueError(
            f"The model {model.name!r} has no BatchNormalization, so there is nothing "
            "to synchronize. Leave out this call."
        )
    masked = [layer.name for layer in norms if _keras.sees_mask(layer)]
    if masked:
        raise ValueError(
            f"The layers {masked} get a mask, and Keras cannot synchronize statistics "
            "with a mask. Freeze these layers (layer.trainable = False), or use "
            "LayerNormalization."
        )
    for layer in norms:
        layer.synchronized = True
    if model.train_function is not None:
        _keras.remake_functions(model, "train")  # the old one does not synchronize
    return model
