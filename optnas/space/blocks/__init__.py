"""Blocks by kind: functions of a trial whose input width is never asked for, so any may follow any other.

A block infers what it gets at its first forward pass, as torch's lazy modules do. Run a model once on an
example (any device, meta included) before its parameters are used or counted; from then on its layers are
plain ones of torch. Spatial sizes follow one rule: a block of stride s turns a size n into ceil(n / s).

Every argument that shapes a block is a decision: one value is fixed, several are asked of the trial under the
argument's name (see `decide`). As candidates and parts of nodes, use `functools.partial(conv, width=32)`.
"""

from optnas.space.blocks.attentions import Attention, Windows, attention, windowed
from optnas.space.blocks.convolution import SqueezeExcitation, conv, mbconv, separable_conv
from optnas.space.blocks.decisions import ACTIVATIONS, Activation, OneOf, decide
from optnas.space.blocks.embedding import (
    LearnedPositions,
    PatchEmbedding,
    SinusoidalPositions,
    TokenEmbedding,
    patch_embedding,
    token_embedding,
)
from optnas.space.blocks.graphs import GRAPH_CONVS, GraphBlock, graph_conv, pool_graphs
from optnas.space.blocks.heads import Pool, SequenceHead, head, sequence_head
from optnas.space.blocks.normalization import (
    NORMS,
    SEQUENCE_NORMS,
    ChannelNorm,
    GroupNorm,
    Norm,
    SequenceNorm,
)
from optnas.space.blocks.parts import Inferred, Stack, mask_of, sequential
from optnas.space.blocks.pyramid import FeaturePyramid, feature_pyramid
from optnas.space.blocks.recurrence import CELLS, Recurrent, recurrent
from optnas.space.blocks.regularization import StochasticDepth, dropout, stochastic_depth
from optnas.space.blocks.resampling import Upsample, UShape, downsample, upsample
from optnas.space.blocks.shortcuts import Residual, residual
from optnas.space.blocks.tabular import FeatureTokenizer, TabularBlock, feature_tokenizer, tabular_block
from optnas.space.blocks.temporal import TemporalBlock, TemporalConv, temporal_block
from optnas.space.blocks.transformer import (
    FeedForward,
    TransformerBlock,
    decoder_block,
    encoder_block,
    feed_forward,
)

__all__ = [
    "ACTIVATIONS",
    "CELLS",
    "GRAPH_CONVS",
    "NORMS",
    "SEQUENCE_NORMS",
    "Activation",
    "Attention",
    "ChannelNorm",
    "FeaturePyramid",
    "FeatureTokenizer",
    "FeedForward",
    "GraphBlock",
    "GroupNorm",
    "Inferred",
    "LearnedPositions",
    "Norm",
    "OneOf",
    "PatchEmbedding",
    "Pool",
    "Recurrent",
    "Residual",
    "SequenceHead",
    "SequenceNorm",
    "SinusoidalPositions",
    "SqueezeExcitation",
    "Stack",
    "StochasticDepth",
    "TabularBlock",
    "TemporalBlock",
    "TemporalConv",
    "TokenEmbedding",
    "TransformerBlock",
    "UShape",
    "Upsample",
    "Windows",
    "attention",
    "conv",
    "decide",
    "decoder_block",
    "downsample",
    "dropout",
    "encoder_block",
    "feature_pyramid",
    "feature_tokenizer",
    "feed_forward",
    "graph_conv",
    "head",
    "mask_of",
    "mbconv",
    "patch_embedding",
    "pool_graphs",
    "recurrent",
    "residual",
    "separable_conv",
    "sequence_head",
    "sequential",
    "stochastic_depth",
    "tabular_block",
    "temporal_block",
    "token_embedding",
    "upsample",
    "windowed",
]
