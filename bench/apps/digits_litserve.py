"""The same model under LitServe, which runs in an environment of its own: PORT, and 1 or the size of its batches."""

from __future__ import annotations

import sys
from typing import Any

import litserve
from digits_model import Model


class Digits(litserve.LitAPI):
    """One picture a request."""

    def setup(self, device: Any) -> None:  # noqa: ARG002 — LitServe's signature
        """In its worker."""
        self.model = Model()

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # it reads annotations its own way
        return request["pixels"]

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, x: Any) -> Any:
        found = self.model.predict(x if size > 1 else [x])
        return found if size > 1 else found[0]

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: Any) -> Any:
        return output


size = int(sys.argv[2])

if __name__ == "__main__":
    batching = {"max_batch_size": size, "batch_timeout": 0.005} if size > 1 else {}
    server = litserve.LitServer(Digits(**batching), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error")
