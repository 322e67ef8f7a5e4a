"""Parsed CEL expressions, in the form in which Envoy takes them.

Envoy does not parse CEL in matchers; it takes the syntax tree (cel.dev/expr). An
expression that fails, as on a claim of another type, is no match: write conditions so
that a failure refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cel.expr.syntax_pb2 import Constant, Expr


def name(path: str) -> Expr:
    """Return a variable and its fields: `request.time`."""
    first, *rest = path.split(".")
    expr = Expr(ident_expr=Expr.Ident(name=first))
    for field in rest:
        expr = Expr(select_expr=Expr.Select(operand=expr, field=field))
    return expr


def constant(value: str | int | bool) -> Expr:
    """Return a constant as claims have them: their numbers are doubles."""
    if isinstance(value, bool):
        return Expr(const_expr=Constant(bool_value=value))
    if isinstance(value, str):
        return Expr(const_expr=Constant(string_value=value))
    return Expr(const_expr=Constant(double_value=float(value)))


def integer(value: int) -> Expr:
    """Return a whole number."""
    return Expr(const_expr=Constant(int64_value=value))


def call(function: str, *arguments: Expr) -> Expr:
    """Return a call; an operator is a function too: `_<_`."""
    return Expr(call_expr=Expr.Call(function=function, args=list(arguments)))


def member(of: Expr, key: str) -> Expr:
    """Return a member of a map."""
    return call("_[_]", of, constant(key))


def any_of(conditions: Sequence[Expr]) -> Expr:
    """Return whether one of these conditions holds; at least one is given.

    In halves: protobuf reads no message that is nested a hundred times.
    """
    if len(conditions) == 1:
        return conditions[0]
    middle = len(conditions) // 2
    return call("_||_", any_of(conditions[:middle]), any_of(conditions[middle:]))


def numbered(expr: Expr) -> Expr:
    """Return the expression with an id for each node, as Envoy wants them."""
    return _number(expr, [0])


def _number(expr: Expr, last: list[int]) -> Any:
    last[0] += 1
    expr.id = last[0]
    kind = expr.WhichOneof("expr_kind")
    if kind == "select_expr":
        _number(expr.select_expr.operand, last)
    elif kind == "call_expr":
        for argument in expr.call_expr.args:
            _number(argument, last)
    return expr
