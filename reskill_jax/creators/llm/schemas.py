"""The shape of each stage's answer, as JSON Schema that all servers accept.

Every property is required, none other is allowed, an optional value is an `anyOf` with null, and
nothing is counted here: strict modes refuse or ignore such keywords, so limits are checked later.
(`"type": [..., "null"]` is no way to say optional: llama.cpp's grammar then takes any object.)
"""

from collections.abc import Mapping
from typing import Any

from reskill_jax.skills.assertions import ASSERTION_KINDS
from reskill_jax.skills.skill import TRIGGER_KINDS

Schema = Mapping[str, Any]

_TEXT: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _optional(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


_OPERATION = _one_of("add", "modify", "delete")
_TRIGGER = _optional(_one_of(*TRIGGER_KINDS))

INSIGHT = _object(
    finding=_TEXT,
    failure=_optional(_object(mode=_TEXT, actions=_list(_TEXT), turn=_INTEGER)),
    success=_optional(_object(pattern=_TEXT, actions=_list(_TEXT))),
    moment=_optional(_object(kind=_one_of("action", "observation"), pattern=_TEXT)),
    skills=_list(_object(name=_TEXT, effect=_one_of("helped", "hurt", "ignored", "unclear"))),
    confidence=_one_of("high", "medium", "low"),
)
DIAGNOSIS = _object(
    assertions=_list(
        _object(
            op=_OPERATION,
            id=_optional(_TEXT),
            kind=_optional(_one_of(*ASSERTION_KINDS)),
            pattern=_optional(_TEXT),
            second=_optional(_TEXT),
            after_action=_optional(_TEXT),
            prefix=_optional(_TEXT),
            n=_optional(_INTEGER),
            min=_optional(_INTEGER),
            max=_optional(_INTEGER),
            why=_TEXT,
        )
    ),
    summary=_TEXT,
    priorities=_list(_TEXT),
    clusters=_list(_object(label=_TEXT, insights=_list(_INTEGER), representative=_INTEGER)),
)
RECOMMENDATION = _object(
    strategy=_TEXT,
    operations=_list(
        _object(
            op=_OPERATION,
            target=_optional(_TEXT),
            intent=_TEXT,
            evidence=_TEXT,
            insights=_list(_INTEGER),
            trigger=_TRIGGER,
        )
    ),
)
AUTHORING = _object(
    operations=_list(
        _object(
            op=_OPERATION,
            name=_TEXT,
            when_to_use=_optional(_TEXT),
            action=_optional(_TEXT),
            do=_optional(_TEXT),
            do_not=_optional(_TEXT),
            trigger=_TRIGGER,
            pattern=_optional(_TEXT),
            task_pattern=_optional(_TEXT),
            why=_TEXT,
        )
    )
)
SCHEMAS: Mapping[str, Schema] = {
    "insight": INSIGHT,
    "diagnosis": DIAGNOSIS,
    "recommendation": RECOMMENDATION,
    "authoring": AUTHORING,
}
