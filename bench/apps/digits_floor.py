"""The floor: the same prediction from uvicorn and Starlette with nothing around it."""

from digits_model import Model
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

model = Model()


async def predict(request: Request) -> JSONResponse:
    """The digit in one picture."""
    arguments = await request.json()
    return JSONResponse(model.predict([arguments["pixels"]])[0])


app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
