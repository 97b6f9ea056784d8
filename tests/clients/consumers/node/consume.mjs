// Reads topics with KafkaJS and Confluent's registry client for Node, and prints each record as a JSON line.
//
// Usage: node consume.mjs BOOTSTRAP REGISTRY_URL '{"topic": {"PARTITION": LAST_OFFSET, ...}, ...}'
// It ends when it has seen the last record that was asked for of each partition.

import { createRequire } from 'node:module';
import path from 'node:path';

// The clients are installed beside the build's output, not beside this file.
const require = createRequire(path.join(process.cwd(), 'package.json'));
const { AvroDeserializer, SchemaRegistryClient, SerdeType } = require('@confluentinc/schemaregistry');
const avsc = require('avsc');
const lz4 = require('lz4js');
const kafkajs = require('kafkajs');

const LIMIT_MS = 120_000;
const [bootstrap, registry, wanted] = process.argv.slice(2);
const topics = JSON.parse(wanted);

// KafkaJS brings gzip alone; the others are plugged in.
kafkajs.CompressionCodecs[kafkajs.CompressionTypes.LZ4] = () => ({
  compress: async () => {
    throw new Error('nothing is written here');
  },
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
});

// Without it instants stay numbers.
class Instant extends avsc.types.LogicalType {
  _fromValue(value) {
    return new Date(value);
  }
  _toValue(date) {
    return date instanceof Date ? +date : undefined;
  }
}

const deserialiser = new AvroDeserializer(new SchemaRegistryClient({ baseURLs: [registry] }), SerdeType.VALUE, {
  logicalTypes: { 'timestamp-millis': Instant },
});

const plain = (_, value) => (value?.type === 'Buffer' ? Buffer.from(value.data).toString('hex') : value);

const kafka = new kafkajs.Kafka({ brokers: bootstrap.split(','), logLevel: kafkajs.logLevel.ERROR });
// Reads committed records alone unless it is told otherwise.
const consumer = kafka.consumer({ groupId: `stock-node-${process.pid}` });
const left = new Map(
  Object.entries(topics).flatMap(([topic, ends]) =>
    Object.entries(ends).map(([partition, last]) => [`${topic}/${partition}`, last]),
  ),
);
const timer = setTimeout(() => {
  console.error(`the records up to ${JSON.stringify([...left])} did not come within ${LIMIT_MS} ms`);
  process.exit(1);
}, LIMIT_MS);

await consumer.connect();
await consumer.subscribe({ topics: Object.keys(topics), fromBeginning: true });
await new Promise((resolve, reject) => {
  const eachMessage = async ({ topic, partition, message }) => {
    try {
      const offset = Number(message.offset);
      // A tombstone holds nothing to deserialise.
      if (message.value !== null) {
        const value = await deserialiser.deserialize(topic, message.value);
        console.log(JSON.stringify({ topic, partition, offset, value }, plain));
      }
      const place = `${topic}/${partition}`;
      if (offset >= left.get(place)) left.delete(place);
      if (left.size === 0) resolve();
    } catch (error) {
      reject(error);
    }
  };
  consumer.run({ eachMessage }).catch(reject);
});
clearTimeout(timer);
await consumer.disconnect();
