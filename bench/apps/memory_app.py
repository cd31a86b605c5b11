"""A model of half a gigabyte and a lot of small objects, loaded once in a template."""

import swell

app = swell.App("bench-memory")

ARRAY_MB = 500
DICTS = 200_000


@app.cls(scaledown_window=5, enable_memory_snapshot=True)
class Large:
    """Holds an array and many dicts."""

    @swell.enter(snap=True)
    def load(self) -> None:
        """In the template."""
        import numpy

        self.array = numpy.ones(ARRAY_MB * 1_000_000 // 8)
        self.table = [{"id": number, "name": f"row {number}"} for number in range(DICTS)]

    @swell.method()
    def look(self, number: int) -> float:
        """Reads one row, and a thousandth of the array."""
        begin = number % 1000 * (len(self.array) // 1000)
        return self.table[number % DICTS]["id"] + float(self.array[begin : begin + len(self.array) // 1000].sum())

    @swell.method()
    def collect(self) -> int:
        """A full garbage collection, which touches every object it may."""
        import gc

        return gc.collect()
