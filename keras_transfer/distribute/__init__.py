"""Training on several devices and several machines."""

from keras_transfer.distribute.batch_norm import (
    synchronize_batch_norm as synchronize_batch_norm,
)
from keras_transfer.distribute.check import check as check
from keras_transfer.distribute.connect import connect as connect
from keras_transfer.distribute.layout import layout as layout
from keras_transfer.distribute.multi_worker import multi_worker as multi_worker
from keras_transfer.distribute.multi_worker import worker_path as worker_path
