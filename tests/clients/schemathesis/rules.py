"""What schemathesis cannot know of the API: rules that no schema can say, and what a key may do."""

import json
import os

import schemathesis
from schemathesis.core.failures import ServerError
from schemathesis.openapi.checks import RejectedPositiveData

# A schema says how a request is written; these rules are about what it means. A request that is written well may be
# refused for one of them, told in these words, and for nothing else.
MEANT = {
    # Only the server can make a cursor, and only for one list.
    "GET /jobs": ["The parameter Cursor must be the `nextCursor`"],
    "GET /gmail-connections/{id}/jobs": ["The parameter Cursor must be the `nextCursor`"],
    # Times lie between Gmail's birth and now, and windows are not empty.
    "POST /gmail-connections/{id}/backfill": [
        "The body is not what this call takes: `since`: is ",
        "The body is not what this call takes: `until`: is ",
    ],
    # Besides, a browser is sent only to hosts that the organisation listed, and a hint's bytes are counted.
    "POST /gmail-connections": [
        "The body is not what this call takes: `since`: is ",
        "The body is not what this call takes: `returnUrl`: ",
        "The body is not what this call takes: `loginHint`: expected 1 to 320 bytes",
        "The host of `returnUrl` is not on your organisation's list.",
    ],
    # Only the server can make a state, and it is good once.
    "GET /gmail-connections/oauth-callback": ["The consent is unknown, was used before, or took longer"],
}

# A key that was used for another request is a new one's no more.
REUSED = "The Idempotency-Key was sent before with another request."

# Messages are in one mailbox each, which no schema says: the connection of each that is in the dictionary.
MAILBOX_OF = json.loads(os.environ["MAILTIDE_MESSAGES"])

# Google's page and a human stand before this one.
NEEDS_A_HUMAN = {"GET /gmail-connections/oauth-callback"}

# What a call answers, too, when it has done its work: whether a job ends before it is cancelled is chance.
AS_GOOD = {"POST /jobs/{jobId}/cancel": {409}}


@schemathesis.hook
def before_call(context, case, kwargs):
    """Asks for a message where it is, most of the time."""
    mailbox = MAILBOX_OF.get((case.path_parameters or {}).get("messageId"))
    if mailbox is not None and case.path_parameters.get("partId") == "1":
        case.path_parameters["id"] = mailbox


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Lets a well-written request be refused for what it means, and any that Gmail has no room for."""
    if isinstance(failure, ServerError) and response.status_code == 503:
        # The simulated Gmail has the limits of the true one.
        return response.json()["title"] != "Gmail.Throttled"
    if not isinstance(failure, RejectedPositiveData) or response.status_code not in (400, 422):
        return True
    detail = response.json()["detail"]
    if response.status_code == 422:
        return not detail.startswith(REUSED)
    return not any(detail.startswith(meant) for meant in MEANT.get(case.operation.label, []))


@schemathesis.check
def a_problem_tells_what_it_is(ctx, response, case):
    """Every refusal is a problem document about this path, under this status."""
    if response.status_code < 400:
        return
    assert response.headers["content-type"] == ["application/problem+json"], response.headers
    problem = response.json()
    assert problem["status"] == response.status_code, problem
    assert problem["title"].count(".") == 1 and problem["detail"] and problem["type"], problem


@schemathesis.check
def a_key_does_what_its_scope_says(ctx, response, case):
    """A key of one scope is answered well by no call of the other."""
    key = os.environ["MAILTIDE_KEY"]
    forbidden = {"read": case.method != "GET", "write": case.method == "GET"}.get(key, False)
    if forbidden and case.operation.definition.raw.get("security"):
        assert response.status_code >= 400, f"the key of scope `{key}` did {case.method} {case.formatted_path}"


@schemathesis.check
class EveryCallIsAnsweredWell:
    """Every call has done its work at least once: what is always refused was not tried."""

    def __init__(self):
        self.answers = {}

    def after_response(self, ctx, response, case):
        if not self.answers:
            found = case.operation.schema.get_all_operations()
            self.answers = {operation.ok().label: set() for operation in found}
        if not case.method == case.operation.method.upper():
            return
        self.answers[case.operation.label].add(response.status_code)

    def after_run(self, ctx):
        if os.environ["MAILTIDE_KEY"] != "both":
            return
        for call, statuses in self.answers.items():
            if call not in NEEDS_A_HUMAN:
                good = AS_GOOD.get(call, set())
                assert any(status < 400 or status in good for status in statuses), f"{call} was only ever answered {sorted(statuses)}"
