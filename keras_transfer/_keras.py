"""The one file that touches Keras's private side; each use is pinned by a test."""

import contextlib
import functools
import inspect
import random
import sys
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras
import numpy as np
from keras import ops
from keras.src.backend import AutocastScope
from keras.src.backend import get_keras_mask
from keras.src.backend import set_keras_mask
from keras.src.backend.common import global_state
from keras.src.losses.loss import unscale_loss_for_distribution
from keras.src.random import seed_generator
from keras.src.saving import object_registration


def sublayers(layer: keras.Layer) -> list[keras.Layer]:
    """Return the direct children of `layer`, in the order Keras tracks them."""
    return list(layer._layers)


def own_weights(layer: keras.Layer) -> list[keras.Variable]:
    """Return the weights that `layer` holds itself; no seeds, no metrics."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def flat_layers(layer: keras.Layer) -> list[keras.Layer]:
    """Return `layer` and all below it once each, a parent before its children."""
    return list({id(each): each for each in layer._flatten_layers()}.values())


def train_only(
    model: keras.Model,
    variables: Iterable[keras.Variable],
    layers: Iterable[keras.Layer] | None = None,
) -> None:
    """Make exactly those of `variables` learn that can, and freeze the rest.

    A layer is frozen if nothing in or below it learns. One that holds statistics
    alone follows `layers`, those that learn; without `layers` it stays as it is.
    """
    able = {id(v) for each in flat_layers(model) for v in each._trainable_variables}
    learning = {id(variable) for variable in variables} & able
    chosen = None if layers is None else {id(layer) for layer in layers}
    for layer in flat_layers(model):
        weights = {id(weight) for weight in layer.weights}
        # Not by the setter, which would hand the flag down to all below.
        if weights & able:
            layer._trainable = bool(weights & learning)
        elif weights and chosen is not None:
            layer._trainable = id(layer) in chosen
    for weight in model.weights:
        weight.trainable = id(weight) in learning


def pinned(model: keras.Model) -> set[int]:
    """Return the ids of the variables that are frozen though their layer is not.

    Somebody froze them one by one: the kernels under Keras's LoRA, or in BitFit.
    """
    owners = {}
    for layer in flat_layers(model):
        for variable in layer._trainable_variables:
            owners.setdefault(id(variable), []).append(layer)
    frozen = {id(each) for each in model.weights if not each.trainable} & set(owners)
    return {
        each
        for each in frozen
        if all(
            # A parent is not frozen either if only its children learn.
            layer._trainable
            and (
                any(v.trainable for v in layer._trainable_variables)
                or not layer._layers
            )
            for layer in owners[each]
        )
    }


def learnable(layer: keras.Layer) -> list[keras.Variable]:
    """Return the weights of `layer` itself that follow its trainable flag."""
    return list(layer._trainable_variables)


def hold(layer: keras.Layer, variables: Iterable[keras.Variable]) -> None:
    """Freeze own `variables` of `layer` so that no trainable flag can thaw them."""
    tracker, chosen = layer._tracker, {id(each) for each in variables}
    held = [each for each in layer._trainable_variables if id(each) in chosen]
    for variable in held:
        tracker.untrack(variable)
        variable.trainable = False
    # In front of the others, so that the order of the weights stays.
    layer._non_trainable_variables[:0] = held
    tracker.stored_ids["non_trainable_variables"].update(map(id, held))


def release(layer: keras.Layer, variables: Sequence[keras.Variable]) -> None:
    """Let own `variables` of `layer`, and no others, follow its flag, in this order."""
    tracker = layer._tracker
    hold(layer, learnable(layer))
    for variable in variables:
        tracker.untrack(variable)
    layer._trainable_variables[:] = variables
    tracker.stored_ids["trainable_variables"].update(map(id, variables))


@contextlib.contextmanager
def listed(layer: keras.Layer, variables: Sequence[keras.Variable]) -> Iterator[None]:
    """Within the block own `variables` of `layer` are in the list of what learns."""
    learning, rest = layer._trainable_variables, layer._non_trainable_variables
    was, chosen = (list(learning), list(rest)), {id(each) for each in variables}
    learning[:] = variables
    rest[:] = [each for each in rest if id(each) not in chosen]
    try:
        yield
    finally:
        learning[:], rest[:] = was


def set_flag(layer: keras.Layer, value: bool) -> None:
    """Set the trainable flag of `layer` and of nothing below it."""
    layer._trainable = value


def add_child(layer: keras.Layer, name: str, child: keras.Layer) -> None:
    """Give a built `layer` one more sublayer, as its attribute `name`."""
    locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        setattr(layer, name, child)
    finally:
        layer._tracker.locked = locked


def remove_child(layer: keras.Layer, name: str) -> None:
    """Take away what `add_child` gave."""
    layer._tracker.untrack(getattr(layer, name))
    delattr(layer, name)


def inner_scope(layer: keras.Layer) -> Any:
    """Return the name scope in which `layer` makes its children's weights."""
    return layer._open_name_scope()


def no_autocast() -> Any:
    """Return a scope in which variables are read in their own dtype.

    In the call of a layer of mixed precision Keras casts them as they are read.
    """
    return AutocastScope(None)


def copy_mask(source: Any, target: Any) -> Any:
    """Return the tensor `target` with the Keras mask of `source`, if it has one."""
    mask = get_keras_mask(source)
    if mask is not None and target is not source:
        set_keras_mask(target, mask)
    return target


def in_strategy_of(layer: keras.Layer) -> bool:
    """Return whether the weights of `layer` were made under the present strategy."""
    if keras.backend.backend() != "tensorflow":
        return True
    import tensorflow as tf

    here = tf.distribute.get_strategy()
    here = None if here.num_replicas_in_sync == 1 else here
    return all(
        getattr(each._value, "distribute_strategy", None) is here
        for each in layer.weights
        if isinstance(each._value, tf.distribute.DistributedValues) or here is not None
    )


def save_as(kind: type, like: type) -> None:
    """Have objects of class `kind` saved under the registered name of `like`."""
    name = object_registration.GLOBAL_CUSTOM_NAMES[like]
    object_registration.GLOBAL_CUSTOM_NAMES[kind] = name


def flags(model: keras.Model) -> tuple[bool, ...]:
    """Return the trainable flag of `model` and of each layer below it."""
    return tuple(layer.trainable for layer in flat_layers(model))


def set_flags(
    model: keras.Model, layers: Sequence[bool], weights: Sequence[bool]
) -> None:
    """Set the flags of `flags(model)` and of `model.weights`, each by itself.

    Keras's setter would hand the flag of a layer down to all below it.
    """
    for layer, value in zip(flat_layers(model), layers, strict=True):
        layer._trainable = value
    for weight, value in zip(model.weights, weights, strict=True):
        weight.trainable = value


@contextlib.contextmanager
def flags_kept(model: keras.Model) -> Iterator[None]:
    """Give `model` its trainable flags back at the end, those of variables too."""
    layers = flags(model)
    weights = [weight.trainable for weight in model.weights]
    try:
        yield
    finally:
        set_flags(model, layers, weights)


def source(tensor: keras.KerasTensor) -> tuple[Any, int, list[keras.KerasTensor]]:
    """Return the operation that made a symbolic tensor, its call, and its inputs."""
    operation, call, _ = tensor._keras_history
    return operation, call, list(operation._inbound_nodes[call].input_tensors)


def has_mask(tensor: keras.KerasTensor) -> bool:
    """Return whether a symbolic tensor carries a Keras mask."""
    return getattr(tensor, "_keras_mask", None) is not None


def is_random(layer: keras.Layer) -> bool:
    """Return whether `layer` itself draws random numbers."""
    # Layers of keras-cv have a generator that Keras does not know of.
    return bool(layer._seed_generators) or hasattr(layer, "_random_generator")


def seeds(model: keras.Model) -> list[keras.Variable]:
    """Return the states of the random generators of `model`; Keras saves none."""
    return [
        generator.state
        for layer in flat_layers(model)
        for generator in layer._seed_generators
    ]


def compile_arguments(model: keras.Model) -> dict:
    """Return what was passed to compile(), the objects themselves.

    Where it was called again without a loss or metrics, Keras keeps the earlier ones.
    """
    arguments = dict(model._compile_config.config)
    loss, metrics = model._compile_loss, model._compile_metrics
    if arguments["loss"] is None and loss is not None:
        arguments["loss"] = loss._user_loss
        arguments["loss_weights"] = loss._user_loss_weights
    none = arguments["metrics"] is None and arguments["weighted_metrics"] is None
    if none and metrics is not None:
        arguments["metrics"] = metrics._user_metrics
        arguments["weighted_metrics"] = metrics._user_weighted_metrics
    return arguments


def scope(model: keras.Model) -> Any:
    """Return the scope of the tf.distribute strategy that `model` was made under."""
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.scope() if strategy else contextlib.nullcontext()


def replace_optimizer(model: keras.Model, optimizer: keras.Optimizer) -> None:
    """Give a compiled `model` another optimizer, in what it saves as well."""
    wrapper = model.optimizer
    if isinstance(wrapper, keras.optimizers.LossScaleOptimizer):
        settings = wrapper.get_config() | {"inner_optimizer": optimizer}
        model.optimizer = type(wrapper)(**settings)
    else:
        model.optimizer = optimizer
    compiled = model._compile_config.config
    # Keras keeps what the user passed to compile(), without its own wrapper.
    wrapped = isinstance(compiled["optimizer"], keras.optimizers.LossScaleOptimizer)
    compiled["optimizer"] = model.optimizer if wrapped else optimizer


@contextlib.contextmanager
def optimizer_kept(model: keras.Model) -> Iterator[None]:
    """Give a compiled `model` its optimizer back if an error ends the block."""
    optimizer, compiled = model.optimizer, model._compile_config.config
    passed = compiled["optimizer"]
    try:
        yield
    except BaseException:
        model.optimizer, compiled["optimizer"] = optimizer, passed
        raise


def made_in_scope(optimizer: keras.Optimizer, model: keras.Model) -> bool:
    """Return whether `optimizer` was made under the strategy of `model`."""
    strategy = getattr(model, "distribute_strategy", None)
    return getattr(optimizer, "_distribution_strategy", strategy) is strategy


def settings(optimizer: keras.Optimizer) -> dict:
    """Return the config of `optimizer` with its learning rate schedule as it is.

    A schedule of the user's own may have no config, or be known by no name.
    """
    rate = optimizer._learning_rate
    if isinstance(rate, keras.Variable):
        return optimizer.get_config()
    optimizer.__dict__["_learning_rate"] = 1.0
    try:
        return optimizer.get_config() | {"learning_rate": rate}
    finally:
        optimizer.__dict__["_learning_rate"] = rate


def decays(optimizer: keras.Optimizer, variable: keras.Variable) -> bool:
    """Return whether `optimizer` lets weight decay act on `variable`."""
    return optimizer._use_weight_decay(variable)


def value(variable: keras.Variable) -> np.ndarray:
    """Return what `variable` holds, on one device or several.

    Keras's own ways go through np.array(variable), which NumPy 2 warns about.
    """
    return np.asarray(ops.convert_to_tensor(variable))


def trained_by(optimizer: keras.Optimizer) -> list[keras.Variable]:
    """Return the variables that a built `optimizer` has slots for, in order."""
    return list(optimizer._trainable_variables)


def slots(
    optimizer: keras.Optimizer,
) -> Iterator[tuple[keras.Variable, keras.Variable]]:
    """Yield (model variable, optimizer variable) for all that is kept for one each.

    What is kept for all together, such as the count of updates, is left out.
    """
    kept = {id(variable) for variable in optimizer.variables}
    inner = [getattr(optimizer, "inner_optimizer", optimizer)]
    for each in [*inner, *getattr(optimizer, "optimizers", ())]:
        trained = trained_by(each) if each.built else []
        for name, values in vars(each).items():
            if name in ("_variables", "_trainable_variables"):
                continue
            # Keras keeps its slots in lists that run beside the variables.
            if not isinstance(values, list) or len(values) != len(trained):
                continue
            for variable, slot in zip(trained, values, strict=True):
                if id(slot) in kept:
                    kept.remove(id(slot))
                    yield variable, slot


def untrained(model: keras.Model) -> list[keras.Variable]:
    """Return the variables that no gradient may change: statistics, seeds, counts."""
    able = {id(v) for each in flat_layers(model) for v in each._trainable_variables}
    return [variable for variable in model.variables if id(variable) not in able]


def running_callbacks() -> Iterator[keras.callbacks.Callback]:
    """Yield the callbacks of the `fit` whose set_model() is being called, in order.

    Keras gives a callback no way to see its neighbours.
    """
    frame = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, keras.callbacks.CallbackList):
            yield from owner.callbacks
            return
        frame = frame.f_back


class Epoch(NamedTuple):
    """An epoch of a running `fit`: its number from 0, of how many, of which length."""

    number: int
    epochs: int
    steps: int | None


def running_epoch(model: keras.Model) -> Epoch | None:
    """Return the epoch that the `fit` of `model` begins; None if it begins none.

    To be called in `reset_metrics`, which `fit` calls at the beginning of each epoch.
    Keras tells callbacks the number of epochs and steps, but not the model.
    """
    frame = sys._getframe(1)
    while frame.f_code.co_name != "reset_metrics":
        frame = frame.f_back
    while frame.f_code.co_name == "reset_metrics":  # of subclasses too
        frame = frame.f_back
    found = frame.f_locals
    if frame.f_code.co_name != "fit" or found.get("self") is not model:
        return None
    iterator = found["epoch_iterator"]
    # Where the data does not know, Keras counts in the first epoch, one too many.
    batches = iterator.steps_per_epoch or iterator.data_adapter.num_batches
    return Epoch(found["epoch"], found["epochs"], batches)


def accumulated_steps(optimizer: keras.Optimizer) -> int:
    """Return how many batches make one update, 1 or more."""
    # A LossScaleOptimizer does not know; it is the one inside that accumulates.
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return inner.gradient_accumulation_steps or 1


@contextlib.contextmanager
def calls_through(layers: Iterable[keras.Layer], function: Any) -> Iterator[None]:
    """Within the block calls of `layers` go through `function(layer, call, x, ...)`."""
    layers = list(layers)
    for layer in layers:
        layer.__dict__["call"] = functools.partial(function, layer, layer.call)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["call"]


def label_loss(model: keras.Model, y: Any, outputs: Any, sample_weight: Any) -> Any:
    """Return the compiled loss of other outputs than those of `model`."""
    return model._compile_loss(y, outputs, sample_weight)


def gradient(function: Any, x: Any) -> Any:
    """Return the gradient of a scalar `function` at a tensor, as a constant."""
    if keras.backend.backend() != "tensorflow":
        raise NotImplementedError(
            f"Gradients inside a model need TensorFlow, not {keras.backend.backend()}."
        )
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        value = function(x)
    return tf.stop_gradient(tape.gradient(value, x))


def unscaled(value: Any) -> Any:
    """Return the value of a loss as it is on one replica, before it is shared out."""
    return unscale_loss_for_distribution(value)


class VariableRates:
    """Mixin for an optimizer: per variable a factor, a clock, a choice of decay.

    The step and the decoupled weight decay of variable `i` are multiplied by
    `factors[i]` and the factor of the phase. Bias corrections see `clock[i]`, the
    number of updates that variable has had. Clipping acts on the gradients summed over
    the replicas, as on one device. A subclass sets `decay_mask` and `initial_factors`
    before `build`.
    """

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        if replicas_here() > 1:
            mend_loss_scale()
        count = (len(variables),)
        settings = dict(aggregation="only_first_replica")
        # Not by assign(): the first trace of fit(), where this runs, is thrown away.
        factors = keras.initializers.Constant(self.initial_factors)
        self._factors = self.add_variable(
            count, factors, "float32", name="factors", **settings
        )
        self._phase_factor = self.add_variable(
            (), "ones", "float32", name="phase_factor", **settings
        )
        self._clock = self.add_variable(count, "zeros", "int", name="clock", **settings)
        # A phase that can end early: its number, first epoch, epochs without gain, and
        # the number of phases of its schedule.
        self._phase = self.add_variable((4,), "zeros", "int", name="phase", **settings)
        self._best = self.add_variable((), "zeros", "float32", name="best", **settings)

    def set_phase_factor(self, factor: float) -> None:
        """Multiply all rates by `factor`, beside the learning rate."""
        self._phase_factor.assign(factor)

    def factors_now(self) -> dict[int, float]:
        """Return what the rate of each variable is multiplied by, by its id."""
        factors = value(self._factors) * value(self._phase_factor)
        pairs = zip(trained_by(self), factors.tolist(), strict=True)
        return {id(variable): factor for variable, factor in pairs}

    @property
    def phase_state(self) -> tuple[int, int, int, int, float]:
        """Phase, its first epoch, epochs without gain, number of phases, best value."""
        return (*value(self._phase).tolist(), value(self._best).item())

    def set_phase_state(self, counts: Sequence[int], best: float) -> None:
        """Keep the state of a phase where a backup of the optimizer holds it."""
        self._phase.assign(counts)
        self._best.assign(best)

    @property
    def iterations(self) -> Any:
        """Updates so far; inside an update step, those of the variable at hand."""
        index = self.__dict__.get("_at")
        if index is None:
            return super().iterations
        return self._clock[index] // (self.gradient_accumulation_steps or 1)

    def apply(self, grads: Sequence, trainable_variables: Any = None) -> None:
        variables = trainable_variables or trained_by(self)
        super().apply(grads, trainable_variables)
        if len(grads):
            self._clock.assign_add(self._mask(variables, "int64"))

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        factor = self._factors[index] * self._phase_factor
        rate = ops.cast(learning_rate, "float32") * factor
        if self.weight_decay is not None and self.decay_mask[index]:
            weight_decay = ops.cast(self.weight_decay, variable.dtype)
            decay = variable * weight_decay * ops.cast(rate, variable.dtype)
            self.assign_sub(variable, decay)
        self.__dict__["_at"] = index
        try:
            self.scaled_step(gradient, variable, learning_rate, rate, factor)
        finally:
            self.__dict__["_at"] = None

    def scaled_step(
        self, gradient: Any, variable: Any, plain: Any, rate: Any, factor: Any
    ) -> None:
        """Make the parent's step at `rate`, which is `plain * factor`."""
        super().update_step(gradient, variable, rate)

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        # Keras pairs var_list with the averages by position, without comparing
        # their lengths: a frozen subset would get other layers' averages.
        if not self.use_ema:
            return
        averages = self._model_variables_moving_average
        updates = value(self._clock)
        for variable, average, count in zip(trained_by(self), averages, updates):
            if count:  # of the others somebody may have set the value since
                variable.assign(average)

    def _apply_weight_decay(self, variables: Sequence) -> None:
        """Do nothing: update_step decays at the variable's own rate."""

    def _clip_gradients(self, grads: Sequence) -> list:
        if keras.backend.backend() != "tensorflow":
            return super()._clip_gradients(grads)
        import tensorflow as tf

        # Adam squares the rows of a sparse gradient before it adds up repeated ones.
        grads = [tf.convert_to_tensor(each) for each in grads]
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync if context else 1
        clips = self.clipnorm or self.global_clipnorm or self.clipvalue
        if replicas == 1 or not clips:
            return super()._clip_gradients(grads)
        grads = context.all_reduce(tf.distribute.ReduceOp.SUM, grads)
        return [each / replicas for each in super()._clip_gradients(grads)]

    def _backend_apply_gradients(self, grads: Sequence, variables: Sequence) -> None:
        self.__dict__["_moving"] = self._mask(variables, bool)
        super()._backend_apply_gradients(grads, variables)

    def _update_model_variables_moving_average(self, variables: Sequence) -> None:
        if not self.use_ema:
            return
        first = ops.equal(self.iterations, 0)
        averages = self._model_variables_moving_average
        moving = self.__dict__["_moving"]
        for variable, average, moves in zip(variables, averages, moving, strict=True):
            keep = ops.where(first, 0.0, self.ema_momentum if moves else 1.0)
            keep = ops.cast(keep, variable.dtype)
            average.assign(keep * average + (1 - keep) * variable)

    def _mask(self, variables: Sequence, dtype: Any) -> np.ndarray:
        mask = np.zeros(len(trained_by(self)), dtype)
        mask[[self._get_variable_index(each) for each in variables]] = 1
        return mask


class AdafactorRates(VariableRates):
    """VariableRates where the parent caps the rate, so that the step is scaled."""

    def scaled_step(
        self, gradient: Any, variable: Any, plain: Any, rate: Any, factor: Any
    ) -> None:
        """Make the parent's step at `plain` and stretch it by `factor`."""
        before = ops.copy(ops.convert_to_tensor(variable))
        keras.optimizers.Adafactor.update_step(self, gradient, variable, plain)
        step = ops.convert_to_tensor(variable) - before
        self.assign_add(variable, ops.cast(factor - 1, variable.dtype) * step)


class NadamRates(VariableRates):
    """VariableRates where the product of momentum schedules is each variable's own."""

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._products = self.add_variable(
            (len(variables),),
            "ones",
            "float32",
            aggregation="only_first_replica",
            name="momentum_products",
        )

    def _backend_update_step(
        self, grads: Sequence, variables: Sequence, learning_rate: Any
    ) -> None:
        steps = self._clock // (self.gradient_accumulation_steps or 1) + 1
        momentum = self.beta_1 * (1 - 0.5 * 0.96 ** ops.cast(steps, "float32"))
        moves = self._mask(variables, bool)
        self._products.assign(self._products * ops.where(moves, momentum, 1.0))
        # Past Nadam's own override, which advances the shared product.
        super(keras.optimizers.Nadam, self)._backend_update_step(
            grads, variables, learning_rate
        )

    def scaled_step(
        self, gradient: Any, variable: Any, plain: Any, rate: Any, factor: Any
    ) -> None:
        """Make the parent's step with the product of `variable`."""
        shared = self._u_product
        self.__dict__["_u_product"] = self._products[self.__dict__["_at"]]
        try:
            super().scaled_step(gradient, variable, plain, rate, factor)
        finally:
            self.__dict__["_u_product"] = shared


def snapshot(variables: Iterable[keras.Variable]) -> list[list[np.ndarray]]:
    """Return what each variable holds, on each replica: they may differ."""
    return [[_to_numpy(part) for part in _parts(each)] for each in variables]


def restore(
    variables: Iterable[keras.Variable], values: Iterable[Sequence[np.ndarray]]
) -> None:
    """Give `variables` what `snapshot` returned, bit for bit."""
    for variable, arrays in zip(variables, values, strict=True):
        for part, array in zip(_parts(variable), arrays, strict=True):
            (part if hasattr(part, "assign") else variable).assign(array)


def _parts(variable: keras.Variable) -> Sequence:
    return getattr(variable._value, "values", (variable._value,))


def _to_numpy(tensor: Any) -> np.ndarray:
    return tensor.numpy() if hasattr(tensor, "numpy") else np.array(tensor)


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Give back the random state of Python, NumPy, Keras and eager TensorFlow."""
    name = seed_generator.GLOBAL_SEED_GENERATOR
    keras_seed = global_state.get_global_attribute(name)
    keras_state = keras_seed and snapshot([keras_seed.state])
    python_state, numpy_state = random.getstate(), np.random.get_state()
    tensorflow_seed = None
    if keras.backend.backend() == "tensorflow":
        from tensorflow.python.eager import context

        # It is there once a seed was set; without one nothing can be repeated.
        tensorflow_seed = getattr(context.context(), "_rng", None)
        tensorflow_state = tensorflow_seed and tensorflow_seed.getstate()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        # One that was made meanwhile goes: Python's state would seed it again alike.
        global_state.set_global_attribute(name, keras_seed)
        if keras_seed:
            restore([keras_seed.state], keras_state)
        if tensorflow_seed:
            tensorflow_seed.setstate(tensorflow_state)


# Several replicas and several workers. Each mend is put in place once, by whoever needs
# it, and only while Keras still has the line that it mends.

_MENDED = set()


def mend_workers() -> list[str]:
    """Have Keras train under several workers; return the names of what was mended.

    The symbolic build of keras 3.15 reduces a tuple, and the results of a step are
    reduced along an axis that a scalar has not (keras-team/keras#20585). One worker
    and all other strategies go through Keras's own code.
    """
    from keras.src.backend.tensorflow import trainer

    kind = trainer.TensorFlowTrainer
    return [
        *_mend(
            kind,
            "_maybe_symbolic_build",
            _build_on_local_batch,
            fault="self.distribute_strategy.reduce(",
        ),
        *_mend(
            trainer,
            "reduce_per_replica",
            _reduce_whole_values,
            fault='("MEAN", v, axis=0)',
        ),
    ]


def mend_loss_scale() -> list[str]:
    """Have float16 skip a step on all replicas if one of them overflows.

    Keras asks the first replica alone, and adds what overflowed on another to the
    weights. The gradients it asks about are not yet summed over the replicas.
    """
    kind = keras.optimizers.LossScaleOptimizer
    fault = "`finite` from the first replica"
    return _mend(kind, "check_finite", _finite_on_all, fault=fault, where="_tf_apply")


def _mend(
    owner: Any, name: str, mend: Any, *, fault: str, where: str | None = None
) -> list[str]:
    """Replace `name` of `owner` if the source of it, or of `where`, has the fault."""
    stock = getattr(owner, name)
    if stock in _MENDED:
        return []
    try:
        faulty = fault in inspect.getsource(getattr(owner, where or name))
    except OSError:  # no source is installed; a mend does no harm without its fault
        faulty = True
    if faulty:
        setattr(owner, name, mend(stock))
        _MENDED.add(getattr(owner, name))
    return [name] if faulty else []


def _build_on_local_batch(stock: Any) -> Any:
    def maybe_symbolic_build(
        self: keras.Model, iterator: Any = None, data_batch: Any = None
    ) -> None:
        strategy = self.distribute_strategy
        if iterator is not None and several_workers(strategy):
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(
                    lambda value: strategy.experimental_local_results(value)[0],
                    next(batches),
                )
                break
            iterator = None
        stock(self, iterator, data_batch)

    return maybe_symbolic_build


def _reduce_whole_values(stock: Any) -> Any:
    def reduce_per_replica(values: Any, strategy: Any, reduction: str) -> Any:
        import tensorflow as tf

        kinds = {"auto": "MEAN", "mean": "MEAN", "sum": "SUM"}
        if reduction not in kinds or not several_workers(strategy):
            return stock(values, strategy, reduction)

        def reduce(value: Any) -> Any:
            if not tf.is_tensor(value):  # those of several replicas count as tensors
                return value
            return strategy.reduce(kinds[reduction], value, axis=None)

        return keras.tree.map_structure(reduce, values)

    return reduce_per_replica


def _finite_on_all(stock: Any) -> Any:
    def check_finite(self: keras.optimizers.LossScaleOptimizer, grads: Any) -> Any:
        finite = stock(self, grads)
        if keras.backend.backend() != "tensorflow":
            return finite
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return finite
        overflows = ops.cast(ops.logical_not(finite), "float32")
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, overflows)
        return ops.equal(total, 0)

    return check_finite


def several_workers(strategy: Any) -> bool:
    """Return whether `strategy` trains on several workers, each its own process."""
    import tensorflow as tf

    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and (
        strategy.extended._in_multi_worker_mode()
    )


def sees_mask(layer: keras.Layer) -> bool:
    """Return whether a symbolic call of `layer` was given a masked tensor."""
    nodes = layer._inbound_nodes
    return any(has_mask(tensor) for node in nodes for tensor in node.input_tensors)


def parameter_servers(strategy: Any) -> bool:
    """Return whether `strategy` keeps variables on parameter servers."""
    import tensorflow as tf

    first = tf.compat.v1.distribute.experimental.ParameterServerStrategy
    return isinstance(strategy, (tf.distribute.ParameterServerStrategy, first))


def replicas_here() -> int:
    """Return the number of replicas of the strategy in whose scope this is called."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync
