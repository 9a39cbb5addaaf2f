"""Strategies (hypothesis) of hostile inputs, and a corpus of what has hurt others."""

import gzip
import hashlib
import json
import math
import zlib
from typing import Any

from hypothesis import strategies as st

from reskill_jax.worlds.household.tables import TASK_TYPES

# Characters that parsers and terminals stumble over: NUL, escapes, bidirectional marks, line
# separators, a byte order mark, lone surrogates are added where text may hold them.
ODD = "\x00\x07\x1b\x7f\x85\u00a0\u200b\u202e\u2028\u2029\ufeff\ufffd\U0001f4a3İßſ"
text = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(ODD)), max_size=80)
marks = st.sampled_from(
    ["\nSkill:", "\n>", "Skill: open.", "\nYour task is to:", " do not", " if the task says",
    "\n\n", "-= Welcome to TextWorld, ALFRED! =-\n", "<unk>", "</s>", "<|im_end|>", "---",
    "## Action"]
)  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)

# --- patterns -------------------------------------------------------------------------------------

EVIL_PATTERNS = (
    "(a+)+$", "(a*)*b", "(a|aa)+$", "(.*a){20}", "(x+x+)+y", "([a-zA-Z]+)*$", "a{1000}",
    "(a{50}){50}", "((a{9}){9}){9}", "(?=a)a", "(a)\\1", "(?<=a)b", "[", "(", "*", "a**", "\\",
    "(?P<n>a", "[z-a]", "\\p{Greek}+", "[^\\x00-\\x{10FFFF}]", "(?i)(?s).*", "\\C",
    ".{0,200}" * 3, "a|" * 60, "(" * 99,
    "(?:" * 60 + ")" * 60, "\x00", "\U0001f4a3+", "^$|^$", "\\b\\B\\b", "(a?){30}a{30}",
    ".*.*.*.*.*=.*",
)  # fmt: skip
_atoms = st.sampled_from(
    ["a", ".", "\\w", "\\d", "\\b", "^", "$", "[^a]", "[a-z]", "\\s", "(?i:", "(", ")", "|", "*",
    "+", "?", "{2,}", "{0,60}", "{3}", "[", "]", "\\", "cabinet", " ", "\\x{0}", "(?:", "-"]
)  # fmt: skip
_grown = st.recursive(
    st.sampled_from(["a", ".", "\\w", "[^b]", "open", "\\b"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda ab: f"({ab[0]}|{ab[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2,9}", "{40}", "*?"])).map(
            lambda ab: f"({ab[0]}){ab[1]}"
        ),
    ),
    max_leaves=12,
)
patterns = st.one_of(
    st.sampled_from(EVIL_PATTERNS), st.lists(_atoms, max_size=25).map("".join), _grown, text
)

# --- SKILL.md -------------------------------------------------------------------------------------

_GOOD_SKILL = """---
name: open-first
description: When a place is closed.
metadata:
  trigger: action_pattern
  trigger-pattern: ^go to
---

## When to use

When a place is closed.

## Action

open.
"""
_FOREIGN_SKILL = """---
name: open-first
description: >-
  Opens what is closed.
  Use it for doors.
license: MIT
metadata:
  author: someone
  needs: {bins: [git, "ssh"]}
---

Some words first.

## When to use

Now and then.

```markdown
## Action

do not open.
```

---

## Action

1. open
"""
BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(20)
)
EVIL_FRONTS = (
    BOMB, "name: &a [*a]", "!!python/object/apply:os.system ['touch /tmp/pwned']", "? [a]\n: b",
    "name: x\nname: y", "{" * 500, "[" * 2000, "- " * 1000 + "x", "name: !!binary aGk=",
    "<<: {a: b}", "name: 2024-01-01", "name: ~", "name: .inf", "name: ../../etc", "name: 'a\0b'",
    "%YAML 9.9\n---\n", "name: " + "a" * 9000, "description: |\n" + "  x\n" * 3000,
    "!!set {a, b}", "\tname: x", "name: \"\\",
)  # fmt: skip


@st.composite
def changed(draw, original: str) -> str:
    """A text with pieces cut out, doubled, moved or replaced by something odd."""
    out = original
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(out)))
        stop = draw(st.integers(start, min(len(out), start + 60)))
        with_what = draw(st.one_of(st.just(""), st.just(out[start:stop] * 3), text, marks))
        out = out[:start] + with_what + out[stop:]
    return out


skill_files = st.one_of(
    changed(_GOOD_SKILL),
    changed(_FOREIGN_SKILL),
    changed(_FOREIGN_SKILL.replace("\n", "\r\n")).map("\ufeff".__add__),
    st.sampled_from(EVIL_FRONTS).map(lambda front: f"---\n{front}\n---\nopen.\n"),
    st.tuples(st.sampled_from(EVIL_FRONTS), text).map(
        lambda fb: _GOOD_SKILL.replace("metadata:", fb[0] + "\nmetadata:") + fb[1]
    ),
    json_values.map(lambda value: f"---\n{json.dumps(value)}\n---\nx\n"),
    text,
)
# A tree below the folder that is imported: (name, kind, content or target).
names = st.one_of(
    st.sampled_from(
        ["open-first", "Open-First", "a" * 250, "...", ".hidden", "a b", "é", "con", "-"]
    ),
    st.from_regex(r"[a-z0-9-]{1,12}", fullmatch=True),
)
targets = st.sampled_from(
    [
        "..",
        "../..",
        "/",
        "/etc",
        "/etc/passwd",
        "/dev/zero",
        "/dev/stdin",
        ".",
        "SKILL.md",
        "nowhere",
    ]
)
skill_trees = st.lists(
    st.one_of(
        st.tuples(names, st.just("skill"), skill_files),
        st.tuples(names, st.just("file"), text),
        st.tuples(names, st.just("link"), targets),
        st.tuples(names, st.just("skill_link"), targets),
        st.tuples(names, st.just("fifo"), st.just("")),
        st.tuples(names, st.just("folder_as_file"), st.just("")),
        st.tuples(names, st.just("huge"), st.just("")),
    ),
    max_size=4,
)

# --- configurations -------------------------------------------------------------------------------

_KEYS = st.one_of(
    st.sampled_from(
        ["steps", "seed", "name", "root", "rooms", "rooms.objects", "rooms.", ".", "mesh", "bank",
         "trial.scheme", "optimizer.learning_rate", "policy_until", "skills", "arms", "trial",
         "internalize", "creator.max_operations", "__class__", "steps "]
    ),
    text,
)  # fmt: skip
configs = st.one_of(
    st.dictionaries(_KEYS, json_values, max_size=4).map(lambda v: (".json", json.dumps(v))),
    st.dictionaries(_KEYS, json_values, max_size=4).map(lambda v: (".yaml", json.dumps(v))),
    st.tuples(
        st.just(".yaml"),
        changed(
            "optimizer: {learning_rate: 1e-3}\nsteps: 9\nrooms: {objects: 11}\n"
            "trial: {scheme: stratified}\n"
        ),
    ),
    st.tuples(st.sampled_from([".yaml", ".json"]), st.sampled_from(EVIL_FRONTS)),
    st.tuples(st.just(".yaml"), st.just(BOMB + "steps: *t\n")),
    st.tuples(st.just(".json"), st.sampled_from(["[" * 100_000, '{"steps": ' + "9" * 5000 + "}"])),
    st.tuples(st.sampled_from([".yaml", ".json"]), text),
)

# --- problems and games files ---------------------------------------------------------------------

EVIL_PROBLEMS = (
    "", "(", ")", "(" * 50_000, "()" * 50_000, "(define" * 1000, "; only a comment", "(define)" * 2,
    "(define (problem x) (:objects) (:init) (:goal))",
    "(define (problem x) (:objects a - -) (:init))",
    "(define (problem x) (:objects) (:goal (and)) (:init " + "(atLocation a l)" * 20_000 + "))",
    "(define (problem x) (:objects) (:init) (:goal " + "(and " * 5_000 + ")" * 5_000 + "))",
)  # fmt: skip


def problems(original: str) -> st.SearchStrategy[str]:
    """Problem files: a real one changed, its tokens shuffled, and the corpus."""
    lines = original.split("\n")
    return st.one_of(
        changed(original),
        changed(original).map(lambda told: "\ufeff" + told.replace("\n", "\r\n")),
        st.sampled_from(EVIL_PROBLEMS),
        st.lists(st.sampled_from(lines), min_size=1, max_size=60).map("\n".join),
        st.integers(0, len(original)).map(lambda at: original[:at]),
        text,
    )


def games_files(original: dict[str, str]) -> st.SearchStrategy[tuple[str, bytes]]:
    """(ending, bytes) of games files: records with other values, broken archives, bombs."""
    bomb = gzip_bomb()
    values = st.one_of(
        text,
        json_values,
        changed(original["pddl_problem"]),
        st.sampled_from(["..", "/x", "a/../b"]),
    )
    record = st.dictionaries(
        st.sampled_from([*original, "extra"]), st.one_of(values, st.sampled_from(TASK_TYPES))
    ).map(lambda changes: original | changes)
    lines = st.lists(st.one_of(record.map(json.dumps), text), max_size=4).map("\n".join)
    plain = lines.map(lambda told: told.encode("utf-8", "surrogatepass"))

    def broken(pair: tuple[bytes, int]) -> bytes:
        data, at = gzip.compress(pair[0]), pair[1]
        return data[: at % (len(data) + 1)] + b"\xff" + data[at % (len(data) + 1) :]

    return st.one_of(
        st.tuples(st.just(".jsonl"), plain),
        st.tuples(st.just(".jsonl.gz"), plain.map(gzip.compress)),
        st.tuples(st.just(".jsonl.gz"), st.tuples(plain, st.integers(0, 10**4)).map(broken)),
        st.tuples(st.just(".jsonl.gz"), st.just(bomb)),
        st.tuples(st.just(".jsonl"), st.sampled_from([b"1" * 6000, b"[" * 10**6, b"\xff\xfe\x00"])),
        st.tuples(st.sampled_from([".jsonl", ".pddl", ".tw-pddl"]), st.binary(max_size=300)),
        st.tuples(
            st.just(".tw-pddl"),
            st.fixed_dictionaries(
                {"pddl_problem": values, "grammar": st.one_of(values, marks)}
            ).map(lambda data: json.dumps(data).encode()),
        ),
    )


def gzip_bomb(megabytes: int = 300) -> bytes:
    """A small archive of one very long line."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b" " * (1 << 20)
    return b"".join(packer.compress(block) for _ in range(megabytes)) + packer.flush()


# --- weights --------------------------------------------------------------------------------------

_CONFIG = {"vocabulary": 5, "width": 4, "layers": 1, "heads": 2, "kv_heads": 1, "mlp": 3}
_SHAPES = {
    "embedding": [5, 4],
    "final_norm": [4],
    "layer_0.attention.out": [1, 2, 2, 4],
    "layer_0.attention.qkv": [4, 1, 4, 2],
    "layer_0.attention_norm": [4],
    "layer_0.mlp.down": [3, 4],
    "layer_0.mlp.gate_up": [4, 2, 3],
    "layer_0.mlp_norm": [4],
}
_TYPES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F64": 8, "I32": 4, "C64": 8}


def _header(kind: str) -> tuple[dict[str, Any], int]:
    """The header of a file with all arrays in one type, and how many bytes they take."""
    header, end = {}, 0
    for name, shape in _SHAPES.items():
        begin, end = end, end + math.prod(shape) * _TYPES[kind]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    return header, end


def _packed(text: str, data: bytes, size: int | None = None) -> bytes:
    """A safetensors file; `size` is what it says of its header's length, if that is not true."""
    header = text.encode("utf-8", "replace")
    return (len(header) if size is None else size).to_bytes(8, "little") + header + data


def described(arrays: bytes, **changes: Any) -> bytes:
    """The description that belongs to a file of arrays."""
    digest = hashlib.sha256(arrays).hexdigest()
    told = {"format": 1, "sha256": digest, "config": _CONFIG, "provenance": {"by": "me"}}
    return json.dumps(told | changes).encode("utf-8", "surrogatepass")


@st.composite
def weights_arrays(draw) -> bytes:
    """Sound files of every type, with any numbers, and files with a damaged or lying header."""
    kind = draw(st.sampled_from([*_TYPES]))
    header, size = _header(kind)
    data = draw(st.sampled_from([b"\0", b"\x3c", b"\xff", b"\x7f\x80", b"\x01\x02\x03"]))
    data = (data * size)[: size + draw(st.sampled_from([0, 0, 0, 0, -1, 1, -size]))]
    how = draw(st.integers(0, 5))
    if how == 0:
        name = draw(st.sampled_from([*header]))
        field = draw(st.sampled_from(["dtype", "shape", "data_offsets", "x"]))
        header[name][field] = draw(json_values)
    elif how == 1:
        header[draw(text)] = draw(json_values)
    elif how == 2:
        del header[draw(st.sampled_from([*header]))]
    told = json.dumps(header)
    if how == 3:
        told = draw(changed(told))
    elif how == 4:
        told = told[:-1] + ", " + told[1:]  # every name twice
    length = draw(st.none() | st.integers(0, 2**64 - 1)) if how == 5 else None
    file = _packed(told, data, length)
    return file[: draw(st.integers(0, len(file)))] if draw(st.integers(0, 9)) == 0 else file


ARRAYS = _packed(json.dumps(_header("BF16")[0]), bytes(_header("BF16")[1]))
_DESCRIPTION = described(ARRAYS).decode()
_numbers = st.sampled_from(
    [
        0,
        -1,
        1,
        2,
        True,
        False,
        1.0,
        2.5,
        1e400,
        float("nan"),
        2**31,
        2**63,
        10**30,
        None,
        "1",
        [],
        {},
    ]
)
_fields = st.sampled_from(
    [*_CONFIG, "head_width", "rope_base", "norm_eps", "tie_embeddings", "qk_norm", "dtype", "remat"]
)
descriptions = st.one_of(
    st.dictionaries(_fields, _numbers, min_size=1, max_size=3).map(
        lambda changes: described(ARRAYS, config=_CONFIG | changes)
    ),
    st.dictionaries(text, json_values, max_size=2).map(
        lambda changes: described(ARRAYS, config=_CONFIG | changes)
    ),
    st.dictionaries(
        st.sampled_from(["format", "sha256", "config", "provenance", "other"]), json_values
    ).map(lambda changes: described(ARRAYS, **changes)),
    changed(_DESCRIPTION).map(lambda told: told.encode("utf-8", "replace")),
    st.sampled_from(["utf-8-sig", "utf-16", "utf-32"]).map(_DESCRIPTION.encode),
    json_values.map(lambda value: json.dumps(value).encode("utf-8", "replace")),
    st.sampled_from([b"", b"{" * 10**5, b"[" * 10**6, b"9" * 10**5, b"\xff\xfe\x00", b"\0" * 99]),
    st.binary(max_size=60),
)

# --- what worlds say ------------------------------------------------------------------------------

said: st.SearchStrategy[Any] = st.lists(st.one_of(text, marks), max_size=4).map("".join)
