"""Where Lambda begins: what an image's command names."""

from llamabda import on_lambda

from .app import handler

__all__ = ["handler"]

on_lambda.begin("ask")
