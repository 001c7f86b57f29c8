"""Try each strategy on a tiny model of each backbone family.

`benchmarks/families.py` prints the whole table. A test tries one family of each
architecture.
"""

import contextlib
import inspect
import io
import pathlib
import tempfile
import traceback
import warnings

import keras
import numpy as np

import keras_transfer as kt
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.adapter_part import all_parts
from tests.backbones import families

PACKAGE = str(pathlib.Path(kt.__file__).parent)
OK, REFUSED, FAULT, KERAS = "ok", "refused", "fault", "Keras cannot"
THEIRS = ("keras", "keras_hub", "keras_cv", "tensorflow")
ROWS, LENGTH, WORDS = 4, 8, 40
LABELS = np.arange(ROWS) % 2
OWN_WEIGHTS = ("BitFit", "NormTuning")  # train weights of the base model
BUDGETED = (kt.adapters.AdaLoRA,)  # train only with a RankBudget

# One family of each architecture.
ARCHITECTURES = {
    "CNN": "hub_resnet",
    "ViT": "hub_vit",
    "encoder": "bert",
    "decoder": "llama",
    "encoder-decoder": "bart",
    "dual encoder": "clip",
    "audio": "whisper",
    "protein": "esm",
}


def clip(num_layers=2):
    """Return a model of the embeddings of a tiny CLIP, from an image and a text.

    CLIP's own outputs compare the examples of a batch. The layers before the outputs
    compute an embedding for each example.
    """
    import keras_hub

    config = dict(num_heads=2, hidden_dim=16, intermediate_dim=32)
    config["num_layers"] = num_layers
    model = keras_hub.models.CLIPBackbone(
        vision_encoder=keras_hub.models.CLIPVisionEncoder(
            patch_size=8, image_shape=(16, 16, 3), **config
        ),
        text_encoder=keras_hub.models.CLIPTextEncoder(
            vocabulary_size=64, embedding_dim=16, max_sequence_length=LENGTH, **config
        ),
        projection_dim=8,
    )
    pairs = [model.vision_projection.output, model.text_projection.output]
    return keras.Model(model.input, keras.layers.Concatenate()(pairs), name="clip")


NAMES = [*families.NAMES, "clip"]


def backbone(family, **changes):
    """Return a new backbone of the family, without a download."""
    return clip(**changes) if family == "clip" else families.build(family, **changes)


def examples(network):
    """Return one batch of inputs for a backbone: text, images or audio."""
    rng = np.random.default_rng(0)

    def of(name, tensor):
        if "padding_mask" in name or name == "attention_mask":
            mask = np.ones((ROWS, LENGTH), tensor.dtype)
            mask[0, -2:] = 0
            return mask
        if name == "segment_ids":
            return np.zeros((ROWS, LENGTH), "int32")
        if keras.backend.is_int_dtype(tensor.dtype):
            return rng.integers(2, WORDS, (ROWS, LENGTH)).astype("int32")
        shape = [LENGTH if size is None else size for size in tensor.shape[1:]]
        return rng.uniform(0, 1, (ROWS, *shape)).astype("float32")

    if isinstance(network.input, dict):
        return {name: of(name, each) for name, each in network.input.items()}
    return of("images", network.inputs[0])


def classifier(network):
    """Return a classifier for two classes on a backbone."""
    return kt.models.TransferClassifier(network, num_classes=2)


def compiled(model, optimizer=None):
    """Return the model, compiled to run eagerly."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.Adam(1e-3), loss, run_eagerly=True)
    return model


class Trial:
    """A family, with the functions that the strategies need."""

    def __init__(self, family, **changes):
        self.family = family
        self.changes = changes
        self.x = examples(self.backbone())

    def backbone(self):
        """Return a new backbone of the family."""
        return backbone(self.family, **self.changes)

    def model(self, optimizer=None):
        """Return a new classifier, compiled."""
        return compiled(classifier(self.backbone()), optimizer)

    def fit(self, model, epochs=1, **kwargs):
        """Train on the one batch; return the last loss, which must be finite."""
        history = model.fit(
            self.x, LABELS, epochs=epochs, batch_size=ROWS, verbose=0, **kwargs
        )
        return finite(history.history["loss"][-1])

    def outputs(self, model):
        """Return what a model gives, which must be finite."""
        return finite(keras.ops.convert_to_numpy(model(self.x, training=False)))

    def same(self, model, right, tolerance=1e-4):
        """Check that a model gives what is right."""
        np.testing.assert_allclose(self.outputs(model), right, rtol=0, atol=tolerance)


def finite(values):
    """Return values that must be finite."""
    if not np.all(np.isfinite(values)):
        raise FloatingPointError(f"not finite: {values}")
    return values


def disturbed(model):
    """Give the adapters values that change the outputs."""
    rng = np.random.default_rng(3)
    for _, part in all_parts(model):
        for variable in part.named_weights.values():
            variable.assign(rng.normal(0, 0.2, variable.shape))
    return model


def groups(trial):
    model = trial.model()
    found = kt.layer_groups(model)
    held = [id(each) for group in found for each in group.variables]
    if sorted(held) != sorted(map(id, model.weights)) or len(found) < 3:
        raise AssertionError(f"{found.names} do not divide the weights")


def classified(trial):
    model = trial.model()
    trial.fit(model)
    trial.outputs(model)


def frozen(trial):
    network = trial.backbone()
    before = network.get_weights()
    inside = kt.backbones.FrozenBackbone(network)
    model = compiled(classifier(inside))
    trial.fit(model)
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def discriminative(trial):
    model = trial.model()
    adam = keras.optimizers.Adam(1e-3)
    optimizer = kt.optimizers.discriminative(adam, model, layer_decay=0.5)
    compiled(model, optimizer)
    trial.fit(model)


def unfreezing(trial):
    model = trial.model()
    callback = kt.callbacks.GradualUnfreezing(model)
    trial.fit(model, epochs=3, callbacks=[callback])
    trial.outputs(model)


def fine_tuned(trial):
    model = trial.model()
    kt.fine_tune(model, (trial.x, LABELS), epochs=3, batch_size=ROWS, verbose=0)
    trial.outputs(model)


def lora(trial):
    """LoRA, trained, saved and loaded."""
    model = trial.model()
    before = trial.outputs(model)
    kt.adapters.LoRA(rank=2).attach(model)
    trial.same(model, before)
    trial.fit(compiled(model))
    right = trial.outputs(disturbed(model))
    if np.abs(right - before).max() < 1e-6:
        raise AssertionError("the adapter changes nothing")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.keras")
        model.save(path)
        trial.same(keras.models.load_model(path), right)


def merged(trial):
    model = trial.model()
    kt.adapters.LoRA(rank=2).attach(model)
    right = trial.outputs(disturbed(model))
    kt.adapters.merge(model)
    if any(True for _ in all_parts(model)):
        raise AssertionError("parts are left")
    trial.same(model, right, 1e-4 * max(1.0, np.abs(right).max()))


def reported(trial):
    model = trial.model()
    evaluation = kt.report(model, data=(trial.x, LABELS)).to_dict()["evaluation"]
    if evaluation["examples"] != ROWS:
        raise AssertionError(evaluation)


def exported(trial):
    with tempfile.TemporaryDirectory() as folder:
        kt.export_serving(trial.model(), folder, samples=trial.x)


def quantized(trial):
    """LoRA on a model of int8, trained."""
    model = trial.model()
    model.quantize("int8")
    right = trial.outputs(model)
    kt.adapters.LoRA(rank=2).attach(model)
    trial.same(model, right)
    trial.fit(compiled(model))
    trial.outputs(model)


def adapter(kind):
    """Return a strategy that trains an adapter and detaches it."""
    # The defaults are wider or longer than these models.
    given = inspect.signature(kind).parameters
    sized = {key: 4 for key in ("size", "tokens") if key in given}

    def tried(trial):
        model = trial.model()
        kind(**sized).attach(model)
        budget = [kt.callbacks.RankBudget(verbose=0)] if kind in BUDGETED else []
        trial.fit(compiled(model), callbacks=budget)
        right = trial.outputs(model)
        if kind.__name__ not in OWN_WEIGHTS:
            with kt.adapters.disabled(model):
                right = trial.outputs(model)
        kt.adapters.detach(model)
        if any(True for _ in all_parts(model)):
            raise AssertionError("parts are left")
        trial.same(model, right)

    return tried


def techniques():
    """Return the recipes of all adapters except LoRA, by name."""
    found = {}
    for name in dir(kt.adapters):
        kind = getattr(kt.adapters, name)
        if inspect.isclass(kind) and issubclass(kind, Adapter) and name != "LoRA":
            found[name] = kind
    return found


STRATEGIES = {
    "groups": groups,
    "classifier": classified,
    "frozen": frozen,
    "discriminative": discriminative,
    "unfreezing": unfreezing,
    "fine_tune": fine_tuned,
    "LoRA, reload": lora,
    **{name: adapter(kind) for name, kind in techniques().items()},
    "merge": merged,
    "report": reported,
    "export": exported,
    "int8, LoRA": quantized,
}


def tried(trial, strategy):
    """Return whether a strategy works, is refused by the package or fails, and why.

    The result is "Keras cannot" if the error comes from Keras without our code.
    """
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            STRATEGIES[strategy](trial)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        last, ours = frames[-1], [x.filename.startswith(PACKAGE) for x in frames]
        clear = isinstance(error, ValueError | TypeError | NotImplementedError)
        reason = " ".join(str(error).split())
        if ours[-1] and clear:
            return REFUSED, reason
        path = pathlib.Path(last.filename)
        theirs = "site-packages" in path.parts and not {*THEIRS}.isdisjoint(path.parts)
        reason = f"{type(error).__name__}: {reason} ({path.name}, line {last.lineno})"
        return KERAS if theirs and not any(ours) else FAULT, reason
    return OK, ""
