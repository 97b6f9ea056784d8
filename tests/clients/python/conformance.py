"""Google's own Python client against the simulator: calls, paging, batch, refresh, watch, domain-wide delegation.

Usage: conformance.py http://127.0.0.1:PORT
Every body is held against the discovery document that the client ships.
"""

import base64
import json
import sys
import urllib.parse
import urllib.request

import httplib2
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.exceptions import RefreshError
from google.oauth2 import service_account
from google.oauth2.credentials import Credentials
from googleapiclient import discovery, errors
import google_auth_httplib2

import schema

EMAIL = "python@example.org"
MAIL = b"""From: =?utf-8?Q?J=C3=B6rg?= <j@example.org>
To: python@example.org
Subject: Rechnung <4711>
Message-ID: <py1@example.org>
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain; charset=utf-8

Hello
--b
Content-Type: application/pdf; name="r.pdf"
Content-Disposition: attachment; filename="r.pdf"
Content-Transfer-Encoding: base64

JVBERi0=
--b--
"""


class Simulator:
    """The control API."""

    def __init__(self, root):
        self.root = root

    def control(self, path, body=None, kind="application/json", method=None):
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.root}/control/{path}", data, {"Content-Type": kind}, method=method)
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    def mailbox(self, action, body=None, kind="application/json"):
        return self.control(f"mailboxes/{EMAIL}/{action}", {} if body is None else body, kind)


class Recorder(httplib2.Http):
    """Remembers what came over the wire."""

    def __init__(self):
        super().__init__(timeout=30)
        self.seen = []

    def request(self, uri, method="GET", body=None, headers=None, **rest):
        response, content = super().request(uri, method=method, body=body, headers=headers, **rest)
        self.seen.append((method, urllib.parse.urlsplit(uri).path, response, content))
        return response, content


class Client:
    """Google's client, with every body checked."""

    def __init__(self, root, refresh_token, token="expired"):
        self.doc = schema.document()
        # `api_endpoint` would move the calls but not the batch.
        self.doc["rootUrl"] = self.doc["baseUrl"] = root + "/"
        self.schemas = schema.Schemas(self.doc)
        self.wire = Recorder()
        self.credentials = Credentials(
            token=token, refresh_token=refresh_token, token_uri=root + "/token", client_id="cid", client_secret="s"
        )
        http = google_auth_httplib2.AuthorizedHttp(self.credentials, http=self.wire)
        self.users = discovery.build_from_document(self.doc, http=http).users()
        self.new_batch = discovery.build_from_document(self.doc, http=http).new_batch_http_request

    def call(self, request):
        """The answer of `request`, after checking the bytes that it came as."""
        answer = request.execute()
        _, path, response, content = self.wire.seen[-1]
        if response.status == 204:
            assert content == b"", content
            self.schemas.check_response(request.methodId, None)
            return answer
        assert response["content-type"] == "application/json; charset=UTF-8", (path, response)
        assert "date" in response, path
        self.schemas.check_response(request.methodId, json.loads(content))
        return answer

    def refused(self, request, status, reason):
        """Checks that `request` fails with this status and reason."""
        try:
            request.execute()
        except errors.HttpError as error:
            assert error.status_code == status, (error.status_code, error.content)
            body = json.loads(error.content)
            schema.check_error(body, status)
            assert body["error"]["errors"][0]["reason"] == reason, body
            return error
        raise AssertionError(f"{request.uri} was not refused")


def refresh(client):
    profile = client.call(client.users.getProfile(userId="me"))
    assert profile["emailAddress"] == EMAIL, profile
    # The first try was answered 401; then the client asked for a token, and tried again.
    assert [(path, response.status) for _, path, response, _ in client.wire.seen] == [
        ("/gmail/v1/users/me/profile", 401),
        ("/token", 200),
        ("/gmail/v1/users/me/profile", 200),
    ], client.wire.seen
    assert client.credentials.valid and client.credentials.expiry is not None
    return profile


def history(client, simulator, start):
    delivered = [message["id"] for message in simulator.mailbox("deliver?n=1203", b"")["messages"]]
    one = delivered[7]
    for action, body in (
        ("trash", {"ids": [one]}),
        ("untrash", {"ids": [one]}),
        ("label", {"ids": [one, delivered[8]], "add": ["Bills/2026", "STARRED"], "remove": ["UNREAD"]}),
        ("spam", {"ids": [delivered[9]]}),
        ("unspam", {"ids": [delivered[9]]}),
        ("delete", {"ids": [delivered[10]]}),
        ("chat", {}),
    ):
        simulator.mailbox(action, body)
    draft = simulator.mailbox("drafts", {})["draftId"]
    simulator.mailbox("drafts", {"draftId": draft})
    simulator.mailbox(f"drafts/{draft}/send", {"toSelf": True})
    kinds, added, token, pages, last = set(), [], None, 0, int(start)
    while True:
        page = client.call(
            client.users.history().list(
                userId="me",
                startHistoryId=start,
                maxResults=500,
                pageToken=token,
                historyTypes=["messageAdded", "messageDeleted", "labelAdded", "labelRemoved"],
            )
        )
        pages += 1
        for record in page.get("history", []):
            kinds |= set(record)
            assert int(record["id"]) > last, "records rise"
            last = int(record["id"])
            added += [entry["message"]["id"] for entry in record.get("messagesAdded", [])]
        token = page.get("nextPageToken")
        if not token:
            break
    # The client asks for gzip, and is given it as Google would.
    assert client.wire.seen[-1][2].get("-content-encoding") == "gzip", client.wire.seen[-1][2]
    assert pages == 3 and len(added) == len(set(added)) == 1203 + 4, (pages, len(added))
    assert added[:1203] == delivered
    assert kinds == {"id", "messages", "messagesAdded", "messagesDeleted", "labelsAdded", "labelsRemoved"}, kinds
    idle = client.call(client.users.history().list(userId="me", startHistoryId=page["historyId"]))
    assert set(idle) == {"historyId"}, idle
    # The client's own paging works as long as no parameter is repeated.
    request, n = client.users.history().list(userId="me", startHistoryId=start, maxResults=500), 0
    while request is not None:
        page = client.call(request)
        request = client.users.history().list_next(request, page)
        n += 1
    assert n == 3, n
    client.refused(client.users.history().list(userId="me", startHistoryId="1"), 404, "notFound")
    return delivered


def listing(client):
    request = client.users.messages().list(userId="me", maxResults=500, includeSpamTrash=True, q="-in:drafts -in:chats")
    ids = []
    while request is not None:
        page = client.call(request)
        ids += [message["id"] for message in page.get("messages", [])]
        request = client.users.messages().list_next(request, page)
    total = client.call(client.users.getProfile(userId="me"))["messagesTotal"]
    assert len(ids) == len(set(ids)) == total - 1, (len(ids), total)
    none = client.call(client.users.messages().list(userId="me", q="after:1 before:2"))
    assert none == {"resultSizeEstimate": 0}, none
    client.refused(client.users.messages().list(userId="me", pageToken="letters"), 400, "invalidArgument")
    client.refused(client.users.messages().list(userId="me", maxResults=0), 400, "invalidArgument")
    labels = client.call(client.users.labels().list(userId="me"))["labels"]
    assert {"id": "Label_1", "name": "Bills/2026", "type": "user"} in labels, labels


def mail(client, simulator):
    messages = client.users.messages()
    delivered = simulator.mailbox("deliver?internalDate=1600000000123", MAIL, "message/rfc822")["messages"][0]
    got = {
        form: client.call(messages.get(userId="me", id=delivered["id"], format=form))
        for form in ("full", "metadata", "minimal", "raw")
    }
    assert base64.urlsafe_b64decode(got["raw"]["raw"]) == MAIL.replace(b"\n", b"\r\n")
    assert got["minimal"]["internalDate"] == "1600000000123"
    full = got["full"]["payload"]
    assert [part["partId"] for part in full["parts"]] == ["0", "1"]
    assert base64.urlsafe_b64decode(full["parts"][0]["body"]["data"]).strip() == b"Hello"
    attachment = full["parts"][1]
    data = client.call(
        messages.attachments().get(userId="me", messageId=delivered["id"], id=attachment["body"]["attachmentId"])
    )
    assert (base64.urlsafe_b64decode(data["data"]), data["size"]) == (b"%PDF-", 5), data
    some = messages.get(userId="me", id=delivered["id"], format="metadata", metadataHeaders=["subject", "From"])
    headers = client.call(some)["payload"]["headers"]
    assert headers == [
        {"name": "From", "value": "Jörg <j@example.org>"},
        {"name": "Subject", "value": "Rechnung <4711>"},
    ], headers
    masked = client.call(messages.get(userId="me", id=delivered["id"], fields="id,payload(parts(partId,body(size)))"))
    assert set(masked) == {"id", "payload"} and set(masked["payload"]) == {"parts"}, masked
    client.refused(messages.get(userId="me", id="ffff"), 404, "notFound")
    client.refused(messages.get(userId="me", id="xyz"), 400, "invalidArgument")
    client.refused(messages.get(userId="other@example.org", id="ffff"), 403, "forbidden")


def batch(client, simulator, ids):
    """One batch with parts that succeed, fail and are throttled; 401 parts are refreshed and sent again."""
    outcome = {}

    def note(request_id, response, exception):
        outcome[request_id] = (response, exception)

    def add(calls, wanted):
        for name in wanted:
            calls.add(client.users.messages().get(userId="me", id=name), request_id=name)

    simulator.control("faults", {"calls": ["getMessage"], "after": 3, "times": 1, "fault": {"error": "concurrency"}})
    calls = client.new_batch(callback=note)
    add(calls, [*ids[:20], "0000000000000001"])
    calls.execute()
    assert client.wire.seen[-1][1] == "/batch", client.wire.seen[-1][:2]
    simulator.control("faults", method="DELETE")
    assert set(outcome) == {*ids[:20], "0000000000000001"}
    failed = {name: exception.status_code for name, (_, exception) in outcome.items() if exception}
    # Parts are worked on in any order, so the one that is throttled may be the one that names no message.
    assert list(failed.values()).count(429) == 1, failed
    assert failed["0000000000000001"] in (404, 429) and len(failed) == 1 + (404 in failed.values()), failed
    for name, (response, exception) in outcome.items():
        if exception is None:
            assert response["id"] == name, "each part's answer is its own"
            client.schemas.check_response("gmail.users.messages.get", response)
        else:
            schema.check_error(json.loads(exception.content), exception.status_code)

    outcome.clear()
    tokens = simulator.control("usage")["tokenRequests"]
    simulator.mailbox("expire-access-tokens")
    calls = client.new_batch(callback=note)
    add(calls, ids[:5])
    calls.execute()
    assert all(exception is None for _, exception in outcome.values()), outcome
    # Parts answered 401 made the client ask for a token, outside of the recorded connection, and send them again.
    assert [path for _, path, _, _ in client.wire.seen[-2:]] == ["/batch", "/batch"]
    assert simulator.control("usage")["tokenRequests"] > tokens

    many = client.new_batch(callback=note)
    add(many, ids[:100])
    try:
        add(many, ids[100:101])
        many.execute()
    except errors.HttpError as error:
        body = json.loads(error.content)
        schema.check_error(body, 400)
        assert "Received: 101, Limit: 100" in body["error"]["message"], body
    else:
        raise AssertionError("101 parts were taken")


def watch(client):
    set_up = client.users.watch(userId="me", body={"topicName": "projects/p/topics/t", "labelIds": ["INBOX"]})
    answer = client.call(set_up)
    assert set(answer) == {"historyId", "expiration"}, answer
    other = client.users.watch(userId="me", body={"topicName": "projects/p/topics/u"})
    client.refused(other, 400, "failedPrecondition")
    assert client.call(client.users.stop(userId="me")) in ("", b"")


def throttles(client, simulator):
    """The client's own retries: a quota's 403 is retried, a scope's is not."""
    simulator.control("faults", {"calls": ["getProfile"], "times": 1, "fault": {"error": "quota"}})
    profile = client.users.getProfile(userId="me").execute(num_retries=2)
    client.schemas.check_response("gmail.users.getProfile", profile)
    simulator.control("faults", {"calls": ["getProfile"], "times": 1, "fault": {"error": "domainPolicy"}})
    client.refused(client.users.getProfile(userId="me"), 403, "domainPolicy")
    simulator.control("faults", {"calls": ["getProfile"], "times": 1, "fault": {"error": {"backend": 503}}})
    profile = client.users.getProfile(userId="me").execute(num_retries=2)
    client.schemas.check_response("gmail.users.getProfile", profile)
    simulator.control("faults", method="DELETE")


def delegation(client, simulator):
    """A service account of google-auth's reads the mailbox of a user of its domain."""
    readonly = "https://www.googleapis.com/auth/gmail.readonly"
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    email = "reader@project.iam.gserviceaccount.com"
    info = {"client_email": email, "private_key": private.decode(), "token_uri": simulator.root + "/token"}

    def reader(scope, subject=EMAIL):
        credentials = service_account.Credentials.from_service_account_info(info, scopes=[scope], subject=subject)
        http = google_auth_httplib2.AuthorizedHttp(credentials, http=Recorder())
        return discovery.build_from_document(client.doc, http=http).users()

    def refused(users, words):
        try:
            users.getProfile(userId="me").execute()
        except RefreshError as error:
            assert words in str(error), error
        else:
            raise AssertionError(f"not refused: {words}")

    refused(reader(readonly), "account not found")
    simulator.control("service-accounts", {"email": email, "publicKey": public.decode(), "scopes": readonly})
    profile = reader(readonly).getProfile(userId="me").execute()
    client.schemas.check_response("gmail.users.getProfile", profile)
    assert profile["emailAddress"] == EMAIL, profile
    refused(reader("https://mail.google.com/"), "unauthorized_client")
    refused(reader(readonly, subject="nobody@example.org"), "Invalid email or User ID")
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    info["private_key"] = other.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    refused(reader(readonly), "Invalid JWT Signature")


def revoked(client, simulator):
    simulator.mailbox("revoke")
    try:
        client.users.getProfile(userId="me").execute()
    except RefreshError as error:
        assert "invalid_grant" in str(error), error
    else:
        raise AssertionError("a revoked grant was refreshed")


def main(root):
    schema.prove_that_it_can_fail(schema.document())
    simulator = Simulator(root)
    created = simulator.control("mailboxes", {"email": EMAIL, "firstHistoryId": 2**53 + 1})
    limits = {"userMinute": 10**9, "projectMinute": 10**9, "projectDay": 10**12, "concurrentPerUser": 100}
    simulator.control("tariff", {"tariff": "new", "limits": limits})
    client = Client(root, created["refreshToken"])
    start = refresh(client)["historyId"]
    ids = history(client, simulator, start)
    listing(client)
    mail(client, simulator)
    batch(client, simulator, [name for name in ids if name != ids[10]])
    watch(client)
    throttles(client, simulator)
    delegation(client, simulator)
    revoked(client, simulator)
    print(f"{client.schemas.checked} bodies are as the discovery document has them")


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
