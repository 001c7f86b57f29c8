"""Keras with tf.distribute: scopes, replicas, workers, and fixes of Keras bugs."""

import contextlib
import inspect
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


def replicas_here() -> int:
    """Return the number of replicas of the current strategy."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def replicas_in_step() -> int:
    """Return the number of replicas in the current step, or 1 outside a step."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if context else 1


def sum_over_replicas(tensors: Any) -> Any:
    """Return the tensors, each summed over the replicas of the current step."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tensors)


def mean_over_replicas(x: Any) -> Any:
    """Return a tensor as its mean over the replicas of the current step."""
    count = replicas_in_step()
    return x if count == 1 else sum_over_replicas(x) / count


def dense(gradients: Sequence) -> list:
    """Return dense `gradients`, with the repeated rows of sparse gradients summed.

    An Embedding has sparse gradients. Keras's Adam squares repeated rows separately.
    """
    if keras.backend.backend() != "tensorflow":
        return list(gradients)
    import tensorflow as tf

    return [tf.convert_to_tensor(gradient) for gradient in gradients]


def scope(model: keras.Model) -> Any:
    """Return the scope of the tf.distribute strategy that `model` was made under."""
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.scope() if strategy else contextlib.nullcontext()


def in_strategy_of(layer: keras.Layer) -> bool:
    """Return whether the weights of `layer` were made under the current strategy."""
    if keras.backend.backend() != "tensorflow":
        return True
    import tensorflow as tf

    current = tf.distribute.get_strategy()
    current = None if current.num_replicas_in_sync == 1 else current
    values = [weight._value for weight in layer.weights]
    return all(
        getattr(value, "distribute_strategy", None) is current
        for value in values
        if isinstance(value, tf.distribute.DistributedValues) or current is not None
    )


def several_workers(strategy: Any) -> bool:
    """Return whether `strategy` trains on several worker processes."""
    import tensorflow as tf

    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and (
        strategy.extended._in_multi_worker_mode()
    )


_FIXED = set()


def fix_workers() -> list[str]:
    """Fix Keras's training with several workers, and return the names of the fixes.

    In keras 3.15 the symbolic build reduces a tuple, and the results of a step are
    reduced along an axis that a scalar does not have (keras-team/keras#20585). With one
    worker, and with all other strategies, Keras's own code runs.
    """
    from keras.src.backend.tensorflow import trainer

    kind = trainer.TensorFlowTrainer
    return [
        *_fix(
            kind,
            "_maybe_symbolic_build",
            _build_on_local_batch,
            fault="self.distribute_strategy.reduce(",
        ),
        *_fix(
            trainer,
            "reduce_per_replica",
            _reduce_whole_values,
            fault='("MEAN", v, axis=0)',
        ),
    ]


def fix_loss_scale() -> list[str]:
    """Make all replicas skip a float16 step if the gradients of any replica overflow.

    Keras checks only the first replica, before the gradients are summed over the
    replicas. So Keras adds an overflow of another replica to the weights.
    """
    kind = keras.optimizers.LossScaleOptimizer
    fault = "`finite` from the first replica"
    return _fix(kind, "check_finite", _finite_on_all, fault=fault, where="_tf_apply")


def _fix(
    owner: Any, name: str, fix: Any, *, fault: str, where: str | None = None
) -> list[str]:
    """Replace `owner.name` if its source, or the source of `where`, has the bug."""
    stock = getattr(owner, name)
    if stock in _FIXED:
        return []
    try:
        faulty = fault in inspect.getsource(getattr(owner, where or name))
    except OSError:  # no source is installed; an unnecessary fix does no harm
        faulty = True
    if faulty:
        setattr(owner, name, fix(stock))
        _FIXED.add(getattr(owner, name))
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
            if not tf.is_tensor(value):  # values of several replicas are tensors too
                return value
            return strategy.reduce(kinds[reduction], value, axis=None)

        return keras.tree.map_structure(reduce, values)

    return reduce_per_replica


def _finite_on_all(stock: Any) -> Any:
    def check_finite(self: keras.optimizers.LossScaleOptimizer, grads: Any) -> Any:
        finite = stock(self, grads)
        if replicas_in_step() == 1:
            return finite
        overflows = ops.cast(ops.logical_not(finite), "float32")
        return ops.equal(sum_over_replicas(overflows), 0)

    return check_finite
