"""Reading a model or its features; nothing here changes them."""

from keras_transfer.analysis.document import Report as Report
from keras_transfer.analysis.report import report as report
from keras_transfer.analysis.start import record_start as record_start
