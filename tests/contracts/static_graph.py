"""Check that a train step suits XLA and TPUs: fixed shapes and no Python calls."""

import tensorflow as tf

# Operations that call the host, which XLA and TPUs cannot do.
CALLBACKS = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "XlaHostCompute"}
CALLBACKS |= {"Print", "PrintV2"}
# Kinds of tensors that have no shape.
SHAPELESS = {"resource", "variant"}
# Its output is a list of axes, which XLA computes from the shapes before the step runs.
FOLDED = {"BroadcastGradientArgs"}


def assert_static(model, x, y):
    """Fail unless the train step of a built `model` is suitable for XLA.

    The graph that Keras would trace for a batch of this size, including all functions
    that it calls, must not contain operations that run Python or call the host. The
    shape of each tensor must be known before the step runs.
    """
    batch = tf.nest.map_structure(tf.constant, (x, y))
    step = tf.function(model.train_step).get_concrete_function(batch)
    definition = step.graph.as_graph_def(add_shapes=True)
    nodes = list(definition.node)
    for function in definition.library.function:
        nodes += function.node_def
    assert len(nodes) > 50, "this is not a train step"
    callbacks = sorted({node.op for node in nodes} & CALLBACKS)
    assert not callbacks, f"the graph calls the host with {callbacks}"
    dynamic = [f"{node.name} ({node.op})" for node in nodes if is_dynamic(node)]
    assert not dynamic, f"shapes that are unknown before the step: {dynamic}"


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
