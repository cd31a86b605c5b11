"""Text from an image: a real model that is loaded once, kept as a template, and forked for each wake.

`swell deploy examples/ocr.py`, then send it a picture:
curl --data-binary @examples/receipt.png -H 'Content-Type: application/octet-stream' \
    http://127.0.0.1:8470/call/ocr/Reader.read
"""

import swell

# The model ships inside rapidocr-onnxruntime. That package asks for the OpenCV build with windows, which
# needs libGL; a server has none. So everything is named here, with the headless build in its place.
image = swell.Image.debian_slim().uv_pip_install(
    "rapidocr-onnxruntime==1.4.4",
    "onnxruntime>=1.20,<2",
    "opencv-python-headless>=4.8",
    "numpy>=1.26",
    "pillow>=10",
    "pyclipper>=1.3",
    "pyyaml>=6",
    "shapely>=2",
    "six>=1.16",
    "tqdm>=4.60",
    extra_options="--no-deps",
)

with image.imports():
    import cv2
    import numpy
    from rapidocr_onnxruntime import RapidOCR

app = swell.App("ocr", image=image)


@app.cls(scaledown_window=3, enable_memory_snapshot=True)
class Reader:
    """Reads the text in a picture."""

    @swell.enter(snap=True)
    def load(self) -> None:
        """Runs once, in the template. One thread each: a pool of threads does not survive a fork."""
        cv2.setNumThreads(1)
        self.ocr = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)

    @swell.method()
    def read(self, image: bytes) -> list[str]:
        """The lines of text in an encoded picture (PNG, JPEG, …), from top to bottom."""
        picture = cv2.imdecode(numpy.frombuffer(image, numpy.uint8), cv2.IMREAD_COLOR) if image else None
        if picture is None:
            raise ValueError(f"{len(image)} bytes that are not a picture; send the bytes of a PNG or JPEG file.")
        found, _ = self.ocr(picture)
        return [text for _box, text, _score in found or ()]
