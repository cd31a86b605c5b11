"""How is a batched method a model, by tensors or by the OpenAI API? As one that is not, but for who works on it.

A request brings rows of its own and gets as many back: the method is given the rows of all in its batch.
"""

from __future__ import annotations

from swell.runtime import inference, openai
from swell.runtime.batched import Batched, BatchedCall
from swell.runtime.call import Call
from swell.runtime.http import Exchange
from swell.runtime.shared import ReplicaContext


class Arrays(inference.TakesArrays, Batched):
    """By JSON, or from Python."""


class Model(inference.Model, Batched):
    """By the Open Inference Protocol."""

    def open(self, replica: ReplicaContext, exchange: Exchange) -> Call:
        return _Infer(replica, exchange, self)


class Embedder(openai.Model, Batched):
    """Embeddings, by the OpenAI API."""

    def open(self, replica: ReplicaContext, exchange: Exchange) -> Call:
        return _Embed(replica, exchange, self)


class _Infer(inference.Infer, BatchedCall):
    """One call of a model, worked on together with others."""


class _Embed(openai.Ask, BatchedCall):
    """One request for embeddings, worked on together with others."""
