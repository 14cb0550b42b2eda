"""Run tiles through an engine, and what the reference evaluator of ONNX gives for them."""

from __future__ import annotations

from functools import cache

from onnx.reference import ReferenceEvaluator
from tiny_bundle import make_graph, random_tile

from rmr_sdk.engines import Engine
from rmr_sdk.golden import FloatArray


@cache
def expected(seed: int) -> dict[str, FloatArray]:
    evaluator = ReferenceEvaluator(make_graph())
    return dict(zip(evaluator.output_names, evaluator.run(None, random_tile(seed)), strict=True))


def compute(engine: Engine, seeds: range) -> list[dict[str, FloatArray]]:
    """Run tiles with as many in flight as the engine has slots."""
    results, waiting = [], 0
    with engine.session() as session:
        for seed in seeds:
            if waiting == engine.slots:
                results.append({name: array.copy() for name, array in session.collect().items()})
                waiting -= 1
            session.submit(random_tile(seed))
            waiting += 1
        results += [{name: array.copy() for name, array in session.collect().items()} for _ in range(waiting)]
    return results
