"""The encoder of a recurrent language model: an embedding and dropped LSTMs."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from keras_transfer._arguments import dropout_rate
from keras_transfer._arguments import is_number
from keras_transfer._arguments import number
from keras_transfer.layers.embedding_dropout import EmbeddingDropout
from keras_transfer.layers.weight_drop_lstm import WeightDropLSTM

# The rates of Howard and Ruder, 2018, section 4.1.
RATES = {
    "embedding": 0.05,
    "input": 0.4,
    "recurrent": 0.5,
    "hidden": 0.3,
    "output": 0.4,
}


def dropout_rates(dropout: float | Mapping[str, float]) -> dict[str, float]:
    """Return the rate of each place, from a factor of `RATES` or from a dict of rates.

    Raises:
        ValueError: If a place is unknown, or a rate is not from 0 to below 1.
    """
    if isinstance(dropout, Mapping):
        unknown = sorted(map(str, set(dropout) - set(RATES)))
        if unknown:
            raise ValueError(
                f"dropout has rates for {unknown}, but the places are {list(RATES)}. "
                "Pass rates for these places. Places that are left out get 0."
            )
        rates = {name: dropout.get(name, 0.0) for name in RATES}
    elif is_number(dropout):
        factor = number("dropout", dropout, 0, why=f"it multiplies the rates {RATES}")
        rates = {name: factor * rate for name, rate in RATES.items()}
    else:
        raise ValueError(
            f"dropout={dropout!r} must be a factor of the rates {RATES}, such as 0.5, "
            "or a dict with rates of these places."
        )
    return {
        name: dropout_rate(f"The dropout rate {name!r}", rate)
        for name, rate in rates.items()
    }


def make_encoder(
    vocabulary_size: int,
    embedding_dim: int,
    units: int,
    num_layers: int,
    rates: Mapping[str, float],
    dtype: object,
) -> keras.Model:
    """Return a functional model from token ids to the outputs of the last LSTM.

    The last LSTM has `embedding_dim` units, so its outputs fit the tied softmax.
    """
    embedding = keras.layers.ReversibleEmbedding(
        vocabulary_size,
        embedding_dim,
        embeddings_initializer=keras.initializers.RandomUniform(-0.1, 0.1),
        mask_zero=True,
        dtype=dtype,
        name="embedding",
    )
    tokens = keras.Input((None,), dtype="int32", name="token_ids")
    words = EmbeddingDropout(
        vocabulary_size, rates["embedding"], dtype=dtype, name="embedding_dropout"
    )
    x = words([embedding(tokens), tokens])
    x = locked_dropout(rates["input"], dtype, "input_dropout")(x)
    for place in range(1, num_layers + 1):
        lstm = WeightDropLSTM(
            embedding_dim if place == num_layers else units,
            rates["recurrent"],
            return_sequences=True,
            return_state=True,
            dtype=dtype,
            name=f"lstm_{place}",
        )
        x, *_ = lstm(x)
        if place < num_layers:
            x = locked_dropout(rates["hidden"], dtype, f"hidden_dropout_{place}")(x)
    return keras.Model(tokens, x, name="encoder")


def locked_dropout(rate: float, dtype: object, name: str) -> keras.layers.Layer:
    """Return variational dropout: one mask of features for all positions of a row."""
    return keras.layers.SpatialDropout1D(rate, dtype=dtype, name=name)


def run_encoder(
    encoder: keras.Model, tokens: object, states: list | None, training: bool
) -> tuple[object, list]:
    """Return the outputs of the encoder, and the last states of its LSTMs.

    Args:
        encoder: The result of `make_encoder`.
        tokens: Token ids.
        states: For each LSTM, the pair of its first states; or None, which are zeros.
        training: Whether the dropout is active.
    """
    x, after = tokens, []
    for layer in encoder.layers[1:]:
        if isinstance(layer, keras.layers.LSTM):
            before = None if states is None else list(states[len(after)])
            x, *state = layer(x, initial_state=before, training=training)
            after.append(state)
        elif isinstance(layer, EmbeddingDropout):
            x = layer([x, tokens], training=training)
        elif isinstance(layer, keras.layers.Embedding):
            x = layer(x)
        else:
            x = layer(x, training=training)
    return x, after


def lstms(encoder: keras.Model) -> list[keras.layers.LSTM]:
    """Return the LSTMs of an encoder, the first one first."""
    return [x for x in encoder.layers if isinstance(x, keras.layers.LSTM)]
