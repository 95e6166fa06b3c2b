"""The FastAPI application that every HTTP server of the comparison serves."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/hello")
async def hello(name: str) -> str:
    return f"Hello, {name}!"
