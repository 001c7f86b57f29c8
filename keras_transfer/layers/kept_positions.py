"""The last, the mean and the largest of the positions that a mask keeps."""

from keras import ops


def last_of(x: object, mask: object) -> object:
    """Return the last row that `mask` keeps, or zeros if it keeps no row."""
    if mask is None:
        return x[:, -1]
    mask = ops.cast(mask, "int32")
    position = ops.arange(1, ops.shape(x)[1] + 1, dtype="int32")
    last = ops.max(mask * position, axis=1)  # from 1; 0 without a position
    row = ops.maximum(last - 1, 0)[:, None, None]
    token = ops.take_along_axis(x, row, axis=1)[:, 0]
    return ops.where(last[:, None] > 0, token, ops.zeros_like(token))


def mean_of(x: object, mask: object) -> object:
    """Return the mean of the rows that `mask` keeps, computed in float32."""
    wide = ops.cast(x, "float32")
    if mask is None:
        mean = ops.mean(wide, axis=1)
    else:
        mask = ops.expand_dims(ops.cast(mask, "bool"), -1)
        count = ops.sum(ops.cast(mask, "float32"), axis=1)
        # Not a product with the mask, because padding may contain inf or NaN.
        total = ops.sum(ops.where(mask, wide, ops.zeros_like(wide)), axis=1)
        mean = total / ops.maximum(count, 1.0)
    return ops.cast(mean, x.dtype)


def largest_of(x: object, mask: object) -> object:
    """Return the largest values of the rows that `mask` keeps, or zeros."""
    if mask is None:
        return ops.max(x, axis=1)
    mask = ops.cast(mask, "bool")
    masked = ops.where(mask[..., None], x, ops.full_like(x, float("-inf")))
    any_token = ops.any(mask, axis=1)[:, None]
    largest = ops.max(masked, axis=1)
    return ops.where(any_token, largest, ops.zeros_like(largest))
