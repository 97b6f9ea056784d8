"""Holds the bodies that another client recorded against the discovery document.

Reads JSON lines {"method", "status", "body"} from standard input; the method `error` is an error envelope.
"""

import json
import sys

import schema


def main():
    doc = schema.document()
    schema.prove_that_it_can_fail(doc)
    schemas = schema.Schemas(doc)
    n_errors = 0
    for line in sys.stdin:
        record = json.loads(line)
        if record["method"] == "error":
            schema.check_error(record["body"], record["status"])
            n_errors += 1
        else:
            schemas.check_response(record["method"], record["body"])
    assert schemas.checked > 0 and n_errors > 0, "nothing was recorded"
    print(f"{schemas.checked} bodies and {n_errors} errors are as the discovery document has them")


if __name__ == "__main__":
    main()
