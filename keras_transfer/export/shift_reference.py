"""ShiftReference: what is kept of held-out examples, to compare later batches with."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np

from keras_transfer.analysis.shift.score_kind import rows_of
from keras_transfer.analysis.shift.score_kind import ScoreKind
from keras_transfer.analysis.shift.two_samples import part_of
from keras_transfer.saving.strict_json import parse_json

FOLDER = pathlib.Path("assets.extra")
ARRAYS = FOLDER / "keras_transfer_reference.npz"
FACTS = FOLDER / "keras_transfer_reference.json"
FORMAT = 1
ROWS = 1_000  # most rows that are kept
LEAST = 50  # fewest rows of a reference
VALUES = 4_000_000  # most scores that are kept, 16 MB in float32
SIZE = 32  # most reduced features
LARGEST = 256_000_000  # bytes of the largest file that is read
UNPACKED = 4_000_000_000  # bytes of the largest arrays in a compressed file


@dataclasses.dataclass(frozen=True, eq=False)
class ShiftReference:
    """What is kept of held-out examples, to compare later batches with.

    Scores and reduced features are kept, but no inputs. They are still numbers of
    single examples.

    Args:
        kind: How outputs become scores.
        scores: Scores of up to 1,000 examples, `(count, size)`.
        features: Reduced features of examples that the reduction was not fitted on,
            `(count, reduced)`, or None.
        mean: Mean of the features, `(features,)`, or None.
        components: Principal components, `(features, reduced)`, or None.
        joint: Counts by predicted and true class, or None without labels.
        shares: The share of each class: of the labels, or else the mean score.
        class_names: Name of each class.
        facts: Other facts that JSON can store: fingerprint, seed, versions.
    """

    kind: ScoreKind
    scores: np.ndarray
    features: np.ndarray | None
    mean: np.ndarray | None
    components: np.ndarray | None
    joint: np.ndarray | None
    shares: np.ndarray
    class_names: tuple[str, ...]
    facts: dict

    def reduced(self, features: object) -> np.ndarray:
        """Return features of the model in the reduced space.

        Raises:
            ValueError: If the reference has no features, or they do not fit.
        """
        if self.mean is None:
            raise ValueError(
                "features are passed, but the reference has none. Leave them out, or "
                "export the model again with features=True."
            )
        rows = rows_of("features", features, len(self.mean))
        return (rows - self.mean) @ self.components

    def write(self, folder: pathlib.Path) -> None:
        """Write the two files of the reference into the folder of a SavedModel."""
        (folder / FOLDER).mkdir(exist_ok=True)
        buffer = io.BytesIO()
        fields = ("scores", "features", "mean", "components", "joint", "shares")
        found = {name: getattr(self, name) for name in fields}
        np.savez_compressed(buffer, **{k: v for k, v in found.items() if v is not None})
        (folder / ARRAYS).write_bytes(buffer.getvalue())
        facts = {
            "format": FORMAT,
            "arrays": _digest(buffer.getvalue()),
            "kind": dataclasses.asdict(self.kind),
            "class_names": self.class_names,
            "facts": self.facts,
        }
        (folder / FACTS).write_text(json.dumps(facts, allow_nan=False, indent=1))


def make_reference(
    kind: ScoreKind,
    outputs: np.ndarray,
    features: np.ndarray | None,
    labels: np.ndarray | None,
    class_names: Sequence[str],
    seed: int,
    facts: dict,
) -> ShiftReference:
    """Return the reference of held-out examples.

    Args:
        kind: How outputs become scores.
        outputs: Outputs of the model.
        features: Features of the same examples, or None.
        labels: The class of each example, or None.
        class_names: Name of each class.
        seed: The seed of the examples that are kept.
        facts: As in `ShiftReference`.

    Raises:
        ValueError: If there are too few examples, or their outputs or features are not
            finite.
    """
    scores = kind.scores(outputs)
    if len(scores) < LEAST:
        raise ValueError(
            f"reference has {len(scores)} examples. Pass at least {LEAST} held-out "
            "examples; with 1,000 or more, smaller shifts are found."
        )
    most = min(ROWS, VALUES // scores.shape[1])
    if most < LEAST:
        raise ValueError(
            f"The model has {scores.shape[1]:,} classes. A reference can have at most "
            f"{VALUES // LEAST:,}."
        )
    rng = np.random.default_rng(seed)
    predicted = kind.predicted(scores)
    shares = kind.shares(scores).mean(0)
    joint = None
    if labels is not None and predicted is not None:
        size = len(shares)
        joint = np.zeros((size, size), "int64")
        np.add.at(joint, (predicted, labels), 1)
        shares = joint.sum(0) / joint.sum()
    kept, mean, components = None, None, None
    if features is not None:
        kept, mean, components = _reduce(features, rng)
    return ShiftReference(
        kind,
        part_of(scores, most, rng).astype("float32"),
        kept,
        mean,
        components,
        joint,
        shares,
        tuple(class_names),
        {"seed": seed, "examples": len(scores)} | facts,
    )


def read_reference(folder: pathlib.Path) -> ShiftReference:
    """Return the reference in the folder of a SavedModel. Nothing in it is executed.

    Raises:
        ValueError: If the folder has none, or the files cannot be used.
    """
    for file in (FACTS, ARRAYS):
        if not (folder / file).is_file():
            raise ValueError(
                f"{str(folder)!r} has no {file.name}, so there is no reference to "
                "compare with. Export the model again with kt.export_serving(..., "
                "reference=(x, y))."
            )
    try:
        content = _limited(folder / ARRAYS)
        said = parse_json(_limited(folder / FACTS))
        if said["format"] != FORMAT:
            raise ValueError("its format is that of another version.")
        if said["arrays"] != _digest(content):
            raise ValueError(f"{ARRAYS.name} is not the file that was written with it.")
        arrays = arrays_of(content)
        return _checked(said, arrays)
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OSError,
        zipfile.BadZipFile,
    ) as problem:
        raise ValueError(
            f"The reference {str(folder / FACTS)!r} cannot be used: {problem} Export "
            "the model again."
        ) from problem


def arrays_of(content: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file. Nothing is unpickled.

    Raises:
        ValueError: If the file is not an npz, has objects, or is too large unpacked.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        total = sum(each.file_size for each in packed.infolist())
    if total > UNPACKED:
        raise ValueError(f"its arrays have {total:,} bytes, more than {UNPACKED:,}.")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _checked(said: dict, arrays: dict) -> ShiftReference:
    kind = ScoreKind.from_config(said["kind"])
    names = tuple(said["class_names"])
    classes = 2 if kind.kind == "binary" else kind.size
    if len(names) != classes or not all(isinstance(each, str) for each in names):
        raise ValueError(f"it has {len(names)} class names for {classes} classes.")
    if not isinstance(said["facts"], dict):
        raise ValueError("its facts are not a JSON object.")
    shapes = {"scores": (None, kind.size), "shares": (classes,)}
    if "joint" in arrays:
        shapes["joint"] = (classes, classes)
    if "features" in arrays:
        size = arrays["features"].shape[-1]
        shapes |= {
            "features": (None, size),
            "mean": (None,),
            "components": (None, size),
        }
    if set(arrays) != set(shapes):
        raise ValueError(f"its arrays are {sorted(arrays)}.")
    for name, shape in shapes.items():
        found = arrays[name]
        fits = found.ndim == len(shape) and found.size > 0
        fits = fits and all(w in (None, n) for w, n in zip(shape, found.shape))
        if not fits or found.dtype.kind not in "if" or not np.isfinite(found).all():
            raise ValueError(f"its array {name!r} has another shape or is not finite.")
    fields = ("scores", "features", "mean", "components", "joint", "shares")
    found = [arrays.get(name) for name in fields]
    if found[2] is not None and len(found[2]) != len(found[3]):
        raise ValueError("its mean and components differ in size.")
    return ShiftReference(kind, *found, names, said["facts"])


def _reduce(
    features: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return kept features in the reduced space, the mean, and the components.

    The components are fitted on other examples than those that are kept: along
    directions that fit the kept examples, these vary more than new examples, and a test
    would take this for a shift.
    """
    from sklearn.decomposition import PCA

    rows = rows_of("features", features, features.shape[1])
    order = rng.permutation(len(rows))
    fitted = min(ROWS, len(rows) // 3)
    first, rest = rows[order[:fitted]], rows[order[fitted : fitted + ROWS]]
    size = min(SIZE, rows.shape[1], fitted - 1)
    state = int(rng.integers(2**31))
    pca = PCA(size, svd_solver="randomized", random_state=state)
    with np.errstate(invalid="ignore"):  # shares of the variance, if there is none
        pca.fit(first)
    mean, components = pca.mean_.astype("float32"), pca.components_.T.astype("float32")
    return ((rest - mean) @ components).astype("float32"), mean, components


def _limited(path: pathlib.Path) -> bytes:
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path.name} is larger than {LARGEST:,} bytes.")
    return path.read_bytes()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
