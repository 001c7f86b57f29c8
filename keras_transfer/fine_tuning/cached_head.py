"""The head of a model, trained alone on features that are computed once."""

from __future__ import annotations

import pathlib
import time
import warnings
from collections.abc import Mapping
from typing import Any

import keras

from keras_transfer import _keras
from keras_transfer.backbones.feature_cache import cache_features
from keras_transfer.backbones.groups import LayerGroup
from keras_transfer.data.epochs import Epochs
from keras_transfer.data.epochs import repeated
from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import kind_of
from keras_transfer.fine_tuning.converged_head import converge
from keras_transfer.fine_tuning.cut_at_head import cut_at_head
from keras_transfer.fine_tuning.solved_head import solve_head

# If the model overrides one of these, a separate head would train differently.
STEPS = ("call", "train_step", "test_step", "compute_loss", "compute_metrics")

AUTOTUNE = -1  # tf.data.AUTOTUNE
RATE = 1e-3  # of Adam for a head, where the optimizer of the model has a schedule


def cached_head(
    model: keras.Model,
    group: LayerGroup,
    data: Any,
    validation_data: Any,
    made_labels: bool,
) -> tuple[CachedHead | None, str | None]:
    """Return the head that can train on cached features, or None and the reason.

    Args:
        model: A built and compiled model.
        group: Its last layer group.
        data: Training data: a tuple of arrays, a dataset, or a PyDataset.
        validation_data: Validation data of the same types, or None.
        made_labels: Whether the preprocessor of the model creates the labels.
    """
    head = CachedHead(model, group)
    try:
        if made_labels:
            raise ValueError("the preprocessor may create new labels in each pass")
        head.cut()
        for each, role in ((data, "of training"), (validation_data, "of validation")):
            if each is not None and kind_of(each) != ARRAYS:
                repeated(each, role)
    except ValueError as reason:
        return None, str(reason)
    return head, None


class CachedHead:
    """Fit only a head, with the loss, metrics and optimizer of the whole model.

    The head shares its layers and its optimizer with the model. Training the head
    therefore trains the model, and the next phase continues from there.

    Args:
        model: A built and compiled model.
        group: Its last layer group.
    """

    def __init__(self, model: keras.Model, group: LayerGroup) -> None:
        self.model = model
        self.group = group
        self.body = self.head = None
        self.seconds = 0.0  # time for computing features since the last epoch

    def cut(self) -> None:
        """Split the model into a body, which computes the features, and the head.

        Raises:
            ValueError: If features below the head cannot be cached. The error says why.
        """
        model = self.model
        for name in STEPS:
            if getattr(model, name).__module__.partition(".")[0] != "keras":
                raise ValueError(f"{type(model).__name__} has its own {name}")
        if _keras.inner_optimizer(model.optimizer).use_ema:
            raise ValueError("the optimizer keeps moving averages of all weights")
        with _keras.scope(model):
            self.body, self.head = cut_at_head(model, self.group)
        self.head.stop_training = False  # `fit` sets this attribute too

    def features(self, dataset: Any, path: pathlib.Path | None, verbose: int) -> tuple:
        """Return arrays of features, labels and, if available, sample weights."""
        began = time.perf_counter()
        weighted = len(dataset.element_spec) == 3
        preprocessor = getattr(self.model, "preprocessor", None)
        if preprocessor is not None:
            dataset = dataset.map(preprocessor, num_parallel_calls=AUTOTUNE)
        with warnings.catch_warnings():
            # The dataset may shuffle, because only one pass is read.
            warnings.filterwarnings("ignore", message="Two passes over the dataset")
            rows = cache_features(self.body, dataset, path, verbose=verbose)
        arrays = next(rows.batch(len(rows)).as_numpy_iterator())
        self.seconds += time.perf_counter() - began
        return arrays if weighted else arrays[:2]

    def fit(
        self, train: Epochs, callbacks: keras.callbacks.CallbackList, **settings: Any
    ) -> None:
        """Fit the head, with callbacks whose `model` is the whole model."""
        arguments = _keras.compile_arguments(self.model)
        # The optimizer of the model is already wrapped if mixed precision needs it.
        arguments |= {"optimizer": self.model.optimizer, "auto_scale_loss": False}
        with _keras.scope(self.model):
            self.head.compile(**arguments)
            _keras.remake_functions(self.head, "train", "test")
        self.head.history = None  # the model gets the History
        # Head and model share the user's metrics, and Keras resets the metrics of a
        # model only after it has built them.
        self.model.reset_metrics()
        _keras.trace_once(self.head, train.dataset)
        self.head.fit(train.dataset, callbacks=callbacks, shuffle=False, **settings)
        self.head.reset_metrics()

    def converge(
        self,
        arrays: tuple,
        class_weight: Mapping[int, float] | None,
        batch_size: int,
        seed: int,
    ) -> str:
        """Train the head to its end on features, and return how.

        A linear head is solved by scikit-learn, any other head trains until the loss
        of held-out examples stops falling.

        Args:
            arrays: Tuple `(features, y)` or `(features, y, sample_weight)`.
            class_weight: Dict from class number to weight, or None.
            batch_size: Examples per batch.
            seed: Seed of the held-out part and of the order of examples.
        """
        loss = _keras.compile_arguments(self.model)["loss"]
        solved = solve_head(self.head, arrays, loss, class_weight)
        if solved is not None:
            return solved
        optimizer = _keras.inner_optimizer(self.model.optimizer)
        rate = _keras.settings(optimizer)["learning_rate"]
        with _keras.scope(self.model):
            return converge(
                self.head,
                arrays,
                loss=loss,
                class_weight=class_weight,
                batch_size=batch_size,
                learning_rate=rate if isinstance(rate, float) else RATE,
                seed=seed,
            )
