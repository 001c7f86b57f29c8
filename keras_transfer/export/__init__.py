"""Export trained models for serving."""

from keras_transfer.export.add_adapter import add_adapter as add_adapter
from keras_transfer.export.image_bytes import ImageBytes as ImageBytes
from keras_transfer.export.onnx_litert import export_file as export_file
from keras_transfer.export.raw_text import RawText as RawText
from keras_transfer.export.served_adapters import ServedAdapters as ServedAdapters
from keras_transfer.export.serving import export_serving as export_serving
