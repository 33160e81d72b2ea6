"""Where models come from: the user's factories and files, libraries, weights from files, and bundled networks.

Import from here: `call_factory`, the bundled nets, `load_model`, `weights`.
May import: `errors`, `common`.
"""

from nasprune.common.factories import call_factory
from nasprune.models.lenets import lenet_5, lenet_300_100
from nasprune.models.nets import ResidualNet, digits_net, resnet20, resnet32, resnet44, resnet56
from nasprune.models.pointnets import pointnet, pointnet2

__all__ = [
    "ResidualNet",
    "call_factory",
    "digits_net",
    "lenet_5",
    "lenet_300_100",
    "pointnet",
    "pointnet2",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
]
