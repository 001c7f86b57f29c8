"""What must be the same in a model after a training that failed, or a pilot."""

from keras_transfer import _keras
from keras_transfer.adapters.switching import attached
from keras_transfer.data.class_names import class_names_of


def state(model):
    """Return a list of objects, and a list of the values of all variables."""
    return [
        id(model.optimizer),
        model.optimizer.built,
        id(_keras.compile_arguments(model)["optimizer"]),
        _keras.flags(model),
        [type(layer) for layer in model.layers],
        [weight.path for weight in model.variables],
        [weight.trainable for weight in model.weights],
        id(model.train_function),
        id(model.test_function),
        id(getattr(model, "history", None)),
        model.stop_training,
        class_names_of(model),
        attached(model),
    ], [_keras.value(each) for each in model.variables]
