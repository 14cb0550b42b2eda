"""Precisions: from the fp32 graph of a network to graphs that say in which numbers each node computes.

fp16         the explicitly typed fp16 graph
rounding     run such a graph on a CPU and see what fp16 costs
overflow     whether fp16 holds what a network computes on real tiles
"""
