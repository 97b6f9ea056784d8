// Reads topics with franz-go, its registry client and hamba/avro, and prints each record as a JSON line.
//
// Usage: consume BOOTSTRAP REGISTRY_URL '{"topic": {"PARTITION": LAST_OFFSET, ...}, ...}'
//
// It ends when it has seen the last record that was asked for of each partition.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hamba/avro/v2"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
)

const limit = 120 * time.Second

type line struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Value     any    `json:"value"`
}

// plain turns what hamba/avro decodes into JSON's types by the schema: instants in RFC 3339, bytes in hex, unions
// without the names of their branches.
func plain(schema avro.Schema, value any) any {
	switch schema := schema.(type) {
	case *avro.RefSchema:
		return plain(schema.Schema(), value)
	case *avro.RecordSchema:
		fields := value.(map[string]any)
		for _, field := range schema.Fields() {
			fields[field.Name()] = plain(field.Type(), fields[field.Name()])
		}
		return fields
	case *avro.ArraySchema:
		items := value.([]any)
		for at := range items {
			items[at] = plain(schema.Items(), items[at])
		}
		return items
	case *avro.UnionSchema:
		if value == nil {
			return nil
		}
		if named, ok := value.(map[string]any); ok && len(named) == 1 {
			for _, branch := range schema.Types() {
				for name, inner := range named {
					if name == nameOf(branch) {
						return plain(branch, inner)
					}
				}
			}
		}
		for _, branch := range schema.Types() {
			if branch.Type() != avro.Null {
				return plain(branch, value)
			}
		}
	}
	switch value := value.(type) {
	case time.Time:
		return value.UTC().Format("2006-01-02T15:04:05.000Z")
	case []byte:
		return hex.EncodeToString(value)
	}
	return value
}

func nameOf(schema avro.Schema) string {
	if ref, ok := schema.(*avro.RefSchema); ok {
		schema = ref.Schema()
	}
	if named, ok := schema.(avro.NamedSchema); ok {
		return named.FullName()
	}
	name := string(schema.Type())
	if logical, ok := schema.(avro.LogicalTypeSchema); ok && logical.Logical() != nil {
		name += "." + string(logical.Logical().Type())
	}
	return name
}

func run() error {
	left := map[string]map[int32]int64{}
	if err := json.Unmarshal([]byte(os.Args[3]), &left); err != nil {
		return err
	}
	names := []string{}
	for topic := range left {
		names = append(names, topic)
	}
	registry, err := sr.NewClient(sr.URLs(os.Args[2]))
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(os.Args[1], ",")...),
		kgo.ConsumeTopics(names...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()

	schemas := map[int]avro.Schema{}
	out := json.NewEncoder(os.Stdout)
	var header sr.ConfluentHeader
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("the records up to %v did not come: %w", left, err)
		}
		for _, record := range fetches.Records() {
			ends := left[record.Topic]
			if last, ok := ends[record.Partition]; ok && record.Offset >= last {
				if delete(ends, record.Partition); len(ends) == 0 {
					delete(left, record.Topic)
				}
			}
			// A tombstone holds nothing to decode.
			if record.Value == nil {
				continue
			}
			id, datum, err := header.DecodeID(record.Value)
			if err != nil {
				return err
			}
			if schemas[id] == nil {
				found, err := registry.SchemaByID(ctx, id)
				if err != nil {
					return err
				}
				if schemas[id], err = avro.Parse(found.Schema); err != nil {
					return err
				}
			}
			var value any
			if err := avro.Unmarshal(schemas[id], datum, &value); err != nil {
				return fmt.Errorf("%s %d/%d: %w", record.Topic, record.Partition, record.Offset, err)
			}
			shown := line{record.Topic, record.Partition, record.Offset, plain(schemas[id], value)}
			if err := out.Encode(shown); err != nil {
				return err
			}
		}
	}
	return nil
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: consume BOOTSTRAP REGISTRY_URL TOPICS")
		os.Exit(2)
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
