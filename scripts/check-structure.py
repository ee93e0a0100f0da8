#!/usr/bin/env python3
"""Fails when the modules of a crate import each other in a circle.

For the sources of the programs (test code is left out) it checks that

- the folders of common/src import downwards only: see LEVELS;
- no files of one crate import each other in a circle, and a file imports an
  item from the sibling that defines it, never from its own mod.rs that re-exports it;
- no type name is defined twice;
- no kind of tunnel is named outside of the table of kinds: see KINDS_OF_TUNNELS;
- each test that README.md names is there.

    scripts/check-structure.py            checks, prints what is wrong
    scripts/check-structure.py --graph    prints which folder imports which
"""

import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CRATES = [
    "common/src",
    "common/bird/src",
    "common/datastore/src",
    "common/kernel/src",
    "common/process/src",
    "plugins/weir-ipam/src",
    "plugins/weir/src",
    "ctl/src",
]
# The folders of common/src from the lowest floor to the highest. A folder imports
# what is on a lower floor. What is not named here is on the ground: everything
# may import it, and it imports nothing that is named here.
LEVELS = [["datastore"], ["resources"], ["ipam"], ["network"], ["cni", "node"], ["audit"]]
# The table of the kinds of tunnels. All other code asks a kind's row for what it is like, so
# that a new kind is a file there.
KINDS_OF_TUNNELS = "common/src/tunnel"
# What may name a kind besides: what makes the devices of one.
MAKERS_OF_DEVICES = ["common/kernel/src/cluster/vxlan.rs"]
# Names that each module may have of its own.
COMMON_NAMES = {"Error"}

COMMENT_OR_LITERAL = re.compile(
    r"""
    //[^\n]* | /\*.*?\*/                      # comments
    | b?r(?P<hashes>\#*)".*?"(?P=hashes)      # raw strings
    | b?"(?:\\.|[^"\\])*"                     # strings
    | b?'(?:\\[^\n]+?|[^\\'\n])'              # characters, but not lifetimes
    """,
    re.VERBOSE | re.DOTALL,
)
TEST_ITEM = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?(mod\s+(\w+)\s*;)?")
USE = re.compile(r"\buse\s+([^;]+);")
MODULE = re.compile(r"^\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;", re.MULTILINE)
PATH = re.compile(r"(?<![\w:.])((?:\w+\s*::\s*)+\w+)")
TYPE = re.compile(
    r"^(?:[ ]*(?:pub(?:\([^)]*\))?\s+)?(?:unsafe\s+)?(?:struct|enum|union|trait)"
    r"|(?:pub(?:\([^)]*\))?\s+)?type)\s+(\w+)",
    re.MULTILINE,
)


def without_tests(text):
    """Rust code without comments, literals and items under #[cfg(test)]; and
    the names of the modules in files of their own that are such items."""
    blank = lambda match: "\n" * match.group().count("\n") or " "
    text = COMMENT_OR_LITERAL.sub(blank, text)
    test_modules = set()
    while match := TEST_ITEM.search(text):
        if match.group(2):
            test_modules.add(match.group(2))
            end = match.end()
        else:
            end = end_of_item(text, match.end())
        text = text[: match.start()] + text[end:]
    return text, test_modules


def end_of_item(text, start):
    """The end of the item that begins at `start`: its `;` or its last brace."""
    depth = 0
    for position in range(start, len(text)):
        character = text[position]
        if character in "{([":
            depth += 1
        elif character in "})]":
            depth -= 1
            if depth == 0 and character == "}":
                return position + 1
        elif character == ";" and depth == 0:
            return position + 1
    return len(text)


def use_paths(tree):
    """The paths of a use tree: `a::{b, c as d}` gives a::b and a::c."""
    tree = re.sub(r"\s+as\s+\w+", "", tree)
    tree = re.sub(r"\s+", "", tree)
    brace = tree.find("{")
    if brace < 0:
        return [tree.split("::")]
    prefix = [part for part in tree[:brace].split("::") if part]
    paths, depth, start = [], 0, brace + 1
    for position in range(brace, len(tree)):
        if tree[position] == "{":
            depth += 1
        elif tree[position] == "}":
            depth -= 1
        if (tree[position] == "," and depth == 1) or depth == 0:
            if tree[start:position]:
                paths += [prefix + path for path in use_paths(tree[start:position])]
            start = position + 1
            if depth == 0:
                break
    return paths


class Crate:
    """The modules of a crate, and which of them import which."""

    def __init__(self, source):
        self.source = source
        self.modules = {}  # module path, a tuple of names -> file
        self.texts = {}
        for root in ("lib.rs", "main.rs"):
            if (source / root).exists():
                self.add((), source / root, source)
                break

    def add(self, module, file, folder):
        """Adds a module and those in files of their own below it."""
        text, tests = without_tests(file.read_text())
        self.modules[module] = file
        self.texts[module] = text
        for name in MODULE.findall(text):
            if name in tests:
                continue
            for child in (folder / f"{name}.rs", folder / name / "mod.rs"):
                if child.exists():
                    self.add((*module, name), child, folder / name)

    def imports(self, module):
        """The modules that this one imports, each with the paths as written."""
        text = self.texts[module]
        paths = [path for tree in USE.findall(text) for path in use_paths(tree)]
        # A module that is imported as a whole counts where something of it is named.
        whole = {path[-1]: path for path in paths if self.is_module(module, path)}
        paths = [path for path in paths if path not in whole.values()]
        for path in PATH.findall(USE.sub("", text)):
            path = re.sub(r"\s", "", path).split("::")
            paths.append(whole.get(path[0], path[:1]) + path[1:])
        found = {}
        for path in paths:
            target = self.resolve(module, path)
            if target is not None and target != module:
                found.setdefault(target, []).append("::".join(path))
        return found

    def is_module(self, module, path):
        """Whether a path leads to a module of this crate, not to an item in one."""
        target = self.resolve(module, path)
        return target is not None and target != module and self.item(module, "::".join(path)) is None

    def resolve(self, module, path):
        """The module of this crate that a path written in `module` leads to."""
        path = list(path)
        here = list(module)
        if path[0] == "crate":
            here, path = [], path[1:]
        elif path[0] in ("self", "super"):
            while path and path[0] in ("self", "super"):
                if path.pop(0) == "super" and here:
                    here.pop()
        elif (*module, path[0]) not in self.modules:
            return None
        while path and (*here, path[0]) in self.modules:
            here.append(path.pop(0))
        return tuple(here)

    def item(self, module, path):
        """The first name in a path after the module that it leads to."""
        names = path.split("::")
        target = self.resolve(module, names)
        ends = (n for n in range(1, len(names)) if self.resolve(module, names[:n]) == target)
        return next((names[n] for n in ends), None)

    def passed_on(self, module):
        """The names that a module has from modules below it, as mod.rs re-exports them."""
        paths = [path for tree in USE.findall(self.texts[module]) for path in use_paths(tree)]
        below = [path[1:] if path[0] == "self" else path for path in paths]
        return {path[-1] for path in below if len(path) > 1 and (*module, path[0]) in self.modules}

    def graph(self):
        return {module: self.imports(module) for module in self.modules}

    def name(self, module):
        return str(self.modules[module].relative_to(REPOSITORY))


def file_circles(crate, graph):
    """What makes files import each other in a circle, a line each."""
    # A module may use what the file above it defines: both are one thing in two files.
    between = {}
    for module, imports in sorted(graph.items()):
        between[module] = [target for target in imports if module[: len(target)] != target]
        for target in sorted(set(imports) - set(between[module])):
            names = {crate.item(module, path) for path in imports[target]}
            if names := sorted(names & crate.passed_on(target)):
                file, above = crate.name(module), crate.name(target)
                yield f"{file} imports from its own {above} what that re-exports: {', '.join(names)}"
    for circle in circles(between):
        yield f"circle of files: {' > '.join(map(crate.name, circle))}"


def circles(graph):
    """One shortest circle of each set of nodes that reach each other."""
    found, done = [], set()
    for start in sorted(graph):
        circle = None if start in done else shortest_way(graph, start, start)
        if circle:
            found.append(circle)
            done |= {n for n in graph if shortest_way(graph, start, n) and shortest_way(graph, n, start)}
    return found


def shortest_way(graph, start, end):
    """The nodes from `start` to `end`, both included; None if there is no way."""
    ways, seen = [[start]], set()
    for way in ways:
        for following in sorted(graph[way[-1]]):
            if following == end:
                return [*way, end]
            if following not in seen:
                seen.add(following)
                ways.append([*way, following])
    return None


def folder_graph(crate, graph):
    """Which top-level module imports which, with the first place of each."""
    folders = {}
    for module, imports in sorted(graph.items()):
        if not module:
            continue
        ways = folders.setdefault(module[0], {})
        for target, paths in sorted(imports.items()):
            if target and target[0] != module[0]:
                places = [f"{crate.name(module)}: {path}" for path in paths]
                ways.setdefault(target[0], []).extend(places)
    return folders


def level(folder):
    return next((n for n, names in enumerate(LEVELS) if folder in names), -1)


def upward_imports(folders):
    """The imports in common/src that do not go to a lower floor."""
    for folder, imports in folders.items():
        for target, places in imports.items():
            if level(target) >= level(folder) and (level(target), level(folder)) != (-1, -1):
                for place in places:
                    yield f"{folder} may not import {target}: {place}"


def twice_defined(crates):
    """Type names with more than one definition."""
    definitions = {}
    for crate in crates:
        for module, text in crate.texts.items():
            for name in TYPE.findall(text):
                definitions.setdefault(name, []).append(crate.name(module))
    for name, files in sorted(definitions.items()):
        if len(files) > 1 and name not in COMMON_NAMES:
            yield f"{name} is defined in {', '.join(sorted(files))}"


def named_kinds(crates):
    """Where code names a kind of tunnel, or asks whether a kind is one."""
    common = next(crate for crate in crates if crate.name(()).startswith("common/src"))
    enum = re.search(r"\benum TunnelKind \{([^}]*)\}", common.texts[("tunnel",)])
    kinds = re.findall(r"^\s*(\w+),", enum.group(1), re.MULTILINE)
    question = re.compile(rf"\bis_(?:{'|'.join(kinds)})\b", re.IGNORECASE)
    for crate in crates:
        for module, text in crate.texts.items():
            file = crate.name(module)
            if file.startswith(KINDS_OF_TUNNELS + "/") or file in MAKERS_OF_DEVICES:
                continue
            paths = [path for tree in USE.findall(text) for path in use_paths(tree)]
            paths += [re.sub(r"\s", "", path).split("::") for path in PATH.findall(text)]
            pairs = {pair for path in paths for pair in zip(path, path[1:])}
            named = {kind for kind in [*kinds, "*"] if ("TunnelKind", kind) in pairs}
            for name in sorted(named | set(question.findall(text))):
                yield f"{file} names a kind of tunnel ({name}); ask its row in {KINDS_OF_TUNNELS}"


def missing_tests():
    """The tests that README.md names and that are not there."""
    named = re.findall(r"\| `([\w/]+\.rs)`: `(\w+)` \|", (REPOSITORY / "README.md").read_text())
    if not named:
        yield "README.md names no test any more; mend this check"
    for file, name in named:
        path = REPOSITORY / "tests/tests" / file
        text = path.read_text() if path.exists() else ""
        if not re.search(rf"#\[test\]\s+fn {name}\(", text):
            yield f"README.md names a test that is not there: {name} in tests/tests/{file}"


def main():
    crates = [Crate(REPOSITORY / source) for source in CRATES]
    problems = []
    for crate in crates:
        graph = crate.graph()
        folders = folder_graph(crate, graph)
        if "--graph" in sys.argv[1:]:
            print(crate.source.relative_to(REPOSITORY))
            for folder, imports in folders.items():
                print(f"  {folder}: {', '.join(sorted(imports))}")
            continue
        if crate.source == REPOSITORY / "common/src":
            problems += upward_imports(folders)
            problems += [f"circle of folders: {' > '.join(c)}" for c in circles(folders)]
        problems += file_circles(crate, graph)
    if "--graph" not in sys.argv[1:]:
        problems += [*twice_defined(crates), *named_kinds(crates), *missing_tests()]
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(f"check-structure.py: {len(problems)} problems" if problems else 0)


if __name__ == "__main__":
    main()
