"""What a train step must be for XLA and a TPU: one graph of fixed shapes, no Python."""

import tensorflow as tf

# They call back into the host. XLA and TPUs have nobody to call.
CALLBACKS = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "XlaHostCompute"}
CALLBACKS |= {"Print", "PrintV2"}
# Kinds without a shape of their own.
SHAPELESS = {"resource", "variant"}
# A list of axes, which XLA works out from the shapes before anything runs.
FOLDED = {"BroadcastGradientArgs"}


def assert_static(model, x, y):
    """Fail unless the train step of a built `model` is fit for XLA as it is now.

    The graph that Keras would trace for a batch of this size, with all functions that
    it calls, has no op that runs Python or talks to the host, and each tensor in it
    has a shape that is known before it runs.
    """
    batch = tf.nest.map_structure(tf.constant, (x, y))
    step = tf.function(model.train_step).get_concrete_function(batch)
    definition = step.graph.as_graph_def(add_shapes=True)
    nodes = list(definition.node)
    for function in definition.library.function:
        nodes += function.node_def
    assert len(nodes) > 50, "this is no train step"
    callbacks = sorted({node.op for node in nodes} & CALLBACKS)
    assert not callbacks, f"the graph talks to the host by {callbacks}"
    dynamic = [f"{node.name} ({node.op})" for node in nodes if is_dynamic(node)]
    assert not dynamic, f"shapes that are not known before the step: {dynamic}"


def is_dynamic(node):
    """Return whether an output of `node` has an unknown rank or dimension."""
    if node.op in FOLDED:
        return False
    dtype = node.attr["dtype"].type or node.attr["T"].type
    if dtype and tf.as_dtype(dtype).name in SHAPELESS:
        return False
    return any(
        shape.unknown_rank or any(each.size < 0 for each in shape.dim)
        for shape in node.attr["_output_shapes"].list.shape
    )
