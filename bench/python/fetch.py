"""Fetches messages as one would with what Google and Confluent give out: batches of 50, and what is read is produced.

Usage: fetch.py GMAIL_URL BOOTSTRAP_SERVERS TOPIC

Each line of stdin is an order, a list of {"key", "refreshToken", "messages": [id, …]}: mailboxes, which are read side by
side. When all of it is acknowledged, "done" is printed. Nothing is remembered, and nothing is transactional.
"""

import importlib.resources
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from email.utils import getaddresses

import google_auth_httplib2
import googleapiclient
import httplib2
from confluent_kafka import Producer
from google.oauth2.credentials import Credentials
from googleapiclient import discovery

BATCH = 50


def document(root):
    """The bundled description of Gmail's API, for the one at `root`: its batches go there, too."""
    files = importlib.resources.files(googleapiclient)
    described = json.loads(files.joinpath("discovery_cache/documents/gmail.v1.json").read_text())
    described["rootUrl"] = described["baseUrl"] = root.rstrip("/") + "/"
    return described


def parts(payload):
    """A part and all in it."""
    yield payload
    for part in payload.get("parts", []):
        yield from parts(part)


def extracted(key, message):
    """What is told of a message."""
    payload = message["payload"]
    headers = {}
    for header in payload.get("headers", []):
        headers.setdefault(header["name"].lower(), []).append(header["value"])

    def addresses(name):
        return [{"name": one, "address": address} for one, address in getaddresses(headers.get(name, []))]

    return {
        "connectionId": key,
        "messageId": message["id"],
        "threadId": message["threadId"],
        "labelIds": message.get("labelIds", []),
        "internalDate": message["internalDate"],
        "sizeEstimate": message["sizeEstimate"],
        "snippet": message.get("snippet", ""),
        "from": addresses("from"),
        "to": addresses("to"),
        "cc": addresses("cc"),
        "replyTo": addresses("reply-to"),
        "subject": headers.get("subject", [None])[0],
        "rfc822MessageId": headers.get("message-id", [None])[0],
        "inReplyTo": headers.get("in-reply-to", [None])[0],
        "references": " ".join(headers.get("references", [])).split(),
        "attachments": [
            {
                "partId": part["partId"],
                "filename": part["filename"],
                "mimeType": part["mimeType"],
                "size": part["body"].get("size", 0),
            }
            for part in parts(payload)
            if part.get("filename")
        ],
    }


class Fetcher:
    def __init__(self, root, bootstrap_servers, topic):
        self.root, self.topic = root, topic
        self.document = document(root)
        self.services = {}
        self.producer = Producer({
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": "lz4",
            "partitioner": "murmur2_random",
            "linger.ms": 1,
        })

    def service(self, refresh_token):
        """The client of a mailbox, with a connection of its own."""
        if refresh_token not in self.services:
            token_uri = self.root.rstrip("/") + "/token"
            credentials = Credentials(
                None, refresh_token=refresh_token, token_uri=token_uri, client_id="client", client_secret="secret"
            )
            http = google_auth_httplib2.AuthorizedHttp(credentials, http=httplib2.Http())
            self.services[refresh_token] = discovery.build_from_document(self.document, http=http)
        return self.services[refresh_token]

    def fetch(self, mailbox):
        service, key = self.service(mailbox["refreshToken"]), mailbox["key"]

        def produce(_, message, error):
            if error is not None:
                raise error
            value = json.dumps(extracted(key, message)).encode()
            self.producer.produce(self.topic, value=value, key=key.encode())
            self.producer.poll(0)

        for start in range(0, len(mailbox["messages"]), BATCH):
            batch = service.new_batch_http_request(callback=produce)
            for id in mailbox["messages"][start : start + BATCH]:
                batch.add(service.users().messages().get(userId="me", id=id, format="full"))
            batch.execute()


def main():
    fetcher = Fetcher(*sys.argv[1:])
    for line in sys.stdin:
        order = json.loads(line)
        with ThreadPoolExecutor(max_workers=len(order)) as pool:
            list(pool.map(fetcher.fetch, order))
        if fetcher.producer.flush(120):
            sys.exit("Not all records were acknowledged within 120 s")
        print("done", flush=True)


if __name__ == "__main__":
    main()
