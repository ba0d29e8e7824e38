"""What a control plane works with, of a mesh under construction."""

import functools

from isthmus.runtime import assembly


def mesh_of(builder, *, turns=False):
    """Assemble a mesh.

    Sets of endpoints turn when a test says so, or are all told in parts to those who can be.
    """
    restless = builder.graph.source("told in parts")
    encoded = functools.partial(assembly._encoded, restless=restless if turns else None)
    return assembly.Mesh(
        None,
        builder.graph,
        builder.sources,
        builder.model,
        builder.views,
        builder.graph.derive("resources", builder.views.slices, encoded),
        builder.graph.derive("told exports", builder.model.peers.exports, assembly._exported),
        restless,
    )
