"""Published spaces, one file each: the space, its published networks as params, its table of results.

    from optnas.hub import darts, recipes
    from optnas.trial import replay

    model = darts.network(replay(darts.V2))  # the published network, a member of its space
    objective = Objective(darts.network, recipes.darts(data))  # a search of the space

Images: `darts`, `nasnet`, `nasbench201`, `nasbench_macro`, `natsbench_size`, `mobilenetv3`, `resnet`,
`regnet`, `convnext`, `vit`. Maps: `unet` (volumes too), `retinanet`.
Language: `gpt`, `bert`, `nasbench_nlp`. Series: `tcn`, `inception_time`. Tables: `tabular`, `fcnet`. Graphs:
`nasbench_graph`.

A file's first lines name the paper, the published networks and their numbers of parameters; where a paper
counts otherwise, they say how. `recipes` has how each of them is trained.
"""

__all__: list[str] = []
