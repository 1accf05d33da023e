package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCurrent(t *testing.T) {
	want, err := generate("../..")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join("../..", output))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not current: run go generate ./spec/bundle/v1", output)
	}
}

func TestRefusesBareFields(t *testing.T) {
	for name, source := range map[string]string{
		"field without a comment": "package v1\n// T is.\ntype T struct {\n\tA int `json:\"a\"`\n}\n",
		"type without a comment":  "package v1\ntype T struct {\n\t// A is.\n\tA int `json:\"a\"`\n}\n",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "t.go"), []byte(source), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := generate(dir); err == nil || !strings.Contains(err.Error(), "T") {
			t.Errorf("%s: %s, %v", name, out, err)
		}
	}
}
