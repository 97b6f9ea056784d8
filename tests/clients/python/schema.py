"""Holds bodies against the discovery document that Google's own Python client ships."""

import importlib.resources
import json
import re

import googleapiclient

INTEGERS = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}


def document():
    """The bundled discovery document of Gmail's v1."""
    files = importlib.resources.files(googleapiclient)
    return json.loads(files.joinpath("discovery_cache/documents/gmail.v1.json").read_text())


def methods(resources, found=None):
    """Every method of the document by its id."""
    found = {} if found is None else found
    for resource in resources.values():
        for method in resource.get("methods", {}).values():
            found[method["id"]] = method
        methods(resource.get("resources", {}), found)
    return found


class Schemas:
    """Finds every difference between a body and a schema."""

    def __init__(self, doc):
        self.schemas = doc["schemas"]
        self.methods = methods(doc["resources"])
        self.checked = 0

    def check_response(self, method_id, body):
        """Raises AssertionError when `body` is not what `method_id` answers."""
        reference = self.methods[method_id].get("response", {}).get("$ref")
        if reference is None:
            assert not body, f"{method_id} answers nothing, got {body!r}"
        else:
            problems = list(self.problems(self.schemas[reference], body, reference))
            assert not problems, "\n".join(problems)
        self.checked += 1

    def problems(self, schema, value, path):
        if "$ref" in schema:
            schema = self.schemas[schema["$ref"]]
        kind = schema.get("type", "object")
        if value is None:
            yield f"{path}: null, which proto3 JSON never writes"
        elif kind == "object":
            yield from self.object_problems(schema, value, path)
        elif kind == "array":
            yield from self.array_problems(schema, value, path)
        elif kind == "string":
            yield from string_problems(schema, value, path)
        elif kind == "integer":
            low, high = INTEGERS[schema["format"]]
            if type(value) is not int or not low <= value <= high:
                yield f"{path}: {value!r} is no {schema['format']}"
        elif kind == "boolean":
            if type(value) is not bool:
                yield f"{path}: {value!r} is no boolean"
        else:
            yield f"{path}: the schema's type {kind} is not known to this test"

    def object_problems(self, schema, value, path):
        if not isinstance(value, dict):
            yield f"{path}: {value!r} is no object"
            return
        properties = schema.get("properties", {})
        for name, member in value.items():
            if name in properties:
                yield from self.problems(properties[name], member, f"{path}.{name}")
            elif "additionalProperties" in schema:
                yield from self.problems(schema["additionalProperties"], member, f"{path}.{name}")
            else:
                yield f"{path}.{name}: no such field in the document"

    def array_problems(self, schema, value, path):
        if not isinstance(value, list):
            yield f"{path}: {value!r} is no list"
        elif not value:
            yield f"{path}: an empty list, which proto3 JSON leaves out"
        else:
            for at, item in enumerate(value):
                yield from self.problems(schema["items"], item, f"{path}[{at}]")


def string_problems(schema, value, path):
    if not isinstance(value, str):
        yield f"{path}: {value!r} is no string"
        return
    form = schema.get("format")
    if form in INTEGERS:
        low, high = INTEGERS[form]
        if not re.fullmatch(r"-?(0|[1-9][0-9]*)", value) or not low <= int(value) <= high:
            yield f"{path}: {value!r} is no {form}"
    elif form == "byte":
        if not re.fullmatch(r"[A-Za-z0-9_-]*={0,2}", value) or len(value.rstrip("=")) % 4 == 1:
            yield f"{path}: no base64url"
    elif form is not None:
        yield f"{path}: the format {form} is not known to this test"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"


def check_error(body, status):
    """Raises AssertionError when `body` is no error envelope of the API."""
    error = body["error"]
    assert set(body) == {"error"}, body
    assert set(error) <= {"code", "message", "errors", "status", "details"}, error
    assert error["code"] == status and type(error["message"]) is str, error
    for entry in error.get("errors", []):
        assert {"message", "reason"} <= set(entry), entry
        assert set(entry) <= {"message", "domain", "reason", "location", "locationType"}, entry
        assert all(type(value) is str for value in entry.values()), entry
    for detail in error.get("details", []):
        assert detail["@type"].startswith("type.googleapis.com/google.rpc."), detail


def prove_that_it_can_fail(doc):
    """The checks above find each kind of difference."""
    schemas = Schemas(doc)
    good = {"id": "1", "labelIds": ["INBOX"], "historyId": "18446744073709551615", "sizeEstimate": 3, "raw": "-_8="}
    schemas.check_response("gmail.users.messages.get", good)
    for wrong in (
        {"historyId": 5},
        {"historyId": "18446744073709551616"},
        {"historyId": "0x1"},
        {"internalDate": "1.5"},
        {"sizeEstimate": "3"},
        {"sizeEstimate": 2**31},
        {"labelIds": []},
        {"labelIds": None},
        {"labelIds": "INBOX"},
        {"raw": "+/"},
        {"payload": {"parts": [{"bodyy": {}}]}},
        {"unknown": 1},
    ):
        try:
            schemas.check_response("gmail.users.messages.get", {**good, **wrong})
        except AssertionError:
            continue
        raise SystemExit(f"the schema check lets {wrong} pass")
