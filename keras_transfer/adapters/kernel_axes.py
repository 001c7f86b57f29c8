"""The axes of an EinsumDense's kernel: which it contracts, and which it adds."""

import keras

from keras_transfer import _keras


def kernel_axes(host: keras.Layer) -> tuple[str, str, str]:
    """Return the letters of the kernel: all, those contracted, and those it adds.

    Raises:
        ValueError: If an axis is neither, so that the kernel is no matrix.
    """
    source, rest = host.equation.replace(" ", "").split(",")
    kernel, target = rest.split("->")
    into = "".join(x for x in kernel if x in source and x not in target)
    out = "".join(x for x in kernel if x in target and x not in source)
    if len(into) + len(out) < len(kernel) or not into or not out:
        raise ValueError(
            f"The EinsumDense {host.name!r} computes {host.equation!r}, where an axis "
            "of the kernel is neither contracted nor new, so that it is no matrix. "
            "Leave it out of the targets."
        )
    return kernel, into, out


def axis_sizes(host: keras.Layer) -> dict[str, int]:
    """Return the size of each axis of the kernel by its letter."""
    kernel = host.equation.replace(" ", "").split(",")[1].split("->")[0]
    shape = getattr(host, "original_kernel_shape", None)  # where it is packed
    if shape is None:
        shape = next(v.shape for v in _keras.own_weights(host) if v.name == "kernel")
    return dict(zip(kernel, shape, strict=True))
