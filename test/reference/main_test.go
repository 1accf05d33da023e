package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReferencesAreCurrent(t *testing.T) {
	pages, err := pages()
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) != 3 {
		t.Fatalf("%d pages", len(pages))
	}
	for name, want := range pages {
		got, err := os.ReadFile(filepath.Join("../../docs", name))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("docs/%s is stale: run make generate", name)
		}
	}
}
