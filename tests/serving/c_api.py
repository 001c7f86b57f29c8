"""Run SavedModels with the TensorFlow C API, without TensorFlow's Python code.

`TF_LoadSessionFromSavedModel` is the loader that TensorFlow Serving uses. As a module,
this file runs a pickled list of jobs. A job is (folder, signature, arrays by name) or
(library, path). The result is a list of outputs by name or texts of errors.

    python -m tests.serving.c_api jobs.pickle results.pickle
"""

import contextlib
import ctypes
import importlib.util
import pathlib
import pickle
import sys

import numpy as np

STRING = 7
DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    9: "int64",
    10: "bool",
    17: "uint16",
    19: "float16",
    22: "uint32",
    23: "uint64",
}
STRING_SIZE = 24  # of a TF_TString, in bytes


class Failure(Exception):
    """An error of the C API with a text and a code, which equals the code in gRPC."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


class Buffer(ctypes.Structure):
    """TF_Buffer."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    ]


class Output(ctypes.Structure):
    """TF_Output: one output of an operation."""

    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


def package_folder(name):
    """Return the folder of an installed package, without importing it."""
    return pathlib.Path(importlib.util.find_spec(name).origin).parent


def only_messages():
    """Make `import tensorflow.core...` import only the protocol messages.

    Importing the package itself would load all of TensorFlow's Python code.
    """
    if "tensorflow" not in sys.modules:
        found = importlib.util.find_spec("tensorflow")
        sys.modules["tensorflow"] = importlib.util.module_from_spec(found)  # not run


def library():
    """Load and return the library of the C API."""
    folder = package_folder("tensorflow")
    # The custom operations need the symbols of this library.
    ctypes.CDLL(str(folder / "libtensorflow_framework.so.2"), ctypes.RTLD_GLOBAL)
    found = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"), ctypes.RTLD_GLOBAL)
    pointer, size, whole = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    results = {
        "TF_AllocateTensor": pointer,
        "TF_Dim": ctypes.c_int64,
        "TF_GetCode": whole,
        "TF_GraphOperationByName": pointer,
        "TF_LoadLibrary": pointer,
        "TF_LoadSessionFromSavedModel": pointer,
        "TF_Message": ctypes.c_char_p,
        "TF_NewBuffer": ctypes.POINTER(Buffer),
        "TF_NewGraph": pointer,
        "TF_NewSessionOptions": pointer,
        "TF_NewStatus": pointer,
        "TF_NumDims": whole,
        "TF_StringGetDataPointer": pointer,
        "TF_StringGetSize": size,
        "TF_TensorByteSize": size,
        "TF_TensorData": pointer,
        "TF_TensorType": whole,
    }
    for name, kind in results.items():
        getattr(found, name).restype = kind
    arguments = {
        "TF_AllocateTensor": [whole, pointer, whole, size],
        "TF_CloseSession": [pointer, pointer],
        "TF_DeleteSession": [pointer, pointer],
        "TF_Dim": [pointer, whole],
        "TF_GraphOperationByName": [pointer, ctypes.c_char_p],
        "TF_LoadLibrary": [ctypes.c_char_p, pointer],
        "TF_LoadSessionFromSavedModel": [
            *(pointer, pointer, ctypes.c_char_p, pointer, whole),
            *(pointer, ctypes.POINTER(Buffer), pointer),
        ],
        "TF_SessionRun": [
            *(pointer, pointer, pointer, pointer, whole, pointer, pointer, whole),
            *(pointer, whole, pointer, pointer),
        ],
        "TF_StringCopy": [pointer, ctypes.c_char_p, size],
    }
    arguments["TF_DeleteBuffer"] = [ctypes.POINTER(Buffer)]
    for name in (
        *("TF_DeleteGraph", "TF_DeleteSessionOptions", "TF_DeleteStatus"),
        *("TF_DeleteTensor", "TF_GetCode", "TF_Message", "TF_NumDims"),
        *("TF_StringDealloc", "TF_StringGetDataPointer", "TF_StringGetSize"),
        *("TF_StringInit", "TF_TensorByteSize", "TF_TensorData", "TF_TensorType"),
    ):
        arguments[name] = [pointer]
    for name, kinds in arguments.items():
        getattr(found, name).argtypes = kinds
    return found


class TensorFlow:
    """The part of the C API that loads and runs a SavedModel."""

    def __init__(self):
        self.c = library()

    def load_operations(self, path):
        """Register the custom operations of a shared library."""
        with self.status() as status:
            self.c.TF_LoadLibrary(str(path).encode(), status)

    @contextlib.contextmanager
    def status(self):
        """Yield a TF_Status, and raise its error at the end of the block."""
        status = self.c.TF_NewStatus()
        try:
            yield status
            code = self.c.TF_GetCode(status)
            if code:
                text = self.c.TF_Message(status).decode(errors="replace")
                raise Failure(code, text)
        finally:
            self.c.TF_DeleteStatus(status)

    def tensor(self, array, dtype):
        """Return a new TF_Tensor with the content of an array."""
        dims = (ctypes.c_int64 * array.ndim)(*array.shape)
        strings = dtype == STRING
        size = array.size * STRING_SIZE if strings else array.nbytes
        made = self.c.TF_AllocateTensor(dtype, dims, array.ndim, size)
        data = self.c.TF_TensorData(made)
        if not strings:
            ctypes.memmove(data, np.ascontiguousarray(array).ctypes.data, size)
        for number, text in enumerate(array.flat if strings else ()):
            content = text.encode() if isinstance(text, str) else bytes(text)
            self.c.TF_StringInit(data + number * STRING_SIZE)
            self.c.TF_StringCopy(data + number * STRING_SIZE, content, len(content))
        return made

    def array(self, tensor):
        """Return the content of a TF_Tensor."""
        dtype = self.c.TF_TensorType(tensor)
        rank = self.c.TF_NumDims(tensor)
        shape = [self.c.TF_Dim(tensor, axis) for axis in range(rank)]
        data, size = self.c.TF_TensorData(tensor), self.c.TF_TensorByteSize(tensor)
        if dtype != STRING:
            content = ctypes.string_at(data, size) if size else b""
            return np.frombuffer(content, DTYPES[dtype]).reshape(shape)
        found = np.empty(shape, object)
        for number in range(found.size):
            text = data + number * STRING_SIZE
            start = self.c.TF_StringGetDataPointer(text)
            found.flat[number] = ctypes.string_at(start, self.c.TF_StringGetSize(text))
        return found

    def delete(self, tensor, own_strings=False):
        """Delete a TF_Tensor, and free its strings if we created them."""
        if own_strings and self.c.TF_TensorType(tensor) == STRING:
            data = self.c.TF_TensorData(tensor)
            for start in range(0, self.c.TF_TensorByteSize(tensor), STRING_SIZE):
                self.c.TF_StringDealloc(data + start)
        self.c.TF_DeleteTensor(tensor)


class SavedModel:
    """A SavedModel in a session, as `TF_LoadSessionFromSavedModel` loads it.

    `signatures` are the SignatureDef messages by name.
    """

    def __init__(self, tensorflow, folder, tag="serve"):
        only_messages()
        from tensorflow.core.protobuf import meta_graph_pb2

        self.tensorflow, self.c = tensorflow, tensorflow.c
        self.graph = self.c.TF_NewGraph()
        options, meta = self.c.TF_NewSessionOptions(), self.c.TF_NewBuffer()
        tags = (ctypes.c_char_p * 1)(tag.encode())
        path = str(folder).encode()
        try:
            with tensorflow.status() as status:
                self.session = self.c.TF_LoadSessionFromSavedModel(
                    options, None, path, tags, 1, self.graph, meta, status
                )
            content = ctypes.string_at(meta.contents.data, meta.contents.length)
        finally:
            self.c.TF_DeleteBuffer(meta)
            self.c.TF_DeleteSessionOptions(options)
        graph = meta_graph_pb2.MetaGraphDef.FromString(content)
        self.signatures = {
            name: each
            for name, each in graph.signature_def.items()
            if not name.startswith("__")  # the initializer, which has already run
        }

    def close(self):
        """Free the session and the graph."""
        for release in (self.c.TF_CloseSession, self.c.TF_DeleteSession):
            with self.tensorflow.status() as status:
                release(self.session, status)
        self.c.TF_DeleteGraph(self.graph)

    def run(self, signature, arrays):
        """Return the outputs of a signature by name."""
        definition = self.signatures[signature]
        if set(arrays) != set(definition.inputs):
            text = f"{signature} takes {sorted(definition.inputs)}, not "
            raise Failure(3, text + f"{sorted(arrays)}")  # invalid argument
        names = list(definition.outputs)
        sources, inputs = [], []
        for name, array in arrays.items():
            info = definition.inputs[name]
            kind = DTYPES.get(info.dtype, object)
            sources.append(self._output(info.name))
            inputs.append(
                self.tensorflow.tensor(np.asarray(array, kind), dtype=info.dtype)
            )
        targets = [self._output(definition.outputs[name].name) for name in names]
        outputs = (ctypes.c_void_p * len(names))()
        try:
            with self.tensorflow.status() as status:
                self.c.TF_SessionRun(
                    *(self.session, None),
                    *((Output * len(sources))(*sources),),
                    *((ctypes.c_void_p * len(inputs))(*inputs), len(inputs)),
                    *((Output * len(targets))(*targets), outputs, len(names)),
                    *(None, 0, None, status),
                )
            return {
                name: self.tensorflow.array(each)
                for name, each in zip(names, outputs, strict=True)
            }
        finally:
            for each in filter(None, outputs):
                self.tensorflow.delete(each)
            for each in inputs:  # last, as an output can use the memory of an input
                self.tensorflow.delete(each, own_strings=True)

    def _output(self, name):
        operation, _, index = name.rpartition(":")
        found = self.c.TF_GraphOperationByName(self.graph, operation.encode())
        return Output(found, int(index))


def text_operations():
    """Return the paths of the libraries with the operations of tensorflow_text."""
    folder = package_folder("tensorflow_text") / "python" / "ops"
    return sorted(folder.glob("*.so"))


def main(source, target):
    tensorflow, results, models = TensorFlow(), [], {}
    for job in pickle.loads(pathlib.Path(source).read_bytes()):
        try:
            if len(job) == 2:
                results.append(tensorflow.load_operations(job[1]))
                continue
            folder, signature, arrays = job
            if folder not in models:
                models[folder] = SavedModel(tensorflow, folder)
            results.append(models[folder].run(signature, arrays))
        except Failure as failure:
            results.append(str(failure))
    for each in models.values():
        each.close()
    modules = sorted(sys.modules)
    pathlib.Path(target).write_bytes(pickle.dumps((results, modules)))


if __name__ == "__main__":
    main(*sys.argv[1:])
