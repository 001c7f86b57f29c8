"""The models of the golden `.keras` files: each is made, changed and saved."""

import pathlib
import tempfile

import keras
import numpy as np
from keras import layers

import keras_transfer as kt
from keras_transfer import adapters
from tests import tiny
from tests.contracts.domain_contract import extractor
from tests.contracts.domain_contract import free_head
from tests.golden import bases

# Recipes of each technique. `make_saved.py` also saves an adapter file of each.
RECIPES = {
    "lora": adapters.LoRA(rank=2, alpha=3, targets="all-linear"),
    "lora_query_value": adapters.LoRA(rank=2, alpha=5, dropout=0.1),
    "lora_patterns": adapters.LoRA(rank=2, rank_pattern={"query": 1}),
    "rs_lora": adapters.RsLoRA(rank=2, alpha=3),
    "dora": adapters.DoRA(rank=2, alpha=3),
    "loha": adapters.LoHa(rank=2, alpha=3),
    "lokr": adapters.LoKr(rank=1, alpha=3, decompose_both=True),
    "loha_patterns": adapters.LoHa(
        rank=2, targets="all-linear", rank_pattern={"query": 1}
    ),
    "ada_lora": adapters.AdaLoRA(1, initial_rank=2),
    "vera": adapters.VeRA(rank=4),
    "vera_as_in_peft": adapters.VeRA(rank=4, draw="peft"),
    "lora_biases": adapters.LoRA(rank=2, bias="pair"),
    "ia3": adapters.IA3(),
    "bitfit": adapters.BitFit(),
    "norm_tuning": adapters.NormTuning(),
    "bottleneck": adapters.Bottleneck(size=2),
    "pfeiffer_bottleneck": adapters.PfeifferBottleneck(size=2),
    "prefix_tuning": adapters.PrefixTuning(2, shift_positions=True),
    "prefix_tuning_network": adapters.PrefixTuning(2, projection=3),
    "prompt_tuning": adapters.PromptTuning(2, "text", [3, 4, 5]),
}
DOMAIN_MODELS = {
    "ada_bn": (kt.models.AdaBN, {}),
    "afn": (kt.models.AFN, {}),
    "cdan": (kt.models.CDAN, {"entropy": True}),
    "dan": (kt.models.DAN, {}),
    "dann_of_a_variable": (kt.models.DANN, {"strength": "variable"}),
    "deep_coral": (kt.models.DeepCORAL, {}),
    "importance_weighting": (kt.models.ImportanceWeighting, {}),
    "jan": (kt.models.JAN, {}),
    "mcc": (kt.models.MCC, {}),
    "mcd": (kt.models.MCD, {}),
    "mdd": (kt.models.MDD, {}),
    "source_only": (kt.models.SourceOnly, {}),
    "vada": (kt.models.VADA, {"radius": 0.5, "strength": "schedule"}),
}


def disturb(model):
    """Change all trainable weights, so no weight has its initial value."""
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign_add(rng.normal(0, 0.3, variable.shape))
    return model


def adapted(recipe):
    """Return BERT with an adapter, and inputs."""
    model = bases.bert()
    recipe.attach(model)
    return disturb(model), bases.tokens()


def trained_lora():
    """Return BERT with LoRA after two steps of Adam."""
    return trained(*adapted(RECIPES["lora_query_value"]))


def budgeted_ada_lora():
    """Return BERT with AdaLoRA after two steps, of which the second one prunes."""
    model, inputs = adapted(RECIPES["ada_lora"])
    model.compile(keras.optimizers.Adam(0.01), bases.LOGITS, jit_compile=False)
    budget = kt.callbacks.RankBudget(3, warmup_steps=0, final_steps=1, verbose=0)
    settings = dict(batch_size=2, shuffle=False, verbose=0, callbacks=[budget])
    model.fit(inputs, bases.labels(4), **settings)
    return model, inputs


def quantized(mode, **settings):
    """Return BERT in few bits with LoRA after two steps of Adam."""
    model = kt.quantize(bases.bert(), mode, verbose=0, **settings)
    adapters.LoRA(rank=2).attach(model, verbose=0)
    return trained(disturb(model), bases.tokens())


def pissa():
    """Return BERT with LoRA that started from its kernels."""
    return adapted(adapters.LoRA(rank=2, init="pissa"))


def trained(model, inputs, num_classes=3):
    """Return model and inputs after two steps of Adam."""
    model.compile(keras.optimizers.Adam(0.01), bases.LOGITS)
    for _ in range(2):
        model.train_on_batch(inputs, bases.labels(4) % num_classes)
    return model, inputs


def two_adapters():
    """Return BERT with two adapters, of which the second is active."""
    model = bases.bert()
    adapters.LoRA(rank=2, alpha=5).attach(model, "first")
    disturb(model)
    adapters.LoRA(rank=1, targets="all-linear").attach(model, "second")
    return disturb(model), bases.tokens()


def two_heads():
    """Return BERT with an active adapter of two classes, and an adapter of three."""
    model, other = bases.bert(), bases.bert(num_classes=2)
    recipe = adapters.LoRA(rank=2)
    recipe.attach(other, "second", train=["feedforward_layer_norm$", "head"])
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "second.safetensors")
        kt.save_adapter(disturb(other), path)
        recipe.attach(model, "first")
        disturb(model)
        kt.load_adapter(model, path)
    return trained(model, bases.tokens(), num_classes=2)


def weighted_adapters():
    """Return BERT with the weighted sum of two adapters."""
    model = bases.bert()
    for name in ("first", "second"):
        adapters.LoRA(rank=2).attach(model, name)
        disturb(model)
    adapters.add_weighted(model, "sum", {"first": 0.3, "second": 0.7})
    return model, bases.tokens()


def merged():
    """Return BERT with a merged LoRA."""
    model, inputs = adapted(RECIPES["lora"])
    adapters.merge(model)
    return model, inputs


def lora_of_a_task():
    """Return a text classifier of keras-hub with LoRA."""
    import keras_hub

    backbone = bases.bert(head=False)
    model = keras_hub.models.BertTextClassifier(backbone, num_classes=3, dropout=0.0)
    adapters.LoRA(rank=2).attach(bases.exact(model))
    return trained(disturb(model), bases.tokens())


def every_kind_of_layer(recipe):
    """Return a model with an adapter on Embedding, EinsumDense, Conv2D and Dense."""
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(12, 8, name="words")(inputs)
    x = layers.EinsumDense("abc,cd->abd", (None, 8), bias_axes="d", name="einsum")(x)
    x = layers.Reshape((6, 4, 2))(x)
    x = layers.Conv2D(3, 2, activation="tanh", name="conv")(x)
    x = layers.Dense(4, "tanh", name="hidden")(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Dense(3, name="logits")(x))
    recipe.attach(bases.exact(model))
    return disturb(model), bases.tokens(3)["token_ids"] % 12


def lora_conv_net():
    """Return a small convolutional network with LoRA."""
    model = bases.exact(tiny.convnet())
    statistics = model.get_layer("norm").moving_variance
    statistics.assign(abs(statistics) + 0.5)
    adapters.LoRA(rank=2, targets="conv|hidden").attach(model)
    return disturb(model), bases.images()


def lora_of_convolutions_and_cells():
    """Return a model with LoRA on several kinds of convolutions and on RNN cells."""
    inputs = keras.Input((6, 4))
    x = layers.Conv1D(4, 2, padding="causal", name="conv_line")(inputs)
    x = layers.DepthwiseConv1D(2, name="conv_depthwise")(x)
    x = layers.SeparableConv1D(4, 2, name="conv_separable")(x)
    x = layers.Conv1DTranspose(4, 3, activation="tanh", name="conv_transposed")(x)
    cells = [layers.LSTMCell(3, name="cell_lstm"), layers.GRUCell(3, name="cell_gru")]
    y = layers.RNN(cells, name="cells")(x)
    x = layers.Reshape((3, 2, 4))(x)
    x = layers.Flatten()(layers.Conv2D(4, 2, groups=2, name="conv_grouped")(x))
    x = layers.Dense(3, name="logits")(layers.Concatenate()([x, y]))
    model = keras.Model(inputs, x)
    adapters.LoRA(rank=1, targets="conv_|cell_").attach(bases.exact(model))
    return disturb(model), bases.vectors(4, 24).reshape(4, 6, 4)


def lora_layers():
    """Return a model of layers that are created with a pair, such as `LoRADense`."""
    inputs = keras.Input((6,), dtype="int32")
    x = adapters.LoRAEmbedding(12, 8, rank=2, alpha=3)(inputs)
    x = adapters.LoRAEinsumDense("abc,cd->abd", (None, 8), bias_axes="d", rank=2)(x)
    x = layers.Reshape((6, 4, 2))(x)
    x = adapters.LoRAConv2D(3, 2, activation="tanh", rank=2, dropout=0.1)(x)
    x = adapters.LoRADense(4, "tanh", rank=2)(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Dense(3, name="logits")(x))
    return disturb(bases.exact(model)), bases.tokens(3)["token_ids"] % 12


def classifier(backbone, inputs, **settings):
    """Return a TransferClassifier after two steps of Adam."""
    return trained(kt.models.TransferClassifier(backbone, 3, **settings), inputs)


def frozen_classifier():
    """Return a TransferClassifier on a FrozenBackbone."""
    backbone = kt.backbones.FrozenBackbone(bases.bert(head=False))
    return classifier(backbone, bases.tokens(), pooling="mean", dropout=0.1)


def half_frozen_classifier():
    """Return a TransferClassifier with a partly frozen backbone."""
    backbone = bases.bert(head=False)
    for name in ("token_embedding", "position_embedding", "segment_embedding"):
        for layer in backbone.layers:
            if name in layer.name:
                layer.trainable = False
    return classifier(backbone, bases.tokens())


def lora_classifier():
    """Return a TransferClassifier on a BERT with LoRA."""
    backbone = bases.bert(head=False)
    adapters.LoRA(rank=2).attach(backbone)
    return classifier(disturb(backbone), bases.tokens())


def token_classifier():
    """Return a TokenClassifier with a tokenizer after two steps, and its inputs."""
    import keras_hub

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ada", "sing", "##s"]
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=words, lowercase=True)
    model = kt.models.TokenClassifier(
        bases.bert(head=False), ["O", "PER"], tokenizer=tokenizer, dropout=0.1
    )
    pieces = model.word_preprocessor
    x, y, weight = pieces.encode([["Ada", "sings"], ["Ada"]], [["PER", "O"], ["PER"]])
    model.compile(keras.optimizers.Adam(0.01), bases.LOGITS)
    for _ in range(2):
        model.train_on_batch(x, y, sample_weight=weight)
    return model, x


def audio_classifier():
    """Return an AudioClassifier of a second after two steps, and its inputs."""
    import keras_hub

    sizes = dict(hidden_dim=4, intermediate_dim=6, num_mels=2)
    backbone = keras_hub.models.WhisperBackbone(
        8, 1, 2, max_encoder_sequence_length=100, **sizes
    )
    encoder = kt.backbones.audio_encoder(bases.exact(backbone), seconds=1)
    model = kt.models.AudioClassifier(encoder, ["no", "yes", "up"], dropout=0.1)
    x = {
        "encoder_features": bases.vectors(4, 200).reshape(4, 100, 2),
        "padding_mask": np.arange(50) < np.array([[50], [1], [7], [30]]),
    }
    x["padding_mask"] = x["padding_mask"].astype("int32")
    return trained(model, x)


def prototypical_network():
    """Return a network of two classes and a threshold after two steps, and inputs."""
    x = bases.vectors(8, 6)
    model = kt.models.PrototypicalNetwork(
        bases.exact(tiny.mlp((5, 4))), distance="cosine", temperature=0.5
    )
    model.compile(keras.optimizers.Adam(0.01))
    support = bases.vectors(12, 6).reshape(3, 2, 2, 6)
    episode = {"support": support, "query": support.reshape(3, 4, 6) + 0.25}
    for _ in range(2):
        model.train_on_batch(episode, np.array([[0, 0, 1, 1]] * 3))
    model.add_class("first", x[:2]).add_class("second", x[3:6])
    model.fit_unknown(x, ["first"] * 8, rate=0.3)
    return model, x


def meta_learner(kind, **settings):
    """Return a MAML or ANIL with a frozen layer after two steps, and inputs."""
    model = bases.exact(tiny.mlp((5, 4)))
    model.get_layer("dense_0").trainable = False
    learner = kind(model, 0.1, 2, **settings)
    learner.compile(keras.optimizers.Adam(0.01), bases.LOGITS)
    support = bases.vectors(12, 6).reshape(3, 2, 2, 6)
    episode = {"support": support, "query": support.reshape(3, 4, 6) + 0.25}
    for _ in range(2):
        learner.train_on_batch(episode, np.array([[0, 0, 1, 1]] * 3))
    return learner, bases.vectors(8, 6)


def zero_shot_classifier():
    """Return a ZeroShotClassifier with its tokenizer, and the inputs of texts."""
    import keras_hub

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ada", "sing", "##s"]
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=words, lowercase=True)
    pieces = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, 8)
    model = kt.models.ZeroShotClassifier(
        bases.bert(head=False),
        {"song": ["sings", "sing"], "name": "Ada"},
        preprocessor=pieces,
        templates=["{}", "{} sings"],
        temperature=0.5,
    )
    return model, model.encode(["Ada sings", "sing sings"])


def language_model_classifier():
    """Return a classifier on GPT-2 after two steps of both losses, and its inputs."""
    import keras_hub

    sizes = dict(hidden_dim=8, intermediate_dim=12, max_sequence_length=8, dropout=0.0)
    backbone = keras_hub.models.GPT2Backbone(16, 1, 2, **sizes)
    model = kt.models.LanguageModelClassifier(bases.exact(backbone), 3, dropout=0.0)
    x = bases.tokens()
    del x["segment_ids"]
    return trained(model, x)


def matched():
    """Return a BERT that computes the same as Hugging Face's BERT."""
    return kt.backbones.match_huggingface(bases.bert(head=False)), bases.tokens()


def stitched():
    """Return a head on its backbone, where the mask is an input of the head."""
    given = {
        "output": keras.Input((6, 8), name="output"),
        "mask": keras.Input((6,), dtype="bool", name="mask"),
    }
    weights = keras.ops.cast(given["mask"], "float32")[..., None]
    rows = layers.Flatten()(given["output"] * weights)
    head = keras.Model(given, layers.Dense(2)(rows), name="head")
    inputs = keras.Input((6,), dtype="int32")
    embedding = layers.Embedding(12, 8, mask_zero=True)
    backbone = keras.Model(inputs, embedding(inputs), name="backbone")
    model = kt.backbones.stitch(bases.exact(backbone), bases.exact(head))
    return model, bases.tokens()["token_ids"] % 12


def reversals():
    """Return a model with three reversals: a number, a variable and a schedule."""
    optimizer = keras.optimizers.SGD(0.1)
    ramp_up = kt.optimizers.GaninRampUp(total_steps=10)
    x = inputs = keras.Input((6,))
    for name, settings in {
        "number": {"strength": 0.5},
        "variable": {"strength": keras.Variable(0.25)},
        "schedule": {"strength": ramp_up, "step": optimizer.iterations},
    }.items():
        x = layers.Dense(4, "tanh", name=f"below_{name}")(x)
        x = kt.layers.GradientReversal(name=name, **settings)(x)
    model = bases.exact(keras.Model(inputs, layers.Dense(1)(x)))
    model.compile(optimizer, "mse")
    model.fit(bases.vectors(), np.ones((8, 1)), batch_size=4, shuffle=False, verbose=0)
    return model, bases.vectors()


def randomization():
    """Return a model that begins with a DomainRandomization."""
    inputs = keras.Input((8, 8, 3))
    x = kt.layers.DomainRandomization(0.5, invert=0.1, seed=3)(inputs)
    x = layers.Conv2D(2, 3)(x)
    return bases.exact(keras.Model(inputs, layers.Flatten()(x))), bases.images()


def pooling():
    """Return a model that returns the mean of its tokens and the last token."""
    inputs, pooled = keras.Input((6,), dtype="int32"), []
    for kind in ("mean", "last"):
        tokens = keras.Input((6,), dtype="int32")
        rows = layers.Embedding(16, 4, mask_zero=True)(tokens)
        backbone = keras.Model(tokens, rows, name=f"backbone_{kind}")
        pooled.append(kt.backbones.features(backbone, kind)(inputs))
    return bases.exact(keras.Model(inputs, pooled)), bases.tokens()["token_ids"]


def mixed_states():
    """Return a TransferClassifier on the mix of the states of a partly frozen BERT."""
    backbone = bases.bert(head=False)
    backbone.get_layer("token_embedding").trainable = False
    states = kt.backbones.hidden_states(backbone)
    mix = kt.layers.ScalarMix(0.1, layer_norm=True, regularizer="l2", seed=1)
    mixed = keras.Model(states.input, mix(states.outputs), name="mixed")
    return classifier(mixed, bases.tokens())


def mixed_vectors():
    """Return a mix of the pooled states of two blocks of a network of images."""
    names = ["block_0", "block_1"]
    backbone = tiny.conv_blocks()
    states = kt.backbones.hidden_states(backbone, names, pooling="auto")
    mixed = keras.Model(states.input, kt.layers.ScalarMix()(states.outputs))
    return bases.exact(mixed), bases.vectors(3, 72).reshape(3, 6, 6, 2)


def words():
    """Return a model on texts with vectors of words."""
    vectors = kt.backbones.word_vectors(
        {"a": [1.0, 0.5], "joy": [0.25, -1.0], "n't": [2.0, 0.0]}, unknown="mean"
    )
    text = keras.Input((1,), dtype="string")
    rows = vectors.embedding()(vectors.vocabulary_layer()(text))
    model = kt.backbones.features(keras.Model(text, rows, name="words"))
    return model, np.array([["A joy!"], ["I can't. Joy"]])


def sequence_layers():
    """Return a model with dropout of words and of weights, and a concat pooling."""
    inputs = keras.Input((6,), dtype="int32")
    rows = layers.Embedding(16, 4, mask_zero=True)(inputs)
    x = kt.layers.EmbeddingDropout(16, 0.3, seed=1)([rows, inputs])
    x = kt.layers.WeightDropLSTM(3, 0.4, return_sequences=True, seed=2)(x)
    pooled = kt.layers.ConcatPooling()(x)
    return bases.exact(keras.Model(inputs, pooled)), bases.tokens()["token_ids"]


def language_model():
    """Return a language model and inputs, with one frozen LSTM."""
    words = ["", "[UNK]", "[END]", *"abcdefghijklm"]
    model = kt.models.RecurrentLanguageModel(words, 4, 3, 2, dropout=0.5)
    model.encoder.get_layer("lstm_1").trainable = False
    return disturb(model), bases.tokens()["token_ids"]


def trained_language_model():
    """Return a language model after two steps of Adam."""
    model, inputs = language_model()
    model.compile(keras.optimizers.Adam(0.01))
    for _ in range(2):
        model.train_on_batch(inputs, np.roll(inputs, -1, axis=1))
    return model, inputs


def text_classifier():
    """Return a classifier on the encoder of a language model, and inputs."""
    model, inputs = language_model()
    return disturb(model.classifier(3, units=5)), inputs


def domain_model(kind, settings):
    """Return a model of two domains after two steps, and inputs of one domain."""
    strengths = {
        "variable": lambda: keras.Variable(0.25),
        "schedule": lambda: kt.optimizers.GaninRampUp(total_steps=10),
    }
    settings = dict(settings)
    if "strength" in settings:
        settings["strength"] = strengths[settings["strength"]]()
    body = extractor()
    if kind is kt.models.AdaBN:
        body.add(layers.BatchNormalization(name="norm"))
    model = kind(body, free_head(), **settings)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), bases.LOGITS)
    x = {"source": bases.vectors(), "target": bases.vectors() * 2 + 0.5}
    model.fit(x, bases.labels(), batch_size=4, shuffle=False, verbose=0)
    return model, bases.vectors()


def multi_task(weighting):
    """Return a model with two heads after two steps of Adam."""
    heads = {
        "kind": keras.layers.Dense(3, name="kind_head"),
        "price": keras.layers.Dense(1, name="price_head"),
    }
    model = kt.models.MultiTask(
        bases.mlp(), heads, dropout=0.1, weighting=weighting, seed=3, name="tasks"
    )
    bases.exact(model)
    model.compile(keras.optimizers.Adam(0.01), {"kind": bases.LOGITS, "price": "mse"})
    y = {"kind": bases.labels(), "price": bases.vectors()[:, 0]}
    for _ in range(2):
        model.train_on_batch(bases.vectors(), y)
    return model, bases.vectors()


def learning_without_forgetting():
    """Return a model with three heads after two steps of Adam."""
    second = kt.models.LearningWithoutForgetting(bases.mlp(), 2)
    model = kt.models.LearningWithoutForgetting(
        bases.exact(second), 4, old_weight=0.5, temperature=3.0
    )
    bases.exact(model)
    model.compile(keras.optimizers.Adam(0.01), bases.LOGITS)
    x, y = model.record((bases.vectors(), bases.labels()))
    for _ in range(2):
        model.train_on_batch(x, y)
    return model, bases.vectors()


def calibrated(layer):
    """Return a small classifier with a calibration layer, and inputs."""
    model = kt.models.CalibratedClassifier(tiny.mlp(), layer)
    inputs = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    return disturb(model), inputs


MODELS = {
    "calibrated_by_temperature": lambda: calibrated(kt.layers.TemperatureScaling(2.5)),
    "calibrated_by_vector": lambda: calibrated(
        kt.layers.VectorScaling([0.5, 1.5, 2.0], [0.1, 0.0, -0.1])
    ),
    "calibrated_by_curves": lambda: calibrated(
        kt.layers.IsotonicCalibration([[0.0, 0.5, 1.0]] * 3, [[0.1, 0.3, 0.9]] * 3)
    ),
    **{name: lambda each=each: adapted(each) for name, each in RECIPES.items()},
    "lora_trained": trained_lora,
    "ada_lora_trained": budgeted_ada_lora,
    "two_adapters": two_adapters,
    "two_heads": two_heads,
    "weighted_adapters": weighted_adapters,
    "merged": merged,
    "lora_of_a_task": lora_of_a_task,
    "lora_of_every_layer": lambda: every_kind_of_layer(
        adapters.LoRA(rank=2, targets="words|einsum|conv|hidden")
    ),
    "dora_of_every_layer": lambda: every_kind_of_layer(
        adapters.DoRA(rank=2, targets="einsum|conv|hidden")
    ),
    "loha_of_every_layer": lambda: every_kind_of_layer(
        adapters.LoHa(rank=2, targets="einsum|conv|hidden")
    ),
    "lora_conv_net": lora_conv_net,
    "lora_layers": lora_layers,
    "lora_of_convolutions_and_cells": lora_of_convolutions_and_cells,
    "frozen_classifier": frozen_classifier,
    "half_frozen_classifier": half_frozen_classifier,
    "lora_classifier": lora_classifier,
    "idle_weight_with_slots": lambda: classifier(*bases.llama()),
    "token_classifier": token_classifier,
    "quantized_nf4": lambda: quantized("nf4", block_size=4),
    "quantized_nf4_float_constants": lambda: quantized(
        "nf4", block_size=4, double_quantization=False
    ),
    "quantized_int4": lambda: quantized("int4"),
    "pissa": pissa,
    "learning_without_forgetting": learning_without_forgetting,
    "multi_task": lambda: multi_task("uncertainty"),
    "multi_task_pcgrad": lambda: multi_task("pcgrad"),
    "audio_classifier": audio_classifier,
    "prototypical_network": prototypical_network,
    "maml": lambda: meta_learner(kt.models.MAML, batch_norm="support"),
    "anil": lambda: meta_learner(kt.models.ANIL, head="dense_1", first_order=True),
    "zero_shot_classifier": zero_shot_classifier,
    "language_model_classifier": language_model_classifier,
    "matched": matched,
    "stitched": stitched,
    "reversals": reversals,
    "randomization": randomization,
    "pooling": pooling,
    "mixed_states": mixed_states,
    "mixed_vectors": mixed_vectors,
    "words": words,
    "sequence_layers": sequence_layers,
    "language_model": trained_language_model,
    "text_classifier": text_classifier,
    **{
        name: lambda each=each: domain_model(*each)
        for name, each in DOMAIN_MODELS.items()
    },
}
