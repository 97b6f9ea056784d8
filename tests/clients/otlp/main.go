// The OpenTelemetry collector's own OTLP receiver, on a free port of this machine. It writes its port on the first line
// and what it received on each further one, as OTLP in JSON. It ends when its input does.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.uber.org/zap"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// freePort is free now; nobody else on a test machine takes it in the moment until the receiver does.
func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

func run() error {
	ctx := context.Background()
	address, err := freePort()
	if err != nil {
		return err
	}
	factory := otlpreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	given := map[string]any{"protocols": map[string]any{"http": map[string]any{"endpoint": address}}}
	if err := confmap.NewFromStringMap(given).Unmarshal(config); err != nil {
		return fmt.Errorf("configuring the receiver: %w", err)
	}
	var writing sync.Mutex
	traces, err := consumer.NewTraces(func(_ context.Context, traces ptrace.Traces) error {
		line, err := (&ptrace.JSONMarshaler{}).MarshalTraces(traces)
		if err != nil {
			return err
		}
		writing.Lock()
		defer writing.Unlock()
		_, err = fmt.Fprintf(os.Stdout, "%s\n", line)
		return err
	})
	if err != nil {
		return err
	}
	telemetry := componenttest.NewNopTelemetrySettings()
	telemetry.Logger = zap.NewNop()
	settings := receiver.Settings{
		ID:                component.NewID(factory.Type()),
		TelemetrySettings: telemetry,
		BuildInfo:         component.NewDefaultBuildInfo(),
	}
	otlp, err := factory.CreateTraces(ctx, settings, config, traces)
	if err != nil {
		return err
	}
	if err := otlp.Start(ctx, componenttest.NewNopHost()); err != nil {
		return fmt.Errorf("starting the receiver: %w", err)
	}
	writing.Lock()
	fmt.Printf("%s\n", address)
	writing.Unlock()
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return otlp.Shutdown(ctx)
}
