"""The list of common passwords (R30): the 30,000 of the package zxcvbn.

Only that list is kept, as some 1,000 texts of 0.3 MB in all. The package keeps six
lists, each as separate strings and as dictionaries of ranks, which takes 11.5 MB in
every worker.
"""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from pathlib import Path
from typing import Final

_PACKAGE: Final = "zxcvbn"
_MODULE: Final = "frequency_lists"
#: In lower case. Few have the required 15 characters, so people type two of them, or
#: one repeatedly.
_LIST: Final = "passwords"
#: Between two passwords; in none of them.
_END: Final = "\n"
#: Characters that a group has in common: searching all takes 0.3 ms, a group 0.3 us.
_BEGINNING: Final = 2


def read_common_passwords() -> list[str]:
    """Return the list, most common first.

    Raises:
        ImportError: when the package is missing or has another form.
    """
    # The module alone: importing it by name runs the package, which builds the
    # dictionaries of ranks. It is in no `sys.modules`, so its lists are freed.
    package = importlib.util.find_spec(_PACKAGE)
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / f"{_MODULE}.py"
        spec = importlib.util.spec_from_file_location(f"{_PACKAGE}.{_MODULE}", path)
        if spec is None or spec.loader is None:
            continue
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return list(module.FREQUENCY_LISTS[_LIST])
    raise ImportError(f"{_PACKAGE} has no {_MODULE}.py", name=_PACKAGE)


def _group(passwords: list[str]) -> dict[str, str]:
    """Return the passwords by their beginning, each group as one text."""
    groups: dict[str, list[str]] = defaultdict(list)
    for password in passwords:
        groups[password[:_BEGINNING]].append(password)
    return {
        beginning: _END + _END.join(group) + _END for beginning, group in groups.items()
    }


# Read with the module, before any worker is forked: all share it.
_GROUPS: Final = _group(read_common_passwords())
_LONGEST: Final = max(
    len(password) for text in _GROUPS.values() for password in text.split(_END)
)


def is_common(folded: str) -> bool:
    """Return whether a password in lower case is common, two common ones, or one
    repeated.
    """
    if _is_listed(folded):
        return True
    return any(
        _is_listed(folded[:cut])
        and (_is_listed(folded[cut:]) or _is_repeated(folded[:cut], folded))
        for cut in range(1, min(len(folded), _LONGEST + 1))
    )


def _is_listed(part: str) -> bool:
    group = _GROUPS.get(part[:_BEGINNING], "")
    return _END not in part and _END + part + _END in group


def _is_repeated(part: str, whole: str) -> bool:
    times, over = divmod(len(whole), len(part))
    return not over and part * times == whole
