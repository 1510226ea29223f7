"""What other programs write of a run beside its figures: YAML, and Python as mmengine writes it.

Nothing is run. Of YAML, tags stand for nothing (Lightning writes whole objects); of Python, what is
no literal is left out.
"""

import ast
from pathlib import Path
from typing import Any

import yaml

from blocklab.errors import InputError, error_line
from blocklab.files import read_regular
from blocklab.foreign.table_file import flat

LARGEST = 5_000_000  # bytes


class _Plain(yaml.SafeLoader):
    pass


_Plain.add_multi_constructor("", lambda loader, suffix, node: None)


def read_configuration(path: Path) -> dict[str, Any]:
    """Read a run's configuration as flat fields, ``optimizer.lr``; none of a file without any.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        text = read_regular(path, LARGEST).decode("utf-8-sig")
        value = _python(text) if path.suffix == ".py" else yaml.load(text, _Plain)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from None
    except (ValueError, SyntaxError, yaml.YAMLError, RecursionError, TypeError) as error:
        why = error_line(error, kind=False)
        raise InputError(f"cannot read {path}: {why}; mend it, or move it away") from None
    return flat(value) if isinstance(value, dict) else {}


def _python(text: str) -> dict[str, Any]:
    """Return the names that a Python file gives literal values, ``dict(...)`` among them."""
    return {
        target.id: _literal(line.value)
        for line in ast.parse(text).body
        if isinstance(line, ast.Assign)
        for target in line.targets
        if isinstance(target, ast.Name)
    }


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {word.arg: _literal(word.value) for word in node.keywords if word.arg}
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {str(_literal(key)): _literal(value) for key, value in pairs if key is not None}
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None
