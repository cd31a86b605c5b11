"""The floor: the same answer from uvicorn and Starlette with nothing around it."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def double(request: Request) -> JSONResponse:
    """Each number times two."""
    arguments = await request.json()
    return JSONResponse([value * 2 for value in arguments["values"]])


app = Starlette(routes=[Route("/call/bench-echo/double", double, methods=["POST"])])
