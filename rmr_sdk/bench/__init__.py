"""The latency suite behind `rmr bench`: measures this machine, compares two measurements, draws the page.

    settings -> measure (cold starts, interleaved repeats, roofline) -> results -> table, page, compare

docs/benchmarking.md says how each figure is taken. Nothing here is imported by a pipeline.
"""
