"""The recipes, by name. Importing them loads no framework."""

from ...errors import UnknownNameError
from .cnn import CNN
from .dense import DENSE
from .gan import GAN
from .gan_functional import GAN_FUNCTIONAL
from .mlp import MLP
from .mlp_functional import MLP_FUNCTIONAL
from .numpy_layer import NUMPY_LAYER
from .numpy_mlp import NUMPY_MLP
from .recipe import Recipe
from .transfer import TRANSFER
from .transfer_pretrained import TRANSFER_PRETRAINED, TRANSFER_RANDOM
from .vgg_adaptive import VGG_ADAPTIVE
from .vgg_everywhere import VGG_CHANNELS, VGG_EVERYWHERE

RECIPES = {
    recipe.name: recipe
    for recipe in (
        MLP,
        MLP_FUNCTIONAL,
        NUMPY_MLP,
        NUMPY_LAYER,
        VGG_ADAPTIVE,
        VGG_EVERYWHERE,
        VGG_CHANNELS,
        CNN,
        DENSE,
        TRANSFER,
        TRANSFER_PRETRAINED,
        TRANSFER_RANDOM,
        GAN,
        GAN_FUNCTIONAL,
    )
}


def get(name: str | Recipe) -> Recipe:
    """The recipe of a name; a Recipe is passed through.

    Raises:
        UnknownNameError: no recipe has that name; the nearest are suggested.

    >>> get("mlp").name
    'mlp'
    """
    if isinstance(name, Recipe):
        return name
    if name not in RECIPES:
        raise UnknownNameError("recipe", str(name), RECIPES)
    return RECIPES[name]
