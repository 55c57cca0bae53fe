"""Every template of a sentence in the source; `python -m tests.languages.templates` prints what catalogues lack."""

import ast
import json
import re
import string
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "dropkit"
CATALOGUES = SOURCE / "languages"
# Which argument of a function is a template; `counted` has that for many as its key.
KEY = {"say": 0, "template": 0, "counted": 2}
_IN_PAGE = re.compile(r'\b(say|counted)\(((?:[^()"]|"(?:[^"\\]|\\.)*"|\([^()]*\))*)\)')


def templates() -> dict[str, str]:
    """Template -> the file that it is first found in."""
    found: dict[str, str] = {}
    for path in sorted(SOURCE.rglob("*")):
        if path.suffix == ".py":
            for words in _of_module(ast.parse(path.read_text(encoding="utf-8")), path):
                found.setdefault(words, path.relative_to(SOURCE).as_posix())
        elif path.name.endswith(".html.j2"):
            for words in _of_page(path.read_text(encoding="utf-8")):
                found.setdefault(words, path.relative_to(SOURCE).as_posix())
    return found


def _of_module(tree: ast.Module, path: Path) -> Iterator[str]:
    for node in ast.walk(tree):
        name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
        if name in KEY and not any(isinstance(argument, ast.Starred) for argument in node.args):
            argument = node.args[KEY[name]]
            if isinstance(argument, ast.Constant):
                yield argument.value
            elif isinstance(argument, ast.JoinedStr | ast.BinOp):
                raise AssertionError(f"{path}:{node.lineno}: {name} needs words that are written out")


def _of_page(text: str) -> Iterator[str]:
    for name, inside in _IN_PAGE.findall(text):
        literals = re.findall(r'"((?:[^"\\]|\\.)*)"', inside)
        if literals:
            yield literals[0 if name == "say" else 1]


def places(words: str) -> list[tuple[str, str]]:
    """What is put into a template: names, each with its format."""
    return sorted((field, spec or "") for _, field, spec, _ in string.Formatter().parse(words) if field is not None)


def faults(messages: Mapping[str, str | list[str]], known: Mapping[str, str]) -> list[str]:
    """What a catalogue lacks, has in vain, or has with other places; a line each."""
    found = [f"missing ({known[words]}): {words}" for words in known if words not in messages]
    found += [f"of no use: {words}" for words in messages if words not in known]
    for words, forms in messages.items():
        for form in [forms] if isinstance(forms, str) else forms:
            if dict(places(form)) != dict(places(words)):
                found.append(f"other places: {words} -> {form}")
    return found


def messages(language: str) -> dict[str, str | list[str]]:
    """The messages of a catalogue, all parts together."""
    held = json.loads((CATALOGUES / f"{language}.json").read_text(encoding="utf-8"))
    return {words: forms for part in held["messages"].values() for words, forms in part.items()}


if __name__ == "__main__":
    for one in sys.argv[1:] or [path.stem for path in sorted(CATALOGUES.glob("*.json"))]:
        print("\n".join([f"{one}:", *faults(messages(one), templates())]))
