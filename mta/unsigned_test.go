package mta

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"postrider/config"
	"postrider/resolver/resolvertest"
)

// TestUnsignedMailIsCounted: the keys of a server tell its metrics.
func TestUnsignedMailIsCounted(t *testing.T) {
	t.Parallel()
	dir, zone := t.TempDir(), resolvertest.Start(t)
	file := filepath.Join(dir, "p.toml")
	text := "hostname = \"mail.example.test\"\nstate_dir = \"data\"\n" +
		"[submission]\nlisten = [\"127.0.0.1:0\"]\n[http]\nlisten = \"\"\n[resolver]\nservers = [\"" + zone.Addr() + "\"]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Options{File: file})
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(t.Context(), cfg, Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	if s, err := m.keys.Signer([]byte("From: a@example.test\r\n\r\n")); s != nil || err != nil {
		t.Fatalf("%v %v", s, err)
	}
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "postrider_messages_unsigned_total" {
			continue
		}
		for _, series := range f.Metric {
			if series.Label[0].GetValue() == "no_key" && series.Counter.GetValue() == 1 {
				return
			}
		}
	}
	t.Error("not counted")
}
