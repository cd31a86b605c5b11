"""A model that is loaded once, in a template, and shared by the replicas forked from it."""

import os

import numpy

import swell

app = swell.App("snapped")

MODEL_MIB = 50


@app.cls(enable_memory_snapshot=True, scaledown_window=2, max_containers=3)
class Model:
    @swell.enter(snap=True)
    def load(self) -> None:
        self.loaded_in = os.getpid()
        self.weights = numpy.arange(MODEL_MIB * 1024 * 1024 // 8, dtype="float64")

    @swell.enter()
    def connect(self) -> None:
        self.connected_in = os.getpid()

    @swell.method()
    def answer(self, index: int) -> float:
        return float(self.weights[index])

    @swell.method()
    def about(self) -> dict[str, int]:
        private_kib = 0
        with open("/proc/self/smaps_rollup") as lines:
            for line in lines:
                if line.startswith("Private_"):
                    private_kib += int(line.split()[1])
        return {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "loaded_in": self.loaded_in,
            "connected_in": self.connected_in,
            "private_mib": private_kib // 1024,
            "total": int(self.weights.sum()),
        }

    @swell.method()
    def draw(self) -> float:
        return float(numpy.random.random())
