"""The OpenAPI document and its page.

It imports only `http/`.
"""
