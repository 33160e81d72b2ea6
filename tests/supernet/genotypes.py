"""Published genotypes, as their authors print them."""

from __future__ import annotations

from nasprune.supernet.genotype.genotype import Gene, Genotype

OPS = {
    "s3": "sep_conv_3x3",
    "s5": "sep_conv_5x5",
    "d3": "dil_conv_3x3",
    "d5": "dil_conv_5x5",
    "sk": "skip_connect",
    "mp": "max_pool_3x3",
    "ap": "avg_pool_3x3",
}


def darts(normal: str, reduce: str) -> Genotype:
    """Two `op@input` for each node, from node 2 on, all nodes concatenated."""
    cells = {}
    for kind, text in (("normal", normal), ("reduce", reduce)):
        pairs = [item.split("@") for item in text.split()]
        cells[kind] = tuple(Gene(OPS[op], int(source), 2 + place // 2) for place, (op, source) in enumerate(pairs))
    return Genotype(cells, dict.fromkeys(cells, (2, 3, 4, 5)))


PUBLISHED = {
    "darts_v1": darts("s3@1 s3@0 sk@0 s3@1 sk@0 s3@1 s3@0 sk@2", "mp@0 mp@1 sk@2 mp@0 mp@0 sk@2 sk@2 ap@0"),
    "darts_v2": darts("s3@0 s3@1 s3@0 s3@1 s3@1 sk@0 sk@0 d3@2", "mp@0 mp@1 sk@2 mp@1 mp@0 sk@2 sk@2 mp@1"),
    "pdarts": darts("sk@0 d3@1 sk@0 s3@1 s3@1 s3@3 s3@0 d5@4", "ap@0 s5@1 s3@0 d5@2 mp@0 d3@1 d3@1 d5@3"),
    "pc_darts_cifar": darts("s3@1 sk@0 s3@0 d3@1 s5@0 s3@1 ap@0 d3@1", "s5@1 mp@0 s5@1 s5@2 s3@0 s3@3 s3@1 s3@2"),
    "pc_darts_image": darts("sk@1 s3@0 s3@0 sk@1 s3@1 s3@3 s3@1 d5@4", "s3@0 sk@1 d5@2 mp@1 s3@2 s3@1 s5@0 s3@3"),
    "snas": darts("s3@0 s3@1 sk@0 d3@1 sk@1 sk@0 sk@0 s3@1", "mp@0 mp@1 mp@1 sk@2 sk@2 mp@1 mp@0 d5@2"),
    "gdas_v1": darts("sk@0 sk@1 sk@0 s5@2 s3@3 sk@0 s5@4 s3@3", "s5@0 s3@1 s5@2 s5@1 d5@2 s3@1 s5@0 s5@2"),
    "mdenas": darts("s5@1 s3@0 sk@0 s5@1 s5@3 s3@1 d5@3 mp@4", "mp@0 s5@1 sk@0 sk@1 s3@3 sk@2 d3@3 s5@0"),
    "darts_pt_s5_0": darts("s3@0 s3@1 s5@0 d3@1 sk@0 sk@2 sk@0 mp@4", "s3@0 ap@1 d5@1 d3@2 ap@0 mp@2 s3@2 sk@4"),
    "darts_pt_s5_1": darts("s3@0 s3@1 s3@0 d3@1 mp@0 sk@2 sk@0 d3@4", "d5@0 ap@1 mp@0 s5@2 mp@1 d3@3 s5@0 s3@4"),
    "darts_pt_s5_2": darts("sk@0 s3@1 s3@0 d3@1 sk@2 d3@3 mp@1 sk@2", "ap@0 mp@1 ap@0 s3@1 d5@2 sk@3 s3@2 s5@4"),
    "darts_pt_s5_3": darts("s3@0 s3@1 s3@0 s3@1 sk@0 sk@2 s3@1 sk@3", "ap@0 s5@1 mp@1 sk@2 d5@1 mp@3 s5@2 sk@3"),
    "blank_pt_s5_0": darts("s3@0 s5@1 s3@0 s3@1 ap@1 sk@3 mp@0 ap@2", "sk@0 s5@1 d3@1 s5@2 mp@0 sk@3 mp@0 mp@2"),
    "blank_pt_s5_1": darts("ap@0 ap@1 s3@0 mp@2 sk@2 s3@3 s5@0 s5@1", "mp@0 d5@1 s3@0 sk@1 ap@2 mp@3 s5@3 s5@4"),
    "blank_pt_s5_2": darts("ap@0 d3@1 s5@0 mp@1 mp@0 sk@1 s5@1 ap@2", "s3@0 ap@1 ap@0 s5@1 mp@0 s5@3 mp@2 d5@4"),
    "blank_pt_s5_3": darts("s3@0 s3@1 s3@0 sk@1 mp@2 s3@3 ap@0 s5@1", "d5@0 s5@1 s5@0 d3@1 ap@1 sk@2 mp@0 sk@4"),
}
"""DARTS (Liu et al. 2019), P-DARTS (Chen et al. 2019), PC-DARTS (Xu et al. 2020), SNAS (Xie et al. 2019), GDAS (Dong &
Yang 2019), MdeNAS (Zheng et al. 2019), DARTS-PT and its `blank` variant (Wang et al. 2021), each as published."""
