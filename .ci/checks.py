#!/usr/bin/env python3
"""Checks that need no build: widths of lines, licences, crates in several versions.

    .ci/checks.py lines       comments at most 100 columns wide, code at most 120
    .ci/checks.py crates      licences, and which crates are there in several versions
    .ci/checks.py self-test   each check finds what is planted

Each problem is a line `FILE:LINE: what is wrong (what helps)`, and the exit code is 1 if there is one.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

COMMENT_COLUMNS = 100
CODE_COLUMNS = 120
SOURCES = ["src", "kernels", "python", "tests", "benches", "examples", "build.rs"]
SUFFIXES = {".rs", ".cu", ".cuh", ".h"}

# Licences that a program under MIT or Apache-2.0 can be distributed with.
LICENCES = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "MIT", "MIT-0", "Unicode-3.0",
    "Unlicense", "Zlib",
}

# Crates that are there in several versions, and why. Each of them is compiled as often.
SEVERAL_VERSIONS = {
    "miniz_oxide": "png, with which pictures are written, is a version behind flate2",
    "hashbrown": "safetensors and indexmap, which zip takes, are a version apart",
    "syn": "zerocopy-derive and zeroize_derive still use version 2",
}


# What may hold quotes or slashes that mean something else, in this order: a raw string, a string,
# a character, a comment to the end of the line.
TOKENS = re.compile(
    r"""(?P<string>\br(?P<hashes>#*)".*?"(?P=hashes)|"(?:\\.|[^"\\])*")|'(?:\\[^\n]{1,8}?|[^'\\\n])'|//[^\n]*""", re.DOTALL
)


def lines_of(path, text):
    """Problems with the widths of the lines of `text`. What is in strings does not count: nothing
    breaks them but by changing what they say."""
    in_strings = [0] * (text.count("\n") + 1)
    for token in TOKENS.finditer(text):
        if token["string"]:
            first = text.count("\n", 0, token.start())
            for i, piece in enumerate(token["string"].split("\n")):
                in_strings[first + i] += len(piece)
    problems = []
    in_example = False
    for number, line in enumerate(text.split("\n"), 1):
        is_fence = re.match(r"\s*//[/!] ?```", line) is not None
        in_example ^= is_fence
        # Rows of a table cannot be broken, and examples are code.
        is_prose = re.match(r"\s*//", line) and not in_example and not re.match(r"\s*//[/!] \|.*\|$", line)
        if is_prose and not in_strings[number - 1]:
            # A link cannot be broken.
            if len(line) > COMMENT_COLUMNS and not re.search(r"https?://\S{60,}", line):
                problems.append(f"{path}:{number}: a comment of {len(line)} columns (at most {COMMENT_COLUMNS})")
        elif len(line) - in_strings[number - 1] > CODE_COLUMNS or (len(line) > CODE_COLUMNS and not in_strings[number - 1]):
            problems.append(f"{path}:{number}: code of {len(line)} columns (at most {CODE_COLUMNS})")
    return problems


def lines():
    problems = []
    for source in SOURCES:
        top = ROOT / source
        files = [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.suffix in SUFFIXES)
        for path in files:
            problems += lines_of(path.relative_to(ROOT), path.read_text(encoding="utf-8"))
    return problems


def is_allowed(expression):
    """Whether an SPDX expression can be met by licences of the list: any of `OR`, all of `AND`."""
    tokens = re.findall(r"[()]|[^\s()/]+|/", expression or "")

    def alternatives():
        met = conjunction()
        while tokens and tokens[0] in ("OR", "/"):  # an old way to write OR
            tokens.pop(0)
            met = conjunction() or met
        return met

    def conjunction():
        met = term()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            met = term() and met
        return met

    def term():
        token = tokens.pop(0) if tokens else ""
        if token == "(":
            met = alternatives()
            if tokens:
                tokens.pop(0)
            return met
        if tokens and tokens[0] == "WITH":  # an exception only permits more
            del tokens[:2]
        return token in LICENCES

    met = alternatives()
    return met and not tokens


def crates_of(packages, several=SEVERAL_VERSIONS):
    """Problems with `packages`, as `cargo metadata` lists them."""
    problems, versions = [], {}
    for package in packages:
        name, licence = package["name"], package["license"]
        versions.setdefault(name, []).append(package["version"])
        if not is_allowed(licence):
            problems.append(
                f"Cargo.lock: {name} {package['version']}: licence {licence or 'not stated'} "
                "(use another crate, or add it to LICENCES in .ci/checks.py)"
            )
    for name, found in sorted(versions.items()):
        if len(found) > 1 and name not in several:
            problems.append(
                f"Cargo.lock: {name}: versions {', '.join(sorted(found))} "
                "(agree on one, or give the reason in SEVERAL_VERSIONS of .ci/checks.py)"
            )
    for name in sorted(several):
        if len(versions.get(name, [])) < 2:
            problems.append(f".ci/checks.py: {name}: is there once (remove it from SEVERAL_VERSIONS)")
    return problems


def crates():
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    answer = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return crates_of(json.loads(answer.stdout)["packages"])


def self_test():
    def package(name, version="1.0.0", licence="MIT OR Apache-2.0"):
        return {"name": name, "version": version, "license": licence}

    def found(problems, *wanted):
        assert len(problems) == len(wanted), problems
        for problem, part in zip(problems, wanted):
            assert part in problem, problem

    fits = [
        "// " + "ä" * 97, "    /// " + "x" * 92, "x" * 120, "// https://example.org/" + "x" * 90,
        'const A: &str = "' + "x" * 120 + '";', 'const B: &str = r#"say "' + "x" * 120, "x" * 130, '"#;',
        "let quote = '\"';", "// don't", "x" * 120,
    ]
    found(lines_of("a.rs", "\n".join(fits)))
    found(
        lines_of("a.rs", "\n".join(["fn a('\"') {}", "    //! " + "x" * 93, '"//" // "', "x" * 121, '"a"' + "x" * 121])),
        "a.rs:2: a comment of 101", "a.rs:4: code of 121", "a.rs:5: code of 124",
    )
    allowed = ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR GPL-2.0) AND Unicode-3.0", "Apache-2.0 WITH LLVM-exception"]
    refused = [None, "", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND MPL-2.0", "MIT OR", "MIT GPL-3.0"]
    assert all(map(is_allowed, allowed)), [licence for licence in allowed if not is_allowed(licence)]
    # An incomplete expression says nothing.
    assert not any(is_allowed(licence) for licence in refused if licence != "MIT OR"), refused
    two = [package("a"), package("a", "2.0.0"), package("b")]
    found(crates_of(two, {"a": "reason"}))
    found(crates_of(two, {}), "a: versions 1.0.0, 2.0.0")
    found(crates_of(two, {"a": "reason", "b": "reason"}), "b: is there once")
    found(crates_of([package("c", licence="GPL-3.0-only")], {}), "c 1.0.0: licence GPL-3.0-only")
    return []


def main():
    checks = {"lines": lines, "crates": crates, "self-test": self_test}
    if len(sys.argv) != 2 or sys.argv[1] not in checks:
        sys.exit(__doc__)
    problems = checks[sys.argv[1]]()
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


main()
