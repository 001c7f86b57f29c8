"""The objects of the golden JSON files, which contain only their configs."""

import keras

import keras_transfer as kt
from keras_transfer.fine_tuning.thaw_schedule import ThawSchedule
from tests import tiny
from tests.golden.models import RECIPES

RATES = {"dense_0": 0.25, ("dense_1", "kernel"): 0.5}


def discriminative(kind):
    """Return the discriminative subclass of an optimizer of Keras."""
    optimizer = getattr(keras.optimizers, kind)(0.01)
    return kt.optimizers.discriminative(
        optimizer, tiny.mlp(), layer_decay=0.9, rates=RATES
    )


def decaying():
    """Return AdamW with a schedule and weight decay on kernels alone."""
    schedule = kt.optimizers.SlantedTriangular(0.05, 20)
    adamw = keras.optimizers.AdamW(schedule, weight_decay=0.1)
    return kt.optimizers.discriminative(
        adamw, tiny.mlp(), layer_decay=0.5, no_weight_decay=True
    )


def unfreezing():
    """Return the callback with custom phases."""
    groups = kt.layer_groups(tiny.mlp())
    phases = [(("dense_2",), 2), (("dense_1", "dense_2"), 1, 0.5)]
    return kt.callbacks.GradualUnfreezing(
        groups, phases, batch_norm="train", monitor="loss", patience=3
    )


OPTIMIZERS = (
    "SGD",
    "Adam",
    "AdamW",
    "RMSprop",
    "Adagrad",
    "Adamax",
    "Nadam",
    "Lamb",
    "Lion",
    "Adafactor",
)

OBJECTS = {
    **{f"optimizer_{x.lower()}": lambda x=x: discriminative(x) for x in OPTIMIZERS},
    "optimizer_decaying": decaying,
    "schedule_slanted": lambda: kt.optimizers.SlantedTriangular(0.1, 50, ratio=16),
    "schedule_warmup": lambda: kt.optimizers.LinearWarmupDecay(0.1, 50, warmup_steps=5),
    "schedule_thaw": lambda: ThawSchedule(0.1, 50, [10, 20], warmup_steps=4),
    "schedule_ganin_decay": lambda: kt.optimizers.GaninDecay(0.1, 50, alpha=5.0),
    "schedule_ganin_ramp_up": lambda: kt.optimizers.GaninRampUp(50, end=0.5),
    "loss_class_confusion": lambda: kt.losses.ClassConfusion(temperature=2.0),
    "loss_classifier_discrepancy": lambda: kt.losses.ClassifierDiscrepancy(),
    "loss_conditional_entropy": lambda: kt.losses.ConditionalEntropy(),
    "loss_coral": lambda: kt.losses.CORAL(),
    "loss_domain_classification": lambda: kt.losses.DomainClassification(),
    "loss_feature_norm": lambda: kt.losses.FeatureNorm(step=0.5),
    "loss_joint_mmd": lambda: kt.losses.JointMMD(scales=(0.5, 1.0)),
    "loss_margin_disparity": lambda: kt.losses.MarginDisparity(margin=3.0),
    "loss_mmd": lambda: kt.losses.MMD(),
    "callback_unfreezing": unfreezing,
    "callback_group_logs": lambda: kt.callbacks.LayerGroupLogs(moved=False),
    "penalty_l2_sp": lambda: kt.regularizers.L2SP(0.5, 0.25),
    "penalty_ewc": lambda: kt.regularizers.EWC(2.0, gamma=0.5, classes="sampled"),
    **{f"recipe_{name}": lambda each=each: each for name, each in RECIPES.items()},
}
