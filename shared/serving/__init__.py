"""Serving HTTP on every port with an application.

Owns the limits of a connection: its budgets, its framing and its end (decision 0023).
uvicorn and httptools stay in charge of HTTP and of the application. It is the only part
of `shared` that imports a server framework.
"""
