"""Watch the inputs of a served model for a shift of their distribution."""

from keras_transfer.monitoring.shift_monitor import ShiftMonitor as ShiftMonitor
from keras_transfer.monitoring.shift_report import ShiftReport as ShiftReport
