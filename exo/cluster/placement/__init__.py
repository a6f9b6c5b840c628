"""Where a model goes: pure, over what is known of the model, the nodes and their links.

wanted    what is asked, and what a node can give
choose    which nodes may take part, and the reasons of those that may not
memory    the bytes that a share of the layers needs
cost      the seconds that a share and a hop take
problem   both, as tables that a search can read
exact     the best order of a few nodes, over all subsets
large     a good order of many nodes, within a bound of work
split     the best cuts for one order of nodes
plan      a placement made of shares, whoever chose them
pipeline  the best pipeline over each number of nodes
tensor    the best split by tensors over each number of nodes
image     the best nodes for an image model
options   everything above, for one that is placed and for those that are shown
"""

from exo.cluster.placement.options import Option, options, place
from exo.cluster.placement.plan import DEFAULT_CONCURRENCY, DEFAULT_CONTEXT
from exo.cluster.placement.wanted import LayerRange, NodeResources, Objective, Wanted

__all__ = [
    "DEFAULT_CONCURRENCY",
    "DEFAULT_CONTEXT",
    "LayerRange",
    "NodeResources",
    "Objective",
    "Option",
    "Wanted",
    "options",
    "place",
]
