"""The graph of a network: exact rewrites for one static tile, traced to ONNX and tidied up.

windows      which token is where, as constant tables
attention    window attention and blocks in their export form
blocks       a row of blocks on one stream of tokens
network      the whole network in its export form
trace        to ONNX
passes       clean-up of the traced graph
device       rewrites that only GPUs gain by
steps        all rewrites one after another
"""

from __future__ import annotations

from .trace import build_graph

__all__ = ["build_graph"]
