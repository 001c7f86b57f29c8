"""Contrastive fine-tuning: few labels make many pairs, which train the backbone."""

from __future__ import annotations

import numbers

import keras

from keras_transfer import _keras
from keras_transfer.backbones.training_flags import train_only
from keras_transfer.callbacks.phases import able_groups
from keras_transfer.callbacks.phases import Phase
from keras_transfer.callbacks.phases import Phases
from keras_transfer.data.epochs import Epochs
from keras_transfer.fine_tuning.pilot.held_out import classes_of
from keras_transfer.fine_tuning.pilot.held_out import read_examples
from keras_transfer.fine_tuning.rates import update_schedule
from keras_transfer.fine_tuning.run import Run
from keras_transfer.fine_tuning.stays_finite import StaysFinite
from keras_transfer.fine_tuning.strategies import CONTRASTIVE
from keras_transfer.losses.cosine_pairs import CosinePairs
from keras_transfer.optimizers.discriminative import Discriminative
from keras_transfer.optimizers.discriminative import discriminative
from keras_transfer.optimizers.discriminative import with_rate_table

# Each epoch of the run is this many passes over the examples, as far as all passes
# together stay below `MOST_STEPS`.
PASSES = 8
MOST_STEPS = 500
RATE = 1e-3  # where the optimizer of the model has a schedule


class PairTraining:
    """Train the layers below the head so that cosine similarities follow the labels.

    The constructor checks whether this is possible, and changes nothing.

    Args:
        run: A run with the strategy "contrastive".

    Raises:
        ValueError: If the model cannot be split below its head, if its features are not
            one vector, or if the labels are not one class for each example.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        what = f"strategy={CONTRASTIVE!r}"
        if run.folder:
            raise ValueError(
                f"{what} cannot continue a run, so it cannot save one in `directory`. "
                "Leave `directory` out."
            )
        if run.cached is None:
            raise ValueError(
                f"{what} trains the layers below the head alone, but the model cannot "
                f"be split there: {run.uncached}. Use another strategy."
            )
        shapes = [tuple(each.shape) for each in run.cached.body.outputs]
        if len(shapes) != 1 or len(shapes[0]) != 2:
            raise ValueError(
                f"{what} compares one vector for each example, but the features below "
                f"the head have the shapes {shapes}. Use a model with a pooling layer, "
                "such as kt.models.TransferClassifier."
            )
        if run.made_labels or classes_of(run, run.inputs.labels) is None:
            raise ValueError(
                f"{what} makes pairs of examples of one class and of two classes, but "
                f"the loss and labels of {run.model.name!r} are not one class for each "
                "example. Use another strategy."
            )
        policy, head = run.unfreezing.phases.batch_norm, run.groups.names[-1]
        names = able_groups(run.groups, policy, run.kept.ids)
        below = Phase(tuple(name for name in names if name != head))
        self.phases = Phases(run.groups, [below], policy, run.kept.ids)

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables that train."""
        return self.phases.variables(*self.phases)

    def train(self) -> None:
        """Train, and store the mean loss of each pass in the History of the run."""
        run, body = self.run, self.run.cached.body
        arrays = read_examples(run, run.num_examples)
        classes = classes_of(run, arrays[1])
        data = Epochs(
            (arrays[0], classes, *arrays[2:]),
            run.batch_size,
            run.seed,
            replicas=run.replicas,
        )
        most = max(run.epochs, MOST_STEPS // data.batches)
        passes = min(PASSES * run.epochs, most)
        train_only(run.model, self.variables, self.phases.layers(self.phases[0]))
        with _keras.scope(run.model):
            optimizer = self._optimizer(passes * data.batches)
            body.compile(optimizer, CosinePairs(), jit_compile=False)
        kind = keras.callbacks.TerminateOnNaN
        checks = [x for x in run.callbacks if isinstance(x, kind)] or [StaysFinite()]
        _keras.trace_once(body, data.dataset)
        history = body.fit(
            data.dataset,
            epochs=passes,
            callbacks=[data.clock, *checks],
            shuffle=False,
            verbose=0,
        )
        losses = history.history["loss"]
        run.history.pair_losses = losses
        if run.verbose:
            fell = losses[-1] < losses[0]
            print(
                f"the layers below the head trained on pairs, in {passes} passes of "
                f"{data.batches} steps: the loss {'fell' if fell else 'rose'} from "
                f"{losses[0]:.4f} to {losses[-1]:.4f}"
                + ". Use a smaller learning rate"
                * (not fell)
            )

    def _optimizer(self, steps: int) -> keras.Optimizer:
        """Return an optimizer with the settings of the model's, and a new schedule."""
        optimizer = _keras.inner_optimizer(self.run.model.optimizer)
        if not isinstance(optimizer, Discriminative):
            optimizer = discriminative(optimizer, self.run.groups, layer_decay=1.0)
        table = optimizer.rate_table.excluding(optimizer)
        rate = _keras.settings(optimizer)["learning_rate"]
        rate = float(rate) if isinstance(rate, numbers.Real) else RATE
        updates = max(1, steps // (optimizer.gradient_accumulation_steps or 1))
        schedule = update_schedule(rate * self.run.share, updates, [0])
        return with_rate_table(optimizer, table, learning_rate=schedule)
