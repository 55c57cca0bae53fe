"""A small convolutional network, to be tried with dropout on images in folders, one for each class.

cd examples
dropkit compare own_cnn:cnn --data PHOTOS --image-size 16 --insert conv2=channel:0.1
"""

from collections import OrderedDict

from torch import nn


def cnn() -> nn.Module:
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=nn.Conv2d(3, 8, 3, padding=1), relu1=nn.ReLU())
    layers |= {"pool1": nn.MaxPool2d(2), "conv2": nn.Conv2d(8, 16, 3, padding=1), "relu2": nn.ReLU()}
    layers |= {"pool2": nn.AdaptiveAvgPool2d(2), "flat": nn.Flatten(), "drop": nn.Dropout(0.3)}
    layers["output"] = nn.Linear(64, 2)
    return nn.Sequential(layers)
