"""Reads topics with Confluent's own consumer and AvroDeserializer, and prints each record as a JSON line.

Usage: consume.py BOOTSTRAP REGISTRY_URL '{"topic": {"PARTITION": LAST_OFFSET, ...}, ...}'

It ends when it has seen the last record that was asked for of each partition.
"""

import json
import sys
import time
from datetime import datetime
from uuid import UUID

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

LIMIT = 120.0


def plain(value):
    """The deserialiser's types as JSON: instants in RFC 3339, bytes in hex."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    return value


def main():
    bootstrap, registry, topics = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    deserialise = AvroDeserializer(SchemaRegistryClient({"url": registry}))
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": "stock-python",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
    })
    consumer.assign([
        TopicPartition(topic, partition, OFFSET_BEGINNING)
        for topic in topics
        for partition in consumer.list_topics(topic, timeout=30).topics[topic].partitions
    ])
    left = {(topic, int(partition)): last for topic in topics for partition, last in topics[topic].items()}
    until = time.monotonic() + LIMIT
    while left:
        if time.monotonic() > until:
            sys.exit(f"the records up to {left} did not come within {LIMIT} s")
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            sys.exit(str(message.error()))
        place = (message.topic(), message.partition())
        if message.offset() >= left.get(place, sys.maxsize):
            del left[place]
        # A tombstone holds nothing to deserialise.
        if message.value() is None:
            continue
        value = deserialise(message.value(), SerializationContext(message.topic(), MessageField.VALUE))
        print(json.dumps({
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "value": plain(value),
        }))
    consumer.close()


if __name__ == "__main__":
    main()
