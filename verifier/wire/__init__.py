"""The public port: from bytes to answers.

Owns admission, budgets, framing and fairness of connections (decision 0022). It imports
the gate and what the gate imports; only `hosting` depends on a server's interface.
"""
