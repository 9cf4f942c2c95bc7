"""The zoo: a model of every family that a gateway may train. `python -m benchmarks.train_step` measures the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fieldfold.task.authoring import Task
from tests.task.zoo import convolutional, dense, images, sequential, several

MEMBERS: Mapping[str, Callable[[], Task]] = {
    "logistic-regression": dense.logistic_regression,
    "perceptron": dense.perceptron,
    "autoencoder": several.autoencoder,
    "embedding": several.embedding,
    "two-heads": several.two_heads,
    "tied": several.tied,
    "cnn-batch-norm": convolutional.cnn_batch_norm,
    "cnn-group-norm": convolutional.cnn_group_norm,
    "temporal-convolutions": convolutional.temporal_convolutions,
    "inception-time": convolutional.inception_time,
    "separable": convolutional.separable,
    "u-net": convolutional.u_net,
    "lenet": images.lenet,
    "resnet": images.resnet,
    "gru": sequential.gru,
    "lstm": sequential.lstm,
    "lstm-both-ways": sequential.lstm_both_ways,
    "transformer": sequential.transformer,
}
