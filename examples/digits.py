"""Handwritten digits: a small network, trained when the template is loaded, so that each wake has it at once.

`swell deploy examples/digits.py`, then `swell call digits/Digits.predict '{"pixels": [0, 0, 5, 13, …]}'`.
"""

import swell

image = swell.Image.debian_slim().uv_pip_install("scikit-learn>=1.5")

with image.imports():
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

app = swell.App("digits", image=image)


@app.cls(scaledown_window=60, enable_memory_snapshot=True)
class Digits:
    """Which digit is it?"""

    @swell.enter(snap=True)
    def train(self) -> None:
        """Runs once, in the template."""
        self.pictures, self.labels = load_digits(return_X_y=True)
        self.model = MLPClassifier((100,), tol=1e-3, random_state=0).fit(self.pictures / 16, self.labels)

    @swell.method()
    def predict(self, pixels: list[float]) -> int:
        """The digit in an 8×8 picture, given as 64 brightnesses from 0 to 16, row by row."""
        if len(pixels) != 64:
            raise ValueError(f"a picture has 64 pixels, not {len(pixels)}")
        return int(self.model.predict([[pixel / 16 for pixel in pixels]])[0])

    @swell.method()
    def sample(self, index: int = 0) -> dict[str, object]:
        """One of the pictures it was trained on, to try `predict` with."""
        return {"pixels": self.pictures[index].tolist(), "label": int(self.labels[index])}


@app.local_entrypoint()
def main(index: int = 0) -> None:
    """`swell run examples/digits.py --index 7`"""
    digits = Digits()
    picture = digits.sample.remote(index)
    print(f"predicted {digits.predict.remote(picture['pixels'])}, labelled {picture['label']}")
